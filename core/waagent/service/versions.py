"""Which version of the worker runs: the newest one on disk that is not banned, at last the installed one (ruling 17).

Standard library alone; JSON is imported only when a ban is written or found. Ban rules: service §1.4.
"""

from __future__ import annotations

import os
import stat

from waagent.errors import StateError
from waagent.files import ensure_dir, move_aside, read_json, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

BAN_SECONDS = 24 * 3600.0
_SCHEMA = 1
_SUFFIX = ".ban.json"
_ENTRY = ("waagent", "service", "start.py")


class Candidate:
    """A version that could run.

    Attributes:
        version: its number as text, ``3.1.0.0``.
        directory: where it is unpacked; ``None`` for the installed one.
    """

    __slots__ = ("directory", "version")

    def __init__(self, version: str, directory: str | None = None) -> None:
        self.version = version
        self.directory = directory


class Ban:
    """Why a downloaded version is not started.

    Attributes:
        version: the version.
        reason: the last exit, in words.
        since: seconds since the epoch.
        newest: the highest version that was there when the ban began.
        made: modification time of the version's directory then, ns; another one means it was unpacked anew.
        path: the file that holds the ban; deleting it ends the ban.
    """

    __slots__ = ("made", "newest", "path", "reason", "since", "version")

    def __init__(self, version: str, reason: str, since: float, newest: str, made: int, path: str) -> None:
        self.version = version
        self.reason = reason
        self.since = since
        self.newest = newest
        self.made = made
        self.path = path


def parse(text: str) -> tuple[int, ...] | None:
    """Return the numbers of a version with two to four parts, filled up to four; ``None`` for anything else."""
    parts = text.split(".")
    if not 2 <= len(parts) <= 4 or not all(part.isdecimal() and part.isascii() and len(part) < 10 for part in parts):
        return None
    return tuple(int(part) for part in [*parts, "0", "0"][:4])


def downloaded(directory: str, *, trusted_only: bool = True) -> list[Candidate]:
    """Return the versions unpacked under *directory*, highest first; what is broken or untrusted is left out.

    A version counts when it has the file that is started, and nobody but root or the agent's user may write to it
    (ruling 8).
    """
    found: list[tuple[tuple[int, ...], Candidate]] = []
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    for name in names:
        numbers = parse(name)
        place = os.path.join(directory, name)
        if numbers is None or (trusted_only and not _trusted(place)):
            continue
        found.append((numbers, Candidate(name, place)))
    found.sort(key=lambda item: item[0], reverse=True)
    return [candidate for _, candidate in found]


def _trusted(place: str) -> bool:
    path = place
    owners = (0, os.geteuid())
    for part in ("", *_ENTRY):
        path = os.path.join(path, part) if part else path
        try:
            status = os.lstat(path)
        except OSError:
            return False
        wanted = stat.S_ISREG if part == _ENTRY[-1] else stat.S_ISDIR
        if not wanted(status.st_mode) or status.st_uid not in owners or status.st_mode & 0o022:
            return False
    return True


class Bans:
    """The bans on downloaded versions, on disk beside them and in memory when the disk refuses.

    Args:
        directory: ``<Lib.Dir>/agents``.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._kept: dict[str, Ban] = {}

    def path(self, version: str) -> str:
        """Return the file that holds the ban of *version*."""
        return os.path.join(self._directory, version + _SUFFIX)

    def add(self, candidate: Candidate, reason: str, now: float) -> Ban:
        """Ban *candidate* from *now* (seconds since the epoch) on.

        Raises:
            OSError: the file cannot be written; the ban holds all the same while this process lives.
        """
        present = downloaded(self._directory, trusted_only=False)
        ban = Ban(
            candidate.version,
            reason,
            now,
            present[0].version if present else candidate.version,
            _made(os.path.join(self._directory, candidate.version)),
            self.path(candidate.version),
        )
        content = {
            "schema": _SCHEMA,
            "version": ban.version,
            "reason": ban.reason,
            "since": ban.since,
            "newest": ban.newest,
            "made": ban.made,
        }
        self._kept[candidate.version] = ban
        ensure_dir(self._directory)
        write_json(ban.path, content)
        del self._kept[candidate.version]  # from here on the file counts: whoever deletes it ends the ban
        return ban

    def in_force(self, now: float) -> list[Ban]:
        """Return the bans that hold at *now*; files of others are removed, unreadable ones moved aside."""
        found = dict(self._kept)
        try:
            names = os.listdir(self._directory)
        except OSError:
            names = []
        for name in names:
            version = name[: -len(_SUFFIX)]
            if name.endswith(_SUFFIX) and parse(version) and version not in found:
                ban = self._read(version)
                if ban is not None:
                    found[version] = ban
        present = downloaded(self._directory, trusted_only=False)
        newest = parse(present[0].version) if present else None
        held = []
        for version, ban in sorted(found.items()):
            if self._over(ban, now, newest):
                self._kept.pop(version, None)
                _remove(ban.path)
            else:
                held.append(ban)
        return held

    def _over(self, ban: Ban, now: float, newest: tuple[int, ...] | None) -> bool:
        # A clock that was set back or forward by more than a day ends a ban early: better than one that never ends.
        # Neither does one whose file says "NaN".
        if not abs(now - ban.since) < BAN_SECONDS:
            return True
        if newest is not None and newest > (parse(ban.newest) or ()):
            return True
        return _made(os.path.join(self._directory, ban.version)) != ban.made

    def _read(self, version: str) -> Ban | None:
        path = self.path(version)
        try:
            value: Any = read_json(path, 65536)
            return Ban(
                version, str(value["reason"]), float(value["since"]), str(value["newest"]), int(value["made"]), path
            )
        except (StateError, KeyError, TypeError, ValueError, OverflowError, AttributeError):
            try:
                move_aside(path)
            except OSError:
                pass
            return None


def choose(directory: str, installed: str, bans: Iterable[Ban], *, packaged_only: bool = False) -> Candidate:
    """Return the version to run.

    Args:
        directory: ``<Lib.Dir>/agents``.
        installed: the version of the package; it is never banned.
        bans: those in force.
        packaged_only: the configuration wants the installed version whatever lies on disk (configuration §4.7).
    """
    if not packaged_only:
        floor = parse(installed) or ()
        banned = {ban.version for ban in bans}
        for candidate in downloaded(directory):
            if candidate.version not in banned and (parse(candidate.version) or ()) > floor:
                return candidate
    return Candidate(installed)


def _made(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
