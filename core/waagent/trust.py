"""Whether a plugin's files may be run by the agent (ruling 8): the rule of sudoers. Runs nothing of the plugin.

A file is trusted when root or the agent's own user owns it and neither group nor others may write it, and the same
holds for every directory up to the entry of ``sys.path`` that it was found through; root's sticky directories pass.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator

import attrs

from waagent.errors import ConfigError, StateError
from waagent.files import read_limited
from waagent.paths import Paths

_LIST_LIMIT = 1 << 20


@attrs.frozen(eq=False, repr=False)
class Place:
    """Where a plugin's code lies, found without importing anything.

    Attributes:
        entry: the directory of ``sys.path`` it was found through.
        files: the module, or the directories of the top-level package: everything in them may be run.
    """

    entry: str
    files: tuple[str, ...]


def owners(paths: Paths) -> frozenset[int]:
    """Return whose files the agent trusts: root's, and under another root also those of the user it runs as.

    On the machine itself the agent is root, whoever looks at the list.
    """
    return frozenset({0}) if paths.is_real else frozenset({0, os.geteuid()})


def locate(module: str) -> Place | None:
    """Return where *module* lies, or ``None`` when its top-level name is not there.

    The finders of ``sys.meta_path`` are asked for one name after the other; unlike ``importlib.util.find_spec`` this
    imports no parent package.
    """
    search: list[str] | None = None
    name = ""
    found: tuple[str, ...] = ()
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = _find(name, search)
        if spec is None:
            break
        search = list(spec.submodule_search_locations or ())
        found = tuple(search) or ((spec.origin,) if spec.has_location else ())
        if spec.has_location or not search:
            break  # only a namespace package has neither a file nor anything that vouches for what lies in it
    return Place(_entry_of(found[0]), found) if found else None


def untrusted(place: Place, allowed: frozenset[int]) -> str | None:
    """Return what is wrong with the first file of *place* that is not trusted, or ``None``."""
    for path in _everything(place):
        reason = untrusted_file(path, allowed)
        if reason is not None:
            return reason
    return None


def untrusted_file(path: str, allowed: frozenset[int]) -> str | None:
    """Return why the file or directory *path* is not trusted, or ``None``; links count as what they lead to."""
    try:
        status = os.stat(path)
    except OSError as problem:
        return f"{path}: {problem.strerror}"
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and status.st_uid == 0:
        return None
    if status.st_uid not in allowed:
        return f"{path} belongs to user {status.st_uid}; it has to belong to root"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        who = "others" if status.st_mode & stat.S_IWOTH else f"group {status.st_gid}"
        return f"{path} can be written by {who} (mode {stat.S_IMODE(status.st_mode):04o})"
    return None


def fingerprint(place: Place) -> tuple[int, ...]:
    """Return newest change, number and total size of the files of *place*: differs when one was changed."""
    newest = count = size = 0
    for path in _everything(place):
        if "__pycache__" in path:
            continue  # a first import writes there
        try:
            status = os.stat(path)
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode):
            continue
        newest = max(newest, status.st_mtime_ns, status.st_ctime_ns)
        count += 1
        size += status.st_size
    return newest, count, size


class AllowList:
    """The file that pins which third-party plugins may be loaded (``Plugins.AllowList``).

    One plugin per line: its name, its distribution, and the version when only that one may be loaded. ``#`` begins a
    comment. A line that says anything else counts for nothing.
    """

    def __init__(self, path: str, lines: dict[str, tuple[int, str, str | None]]) -> None:
        self.path = path
        self._lines = lines

    @classmethod
    def read(cls, path: str, allowed: frozenset[int]) -> AllowList:
        """Read the list.

        Raises:
            ConfigError: it cannot be read or is itself not trusted: no third-party plugin may be loaded then.
        """
        try:
            text = read_limited(path, _LIST_LIMIT).decode("utf-8", "replace")
        except (OSError, StateError) as problem:
            raise ConfigError(f"Plugins.AllowList={path} cannot be read: {problem}") from problem
        reason = untrusted_file(path, allowed)
        if reason is not None:
            raise ConfigError(f"Plugins.AllowList is not trusted: {reason}")
        lines: dict[str, tuple[int, str, str | None]] = {}
        for number, line in enumerate(text.split("\n"), 1):
            words = line.split("#", 1)[0].split()
            if len(words) in (2, 3):
                lines[words[0]] = (number, normalised(words[1]), words[2] if len(words) == 3 else None)
        return cls(path, lines)

    def objection(self, name: str, distribution: str, version: str) -> tuple[str, int | None] | None:
        """Return why the plugin may not be loaded, with the line that says so (``None``: no line names it)."""
        pinned = self._lines.get(name)
        if pinned is None:
            return "the list of allowed plugins does not name it", None
        number, wanted, wanted_version = pinned
        if wanted != normalised(distribution):
            return f"only the one of the distribution {wanted} is allowed", number
        if wanted_version is not None and wanted_version != version:
            return f"only version {wanted_version} is allowed", number
        return None


def normalised(distribution: str) -> str:
    """Return the name of a Python distribution as registries compare it (PEP 503)."""
    text = distribution.lower()
    for mark in "_.":
        text = text.replace(mark, "-")
    while "--" in text:
        text = text.replace("--", "-")
    return text


def _find(name: str, search: list[str] | None):  # type: ignore[no-untyped-def]  # the spec's class is importlib's
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = find(name, search) if find is not None else None
        if spec is not None:
            return spec
    return None


def _entry_of(path: str) -> str:
    best = os.path.dirname(path)
    found = ""
    for entry in sys.path:
        directory = os.path.abspath(entry)
        if path.startswith(directory.rstrip("/") + "/") and len(directory) > len(found):
            found = directory
    return found or best


def _everything(place: Place) -> Iterator[str]:
    """Yield every file and directory of *place* and the directories above it up to its entry of ``sys.path``."""
    seen: set[str] = set()
    for start in place.files:
        above = os.path.dirname(start)
        while above.startswith(place.entry) and above != os.path.dirname(above):
            yield above
            above = os.path.dirname(above)
        yield from _below(start, seen)


def _below(path: str, seen: set[str]) -> Iterator[str]:
    real = os.path.realpath(path)
    if real in seen:
        return
    seen.add(real)
    if real != path and os.path.islink(path):
        # who may rename what a link leads to may replace it, too
        above = os.path.dirname(real)
        while above != os.path.dirname(above):
            yield above
            above = os.path.dirname(above)
    yield path
    if os.path.isdir(path):
        try:
            names = sorted(os.listdir(path))
        except OSError:
            return  # nobody can run what the agent cannot read
        for name in names:
            yield from _below(os.path.join(path, name), seen)
