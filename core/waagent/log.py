"""The agent's log: one line format, one file, nothing secret (cli §7.2, §7.3). Standard library alone."""

from __future__ import annotations

import os
import sys
import time
from _thread import allocate_lock  # threading.Lock, without the module that the supervisor has no other use for

from waagent.redaction import redact

TYPE_CHECKING = False  # the resident supervisor does without the typing module
if TYPE_CHECKING:
    from collections.abc import Callable

VERBOSE, INFO, WARNING, ERROR = 0, 1, 2, 3
_NAMES = ("VERBOSE", "INFO", "WARNING", "ERROR")
_PRIORITY = (7, 6, 4, 3)
SIZE_GUARD = 100 << 20
"""A log that nothing rotates is cut to its last :data:`SIZE_KEPT` bytes at this size (service §8)."""
SIZE_KEPT = 20 << 20
GROUPS = "/etc/group"
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


def timestamp(now: float | None = None) -> str:
    """Return *now* (seconds since the epoch, default the present) as ``YYYY-MM-DDTHH:MM:SS.ffffffZ``."""
    moment = time.time() if now is None else now
    whole = int(moment // 1)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((moment - whole) * 1e6):06d}Z"


_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), 127) if code not in (9, 10)}


def ascii_text(text: str) -> str:
    """Return *text* as printable ASCII, tabs and newlines: all else as backslash escapes.

    Messages quote what strangers wrote; an escape sequence in it must not reach the terminal of whoever reads the log.
    """
    if not text.isprintable():
        text = text.replace("\r\n", "\n").translate(_CONTROL)
    return text.encode("ascii", "backslashreplace").decode("ascii")


class Sinks:
    """Where lines go; shared by every :class:`Log` of a process."""

    def __init__(self) -> None:
        self.path: str | None = None
        self.stream: object | None = None
        self.stream_is_journal = False
        self.level = INFO
        self.stream_level = INFO
        self.console: str | None = None
        self.lock = allocate_lock()
        self.periodic: dict[str, tuple[float, int]] = {}

    def write(self, level: int, body: str) -> None:
        """Send one finished line body (without time) to every sink that wants *level*; never raises."""
        line = f"{timestamp()} {_NAMES[level]} {body}\n"
        with self.lock:
            if level >= self.level:
                if self.path:
                    self._append(self.path, line, make=True)
                if self.console:
                    self._append(self.console, line)
            if self.stream is not None and level >= self.stream_level:
                text = _journal_text(level, body) if self.stream_is_journal else line
                try:
                    self.stream.write(text)  # type: ignore[attr-defined]
                    self.stream.flush()  # type: ignore[attr-defined]
                except (OSError, ValueError):
                    pass

    def _append(self, path: str, line: str, *, make: bool = False) -> None:
        try:
            try:
                descriptor = os.open(path, _FLAGS)
            except FileNotFoundError:
                if not make:
                    return
                descriptor = _make(path)
            try:
                data = line.encode("ascii", "backslashreplace")
                os.write(descriptor, data)
                if os.fstat(descriptor).st_size > SIZE_GUARD:
                    _cut(path)
            finally:
                os.close(descriptor)
        except OSError:
            pass


def _journal_text(level: int, body: str) -> str:
    # The journal takes each line for an entry of its own: without its mark a continuation would lose the priority, and
    # a quoted line that begins with "<0>" would choose it.
    mark = f"<{_PRIORITY[level]}>"
    return f"{mark}{_NAMES[level]} " + body.replace("\n", f"\n{mark}") + "\n"


def _make(path: str) -> int:
    """Open a new log: 0640 for the group ``adm`` where there is one, else for its owner alone (cli §7.3)."""
    descriptor = os.open(path, _FLAGS | os.O_CREAT, 0o600)
    try:
        group = _readers()
        if group is not None:
            os.fchown(descriptor, -1, group)
            os.fchmod(descriptor, 0o640)
    except OSError:
        pass  # only root gives files away
    return descriptor


def _readers() -> int | None:
    # The file and not the name service: that may be asked over a network which is not there yet.
    with open(GROUPS, "rb") as stream:
        for line in stream:
            words = line.split(b":")
            if words[0] == b"adm" and len(words) > 2 and words[2].isdigit():
                return int(words[2])
    return None


def _cut(path: str) -> None:
    with open(path, "rb") as source, open(path, "r+b") as target:
        source.seek(-SIZE_KEPT, os.SEEK_END)
        source.readline()
        while piece := source.read(1 << 16):
            target.write(piece)
        target.truncate()


class Log:
    """Write lines ``<time> <LEVEL> <thread> <prefix> <message>``.

    A log made with :meth:`bind` shares the sinks and sets another prefix or an extra target file.
    """

    def __init__(self, sinks: Sinks, prefix: str = "", thread: str | None = None) -> None:
        self._sinks = sinks
        self._prefix = prefix
        self._thread = thread
        self.also: Callable[[int, str], None] | None = None

    @property
    def sinks(self) -> Sinks:
        """The sinks of this process."""
        return self._sinks

    def bind(self, prefix: str, thread: str | None = None) -> Log:
        """Return a log with another prefix (and thread word, none when it is empty) on the same sinks."""
        return Log(self._sinks, prefix, self._thread if thread is None else thread)

    def log(self, level: int, message: str) -> None:
        """Write *message*; URLs lose their SAS queries, and whatever is not ASCII is escaped."""
        if level < self._sinks.level and level < self._sinks.stream_level and self.also is None:
            return
        text = ascii_text(redact(message))
        head = " ".join(part for part in (self._thread_word(), self._prefix) if part)
        self._sinks.write(level, f"{head} {text}" if head else text)
        if self.also is not None:
            self.also(level, text)

    def _thread_word(self) -> str:
        # Handler lines carry only their [name-version] prefix: documented greps rely on it (extensions §20).
        if self._prefix.startswith("["):
            return ""
        if self._thread is not None:
            return self._thread
        import threading

        return threading.current_thread().name.replace(" ", "_")

    def verbose(self, message: str) -> None:
        """Write a line for people who look for a fault."""
        self.log(VERBOSE, message)

    def info(self, message: str) -> None:
        """Write a line about something that was done."""
        self.log(INFO, message)

    def warning(self, message: str) -> None:
        """Write a line about something that went wrong and was lived with."""
        self.log(WARNING, message)

    def error(self, message: str) -> None:
        """Write a line about something that failed."""
        self.log(ERROR, message)

    def periodic(self, period: float, key: str, level: int, message: str) -> None:
        """Write *message* unless the same *key* was written within *period* seconds; count what was left out.

        The count of suppressed repeats is appended to the next line that is written.
        """
        now = time.monotonic()
        with self._sinks.lock:
            last, suppressed = self._sinks.periodic.get(key, (float("-inf"), 0))
            if now - last < period:
                self._sinks.periodic[key] = (last, suppressed + 1)
                return
            if len(self._sinks.periodic) >= 1000:
                self._sinks.periodic.clear()
            self._sinks.periodic[key] = (now, 0)
        self.log(level, message + (f" [{suppressed} like this not shown]" if suppressed else ""))


def journal_stream(descriptor: int) -> bool:
    """Return whether *descriptor* is the journal that systemd gave this process (``JOURNAL_STREAM``)."""
    wanted = os.environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return wanted == f"{status.st_dev}:{status.st_ino}"


def make_log(
    prefix: str,
    thread: str | None = None,
    *,
    path: str | None = None,
    verbose: bool = False,
    verbose_file: bool = False,
) -> Log:
    """Return a log that writes to *path* (when given) and to standard error.

    Args:
        prefix: the word before the message (``Daemon``, ``ExtHandler``).
        thread: the thread word; default the name of the thread that writes.
        path: the log file.
        verbose: also write VERBOSE lines, to both (the flag).
        verbose_file: also write VERBOSE lines to the file (``Logs.Verbose``).
    """
    sinks = Sinks()
    sinks.path = path
    sinks.stream = sys.stderr
    sinks.stream_is_journal = journal_stream(2)
    sinks.stream_level = VERBOSE if verbose else INFO
    sinks.level = VERBOSE if verbose or verbose_file else INFO
    return Log(sinks, prefix, thread)
