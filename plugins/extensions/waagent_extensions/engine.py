"""Process goal states in a lane of its own, one unit after the other, and never lose a running command.

A goal state is a pass: every unit gets an outcome, or is tried again later within the pass. A newer goal state ends
the pass before its next unit; what runs is waited for. When the agent stops, the engine leaves at once, commands run
on, and the next agent process takes them up (architecture §9).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from waagent import ExtensionsGoalState, GoalStateReport, redact
from waagent_extensions import (
    cleanup,
    codes,
    commands,
    order,
    outcomes,
    permission,
    statusfile,
    strangers,
    unpacked,
    verdicts,
)
from waagent_extensions.codes import HandlerError
from waagent_extensions.environment import make_directories, write_handler_environment
from waagent_extensions.fetch import Catalogue, DownloadFailed, is_given_up
from waagent_extensions.handlerlog import handler_log
from waagent_extensions.moments import utc
from waagent_extensions.order import Outcome, Run, Skip, Unit
from waagent_extensions.site import Site
from waagent_extensions.work import Work, record_failure

RETRY_AFTER = (5.0, 30.0, 120.0)
"""Seconds before each further try of a failed download within one goal state."""
_RETRY = Outcome(order.RETRY)
_FAULT = "Processing the extension failed: "


class Engine:
    """The work of the extensions plugin.

    Args:
        site: the engine's surroundings.
        clock: monotonic seconds.
    """

    def __init__(self, site: Site, clock: Callable[[], float] = time.monotonic) -> None:
        self.site = site
        self.reader = statusfile.StatusReader(clock, site.status_problem)
        self._clock = clock
        self._lock = threading.Lock()
        self._next: ExtensionsGoalState | None = None
        self._last_id = ""
        self._recovered = False

    # From other threads

    def offer(self, goal_state: ExtensionsGoalState) -> None:
        """Take note of a newer goal state; the engine's lane works on it as soon as its present unit ends."""
        with self._lock:
            current = self._next.id if self._next is not None else self._last_id
            if goal_state.id == current:
                return
            self._next = goal_state
            self.site.newer.set()
            self._tell_superseded(current, goal_state.id)
        self.site.wake.set()
        self.site.agent.lane("extensions").submit_once("goal state", self.work, name="extensions goal state")

    def _tell_superseded(self, current: str, newer: str) -> None:
        view = self.site.view
        if not current or not view.busy:
            return
        running = view.running
        rest = (
            f"{running.order.operation} of {view.running_unit}, which runs since {utc(running.started)}, is "
            "let finish, because a command cannot be taken back half-way"
            if running is not None
            else "no command runs"
        )
        self.site.log.info(f"{newer} takes the place of {current}: {rest}; what has not begun is planned anew")

    def stop(self) -> None:
        """Leave at once; commands run on."""
        self.site.stopping = True
        self.site.wake.set()

    @property
    def superseded(self) -> bool:
        """Whether a newer goal state waits."""
        return self.site.newer.is_set()

    # In the engine's lane

    def attend(self) -> None:
        """Keep the time limits of commands that an earlier process left running, until a goal state comes."""
        for known in self.site.runner.known():
            if self.site.runner.state(known.id) == commands.RUNNING:
                self.site.log.info(f"A command of an earlier agent process still runs: {known.line}")
                self.site.runner.run(
                    known, {}, wake=self.site.wake, leave=lambda: self.site.leave() or self.superseded, start=False
                )

    def recover(self) -> None:
        """Set straight what an earlier agent process left; once per process, before anything else."""
        if self._recovered:
            return
        self._recovered = True
        site = self.site
        cleanup.recover(site.layout, site.log)
        if not site.ledger.pass_id:  # nothing was processed since the machine started
            cleanup.check_unpacked(site.layout, site.log)
        for handler in site.layout.installed():
            # The places may have moved since: every handler finds the present ones (extensions §3).
            if os.path.isfile(handler.manifest):
                try:
                    make_directories(handler)
                    write_handler_environment(handler)
                except OSError as problem:
                    site.log.warning(f"{handler.environment} cannot be written: {problem}")

    def work(self) -> None:
        """Process goal states until none is waiting."""
        while not self.site.leave():
            with self._lock:
                goal_state, self._next = self._next, None
                self.site.newer.clear()
                if goal_state is None:
                    return
                previous, self._last_id = self._last_id, goal_state.id
            self.site.wake.clear()
            try:
                self._process(goal_state, previous)
            except Exception as problem:  # whatever it is, the platform is told and the next goal state is taken
                self.site.log.error(f"Processing {goal_state.id} failed: {type(problem).__name__}: {problem}")
                self._conclude(goal_state, "Failed", codes.UNKNOWN, f"{type(problem).__name__}: {problem}")
            finally:
                self.site.show(busy=False, activity=None, running=None, running_unit="")

    def _process(self, goal_state: ExtensionsGoalState, previous: str) -> None:
        site = self.site
        began = self._clock()
        self._announce(goal_state, previous)
        self.recover()
        # Shown before anything is waited for: a restarted agent reports what is on disk all the while.
        site.show(
            goal_state=goal_state, processed=False, from_disk=False, outcomes={}, versions={}, unknown={}, waiting={}
        )
        strangers.finish(site, goal_state)
        if site.leave():
            return
        unsupported = order.unsupported_features(goal_state.required_features, self._self_update())
        if unsupported:
            message = f"Failing GS {goal_state.id} as Unsupported features found: {', '.join(unsupported)}"
            site.log.error(message)
            site.agent.events.add("GoalStateUnsupportedFeatures", success=False, message=message)
            site.show(from_disk=True, processed=True)
            self._conclude(goal_state, "Failed", codes.UNSUPPORTED_FEATURES, message)
            return
        if goal_state.outdated:
            site.log.info(f"{goal_state.id} is older than the last one that was processed; it is only reported")
            return
        if self._is_on_hold(goal_state):
            site.log.info("Extension handling is on hold")
            return
        site.show(processed=True, busy=True)
        self._look_at_mount()
        done = self._run_units(goal_state)
        if not done:
            return
        if site.agent.config.boolean("Extensions.Enabled"):
            keep = site.agent.config.text("Extensions.KeepDirectories")
            cleanup.remove_orphans(site.layout, goal_state.handlers, site.log, keep)
        fresh = unpacked.noted(site.layout)
        if fresh:
            os.sync()
            for handler in fresh:
                unpacked.forget(handler)
        site.ledger.end()
        for leftover in site.runner.known():
            site.runner.release(leftover.id)  # on record already, when the process that ran it was killed
        self._conclude(goal_state, "Success", 0, "GoalState executed successfully")
        milliseconds = int((self._clock() - began) * 1000)
        site.log.info(f"ProcessExtensionsGoalState completed [{goal_state.id} {milliseconds} ms]")

    def _look_at_mount(self) -> None:
        """Say before anything is downloaded that nothing can be executed where packages are unpacked."""
        site = self.site
        mount = outcomes.no_exec_mount(site.layout.lib_dir)
        if mount:
            message = f"{mount} is mounted with the noexec flag, which can prevent execution of VM Extensions."
            site.log.warning(message)
            site.agent.events.add("NoExec", success=False, message=message, logged=True)

    def _is_on_hold(self, goal_state: ExtensionsGoalState) -> bool:
        if not self.site.agent.config.boolean("EnableOverProvisioning"):
            return False
        platform = self.site.agent.platform
        if goal_state.artifacts_profile_uri and platform is not None:
            return platform.fetch_on_hold(stop=self.site.newer)  # a document of its own says it (extensions §2.1)
        return goal_state.on_hold

    def _announce(self, goal_state: ExtensionsGoalState, previous: str) -> None:
        log = self.site.log
        before = self.site.view.goal_state
        if previous and before is not None and self.site.view.processed:
            words = [(unit.full_name, self._status_word(unit)) for unit in order.units(before.handlers) if unit.enables]
            still = [name for name, word in words if word not in (None, *statusfile.TERMINAL)]
            if still:
                log.warning(
                    f"A new goal state ({goal_state.id}) was received, but not all the extensions in the previous goal "
                    f"state ({previous}) have completed: {still}"
                )
        log.info(
            f"ProcessExtensionsGoalState started [{goal_state.id} channel: {goal_state.channel} source: "
            f"{goal_state.source} activity: {goal_state.activity_id} correlation {goal_state.correlation_id} created: "
            f"{goal_state.created}]"
        )

    def _self_update(self) -> bool:
        # Whoever updates the agent announces the feature; without that plugin it is not supported.
        return False

    def _conclude(self, goal_state: ExtensionsGoalState, status: str, code: int, message: str) -> None:
        self.site.show(aggregate=GoalStateReport(goal_state.sequence, status, code, message, utc()))

    def _run_units(self, goal_state: ExtensionsGoalState) -> bool:
        """Give every unit an outcome; return ``False`` when the agent stops or a newer goal state waits."""
        site = self.site
        resumed = site.ledger.begin(goal_state.id)
        if resumed:
            site.log.info(f"Going on with {goal_state.id}, which an earlier agent process began")
        good = [handler for handler in goal_state.handlers if not verdicts.is_invalid(site, handler)]
        units = order.units(good)
        waits = order.waits(units)
        ended = {
            name: progress.outcome
            for name, progress in site.ledger.units().items()
            if progress.outcome is not None and any(unit.full_name == name for unit in units)
        }
        tries: dict[str, int] = {}
        catalogue = Catalogue(site)
        site.show(outcomes=dict(ended))
        if len(ended) < len(units):
            site.agent.hooks.before_extensions(site.agent)
        deadline = site.ledger.began + order.DEPENDENCY_DEADLINE
        by_name = {unit.full_name: unit for unit in units}
        look_after = order.FIRST_LOOK
        while not site.leave() and not self.superseded:
            move = order.next_move(
                units,
                waits,
                ended,
                lambda name: self._status_word(by_name[name]),
                self._clock(),
                deadline,
                look_after,
            )
            if move is None:
                return True
            if isinstance(move, Run):
                look_after = order.FIRST_LOOK
                outcome = self._run_unit(goal_state, move.unit, catalogue, tries)
                if outcome is None:
                    break
                ended[move.unit.full_name] = outcome
                site.ledger.outcome(move.unit.full_name, outcome)
            elif isinstance(move, Skip):
                ended[move.unit.full_name] = verdicts.skip(site, move.unit, move.reason)
                site.ledger.outcome(move.unit.full_name, ended[move.unit.full_name])
            else:
                waiting = {
                    unit.full_name: f"waiting for {_some(waits[unit.full_name])}"
                    for unit in units
                    if unit.full_name not in ended and waits.get(unit.full_name)
                }
                site.show(waiting=waiting, activity=None)
                site.wake.wait(max(move.until - self._clock(), 0.0))
                look_after = min(look_after * 2, order.STATUS_PERIOD)
            site.show(outcomes=dict(ended))
        newer = self._next
        if newer is not None and not site.leave():
            left = [unit.full_name for unit in units if ended.get(unit.full_name, _RETRY).kind == order.RETRY]
            site.log.info(f"{goal_state.id} ends here, because {newer.id} is newer; planned anew: {', '.join(left)}")
        return False

    def _run_unit(
        self, goal_state: ExtensionsGoalState, unit: Unit, catalogue: Catalogue, tries: dict[str, int]
    ) -> Outcome | None:
        """Return how the unit ended; ``None`` when it was left: the agent stops, or a newer goal state waits."""
        site = self.site
        began = time.time()
        requested = site.layout.handler(unit.handler.name, unit.handler.version)
        log = handler_log(site.log, requested, unit.extension)
        log.info(f"Expected handler state: {unit.handler.state}")
        log.info(f"Target handler state: {unit.handler.state} [{goal_state.id}]")
        if unit.extension is not None:
            log.info(f"Requested extension state: {unit.wanted}")
        veto = permission.refusal(site.agent, unit)
        if veto is not None:
            return verdicts.block(site, unit, veto, began)
        failure: HandlerError | None
        handler = requested
        try:
            version, manifest = catalogue.choose(unit, log)
            site.show(versions={**site.view.versions, unit.handler.name: version})
            work = Work(site, unit, version, manifest)
            handler, log = work.handler, work.log()
            work.run()
            if work.left:
                return None
            failure = work.failure
        except Exception as problem:  # a fault of ours costs this handler this goal state, and nobody else anything
            if site.leave() or (isinstance(problem, DownloadFailed) and is_given_up(site, problem, log)):
                return None
            failure = problem if isinstance(problem, HandlerError) else HandlerError(f"{_FAULT}{problem!r}")
            record_failure(site, unit, handler, failure, log)
        finally:
            site.show(activity=None)
        if failure is None:
            return Outcome(order.DONE)
        reason = redact(str(failure))
        if isinstance(failure, DownloadFailed):
            done = tries.get(unit.full_name, 0)
            if done < len(RETRY_AFTER):
                tries[unit.full_name] = done + 1
                pause = RETRY_AFTER[done]
                log.info(f"Trying again in {pause:.0f} s ({done + 1} of {len(RETRY_AFTER)})")
                return Outcome(order.RETRY, reason, self._clock() + pause)
        return Outcome(order.FAILED, reason, code=failure.code, operation=failure.operation, began=began)

    def _status_word(self, unit: Unit) -> str | None:
        if unit.sequence is None:
            return None
        version = self.site.view.versions.get(unit.handler.name, unit.handler.version)
        handler = self.site.layout.handler(unit.handler.name, version)
        return self.reader.read(handler, unit.extension, unit.sequence, unit.full_name).status


def _some(names: tuple[str, ...]) -> str:
    """Return *names* for people: the first three, and how many more there are."""
    text = ", ".join(names[:3])
    return f"{text} and {len(names) - 3} more" if len(names) > 3 else text
