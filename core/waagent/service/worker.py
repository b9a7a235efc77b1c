"""The worker: goal states, status and the plugins' duties around one event loop (architecture §3, §4).

It may be killed at any time. Order of its start (measured.md §3): log, lock and first GET; then the plugin list that
the boot stage writes, hooks and status; then the end of boot, and from there it acts on goal states (rulings 19a–19d).
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from waagent.agent import WORKER, Agent, make_agent
from waagent.errors import ConfigError, CryptError, StateError
from waagent.files import remove_leftovers, write_atomic
from waagent.loop import Loop
from waagent.service import hangs
from waagent.service.beats import PLUGIN_LIST, list_identity
from waagent.service.heartbeat import Heartbeat, watch_boot
from waagent.service.lock import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waagent.platform.models import GoalState
    from waagent.plugins import PluginHost
    from waagent.service.goalstates import GoalStates
    from waagent.service.notices import HalfHourly
    from waagent.service.start import Options
    from waagent.service.status import StatusDuty

STOP_SECONDS = 8.0
"""From SIGTERM to the exit at the latest; the supervisor kills after nine."""
RETRY_STATE = 300.0
LONG_BOOT = 0.5
"""Seconds with plugins and without the end of boot after which status begins to flow all the same."""
SENTINEL = "current_version"
HOST_HEALTH_PERIOD = 60.0
"""Seconds between two reports of how the host's services are (wireserver §14.2, §20)."""
FIRST_LOOK = 2.0
HOST_HEALTH_DEADLINE = 150.0
_LIST_LOOK = 0.02
_LIST_LOOK_LATE = 0.25


class Worker:
    """One worker process.

    Args:
        agent: its agent, without platform, plugins and loop yet.
        options: the descriptors that the supervisor gave it.
    """

    def __init__(self, agent: Agent, options: Options) -> None:
        self.agent = agent
        self._options = options
        self._loop = Loop(agent.log)
        agent.use_loop(self._loop, self._request_status)
        self._heartbeat = Heartbeat(self._loop, options.beat_fd, self._orphaned)
        self._goal_states: GoalStates | None = None
        self._status: StatusDuty | None = None
        self._half_hourly: HalfHourly | None = None
        self._boot_over = False
        self._loading = False
        self._started = False
        self._told_disabled = False
        self._list_looks = 0
        self._heartbeat_errors = 0

    def run(self) -> int:
        """Serve until told to stop; returns the exit code."""
        self._loop.on_signal(signal.SIGTERM, self._stop)
        self._loop.on_signal(signal.SIGINT, self._stop)
        self._heartbeat.start()
        self._heartbeat.say("Waiting for the platform and the boot stage")
        watch_boot(self._loop, self._options.boot_fd, self._on_boot_over)
        # The first request leaves now, in its lane; what follows is imported while it is on its way.
        self._begin_platform()
        self._begin_duties()
        self._look_for_plugins()
        return self._loop.run()

    # -- start -----------------------------------------------------------------------------------------------------

    def _begin_platform(self) -> None:
        agent = self.agent
        agent.lane("platform").submit(self._first_requests, name="first requests", deadline=120.0)

    def _first_requests(self) -> None:
        """Ask for versions and goal state, and write nothing (ruling 19b). Failures are the first poll's to tell."""
        platform = self.agent.platform
        try:
            assert platform is not None
            platform.prefetch()
        except Exception as problem:
            self.agent.log.verbose(f"The platform cannot be reached yet: {problem}")

    def _begin_duties(self) -> None:
        from waagent.service.goalstates import GoalStates
        from waagent.service.notices import HEARTBEAT_PERIOD, HalfHourly, report_start
        from waagent.service.publicstatus import PublicStatus
        from waagent.service.resume import PERIOD, ResumeWatch, slept_clock
        from waagent.service.status import StatusDuty

        agent, loop = self.agent, self._loop
        report_start(agent)
        self._report_unclean_end()
        goal_states = self._goal_states = GoalStates(agent, self._act, self._polled, self._poll_ended)
        self._status = StatusDuty(agent, goal_states, PublicStatus(agent, goal_states))
        half_hourly = self._half_hourly = HalfHourly(agent)

        def report_life() -> None:
            half_hourly.report(goal_states.failed_polls - self._heartbeat_errors)
            self._heartbeat_errors = goal_states.failed_polls

        loop.every(HEARTBEAT_PERIOD, report_life, "half-hourly line")
        loop.every(hangs.LOOK, lambda: hangs.look_at_lanes(agent), "overdue lanes")
        loop.every(RETRY_STATE, self._retry_state, "unsaved state")
        slept = slept_clock()
        if slept is not None:
            loop.every(PERIOD, ResumeWatch(self._resumed, slept).look, "resume watch")

    def _report_unclean_end(self) -> None:
        path = self.agent.paths.lib(SENTINEL)
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                text = stream.read(4096).strip()
            os.unlink(path)
        except OSError:
            return
        message = f"Agent did not terminate cleanly: {text}"
        self.agent.log.info(message)
        self.agent.events.add("Restart", success=False, message=message, logged=True)

    def _look_for_plugins(self) -> None:
        """Load the plugins once there is a list that holds for this start, or nobody is left to write one."""
        if self._loading or self.agent.stopping.is_set():
            return
        from waagent import pluginlist

        agent = self.agent
        path = agent.paths.run(PLUGIN_LIST)
        found = list_identity(path)
        # A list from before counts only if nothing it was made from has changed; after boot there is no better one.
        there = found != "none" and (
            found != self._options.stale_list or pluginlist.current(path, agent.paths, agent.config.files)
        )
        if there or self._boot_over:
            self._loading = True
            agent.lane("hooks").submit(self._load_plugins, name="plugins", on_done=self._on_plugins)
            return
        self._list_looks += 1
        pause = _LIST_LOOK if self._list_looks < 250 else _LIST_LOOK_LATE
        self._loop.call_later(pause, self._look_for_plugins, "plugin list")

    def _load_plugins(self) -> tuple[PluginHost, str]:
        """Run in the hooks lane; returns the plugins, and why the boot stage's list could not be used."""
        from waagent.plugins import PluginHost

        agent = self.agent
        path = agent.paths.run(PLUGIN_LIST)
        try:
            return PluginHost.from_list(agent.log, agent.config, agent.paths, path), ""
        except StateError as problem:
            reason = str(problem)
        host = PluginHost(agent.log, agent.config, agent.paths)
        host.discover()
        host.load()
        return host, reason

    def _on_plugins(self, loaded: tuple[PluginHost, str] | None, problem: BaseException | None) -> None:
        assert self._status is not None
        if loaded is None:
            self.agent.log.error(f"The plugins cannot be loaded, trying again: {problem}")
            self._loading = False
            self._loop.call_later(30.0, self._look_for_plugins, "plugin list")
            return
        host, reason = loaded
        if reason:
            text = f"the boot stage left no list of plugins ({reason}); the worker looked for them itself"
            self.agent.log.warning(text[0].upper() + text[1:])
            self._status.problems.append(text)
        self.agent.lane("hooks").submit(lambda: self._start_plugins(host), name="on_start", on_done=self._on_started)

    def _start_plugins(self, host: PluginHost) -> None:
        from waagent.service.notices import report_configuration

        self.agent.use_plugins(host)
        report_configuration(self.agent)
        host.hooks.on_start(self.agent)

    def _on_started(self, _result: None, _problem: BaseException | None) -> None:
        self._started = True
        if not self._boot_over:
            self._loop.call_later(LONG_BOOT, self._begin_early, "status during a long boot")
        self._begin_acting()

    def _begin_early(self) -> None:
        """Poll and report while the boot stage is still at work, without acting and without its secrets' directory."""
        if self._boot_over or self.agent.stopping.is_set() or self._is_disabled():
            return
        assert self._goal_states is not None
        assert self.agent.platform is not None
        self._heartbeat.say("Waiting for the boot stage")
        self.agent.platform.hold_certificates = True
        self._goal_states.start()

    def _on_boot_over(self) -> None:
        self._boot_over = True
        self._look_for_plugins()
        self._begin_acting()

    def _begin_acting(self) -> None:
        """Go on once the plugins have started and boot is over."""
        if not (self._started and self._boot_over) or self.agent.stopping.is_set():
            return
        assert self._goal_states is not None
        assert self._status is not None
        from waagent.service import boot_problems
        from waagent.service.duties import Duties

        self._status.problems += boot_problems.read(self.agent)
        if self._is_disabled():
            self._goal_states.stop()
            self._status.stop()
            return
        self._heartbeat.say("Running")
        self.agent.lane("hooks").submit(self._remove_leftovers, name="leftovers of killed processes")
        Duties(self.agent).start(self.agent.hooks.declare_periodic(self.agent))
        self._loop.call_later(FIRST_LOOK, self._look_at_host, "first look at the host")
        self._loop.every(HOST_HEALTH_PERIOD, self._look_at_host, "health of the host")
        assert self.agent.platform is not None
        self.agent.platform.hold_certificates = False
        self._mend_key()
        # What was fetched during boot lacks its certificates: it is handed on after the poll that brings them.
        self._goal_states.act_from_now()
        if self._goal_states.running:
            self._goal_states.poll()
        else:
            self._goal_states.start()

    def _remove_leftovers(self) -> None:
        lib = self.agent.paths.lib
        histories = lib("history")
        try:
            kept = [os.path.join(histories, name) for name in os.listdir(histories)]
        except OSError:
            kept = []
        for directory in (lib(), lib("state"), lib("journal"), histories, *kept, self.agent.paths.run()):
            remove_leftovers(directory)

    def _is_disabled(self) -> bool:
        from waagent.service import disabled

        assert self._status is not None
        reason = disabled.reason(self.agent)
        if reason is None:
            return False
        if not self._told_disabled:
            self._told_disabled = True
            self.agent.log.warning(f"The agent is disabled: {reason}")
            self._heartbeat.say("Disabled: " + reason)
            self._status.write_disabled(reason)
        return True

    # -- work --------------------------------------------------------------------------------------------------------

    def _act(self, goal_state: GoalState) -> None:
        agent = self.agent
        agent.lane("hooks").submit(
            lambda: agent.hooks.on_goal_state(agent, goal_state), name=f"goal state {goal_state.extensions.id}"
        )

    def _polled(self, fetched: bool) -> None:
        status = self._status
        if status is None or self.agent.stopping.is_set():
            return
        if not status.running:
            status.start()

    def _poll_ended(self) -> None:
        if self._status is not None:
            self._status.after_poll()

    def _look_at_host(self) -> None:
        """Have the host's services looked at, in a lane of its own: one that never answers takes its time."""
        if self.agent.stopping.is_set():
            return
        platform = self.agent.platform
        assert platform is not None
        self.agent.lane("monitor").submit_once(
            "host", platform.report_host_health, name="health of the host", deadline=HOST_HEALTH_DEADLINE
        )

    def _request_status(self) -> None:
        if self._status is not None:
            self._status.request()

    def _resumed(self, seconds: float) -> None:
        self.agent.log.info(f"The machine was suspended for {seconds:.0f} s: fetching everything anew")
        if self._goal_states is not None and self._boot_over and self._started:
            self._goal_states.poll(force=True)
        if self._status is not None and self._status.running:
            self._status.collect_now()

    def _retry_state(self) -> None:
        if self.agent.state.refused:
            self.agent.lane("hooks").submit_once("state", self.agent.state.retry, name="unsaved state")
        if self._boot_over:
            self._mend_key()

    def _mend_key(self) -> None:
        """Make the transport key when its helper could not: the disk was full, or the helper was killed."""
        paths = self.agent.paths
        if not os.path.exists(paths.lib("TransportCert.pem")):
            self.agent.lane("platform").submit_once("key", self._make_key, name="transport key", deadline=120.0)

    def _make_key(self) -> None:
        from waagent.platform import certificates
        from waagent.service.keyhelper import PRODUCT_UUID, vm_id

        paths = self.agent.paths
        try:
            certificates.transport_key(paths, vm_id(paths.at(PRODUCT_UUID)))
        except CryptError as problem:
            self.agent.log.warning(f"The transport key is missing and cannot be made: {problem}")

    # -- end ---------------------------------------------------------------------------------------------------------

    def _orphaned(self) -> None:
        # A new supervisor starts a new worker; two must not work on the same files.
        self.agent.log.warning("The supervisor is gone: the worker is an orphan -- exiting")
        os._exit(0)

    def _stop(self) -> None:
        agent = self.agent
        if agent.stopping.is_set():
            return
        agent.stopping.set()
        agent.log.info("The worker is asked to stop")
        self._heartbeat.say("Stopping")
        for duty in (self._goal_states, self._status):
            if duty is not None:
                duty.stop()
        self._loop.call_later(STOP_SECONDS, lambda: self._loop.stop(0), "end of patience")
        # A lane of its own: the others may be in the middle of something.
        agent.lane("stop").submit(self._say_goodbye, name="stop", on_done=lambda *_: self._loop.stop(0))

    def _say_goodbye(self) -> None:
        if not self._started:
            return
        self.agent.hooks.on_stop(self.agent)
        status = self.agent.lanes.get("status")
        if self._status is not None and status is not None and status.busy is None:
            self._status.report_once(final=True)


def main(options: Options) -> int:
    """Run a worker; returns 0 after a stop, 1 after an error that nobody expected."""
    threading.current_thread().name = "ExtHandler"
    try:
        agent = make_agent(WORKER, options.root, options.conf, options.verbose)
    except ConfigError as problem:
        sys.stderr.write(f"waagent: {problem}\n")
        return 1
    hangs.prepare_dumps(agent)
    lock = Lock(agent.paths.run("worker.lock"))
    try:
        # Only a supervisor's worker may end another one: a person who starts one by hand gets told.
        if options.beat_fd is None and not lock.acquire():
            holder = lock.holder()
            agent.log.info(f"A worker is already running: {holder[0] if holder else 'unknown process'}")
            return 0
        told = lock.acquire_or_take_over() if options.beat_fd is not None else None
    except (OSError, TimeoutError) as problem:
        agent.log.error(f"The worker cannot start: {problem}")
        return 1
    if told:
        agent.log.warning(f"An earlier worker did not end: {told}")
    try:
        agent.connect()
        return Worker(agent, options).run()
    except Exception as problem:
        agent.log.error(f"The worker ends: {type(problem).__name__}: {problem}")
        try:
            write_atomic(agent.paths.lib(SENTINEL), f"[WALinuxAgent-{agent.version}] [{problem}]\n")
        except OSError:
            pass
        raise
