"""What a command printed: kept small while it runs, cut to size for people afterwards (extensions §12.1)."""

from __future__ import annotations

import contextlib
import fcntl
import os

import attrs

from waagent import redact

TOTAL = 3200
"""Characters of both streams together in a message."""
HEAD, TAIL = 800, 2400
"""Characters kept of the beginning and the end of one long stream."""
LIMIT = 1 << 20
"""Bytes a stream's file may grow to before its middle is dropped: it lies on a memory file system."""
_KEPT_HEAD, _KEPT_TAIL = 4 << 10, 16 << 10
_EACH = (TOTAL - len("[stdout]\n\n\n[stderr]\n")) // 2
_MARK = "\n[...]\n"


@attrs.frozen
class Captured:
    """One stream: all of it in ``head``, or its beginning and its end when it was long."""

    head: str = ""
    tail: str = ""

    def cut(self, length: int) -> str:
        """Return at most *length* characters: a quarter from the beginning, the rest from the end."""
        if not self.tail and len(self.head) <= length:
            return self.head
        last = self.tail or self.head
        begin = max(length // 4 - len(_MARK), 0)
        end = length - begin - len(_MARK)
        return self.head[:begin] + _MARK + last[-end:] if end > 0 else last[-length:]

    @property
    def length(self) -> int:
        """The characters there are to show; a stream that was cut counts as more than fits."""
        return len(self.head) + len(self.tail) + (TOTAL if self.tail else 0)


NOTHING = Captured()


def layout(out: Captured, err: Captured) -> str:
    """Return both streams in the form that the portal shows."""
    if out.length + err.length <= 2 * _EACH:
        return f"[stdout]\n{out.head}\n\n[stderr]\n{err.head}"
    spare_out, spare_err = max(_EACH - out.length, 0), max(_EACH - err.length, 0)
    return f"[stdout]\n{out.cut(_EACH + spare_err)}\n\n[stderr]\n{err.cut(_EACH + spare_out)}"


def read(path: str) -> Captured:
    """Return what the stream in file *path* (and ``<path>.head``, when it was trimmed) says."""
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            whole = size <= TOTAL * 4
            begin = stream.read(TOTAL * 4 if whole else HEAD * 4)
            end = b""
            if not whole:
                stream.seek(-TAIL * 4, os.SEEK_END)
                end = stream.read(TAIL * 4)
    except OSError:
        return NOTHING
    with contextlib.suppress(OSError), open(path + ".head", "rb") as stream:
        # The file was trimmed: what is in it is the end.
        begin, end = stream.read(HEAD * 4), end or begin
        whole = False
    head = _text(begin)
    if whole and len(head) <= HEAD + TAIL:
        return Captured(head)
    return Captured(head[:HEAD], (_text(end) if end else head)[-TAIL:])


def _text(data: bytes) -> str:
    # A cut may fall into a character: its remaining bytes are dropped rather than shown as escapes.
    start = 0
    while start < min(3, len(data)) and 0x80 <= data[start] < 0xC0:
        start += 1
    return data[start:].decode("utf-8", "backslashreplace")


def trim(path: str) -> bool:
    """Drop the middle of a stream's file that grew over :data:`LIMIT`; return whether it had.

    Writers append, so they go on behind what is kept; what they write at this very moment may be lost.
    """
    try:
        if os.stat(path).st_size <= LIMIT:
            return False
        with open(path, "r+b", buffering=0) as stream:
            if not os.path.exists(path + ".head"):
                with open(path + ".head", "wb") as saved:
                    saved.write(stream.read(_KEPT_HEAD) or b"")
            stream.seek(-_KEPT_TAIL, os.SEEK_END)
            end = stream.read(_KEPT_TAIL) or b""
            stream.truncate(0)
        with open(path, "ab", buffering=0) as stream:
            stream.write(end)
    except OSError:
        return False
    return True


def last_line(*paths: str) -> str:
    """Return the last line of the stream that was written to last, at most 200 characters, without secrets."""
    newest, text = -1, ""
    for path in paths:
        try:
            with open(path, "rb") as stream:
                state = os.fstat(stream.fileno())
                if state.st_size == 0 or state.st_mtime_ns <= newest:
                    continue
                stream.seek(-min(state.st_size, 1024), os.SEEK_END)
                lines = [line.strip() for line in _text(stream.read(1024)).splitlines() if line.strip()]
        except OSError:
            continue
        newest, text = state.st_mtime_ns, lines[-1] if lines else text
    return redact(text).encode("ascii", "backslashreplace").decode("ascii")[:200]


def has_writers(path: str) -> bool:
    """Return whether some process still holds *path* open for writing; ``False`` where nobody can tell.

    The kernel grants a read lease only on a file that nobody has open for writing: cheaper than a walk through /proc.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
