"""What commands ran lately and how they ended, for ``waagent extensions show``: no output, no settings, no secrets."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from waagent import StateError, ensure_dir, read_limited, write_atomic

NAME = "extension-commands.jsonl"
KEPT = 10
"""Commands kept of each handler."""
_MOST = 2000
_COMPACT_FROM = 1 << 20
_LIMIT = 16 << 20


class History:
    """A file of JSON lines, one per command, kept short.

    Args:
        path: the file; read by anybody with root, written by the worker alone.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def add(self, **entry: Any) -> None:
        """Append what is known of a command that ended; a disk that refuses it costs this line and nothing else."""
        data = (json.dumps(entry, separators=(",", ":")) + "\n").encode()
        with contextlib.suppress(OSError, StateError):
            ensure_dir(os.path.dirname(self._path), 0o700)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._path, flags, 0o600)
            try:
                os.write(descriptor, data)
                size = os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
            if size > _COMPACT_FROM:
                lines = [json.dumps(known, separators=(",", ":")) for known in _latest(self.read())]
                write_atomic(self._path, "".join(f"{line}\n" for line in lines), durable=False)

    def read(self, handler: str | None = None) -> list[dict[str, Any]]:
        """Return what is known, oldest first; of one handler its last :data:`KEPT` commands.

        Raises:
            OSError: the file cannot be read.
        """
        try:
            data = read_limited(self._path, _LIMIT)
        except (FileNotFoundError, StateError):
            return []
        found = []
        for line in data.splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and handler in (None, entry.get("handler")):
                    found.append(entry)
        return found if handler is None else found[-KEPT:]


def _latest(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    counts: dict[Any, int] = {}
    kept: list[dict[str, Any]] = []
    for entry in reversed(entries):
        name = entry.get("handler")
        counts[name] = counts.get(name, 0) + 1
        if counts[name] <= KEPT and len(kept) < _MOST:
            kept.append(entry)
    return kept[::-1]
