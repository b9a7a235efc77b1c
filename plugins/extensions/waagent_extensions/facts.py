"""Look at the disk and say what there is of one handler (architecture §9). Cheap: asked again after every step."""

from __future__ import annotations

import os

import attrs

from waagent_extensions import handlermanifest, records, versions
from waagent_extensions.codes import HandlerError
from waagent_extensions.handlermanifest import HandlerManifest
from waagent_extensions.layout import HandlerDir, Layout, split_directory
from waagent_extensions.ledger import Progress
from waagent_extensions.order import Unit
from waagent_extensions.planner import Facts, Other


def versions_on_disk(layout: Layout, name: str) -> list[HandlerDir]:
    """Return every version of handler *name* that has a directory, ascending."""
    prefix = f"{name}-"
    try:
        entries = [entry for entry in os.listdir(layout.lib_dir) if entry.startswith(prefix)]
    except OSError:
        return []
    parts = [split_directory(entry) for entry in entries]
    found = [layout.handler(*pair) for pair in parts if pair is not None and pair[0] == name]
    return sorted((item for item in found if item.exists()), key=lambda item: versions.key(item.version))


def installed_version(layout: Layout, name: str) -> HandlerDir | None:
    """Return the highest version of *name* that counts as installed, or ``None`` (extensions §4.2)."""
    for candidate in reversed(versions_on_disk(layout, name)):
        if records.is_installed(records.read_state(candidate)):
            return candidate
    return None


def enabled_extensions(handler: HandlerDir) -> tuple[str | None, ...]:
    """Return what disabling *handler* goes through: its enabled extensions, or ``(None,)`` for single-config."""
    recorded = records.recorded_extensions(handler)
    if not recorded:
        return (None,)
    return tuple(name for name, state in recorded.items() if state == "enabled")


def manifest_of(handler: HandlerDir) -> HandlerManifest | None:
    """Return the handler's manifest, or ``None`` when it has none that can be used."""
    try:
        return handlermanifest.load(handler.manifest)
    except HandlerError:
        return None


def command_is_missing(handler: HandlerDir, operation: str) -> bool:
    """Return whether the command of *operation* cannot be started at all: not named, or its file is not there."""
    manifest = manifest_of(handler)
    line = manifest.commands.get(operation, "").split() if manifest is not None else []
    return not line or not os.path.exists(os.path.join(handler.base, line[0].strip("'\"")))


def probe(layout: Layout, unit: Unit, version: str, progress: Progress, failed_disables: int = 0) -> Facts:
    """Return the facts of one unit.

    Args:
        layout: where handlers lie.
        unit: what is wanted.
        version: the chosen version.
        progress: what was done for this goal state.
        failed_disables: consecutive goal states in which disabling this handler failed.
    """
    handler = layout.handler(unit.handler.name, version)
    others = [item for item in versions_on_disk(layout, handler.name) if item.version != version]
    state = records.read_state(handler)
    facts = Facts(
        requested=unit.handler.state,
        wanted=unit.wanted,
        extension=unit.extension,
        version=version,
        state=state,
        present=bool(others) or handler.exists() or os.path.exists(handler.zip),
        other=_other(others, version),
        leftovers=tuple(item.version for item in others),
        recorded=records.read_extension_state(handler, unit.extension) if unit.extension else None,
        done=frozenset(progress.done),
        ran=dict(progress.ran),
        updating_from=progress.updating_from,
    )
    if unit.handler.state != "enabled":
        broken = failed_disables >= 3 or command_is_missing(handler, "disable")
        return attrs.evolve(facts, enabled=enabled_extensions(handler), broken_disable=broken)
    manifest = manifest_of(handler) if "fetch" in progress.done or records.is_installed(state) else None
    if manifest is None:
        return facts
    return attrs.evolve(
        facts,
        update_with_install=manifest.update_with_install,
        continue_on_failure=manifest.continue_on_update_failure,
    )


def _other(others: list[HandlerDir], version: str) -> Other | None:
    for candidate in reversed(others):
        state = records.read_state(candidate)
        if records.is_installed(state):
            newer = versions.key(candidate.version) > versions.key(version)
            return Other(candidate.version, state, enabled_extensions(candidate), newer)
    return None
