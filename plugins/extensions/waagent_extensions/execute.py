"""Run one command of a handler: environment, launch, record, log, events (extensions §12)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from waagent import AgentError, CommandResult, ExtensionSettings, HandlerCommand, Log, NoAnswer, Veto
from waagent_extensions import environment, handlermanifest, outcomes, statusfile
from waagent_extensions.codes import HandlerError
from waagent_extensions.commands import ABSENT, NEVER, Order, Result, Running, command_id
from waagent_extensions.environment import NOT_RUN
from waagent_extensions.handlerlog import INFO, tell_event
from waagent_extensions.layout import HandlerDir
from waagent_extensions.ledger import Progress
from waagent_extensions.moments import utc
from waagent_extensions.order import Unit
from waagent_extensions.planner import Action, Facts, Ran
from waagent_extensions.site import Site

_TITLES = {
    "install": "Install extension",
    "update": "Update extension",
    "enable": "Enable extension",
    "disable": "Disable extension",
    "uninstall": "Uninstall extension",
}
_WITH_COLON = ("enable", "disable")


class Left(AgentError):
    """The agent stops; the command runs on and is taken up again by the next one."""


def settings_for(unit: Unit, extension: str | None) -> ExtensionSettings | None:
    """Return the goal state's settings of *extension* of the unit's handler, else the unit's own."""
    if extension is not None:
        for settings in unit.handler.extensions:
            if settings.name == extension:
                return settings
    return unit.settings


def operation_variables(action: Action, facts: Facts, unit: Unit, progress: Progress) -> dict[str, str]:
    """Return the variables that only this operation gets (extensions §12.2)."""
    old = facts.other.version if facts.other is not None else facts.updating_from
    if action.operation in ("install", "enable"):
        ran = progress.ran.get(("uninstall", old, unit.extension)) if old is not None else None
        return {"AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE": ran.code if ran is not None else NOT_RUN}
    if action.operation != "update" or old is None:
        return {}
    variables = {"VERSION": facts.version, "AZURE_GUEST_AGENT_UPDATING_FROM_VERSION": old}

    def disabled(extension: str | None) -> str:
        ran = progress.ran.get(("disable", old, extension))
        return ran.code if ran is not None else NOT_RUN

    if unit.handler.multi_config:
        names = [settings.name for settings in unit.handler.extensions]
        listed = [{"extensionName": name, "exitCode": disabled(name)} for name in names]
        variables["AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODES_MULTIPLE_EXTENSIONS"] = json.dumps(listed)
    else:
        variables["AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE"] = disabled(None)
    return variables


class Executor:
    """Run the commands of one unit.

    Args:
        site: the engine's surroundings.
        unit: for what the commands run.
        superseded: whether a newer goal state keeps an action from beginning.
    """

    def __init__(
        self, site: Site, unit: Unit, superseded: Callable[[Action, Facts], bool] = lambda _action, _facts: False
    ) -> None:
        self._site = site
        self._unit = unit
        self._superseded = superseded

    def run(self, action: Action, facts: Facts, log: Log) -> None:
        """Run the command of *action*, or take up its run, and put its end on record.

        Raises:
            HandlerError: it failed, and *action* does not tolerate that.
            Left: the agent stops.
        """
        site, unit = self._site, self._unit
        progress = site.ledger.unit(unit.full_name)
        call = (action.operation, action.version, action.extension)
        known = progress.ran.get(call)
        if known is None:
            self._run(action, facts, call, progress, log)
            known = progress.ran[call]
        if known.ok:
            return
        error, text = progress.texts[call]
        operation = outcomes.EVENTS[action.operation]
        if not action.tolerant:
            if action.gives_code is not None:
                raise HandlerError(f"{text}; ContinueOnUpdate: False", action.gives_code, operation)
            raise HandlerError(text, error, operation)
        site.event(operation, site.layout.handler(unit.handler.name, action.version), text, success=False)

    def _run(
        self, action: Action, facts: Facts, call: tuple[str, str, str | None], progress: Progress, log: Log
    ) -> None:
        site, unit = self._site, self._unit
        handler = site.layout.handler(unit.handler.name, action.version)
        started = time.monotonic()
        try:
            manifest = handlermanifest.load(handler.manifest)
            line = os.path.join(handler.base, manifest.command(action.operation))
        except HandlerError as problem:
            site.ledger.ran(unit.full_name, call, Ran(False, str(problem.code)), problem.code, str(problem))
            return
        order = Order(
            id=command_id(site.ledger.pass_id, unit.full_name, action.operation, action.version, action.extension),
            handler=handler.name,
            version=handler.version,
            extension=action.extension,
            operation=action.operation,
            line=line,
            cwd=handler.base,
            timeout=outcomes.TIMEOUTS[action.operation],
            goal_state=site.ledger.goal_state,
        )
        if action.operation == "update":
            old = facts.other.version if facts.other is not None else ""
            if old:
                site.ledger.updating(unit.full_name, old)
        try:
            command, own = self._command(order, handler, manifest.resource_limits, action, facts, progress)
            result = self._launch(order, command, own, log, lambda: not self._superseded(action, facts))
        except HandlerError as refused:
            site.ledger.ran(unit.full_name, call, Ran(False, str(refused.code)), refused.code, str(refused))
            return
        if result is None:
            raise Left(f"{order.operation} of {unit.full_name} runs on")
        ended = CommandResult(result.ok, result.code, result.timed_out, result.launch_problem)
        site.agent.hooks.after_handler_command(site.agent, command, ended)
        self._record(order, result, command.environment.get("PATH", ""), call, handler, log, started)

    def _command(
        self,
        order: Order,
        handler: HandlerDir,
        limits: Mapping[str, Any],
        action: Action,
        facts: Facts,
        progress: Progress,
    ) -> tuple[HandlerCommand, dict[str, str]]:
        """Return the command, and the part of its environment that the log may show."""
        site, unit = self._site, self._unit
        # An extension's name is told to every command of a multi-config handler; install and the like get the name
        # of the unit that brought them about.
        extension = action.extension or unit.extension
        settings = settings_for(unit, extension)
        sequence = settings.sequence_number if settings is not None else None
        extra = operation_variables(action, facts, unit, progress)
        own = environment.own_variables(handler, site.wire_address, sequence, extension, extra)
        variables = environment.command_environment(
            handler, wire_address=site.wire_address, sequence_number=sequence, extension=extension, extra=extra
        )
        command = HandlerCommand(
            handler_name=handler.name,
            handler_version=handler.version,
            extension_name=extension,
            operation=order.operation,
            line=order.line,
            cwd=order.cwd,
            environment=variables,
            timeout=order.timeout,
            run_dir=site.runner.path(order.id),
            resource_limits=limits,
        )
        return command, own

    def _launch(
        self, order: Order, command: HandlerCommand, own: dict[str, str], log: Log, may_begin: Callable[[], bool]
    ) -> Result | None:
        """Run *command* to its end; ``None`` when the agent stops, or a newer goal state came while plugins waited.

        Raises:
            HandlerError: a plugin refuses it.
        """
        site = self._site
        launch = None
        if site.runner.state(order.id) in (ABSENT, NEVER):
            site.doing(self._unit.full_name, f"about to run {order.operation}")
            site.agent.hooks.before_handler_command(site.agent, command)
            if site.leave() or not may_begin():
                return None
            self._ask(command)
            launch = site.agent.hooks.launch(site.agent, command)
        title = _TITLES[order.operation]
        # Several wordings of one fact: operators' greps know each of them (extensions §20).
        log.info(f"{title}.")
        log.info(f"Launch command:{order.short}")
        log.info(f"{title}{':' if order.operation in _WITH_COLON else ''} [{order.short}]")
        log.info(f"Executing command: {order.line} with environment variables: {json.dumps(own, sort_keys=True)}")
        try:
            return site.runner.run(
                order,
                command.environment,
                prefix=launch.prefix if launch is not None else (),
                wake=site.wake,
                leave=site.leave,
                progress=self._progress,
            )
        finally:
            site.show(running=None, running_unit="")

    def _ask(self, command: HandlerCommand) -> None:
        """Let plugins prepare for a command that is about to start.

        Raises:
            HandlerError: one of them refuses it, or failed.
        """
        site = self._site
        try:
            veto = site.agent.hooks.allow_command(site.agent, command)
        except NoAnswer as problem:
            veto = Veto(f"The {command.operation} command is not run: {problem}")
        if veto is not None:
            code = veto.code if veto.code is not None else outcomes.CODES[command.operation]
            raise HandlerError(veto.reason, code, "ExtensionPolicy")

    def _progress(self, running: Running) -> None:
        self._site.show(running=running, running_unit=self._unit.full_name, activity=None)

    def _record(
        self,
        order: Order,
        result: Result,
        path: str,
        call: tuple[str, str, str | None],
        handler: HandlerDir,
        log: Log,
        started: float,
    ) -> None:
        site, unit = self._site, self._unit
        verdict = outcomes.judge(order, result, site.layout.lib_dir, path)
        ok, error, text = verdict.ok, verdict.error, verdict.text
        if result.lost and order.operation == "enable":
            ok, text = self._by_status_file(handler, text)
            error = 0 if ok else error
        if result.adopted:
            log.info(f"The {order.operation} command of an earlier agent process was taken up: {order.line}")
        operation = outcomes.EVENTS[order.operation]
        if ok:
            said = f"Launch command succeeded: {order.short}"
            milliseconds = int((time.monotonic() - started) * 1000)
            tell_event(log, INFO, f"name={unit.full_name}, op={operation}, message={said}, duration={milliseconds}")
            log.info(f"Command: {order.line}\n{text}")
            site.event(operation, handler, said, name=unit.full_name, started=started)
        else:
            log.warning(f"Command: {order.line}\n{text}")
        if verdict.no_exec:
            site.event("NoExec", handler, f"{verdict.no_exec} is mounted with the noexec flag", success=False)
        self._remember(order, result, ok, error)
        exit_code = "0" if ok else verdict.exit_code
        site.ledger.ran(unit.full_name, call, Ran(ok, exit_code), error, "" if ok else text)
        site.runner.release(order.id)

    def _remember(self, order: Order, result: Result, ok: bool, error: int) -> None:
        ends = (("timed out", result.timed_out), ("could not be started", bool(result.problem)), ("lost", result.lost))
        end = next((word for word, so in ends if so), "succeeded" if ok else "failed")
        self._site.history.add(
            handler=order.handler,
            version=order.version,
            extension=order.extension or self._unit.extension,
            operation=order.operation,
            command=order.short,
            goalState=order.goal_state,
            started=utc(result.started) if result.started else None,
            seconds=round(result.seconds, 3),
            exitCode=result.code,
            end=end,
            error=error,
        )

    def _by_status_file(self, handler: HandlerDir, text: str) -> tuple[bool, str]:
        """Nobody knows how the command ended: what the extension says of itself decides (ruling 32)."""
        unit = self._unit
        if unit.sequence is None:
            return False, text
        reader = statusfile.StatusReader(time.monotonic)
        report = reader.read(handler, unit.extension, unit.sequence, unit.full_name)
        if report.status == "success":
            return True, "The command was interrupted; the extension reports success."
        return False, f"{text}\nThe extension reports {report.status}: {report.message or ''}"
