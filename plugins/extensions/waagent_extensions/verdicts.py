"""Units that are not worked on: the platform is told, so that it fails fast (extensions §11.5, §15.2, §17)."""

from __future__ import annotations

import time

from waagent import AgentError, ExtensionReport, Handler, HandlerReport, Veto
from waagent_extensions import codes, facts, order, records, statusfile, validity
from waagent_extensions.codes import HandlerError
from waagent_extensions.handlerlog import handler_log
from waagent_extensions.order import Outcome, Unit
from waagent_extensions.records import HandlerStatus
from waagent_extensions.site import Site
from waagent_extensions.work import record_failure


def is_invalid(site: Site, handler: Handler) -> bool:
    """Return whether *handler* cannot be processed at all; then that is reported."""
    reason = handler.invalid_reason
    unsafe = validity.problem(handler)
    if reason is None and unsafe is None:
        return False
    message = (
        f"Ran into config errors: {unsafe or reason} Please retry again as another operation with updated settings"
    )
    site.agent.events.add(
        "InvalidExtensionConfig", name=handler.name, success=False, message=message, version=handler.version
    )
    # The extension is what the platform looks at first: each gets the error under its own number.
    extensions: list[ExtensionReport | None] = [
        ExtensionReport(settings.name, settings.sequence_number, "error", codes.UNKNOWN, message, operation="Enable")
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


def block(site: Site, unit: Unit, veto: Veto, began: float) -> Outcome:
    """Report a refused unit so that the platform fails fast (extensions §15.2, §17)."""
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


def skip(site: Site, unit: Unit, reason: str) -> Outcome:
    """Report a unit that is left out because of what it depends on (extensions §11.5)."""
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
