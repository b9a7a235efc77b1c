"""Bring one unit of a goal state to what is wanted: the planner's steps, done (extensions §10)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

from waagent import AgentError, ExtensionSettings, Log, Manifest, Plan, Step
from waagent_extensions import codes, facts, fetch, handlermanifest, planner, records, settings, statusfile
from waagent_extensions.codes import HandlerError
from waagent_extensions.execute import Executor, Left
from waagent_extensions.handlerlog import ERROR, handler_log, tell_event
from waagent_extensions.layout import HandlerDir
from waagent_extensions.order import Unit
from waagent_extensions.package import remove_version
from waagent_extensions.planner import Action, Facts
from waagent_extensions.records import HandlerStatus
from waagent_extensions.site import Site

_VERBS = {"enabled": "Enable", "disabled": "Disable", "uninstall": "Uninstall"}


class Work:
    """The work on one unit.

    Args:
        site: the engine's surroundings.
        unit: what is wanted.
        version: the chosen version.
        manifest: the version manifest; ``None`` when no package is needed.

    Attributes:
        failure: why the unit ended early; ``None`` when it did not.
        left: the agent stops, and a command may run on; or a newer goal state waits.
    """

    def __init__(self, site: Site, unit: Unit, version: str, manifest: Manifest | None) -> None:
        self.failure: HandlerError | None = None
        self.left = False
        self._site = site
        self._unit = unit
        self._manifest = manifest
        self._progress = site.ledger.unit(unit.full_name)
        self._executor = Executor(site, unit, self._is_superseded)
        self._logs: dict[str, Log] = {}
        self._handler = site.layout.handler(unit.handler.name, version)

    @property
    def handler(self) -> HandlerDir:
        """The places of the chosen version."""
        return self._handler

    def log(self, version: str | None = None) -> Log:
        """Return the log of one version of the handler."""
        wanted = version or self._handler.version
        if wanted not in self._logs:
            place = self._site.layout.handler(self._handler.name, wanted)
            self._logs[wanted] = handler_log(self._site.log, place, self._unit.extension)
        return self._logs[wanted]

    def run(self) -> None:
        """Do what is missing; how it ended is in :attr:`failure` and :attr:`left`."""
        state = records.read_state(self._handler)
        self.log().info(f"Current handler state is: {state}")
        self.log().info(f"[{_VERBS.get(self._unit.handler.state, '')}] current handler state is: {state.lower()}")
        result = self._site.agent.executor.run(self.plan(), stop=self._site.agent.stopping, quiet=True)
        if result.stopped:
            self.left = True
        if not result.ok and self.failure is None and not self.left:
            self.failure = HandlerError(f"Processing the extension failed: {result.error}")
        if self.failure is not None:
            self._record_failure(self.failure)

    def plan(self) -> Plan:
        """Return the unit's plan: also what a dry run walks."""
        return Plan(f"extension {self._unit.full_name}", self._probe, self._missing)

    def _probe(self) -> Mapping[str, Any]:
        failed = self._site.failed_disables(self._handler.name) if self._unit.handler.state != "enabled" else 0
        return {
            "unit": facts.probe(self._site.layout, self._unit, self._handler.version, self._progress, failed),
            # A failed command ends the work; the failure itself is reported, not retried by the executor.
            "ended": self.failure is not None or self.left,
        }

    def _missing(self, found: Mapping[str, Any]) -> list[Step]:
        if found["ended"]:
            return []
        unit: Facts = found["unit"]
        try:
            actions = planner.plan(unit)
        except planner.NoRow as problem:
            self.failure = HandlerError(str(problem))
            return []
        if actions and self._is_superseded(actions[0], unit):
            self.left = True
            return []
        return [self._step(action, unit) for action in actions]

    def _is_superseded(self, action: Action, unit: Facts) -> bool:
        if not self._site.newer.is_set() or not planner.may_stop_before(action, unit):
            return False
        self.log().info(f"Not begun, as there is a newer goal state: {planner.summary(action, self._handler.name)}")
        return True

    def _step(self, action: Action, unit: Facts) -> Step:
        return Step(
            action.name,
            planner.summary(action, self._handler.name),
            run=lambda: self._do(action, unit),
            gives={"unit": planner.after(unit, action)},
        )

    def _do(self, action: Action, unit: Facts) -> None:
        try:
            if action.kind == "command":
                self._executor.run(action, unit, self.log(action.version))
            else:
                getattr(self, "_" + action.kind.replace("-", "_"))(action, unit)
                self._site.ledger.did(self._unit.full_name, action.name)
        except Left:
            self.left = True
        except HandlerError as problem:
            self._failed(action, problem)
        except (AgentError, OSError) as problem:
            self._failed(action, HandlerError(f"{action.kind} failed: {problem}"))
        except Exception as problem:  # a fault of ours costs this handler this goal state, and nobody else anything
            text = f"{action.kind} failed: {type(problem).__name__}: {problem}"
            self._failed(action, HandlerError(text))

    def _failed(self, action: Action, problem: HandlerError) -> None:
        if isinstance(problem, fetch.DownloadFailed) and fetch.is_given_up(self._site, problem, self.log()):
            self.left = True
            return
        self.failure = problem
        if action.kind != "command":
            return
        if action.operation == "update":
            # The version whose command failed: its status can still be reported, and it counts as not installed.
            records.write_state(self._site.layout.handler(self._handler.name, action.version), records.FAILED_UPGRADE)
        elif action.operation == "disable" and self._unit.handler.state == "uninstall":
            self._site.count_disable(self._handler.name, failed=True)

    # Steps, by the planner's words

    def _reset(self, action: Action, unit: Facts) -> None:
        records.write_state(self._handler, records.NOT_INSTALLED)

    def _fetch(self, action: Action, unit: Facts) -> None:
        fetch.fetch_package(self._site, self._unit, self._handler, self._manifest, self.log())

    def _settings(self, action: Action, unit: Facts) -> None:
        if self._unit.handler.multi_config and not handlermanifest.load(self._handler.manifest).multi_config:
            raise HandlerError(f"Handler {self._handler.name} does not support MultiConfig but CRP expects it")
        log = self.log()
        path = settings.write(self._handler, self._unit.settings, self._unit.handler.multi_config)
        log.info(f"Update settings file: {os.path.basename(path)}")
        if not self._unit.enables or self._unit.settings is None:
            return
        self._require_certificate(self._unit.settings, log)
        last = records.read_last_sequence(self._handler)
        if last is not None and self._unit.extension is None and last > self._unit.settings.sequence_number:
            log.warning(
                f"The handler says in mrseq that it executed number {last}; the goal state's number is lower "
                f"({self._unit.settings.sequence_number}), and many handlers do nothing then. After a restored disk "
                "or a captured image that is to be expected: change the settings once more"
            )

    def _require_certificate(self, wanted: ExtensionSettings, log: Log) -> None:
        """See to it that the handler can open its protected settings, before anything is taken down for an update.

        Raises:
            HandlerError: it cannot.
        """
        if not wanted.protected or not wanted.thumbprint:
            return
        stem = os.path.join(self._site.layout.lib_dir, wanted.thumbprint.upper())

        def missing() -> list[str]:
            return [path for path in (f"{stem}.crt", f"{stem}.prv") if not os.path.exists(path)]

        if not missing():
            return
        log.warning(f"The protected settings need what is not there, asking for it again: {', '.join(missing())}")
        self._site.doing(self._unit.full_name, "asking for the certificates again")
        self._site.certificates_again(self._site.ledger.pass_id)
        if missing():
            raise HandlerError(
                f"The protected settings cannot be opened: {' and '.join(missing())} missing. The platform was asked "
                f"for the certificate {wanted.thumbprint.upper()} again and did not send it with its key",
                codes.ENABLE_FAILED,
                "Enable",
            )

    def _mark_old_disabled(self, action: Action, unit: Facts) -> None:
        self._disabled(self._site.layout.handler(self._handler.name, action.version))

    def _mark_disabled(self, action: Action, unit: Facts) -> None:
        self._disabled(self._handler)
        self._site.count_disable(self._handler.name, failed=False)
        if unit.requested == "disabled":
            self._site.event("RequestedStateDisabled", self._handler, "The platform asked for the state disabled")

    def _disabled(self, handler: HandlerDir) -> None:
        for extension in records.recorded_extensions(handler):
            records.write_extension_state(handler, extension, "disabled")
        records.write_state(handler, records.INSTALLED)
        self._status(handler, records.NOT_READY, 0, "Plugin disabled")

    def _carry(self, action: Action, unit: Facts) -> None:
        if unit.other is None:
            return
        import shutil

        old = self._site.layout.handler(self._handler.name, unit.other.version)
        sources = [(old.last_sequence, self._handler.last_sequence)]
        with contextlib.suppress(OSError):
            names = sorted(os.listdir(old.status_dir))
            sources += [(os.path.join(old.status_dir, n), os.path.join(self._handler.status_dir, n)) for n in names]
        for source, target in sources:
            if os.path.islink(source) or not os.path.isfile(source):
                continue
            try:
                shutil.copy2(source, target)
            except OSError as problem:
                self.log().warning(f"Carrying {source} over failed: {problem}")

    def _remove_old(self, action: Action, unit: Facts) -> None:
        self._remove_version(self._site.layout.handler(self._handler.name, action.version))

    def _mark_installed(self, action: Action, unit: Facts) -> None:
        records.write_state(self._handler, records.INSTALLED)
        self._status(self._handler, records.NOT_READY, 0, "Plugin installed but not enabled")

    def _mark_enabled(self, action: Action, unit: Facts) -> None:
        if self._unit.extension is not None:
            records.write_extension_state(self._handler, self._unit.extension, "enabled")
        if unit.state != records.ENABLED:
            records.write_state(self._handler, records.ENABLED)
        self._status(self._handler, records.READY, 0, "Plugin enabled")

    def _forget_extension(self, action: Action, unit: Facts) -> None:
        extension = self._unit.extension or ""
        settings.remove(self._handler, extension)
        records.remove_extension_state(self._handler, extension)
        if "enabled" not in records.recorded_extensions(self._handler).values():
            if unit.state == records.ENABLED:
                records.write_state(self._handler, records.INSTALLED)
            self._status(self._handler, records.NOT_READY, 0, "Plugin disabled")

    def _tidy(self, action: Action, unit: Facts) -> None:
        if unit.state == records.ENABLED:
            for version in unit.leftovers:
                self._remove_version(self._site.layout.handler(self._handler.name, version))

    def _remove(self, action: Action, unit: Facts) -> None:
        for version in (*unit.leftovers, self._handler.version):
            self._remove_version(self._site.layout.handler(self._handler.name, version))
        self._site.count_disable(self._handler.name, failed=False)

    def _remove_version(self, handler: HandlerDir) -> None:
        self.log(handler.version).info(f"Remove extension handler directory: {handler.base}")
        remove_version(handler)

    # Records

    def _status(self, handler: HandlerDir, status: str, code: int, message: str) -> None:
        records.write_status(
            handler,
            HandlerStatus(handler.name, handler.version, status, code, message, self._unit.handler.multi_config),
        )

    def _record_failure(self, problem: HandlerError) -> None:
        record_failure(self._site, self._unit, self._handler, problem, self.log())


def record_failure(site: Site, unit: Unit, handler: HandlerDir, problem: HandlerError, log: Log) -> None:
    """Put a failure where it is reported from: handler status, and a status file for a multi-config extension."""
    tell_event(log, ERROR, f"name={unit.full_name}, op={problem.operation}, message={problem}, duration=0")
    site.event(problem.operation, handler, str(problem), name=unit.full_name, success=False, logged=True)
    try:
        # Of several extensions one that cannot be enabled says nothing about their handler, once that is installed.
        installed = records.is_installed(records.read_state(handler))
        if not (unit.extension and problem.operation == "Enable" and installed):
            if not os.path.exists(handler.state_file):
                records.write_state(handler, records.NOT_INSTALLED)
            records.write_status(
                handler,
                HandlerStatus(
                    handler.name,
                    handler.version,
                    records.NOT_READY,
                    problem.code,
                    str(problem),
                    unit.handler.multi_config,
                ),
            )
        # A failed download is tried again: what is written in the handler's place would outlive that.
        again = isinstance(problem, fetch.DownloadFailed)
        if unit.extension and unit.sequence is not None and unit.enables and not again:
            statusfile.write_placeholder(
                handler,
                unit.extension,
                unit.sequence,
                full_name=unit.full_name,
                status="error",
                code=problem.code or codes.UNKNOWN,
                message=str(problem),
                operation=problem.operation,
            )
    except OSError as refused:
        log.error(f"The failure cannot be recorded: {refused}")
