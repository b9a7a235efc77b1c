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

from waagent import (
    AgentError,
    ExtensionReport,
    ExtensionsGoalState,
    GoalStateReport,
    Handler,
    HandlerReport,
    Veto,
)
from waagent_extensions import (
    cleanup,
    codes,
    commands,
    facts,
    order,
    permission,
    records,
    statusfile,
    unpacked,
    validity,
)
from waagent_extensions.codes import HandlerError
from waagent_extensions.environment import make_directories, write_handler_environment
from waagent_extensions.fetch import Catalogue, DownloadFailed
from waagent_extensions.handlerlog import handler_log
from waagent_extensions.layout import HandlerDir
from waagent_extensions.moments import utc
from waagent_extensions.order import Outcome, Run, Skip, Unit
from waagent_extensions.records import HandlerStatus
from waagent_extensions.site import Site
from waagent_extensions.work import Work, record_failure

RETRY_AFTER = (5.0, 30.0, 120.0)
"""Seconds before each further try of a failed download within one goal state."""
_RETRY = Outcome(order.RETRY)


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
        return self._next is not None

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
        self._finish_strangers(goal_state)
        if site.leave():
            return
        unsupported = order.unsupported_features(goal_state.required_features, self._self_update())
        if unsupported:
            message = f"Failing GS {goal_state.id} as Unsupported features found: {', '.join(unsupported)}"
            site.log.error(message)
            site.agent.events.add("UnsupportedFeatures", success=False, message=message)
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
        done = self._run_units(goal_state)
        if not done:
            return
        if site.agent.config.boolean("Extensions.Enabled"):
            cleanup.remove_orphans(site.layout, goal_state.handlers, site.log)
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

    def _is_on_hold(self, goal_state: ExtensionsGoalState) -> bool:
        if not self.site.agent.config.boolean("EnableOverProvisioning"):
            return False
        platform = self.site.agent.platform
        if goal_state.artifacts_profile_uri and platform is not None:
            return platform.fetch_on_hold()  # a document of its own says it (extensions §2.1)
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

    def _finish_strangers(self, goal_state: ExtensionsGoalState) -> None:
        """Wait for commands of an earlier process that belong to another goal state, and record what they achieved."""
        site = self.site
        if site.ledger.open and site.ledger.goal_state == goal_state.id:
            return
        self._finish_records()
        for stranger in site.runner.known():
            site.log.info(f"Waiting for a command of an earlier goal state: {stranger.line}")
            unit = f"{stranger.handler}.{stranger.extension}" if stranger.extension else stranger.handler
            result = site.runner.run(
                stranger,
                {},
                wake=site.wake,
                leave=site.leave,
                progress=lambda running, unit=unit: site.show(running=running, running_unit=unit, busy=True),  # type: ignore[misc]
                start=False,
            )
            if result is None:
                return
            handler = site.layout.handler(stranger.handler, stranger.version)
            if handler.exists():
                self._apply(stranger.operation, stranger.extension, handler, result.ok, result.lost)
            site.runner.release(stranger.id)
        site.show(running=None, running_unit="")

    def _finish_records(self) -> None:
        """Record installs that were known to have succeeded when the process was killed."""
        if not self.site.ledger.open:
            return
        for full_name, progress in self.site.ledger.units().items():
            for (operation, version, extension), ran in progress.ran.items():
                suffix = f".{extension}" if extension else ""
                name = full_name[: -len(suffix)] if suffix and full_name.endswith(suffix) else full_name
                handler = self.site.layout.handler(name, version)
                if operation == "install" and ran.ok and handler.exists():
                    self._apply(operation, extension, handler, True, False)

    def _apply(
        self, operation: str, extension: str | None, handler: HandlerDir, succeeded: bool, unknown: bool
    ) -> None:
        """Record what a command of a superseded goal state achieved."""
        state = records.read_state(handler)
        if operation == "install" and succeeded and state == records.NOT_INSTALLED:
            records.write_state(handler, records.INSTALLED)
        elif operation == "enable" and succeeded and records.is_installed(state):
            if extension is not None:
                records.write_extension_state(handler, extension, "enabled")
            records.write_state(handler, records.ENABLED)
        elif operation == "disable" and succeeded and state == records.ENABLED and extension is None:
            records.write_state(handler, records.INSTALLED)
        elif operation == "update" and not succeeded and not unknown:
            records.write_state(handler, records.FAILED_UPGRADE)

    def _run_units(self, goal_state: ExtensionsGoalState) -> bool:
        """Give every unit an outcome; return ``False`` when the agent stops or a newer goal state waits."""
        site = self.site
        resumed = site.ledger.begin(goal_state.id)
        if resumed:
            site.log.info(f"Going on with {goal_state.id}, which an earlier agent process began")
        good = [handler for handler in goal_state.handlers if not self._is_invalid(handler)]
        units = order.units(good)
        waits = order.waits(units)
        outcomes = {
            name: progress.outcome
            for name, progress in site.ledger.units().items()
            if progress.outcome is not None and any(unit.full_name == name for unit in units)
        }
        tries: dict[str, int] = {}
        catalogue = Catalogue(site)
        site.show(outcomes=dict(outcomes))
        if len(outcomes) < len(units):
            site.agent.hooks.before_extensions(site.agent)
        deadline = site.ledger.began + order.DEPENDENCY_DEADLINE
        by_name = {unit.full_name: unit for unit in units}
        look_after = order.FIRST_LOOK
        while not site.leave() and not self.superseded:
            move = order.next_move(
                units,
                waits,
                outcomes,
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
                outcomes[move.unit.full_name] = outcome
                site.ledger.outcome(move.unit.full_name, outcome)
            elif isinstance(move, Skip):
                outcomes[move.unit.full_name] = self._skip(goal_state, move.unit, move.reason)
                site.ledger.outcome(move.unit.full_name, outcomes[move.unit.full_name])
            else:
                waiting = {
                    unit.full_name: f"waiting for {', '.join(waits[unit.full_name])}"
                    for unit in units
                    if unit.full_name not in outcomes and waits.get(unit.full_name)
                }
                site.show(waiting=waiting, activity=None)
                site.wake.wait(max(move.until - self._clock(), 0.0))
                look_after = min(look_after * 2, order.STATUS_PERIOD)
            site.show(outcomes=dict(outcomes))
        newer = self._next
        if newer is not None and not site.leave():
            left = [unit.full_name for unit in units if outcomes.get(unit.full_name, _RETRY).kind == order.RETRY]
            site.log.info(f"{goal_state.id} ends here, because {newer.id} is newer; planned anew: {', '.join(left)}")
        return False

    def _is_invalid(self, handler: Handler) -> bool:
        reason = handler.invalid_reason
        unsafe = validity.problem(handler)
        if reason is None and unsafe is None:
            return False
        site = self.site
        message = (
            f"Ran into config errors: {unsafe or reason} Please retry again as another operation with updated settings"
        )
        site.agent.events.add(
            "InvalidExtensionConfig", name=handler.name, success=False, message=message, version=handler.version
        )
        # The extension is what the platform looks at first: each gets the error under its own number.
        extensions: list[ExtensionReport | None] = [
            ExtensionReport(
                settings.name, settings.sequence_number, "error", codes.UNKNOWN, message, operation="Enable"
            )
            for settings in handler.extensions
        ]
        reports = tuple(
            HandlerReport(
                handler.name,
                handler.version,
                records.NOT_READY,
                codes.UNKNOWN,
                message,
                handler.multi_config,
                extension,
            )
            for extension in extensions or [None]
        )
        site.show(unknown={**site.view.unknown, handler.name: reports})
        return True

    def _run_unit(
        self, goal_state: ExtensionsGoalState, unit: Unit, catalogue: Catalogue, tries: dict[str, int]
    ) -> Outcome | None:
        """Return how the unit ended; ``None`` when it was left: the agent stops, or a newer goal state waits."""
        site = self.site
        began = time.time()
        requested = site.layout.handler(unit.handler.name, unit.handler.version)
        log = handler_log(site.log, requested, unit.extension)
        log.info(f"Expected handler state: {unit.handler.state}")
        log.verbose(f"Target handler state: {unit.handler.state} [{goal_state.id}]")
        if unit.extension is not None:
            log.info(f"Requested extension state: {unit.wanted}")
        veto = permission.refusal(site.agent, unit)
        if veto is not None:
            return self._block(unit, veto, began)
        failure: HandlerError | None
        handler = requested
        try:
            version, manifest = catalogue.choose(unit, log)
            site.show(versions={**site.view.versions, unit.handler.name: version})
            work = Work(site, unit, version, manifest, superseded=lambda: self.superseded)
            handler, log = work.handler, work.log()
            work.run()
            if work.left:
                return None
            failure = work.failure
        except HandlerError as problem:
            failure = problem
            if site.leave():
                return None
            record_failure(site, unit, handler, problem, log)
        finally:
            site.show(activity=None)
        if failure is None:
            return Outcome(order.DONE)
        if isinstance(failure, DownloadFailed):
            done = tries.get(unit.full_name, 0)
            if done < len(RETRY_AFTER):
                tries[unit.full_name] = done + 1
                pause = RETRY_AFTER[done]
                log.info(f"Trying again in {pause:.0f} s ({done + 1} of {len(RETRY_AFTER)})")
                return Outcome(order.RETRY, str(failure), self._clock() + pause)
        return Outcome(order.FAILED, str(failure), code=failure.code, operation=failure.operation, began=began)

    def _block(self, unit: Unit, veto: Veto, began: float) -> Outcome:
        """Report a refused unit so that the platform fails fast (extensions §15.2, §17)."""
        site = self.site
        installed = facts.installed_version(site.layout, unit.handler.name)
        version = installed.version if installed is not None else unit.handler.version
        handler = site.layout.handler(unit.handler.name, version)
        enabling = unit.handler.state == order.ENABLED
        code = veto.code if veto.code is not None else codes.ENABLE_FAILED if enabling else codes.DISABLE_FAILED
        site.show(versions={**site.view.versions, handler.name: version})
        site.event("ExtensionPolicy", handler, veto.reason, name=unit.full_name, success=False)
        try:
            records.write_status(
                handler,
                HandlerStatus(handler.name, version, records.NOT_READY, code, veto.reason, unit.handler.multi_config),
            )
            if enabling and unit.sequence is not None:
                statusfile.write_placeholder(
                    handler,
                    unit.extension,
                    unit.sequence,
                    full_name=unit.full_name,
                    status="error",
                    code=code,
                    message=veto.reason,
                    operation="ExtensionPolicy",
                    overwrite=True,
                )
        except OSError as problem:
            site.log.error(f"The refusal of {unit.full_name} cannot be recorded: {problem}")
        return Outcome(order.BLOCKED, veto.reason, code=code, operation="ExtensionPolicy", began=began)

    def _skip(self, goal_state: ExtensionsGoalState, unit: Unit, reason: str) -> Outcome:
        """Report a unit that is left out because of what it depends on (extensions §11.5)."""
        site = self.site
        installed = facts.installed_version(site.layout, unit.handler.name)
        version = installed.version if installed is not None else unit.handler.version
        handler = site.layout.handler(unit.handler.name, version)
        if unit.handler.name not in site.view.versions:
            site.show(versions={**site.view.versions, unit.handler.name: version})
        began = time.time()
        text = f"Skipping processing of extensions since execution of dependent extension failed: {reason}"
        problem = HandlerError(text, codes.UNKNOWN, "ExtensionProcessing")
        log = handler_log(site.log, handler, unit.extension)
        try:
            if unit.extension is None or records.read_status(handler) is None:
                record_failure(site, unit, handler, problem, log)
            elif unit.sequence is not None:
                site.event(problem.operation, handler, text, name=unit.full_name, success=False)
                statusfile.write_placeholder(
                    handler,
                    unit.extension,
                    unit.sequence,
                    full_name=unit.full_name,
                    status="error",
                    code=codes.UNKNOWN,
                    message=text,
                    operation=problem.operation,
                )
        except (OSError, AgentError) as refused:
            site.log.error(f"That {unit.full_name} is skipped cannot be recorded: {refused}")
        return Outcome(order.SKIPPED, reason, code=codes.UNKNOWN, operation=problem.operation, began=began)

    def _status_word(self, unit: Unit) -> str | None:
        if unit.sequence is None:
            return None
        version = self.site.view.versions.get(unit.handler.name, unit.handler.version)
        handler = self.site.layout.handler(unit.handler.name, version)
        return self.reader.read(handler, unit.extension, unit.sequence, unit.full_name).status
