"""The queue of events on disk: one file each, bounded, kept until the platform has them (wireserver §19.3).

The agent's own files are ``<microseconds since 1970>.waagent.tld``; other ``*.tld`` files are those of handlers and of
agents of old. Several processes may write at once, and each may be killed at any time.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque

from waagent import Log, ensure_dir, read_limited, write_atomic

LIMIT = 1000
"""Files; before one more the oldest go until there are :data:`LIMIT` - 1."""
FILE_LIMIT = 256 << 10
"""Bytes of an event file: a larger one cannot hold an event that a request has room for."""
OWN = ".waagent.tld"
SUFFIX = ".tld"
_AHEAD = 64
_STALE = 3600.0


class Queue:
    """The event files in a directory.

    Args:
        directory: made when it is not there.
        log: gets what goes wrong, sparsely.

    Attributes:
        dropped: events that made room for newer ones since the start of this process.
        failed: events that could not be written.
    """

    def __init__(self, directory: str, log: Log) -> None:
        self.directory = directory
        self.dropped = 0
        self.failed = 0
        self._log = log
        self._lock = threading.Lock()
        self._count: int | None = None
        self._oldest: deque[str] = deque()
        self._last = 0

    @property
    def count(self) -> int:
        """How many files there are, as far as this process knows."""
        return self._count or 0

    def prepare(self) -> None:
        """Make the directory, which handlers expect, and remove what writers left half-written long ago."""
        try:
            ensure_dir(self.directory, 0o700)
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    if entry.name.endswith(".tmp") and time.time() - entry.stat().st_mtime > _STALE:
                        os.unlink(entry.path)
        except OSError as problem:
            self._log.periodic(900, "event directory", 2, f"{self.directory} cannot be prepared: {problem}")

    def put(self, content: bytes) -> bool:
        """Add an event; when the disk refuses, it is lost and ``False`` is returned. Any thread may call."""
        try:
            with self._lock:
                self._make_room()
                self._last = max(int(time.time() * 1e6), self._last + 1)
                path = os.path.join(self.directory, f"{self._last}{OWN}")
                while os.path.lexists(path):  # another process was as quick
                    self._last += 1
                    path = os.path.join(self.directory, f"{self._last}{OWN}")
                # Not worth a sync: after a power cut the newest events are the least of anybody's worries.
                write_atomic(path, content, 0o600, durable=False)
                self._count = self.count + 1
        except OSError as problem:
            self.failed += 1
            self._log.periodic(900, "event write", 2, f"An event cannot be kept: {problem}")
            return False
        return True

    def names(self) -> list[str]:
        """Return the names of all event files, oldest first; more than the limit allows are dropped first."""
        with self._lock:
            with contextlib.suppress(OSError):
                self._make_room(recount=True)
            found = self._list()
            self._count = len(found)
        return found

    def read(self, name: str) -> tuple[bytes, float]:
        """Return a file's content and its time of change.

        Raises:
            StateError: too large, or no regular file.
            OSError: it cannot be read, or is gone.
        """
        path = os.path.join(self.directory, name)
        return read_limited(path, FILE_LIMIT), os.stat(path).st_mtime

    def remove(self, name: str) -> None:
        """Delete a file; one that is gone already is none to worry about."""
        with self._lock:
            try:
                os.unlink(os.path.join(self.directory, name))
            except FileNotFoundError:
                return
            except OSError as problem:
                self._log.periodic(900, "event removal", 2, f"A sent event cannot be removed: {problem}")
                return
            self._count = max(0, self.count - 1)

    def clear(self) -> None:
        """Delete every event."""
        for name in self.names():
            self.remove(name)

    def _make_room(self, recount: bool = False) -> None:
        if self._count is None or recount:
            ensure_dir(self.directory, 0o700)
            self._count = len(self._list())
        excess = self._count - LIMIT if recount else self._count - LIMIT + 1
        while excess > 0:
            if not self._oldest:
                names = self._list()
                self._count = len(names)
                excess = self._count - LIMIT if recount else self._count - LIMIT + 1
                if excess <= 0:
                    return
                # A few more than are needed: a full queue is not listed for every event.
                self._oldest.extend(names[: excess + _AHEAD])
            try:
                os.unlink(os.path.join(self.directory, self._oldest.popleft()))
            except FileNotFoundError:
                continue  # it was sent meanwhile, and counted then
            self._count -= 1
            self.dropped += 1
            excess -= 1
            self._log.periodic(
                60, "events dropped", 2, f"Over {LIMIT} events wait to be sent; the oldest are dropped to make room"
            )
        if recount:
            self._oldest.clear()  # what is oldest now may have changed since

    def _list(self) -> list[str]:
        try:
            with os.scandir(self.directory) as entries:
                return sorted(
                    entry.name
                    for entry in entries
                    if entry.name.endswith(SUFFIX) and entry.is_file(follow_symlinks=False)
                )
        except FileNotFoundError:
            return []
