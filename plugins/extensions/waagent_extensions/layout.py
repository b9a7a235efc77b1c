"""Where a handler's files lie: names that handlers and operators know by heart (extensions §3)."""

from __future__ import annotations

import os
import re

from waagent_extensions import versions

_DIRECTORY = re.compile(r"(?P<name>.+?)-(?P<version>\d[\w.]*)\Z")


class HandlerDir:
    """The places of one version of one handler.

    Attributes:
        name: ``Publisher.Type``.
        version: as in the directory's name.
        base: ``<Lib.Dir>/<name>-<version>``, the working directory of every command.
        zip: the downloaded package, gone after expansion.
        log_dir: ``<Extension.LogDir>/<name>``: no version, outlives the handler.
    """

    __slots__ = ("base", "log_dir", "name", "version", "zip")

    def __init__(self, lib_dir: str, log_root: str, name: str, version: str) -> None:
        self.name = name
        self.version = version
        self.base = os.path.join(lib_dir, f"{name}-{version}")
        self.zip = os.path.join(lib_dir, f"{name}__{version}.zip")
        self.log_dir = os.path.join(log_root, name)

    def __repr__(self) -> str:
        return f"HandlerDir({self.name}-{self.version})"

    def _in(self, *parts: str) -> str:
        return os.path.join(self.base, *parts)

    @property
    def config_dir(self) -> str:
        """Settings and states, 0700."""
        return self._in("config")

    @property
    def status_dir(self) -> str:
        """What the handler reports, 0700."""
        return self._in("status")

    @property
    def events_dir(self) -> str:
        """Where the handler drops telemetry, 0700."""
        return os.path.join(self.log_dir, "events")

    @property
    def state_file(self) -> str:
        """``NotInstalled``, ``Installed``, ``Enabled`` or ``FailedUpgrade``."""
        return self._in("config", "HandlerState")

    @property
    def status_record(self) -> str:
        """The agent's own record of how the handler stands (extensions §13.1)."""
        return self._in("config", "HandlerStatus")

    @property
    def manifest(self) -> str:
        """``HandlerManifest.json`` at the root of the package."""
        return self._in("HandlerManifest.json")

    @property
    def environment(self) -> str:
        """``HandlerEnvironment.json``."""
        return self._in("HandlerEnvironment.json")

    @property
    def heartbeat(self) -> str:
        """``heartbeat.log``, written by handlers that report one."""
        return self._in("heartbeat.log")

    @property
    def last_sequence(self) -> str:
        """``mrseq``, the handler's own note of what it executed last."""
        return self._in("mrseq")

    @property
    def validated(self) -> str:
        """Marks a package whose signature and signing information were both verified."""
        return self._in("package_validated")

    def settings_file(self, extension: str | None, sequence: int) -> str:
        """Return the settings file of one extension (``None``: single-config) and sequence number."""
        return self._in("config", f"{_prefix(extension)}{sequence}.settings")

    def status_file(self, extension: str | None, sequence: int | str) -> str:
        """Return the status file of one extension (``None``: single-config) and sequence number."""
        return self._in("status", f"{_prefix(extension)}{sequence}.status")

    def extension_state_file(self, extension: str) -> str:
        """Return the state file of one extension of a multi-config handler: ``enabled`` or ``disabled``."""
        return self._in("config", f"{extension}.HandlerState")

    def command_log(self, extension: str | None) -> str:
        """Return the log of this handler's commands (extensions §3)."""
        suffix = f"_{extension}" if extension else ""
        return os.path.join(self.log_dir, f"CommandExecution{suffix}.log")

    def exists(self) -> bool:
        """Return whether the handler's directory is there."""
        return os.path.isdir(self.base)


def _prefix(extension: str | None) -> str:
    return f"{extension}." if extension else ""


class Layout:
    """All handler directories below one state directory."""

    def __init__(self, lib_dir: str, log_root: str) -> None:
        self.lib_dir = lib_dir
        self.log_root = log_root

    def handler(self, name: str, version: str) -> HandlerDir:
        """Return the places of *version* of handler *name*, whether or not they exist."""
        return HandlerDir(self.lib_dir, self.log_root, name, version)

    def installed(self) -> list[HandlerDir]:
        """Return the handler directories that are ours, by name, then version ascending.

        Ours is what carries a state or an environment file that the agent writes: a stranger's ``name-1.2`` is left
        alone (extensions §11.7 D2).
        """
        found = []
        try:
            entries = os.listdir(self.lib_dir)
        except OSError:
            return []
        for entry in entries:
            parts = split_directory(entry)
            if parts is None:
                continue
            handler = self.handler(*parts)
            if os.path.exists(handler.state_file) or os.path.exists(handler.environment):
                found.append(handler)
        return sorted(found, key=lambda handler: (handler.name.lower(), versions.key(handler.version)))

    def stray_packages(self, ending: str = ".zip") -> list[tuple[str, str, str]]:
        """Return (name, version, path) of every handler package in the state directory, in both historical forms.

        The forms are ``<name>__<version>.zip``, ``<Publisher>__<Type>__<version>.zip`` and ``<name>-<version>.zip``.
        """
        found = []
        try:
            entries = sorted(os.listdir(self.lib_dir))
        except OSError:
            return []
        for entry in entries:
            if not entry.endswith(ending):
                continue
            stem = entry[: -len(ending)]
            name, mark, version = stem.rpartition("__")
            if not mark:
                name, mark, version = stem.rpartition("-")
            if mark and name and versions.is_version(version) and not name.startswith("WALinuxAgent"):
                found.append((name.replace("__", "."), version, os.path.join(self.lib_dir, entry)))
        return found


def split_directory(entry: str) -> tuple[str, str] | None:
    """Return (name, version) of a directory name ``<name>-<version>``; ``None`` for others and the agent's own."""
    match = _DIRECTORY.match(entry)
    if match is None or not versions.is_version(match.group("version")):
        return None
    if match.group("name") == "WALinuxAgent":
        return None
    return match.group("name"), match.group("version")
