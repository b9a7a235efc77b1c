"""Commands that an earlier agent process began for another goal state: waited for, and what they achieved recorded."""

from __future__ import annotations

from waagent import ExtensionsGoalState
from waagent_extensions import records
from waagent_extensions.layout import HandlerDir
from waagent_extensions.site import Site


def finish(site: Site, goal_state: ExtensionsGoalState) -> None:
    """Wait for commands of an earlier process that belong to another goal state, and record what they achieved."""
    if site.ledger.open and site.ledger.goal_state == goal_state.id:
        return
    _finish_records(site)
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
            _apply(stranger.operation, stranger.extension, handler, result.ok, result.lost)
        site.runner.release(stranger.id)
    site.show(running=None, running_unit="")


def _finish_records(site: Site) -> None:
    """Record installs and uninstalls that were known to have succeeded when the process was killed."""
    if not site.ledger.open:
        return
    for full_name, progress in site.ledger.units().items():
        for (operation, version, extension), ran in progress.ran.items():
            suffix = f".{extension}" if extension else ""
            name = full_name[: -len(suffix)] if suffix and full_name.endswith(suffix) else full_name
            handler = site.layout.handler(name, version)
            if operation in ("install", "uninstall") and ran.ok and handler.exists():
                _apply(operation, extension, handler, True, False)


def _apply(operation: str, extension: str | None, handler: HandlerDir, succeeded: bool, unknown: bool) -> None:
    """Record what a command of a superseded goal state achieved."""
    state = records.read_state(handler)
    if operation == "install" and succeeded and state == records.NOT_INSTALLED:
        records.write_state(handler, records.INSTALLED)
    elif operation == "uninstall" and succeeded:
        # Wanted again it has to be installed; otherwise nothing is left to do but to remove it.
        records.write_state(handler, records.NOT_INSTALLED)
    elif operation == "enable" and succeeded and records.is_installed(state):
        if extension is not None:
            records.write_extension_state(handler, extension, "enabled")
        records.write_state(handler, records.ENABLED)
    elif operation == "disable" and succeeded and state == records.ENABLED and extension is None:
        records.write_state(handler, records.INSTALLED)
    elif operation == "update" and not succeeded and not unknown:
        records.write_state(handler, records.FAILED_UPGRADE)
