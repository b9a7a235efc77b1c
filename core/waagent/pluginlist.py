"""The list of plugins in the runtime directory: what the boot stage found, for every later process (rulings 19a, 19d).

It names each plugin with its state, so that the worker imports what is on without looking for it, and so that anybody
can see what is off and why. It dies with the boot, and is found outdated when anything it was made from has changed.
"""

from __future__ import annotations

import os
import sys
from binascii import crc32
from collections.abc import Iterable
from typing import Any

import attrs

from waagent.errors import StateError
from waagent.files import ensure_dir, read_json, write_json
from waagent.paths import Paths
from waagent.trust import owners, untrusted_file
from waagent.version import __version__

SCHEMA = 1

ON = "on"
"""Loaded, or to be loaded at the next start."""
OFF = "off"
"""Switched off by the configuration."""
OTHER = "other-distribution"
"""A distribution plugin that is not for this distribution."""
ABSENT = "absent"
"""Declared, but its code is not installed: distributions split packages."""
FAILED = "failed"
"""Its import raised, or it breaks a rule of hooks."""
LATE = "late"
"""Its import took longer than 5 s; not tried again until its files change."""
DUPLICATE = "duplicate"
"""Two installed plugins have the name: none of them is loaded."""
UNTRUSTED = "untrusted"
"""Its files, or the list of allowed plugins, say no."""
INCOMPATIBLE = "incompatible"
"""It needs a newer hook interface."""

_SETTLED = frozenset({ON, OFF, OTHER, ABSENT})
"""States that only change with what the key facts cover; after any other one plugins are looked for again."""


@attrs.frozen(eq=False, repr=False)
class PluginInfo:
    """One installed plugin, for people and for the processes of the agent.

    Attributes:
        name: the entry point's name.
        group: ``waagent.plugins`` or ``waagent.distros``.
        value: ``module:attribute``.
        distribution: the Python distribution it comes with; of a duplicate all of them, separated by commas.
        version: of that distribution.
        state: one of the constants of this module.
        reason: why, in one line.
        file: the file that decided, when one did.
        line: its line.
        first_party: it comes with the agent.
        loaded: it is registered in this process.
        hooks: what it implements; empty as long as it was never loaded.
        level, beside: its place among distribution plugins (:class:`waagent.registry.Standing`).
        fingerprint: of its files, when its import was late.
        failures: failed calls in this process.
        last_error: the last of them, in one line.
    """

    name: str
    group: str
    value: str
    distribution: str
    version: str
    state: str = ON
    reason: str = ""
    file: str | None = None
    line: int | None = None
    first_party: bool = False
    loaded: bool = False
    hooks: tuple[str, ...] = ()
    level: int = 0
    beside: bool = False
    fingerprint: tuple[int, ...] = ()
    failures: int = 0
    last_error: str = ""

    @property
    def label(self) -> str:
        """The plugin as messages name it."""
        return f"{self.name} ({self.distribution} {self.version})" if self.distribution else self.name

    def as_json(self) -> dict[str, Any]:
        """Return the value for JSON documents."""
        return attrs.asdict(self)


_STORED = tuple(
    field.name for field in attrs.fields(PluginInfo) if field.name not in ("loaded", "failures", "last_error")
)


def key_facts(paths: Paths, config_files: Iterable[str]) -> dict[str, Any]:
    """Return what the list was made from (ruling 19d): boot, agent, interpreter, path, metadata, configuration."""
    return {
        "boot": _boot_id(),
        "agent": __version__,
        "interpreter": [sys.executable, sys.version],
        "path": list(sys.path),
        "root": paths.root,
        "user": os.geteuid(),
        "distributions": [line for entry in sys.path for line in _metadata(entry)],
        "files": [_change(path) for path in (*config_files, paths.at("/etc/os-release"))],
    }


def write(path: str, facts: dict[str, Any], plugins: Iterable[PluginInfo]) -> None:
    """Write the list, readable for everybody; not durable: it dies with the boot."""
    entries = [{name: getattr(info, name) for name in _STORED} for info in plugins]
    ensure_dir(os.path.dirname(path), 0o755)
    write_json(path, {"schema": SCHEMA, "facts": facts, "plugins": entries}, 0o644, durable=False)


def read(path: str, paths: Paths | None = None) -> tuple[dict[str, Any], list[PluginInfo]] | None:
    """Return key facts and plugins, or ``None`` when there is no list.

    Args:
        path: the list.
        paths: the agent's places: the list must then be trusted like a plugin (what it names is imported).

    Raises:
        StateError: it cannot be read, is of another version, or is not trusted.
    """
    document = read_json(path)
    if document is None:
        return None
    if paths is not None:
        reason = untrusted_file(path, owners(paths))
        if reason is not None:
            raise StateError(f"the list of plugins is not trusted: {reason}")
    try:
        if document["schema"] != SCHEMA:
            raise StateError(f"{path}: schema {document['schema']!r} is not {SCHEMA}")
        return document["facts"], [_entry(entry) for entry in document["plugins"]]
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise StateError(f"{path}: is no list of plugins ({type(problem).__name__}: {problem})") from problem


def current(path: str, paths: Paths, config_files: Iterable[str]) -> bool:
    """Return whether the list at *path* can be used again: nothing it was made from has changed, and nothing failed."""
    try:
        found = read(path, paths)
    except StateError:
        return False
    if found is None:
        return False
    facts, plugins = found
    return facts == key_facts(paths, config_files) and all(info.state in _SETTLED for info in plugins)


def _entry(entry: dict[str, Any]) -> PluginInfo:
    values = {name: entry[name] for name in _STORED if name in entry}
    for name in ("name", "group", "value", "distribution", "version", "state", "reason"):
        if not isinstance(values[name], str):
            raise TypeError(f"{name} is {type(values[name]).__name__}")
    for name in ("hooks", "fingerprint"):
        values[name] = tuple(values.get(name, ()))
    return PluginInfo(**values)


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return stream.read().strip()
    except (OSError, ValueError):
        return ""


def _metadata(entry: str) -> list[list[Any]]:
    """Return names of what is installed in one directory of ``sys.path``, and changes of its metadata."""
    try:
        names = sorted(os.listdir(entry or "."))
    except OSError:
        return []
    # Code may come without metadata of its own. The directory's time would not do: a first import changes it.
    code = "/".join(name for name in names if name != "__pycache__")
    found: list[list[Any]] = [[entry, crc32(os.fsencode(code))]]
    for name in names:
        if name.endswith((".dist-info", ".egg-info")):
            found.append(_change(os.path.join(entry, name)))
            found.append(_change(os.path.join(entry, name, "entry_points.txt")))
    return found


def _change(path: str) -> list[Any]:
    try:
        status = os.stat(path)
    except OSError:
        return [path, 0, 0]
    return [path, status.st_mtime_ns, status.st_size]
