"""The one way in which the agent runs commands of the operating system (models.md 2.5).

Argument lists only, no shell; a session and process group of their own; a deadline that ends the whole group; standard
input closed or given; output capped with its head and tail kept; an environment without the agent's own variables.
Any thread may call it. Nothing of the ``subprocess`` module is loaded: it costs the resident worker memory, and
``posix_spawn`` is all that is needed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import stat
import time

import attrs

from waagent.errors import CommandError

TYPE_CHECKING = False  # the resident worker does without the typing module
if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

OUTPUT_LIMIT = 64 << 10
GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL for a command that is out of time."""
NOT_STARTED, NOT_FOUND = 126, 127
"""Return codes for a command that cannot be started, as a shell gives them."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OURS = ("MALLOC_ARENA_MAX", "NOTIFY_SOCKET")
_OUR_PREFIXES = ("PYTHON", "WAAGENT_", "WATCHDOG_")
_PIECE = 64 << 10
_STOP_LOOK = 0.5
_unreaped: list[int] = []


@attrs.frozen(eq=False, repr=False)
class Completed:
    """How a command ended.

    Attributes:
        argv: as started.
        returncode: the exit status; negative: the signal that ended it; 127 when there is no such command and 126
            when it cannot be started (then ``stderr`` says why).
        stdout: what it printed, bad bytes replaced; the middle is left out when it was too much.
        stderr: likewise.
        seconds: how long it ran.
        timed_out: it was ended because it was out of time.
    """

    argv: tuple[str, ...]
    returncode: int
    stdout: str = attrs.field(repr=False)
    stderr: str = attrs.field(repr=False)
    seconds: float = 0.0
    timed_out: bool = False

    @property
    def ok(self) -> bool:
        """Whether it ended with 0 and in time."""
        return self.returncode == 0 and not self.timed_out

    def describe(self) -> str:
        """Return one line for messages: the command, how it ended, and the last line that it printed."""
        line = " ".join(self.argv)
        line = line if len(line) <= 200 else line[:197] + "..."
        if self.timed_out:
            how = f"was ended after {self.seconds:.1f} s"
        elif self.returncode < 0:
            how = f"was ended by signal {-self.returncode}"
        else:
            how = f"ended with {self.returncode}"
        last = (self.stderr.strip() or self.stdout.strip()).rpartition("\n")[2].strip()[:300]
        return f"`{line}` {how}{': ' + last if last else ''}"


def clean_environment(environment: Mapping[str, str] | None = None, **more: str) -> dict[str, str]:
    """Return *environment* (default: this process's) without what is meant for the agent alone, plus *more*.

    Taken out are ``MALLOC_ARENA_MAX``, ``NOTIFY_SOCKET``, ``WATCHDOG_*``, ``WAAGENT_*`` and ``PYTHON*``. ``PATH`` is
    set when it is missing.
    """
    given = os.environ if environment is None else environment
    clean = {key: value for key, value in given.items() if key not in _OURS and not key.startswith(_OUR_PREFIXES)}
    clean.setdefault("PATH", _PATH)
    clean.update(more)
    return clean


def run(
    argv: Sequence[str],
    *,
    timeout: float | None = 30.0,
    input: bytes | str | None = None,  # noqa: A002 - the name that callers know from subprocess
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    output_limit: int = OUTPUT_LIMIT,
    encoding: str = "utf-8",
    check: bool = False,
    stop: threading.Event | None = None,
) -> Completed:
    """Run a command and wait for its end.

    Output of processes that outlive the command is not waited for.

    Args:
        argv: the command and its arguments; never secrets, anybody can read them and messages quote them.
        timeout: seconds; then its whole group gets SIGTERM and, 5 s later, SIGKILL. ``None``: as long as it takes.
        input: for its standard input; ``None``: there is nothing to read.
        env: its whole environment; default :func:`clean_environment`.
        cwd: where it runs.
        output_limit: bytes kept of each stream, half from the beginning and half from the end.
        encoding: of its output; ``latin-1`` keeps every byte as one character.
        check: raise unless it ended with 0 in time.
        stop: ends the command early, as if it were out of time, within a second of being set. For long waits.

    Raises:
        CommandError: only with *check*.
    """
    command = tuple(argv)
    begun = time.monotonic()
    environment = clean_environment() if env is None else dict(env)
    _reap_left_over()
    try:
        started, feed, streams = _spawn(command, environment, cwd, input is not None)
    except (OSError, ValueError) as problem:
        missing = isinstance(problem, (FileNotFoundError, NotADirectoryError))
        text = problem.strerror if isinstance(problem, OSError) and problem.strerror else str(problem)
        done = Completed(command, NOT_FOUND if missing else NOT_STARTED, "", f"cannot be started: {text}")
        returncode = None
    else:
        data = input.encode() if isinstance(input, str) else input or b""
        child = _Child(started, feed, streams, data, output_limit)
        try:
            timed_out = child.serve(None if timeout is None else begun + timeout, stop)
        finally:
            code = child.finish()
        seconds = time.monotonic() - begun
        done = Completed(command, code, child.out[0].text(encoding), child.out[1].text(encoding), seconds, timed_out)
        returncode = None if timed_out else code
    if check and not done.ok:
        raise CommandError(done.describe(), command, returncode, done.stdout + done.stderr)
    return done


class _Kept:
    """The head and the tail of a stream."""

    def __init__(self, limit: int) -> None:
        self._half = max(1, limit // 2)
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out = 0

    def add(self, data: bytes) -> None:
        room = self._half - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        excess = len(self._tail) - self._half
        if excess > 0:
            del self._tail[:excess]
            self._left_out += excess

    def text(self, encoding: str) -> str:
        if not self._left_out:
            return (self._head + self._tail).decode(encoding, "replace")
        gap = f"\n[... {self._left_out} bytes left out ...]\n"
        return self._head.decode(encoding, "replace") + gap + self._tail.decode(encoding, "replace")


class _Child:
    """A started command: feeds it, listens to it, ends it."""

    def __init__(self, pid: int, feed: int | None, streams: tuple[int, int], data: bytes, limit: int) -> None:
        self.pid = pid
        self.out = (_Kept(limit), _Kept(limit))
        self._data = memoryview(data)
        self._feed = feed
        self._open = dict(zip(streams, self.out))
        self._pidfd: int | None = None
        self._ended = False
        self._poll = select.poll()
        for descriptor in self._open:
            self._poll.register(descriptor, select.POLLIN)
        if feed is not None:
            self._poll.register(feed, select.POLLOUT)
        with contextlib.suppress(AttributeError, OSError):
            self._pidfd = os.pidfd_open(pid)
            self._poll.register(self._pidfd, select.POLLIN)

    def serve(self, end: float | None, stop: threading.Event | None = None) -> bool:
        """Exchange data until the command has ended; return whether it had to be ended."""
        if self._wait(end, whole_group=False, stop=stop):
            return False
        self._signal(signal.SIGTERM)
        self._wait(time.monotonic() + GRACE, whole_group=True)
        return True

    def finish(self) -> int:
        """Kill what is left of a command that did not end by itself, close everything, and return the exit code."""
        try:
            if not self._ended or self._overdue:
                self._signal(signal.SIGKILL)
                self._wait(time.monotonic() + GRACE, whole_group=False)
            if self._ended:
                self._drain()
                with contextlib.suppress(ChildProcessError):
                    return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
                return 255  # somebody set SIGCHLD to be ignored: the code is lost
            _unreaped.append(self.pid)  # not even SIGKILL ends what waits for a dead disk
            return -signal.SIGKILL
        finally:
            for descriptor in (*self._open, self._feed, self._pidfd):
                if descriptor is not None:
                    os.close(descriptor)

    _overdue = False

    def _signal(self, signum: int) -> None:
        # The group cannot be another one's by now: its leader is not reaped yet.
        self._overdue = True
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signum)

    def _wait(self, end: float | None, whole_group: bool, stop: threading.Event | None = None) -> bool:
        """Serve until the command has ended, or with *whole_group* also nobody holds its output any more."""
        pause = 0.001
        while True:
            self._look()
            if self._ended and not (whole_group and self._open):
                return True
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                return False
            if stop is not None:
                if stop.is_set():
                    return False
                left = _STOP_LOOK if left is None else min(left, _STOP_LOOK)
            if not self._ended and self._pidfd is None:
                pause = min(pause * 2, 0.05)
                left = pause if left is None else min(left, pause)
            for descriptor, bits in self._poll.poll(None if left is None else int(left * 1000) + 1):
                if descriptor == self._feed:
                    self._write()
                elif descriptor in self._open and bits & ~select.POLLNVAL:
                    self._read(descriptor)

    def _look(self) -> None:
        if self._ended:
            return
        try:
            # Left unreaped: its process id, which is the group's, stays ours.
            self._ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            self._ended = True
        if self._ended and self._pidfd is not None:
            self._poll.unregister(self._pidfd)

    def _read(self, descriptor: int) -> bool:
        try:
            data = os.read(descriptor, _PIECE)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self._open[descriptor].add(data)
            return True
        self._poll.unregister(descriptor)
        del self._open[descriptor]
        os.close(descriptor)
        return False

    def _drain(self) -> None:
        """Read what lies in the pipes; bounded, as a process that outlived the command may go on writing."""
        for descriptor in list(self._open):
            for _ in range(64):
                if not self._read(descriptor):
                    break

    def _write(self) -> None:
        assert self._feed is not None
        try:
            written = os.write(self._feed, self._data[:_PIECE])
        except BlockingIOError:
            return
        except OSError:
            written = len(self._data)  # it does not want the rest
        self._data = self._data[written:]
        if not self._data:
            self._poll.unregister(self._feed)
            os.close(self._feed)
            self._feed = None


def _spawn(
    argv: tuple[str, ...], environment: dict[str, str], cwd: str | None, fed: bool
) -> tuple[int, int | None, tuple[int, int]]:
    """Start *argv*; return its pid, the write end of its standard input and the read ends of its output."""
    if not argv:
        raise ValueError("no command given")
    program = _find(argv[0], environment.get("PATH", _PATH), cwd)
    line = argv
    if cwd is not None:
        if not os.path.isdir(cwd):
            raise OSError(errno.ENOENT, f"no such directory: {cwd}")
        # posix_spawn knows no directory, and changing ours would change that of every thread.
        line = ("sh", "-c", 'cd -- "$1" && shift && exec "$@"', "sh", cwd, program, *argv[1:])
        program = "/bin/sh"
    mine: list[int] = []
    theirs: list[int] = []
    try:
        actions: list[tuple[Any, ...]] = []
        if fed:
            read, write = _pipe(theirs, mine)
            actions.append((os.POSIX_SPAWN_DUP2, read, 0))
        else:
            actions.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
        for number in (1, 2):
            write, _ = _pipe(theirs, mine, reverse=True)
            actions.append((os.POSIX_SPAWN_DUP2, write, number))
        actions.extend((os.POSIX_SPAWN_CLOSE, descriptor) for descriptor in _inheritable())
        pid = _posix_spawn(program, line, environment, actions)
    except BaseException:
        for descriptor in mine:
            os.close(descriptor)
        raise
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    feed = mine.pop(0) if fed else None
    return pid, feed, (mine[0], mine[1])


def _posix_spawn(program: str, argv: tuple[str, ...], environment: dict[str, str], actions: list[Any]) -> int:
    # Python ignores SIGPIPE, and whoever started the agent may have ignored others; commands expect none of that.
    defaults = [number for number in range(1, 32) if number not in (signal.SIGKILL, signal.SIGSTOP)]
    try:
        return os.posix_spawn(
            program, argv, environment, file_actions=actions, setsid=True, setsigmask=[], setsigdef=defaults
        )
    except NotImplementedError:  # a C library without POSIX_SPAWN_SETSID
        return os.posix_spawn(
            program, argv, environment, file_actions=actions, setpgroup=0, setsigmask=[], setsigdef=defaults
        )


def _pipe(theirs: list[int], mine: list[int], reverse: bool = False) -> tuple[int, int]:
    """Make a pipe, one end for the command and one (non-blocking) for us; return (the command's, ours)."""
    ends = os.pipe()
    if reverse:
        ends = (ends[1], ends[0])
    # Above the standard streams, which may be closed in this process: the duplications must not collide.
    try:
        theirs.append(fcntl.fcntl(ends[0], fcntl.F_DUPFD_CLOEXEC, 3))
        mine.append(fcntl.fcntl(ends[1], fcntl.F_DUPFD_CLOEXEC, 3))
    finally:
        for descriptor in ends:
            os.close(descriptor)
    os.set_blocking(mine[-1], False)
    return theirs[-1], mine[-1]


def _inheritable() -> Iterable[int]:
    """Return the descriptors above the standard ones that a new process would get: it shall have none of ours."""
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        numbers = list(range(3, 256))
    for number in numbers:
        if number > 2:
            with contextlib.suppress(OSError):
                if os.get_inheritable(number):
                    yield number


def _find(name: str, path: str, cwd: str | None) -> str:
    """Return the file of command *name*, looked up like a shell does.

    Raises:
        OSError: there is none, or none that may be executed.
    """
    if os.sep in name:
        found = os.path.join(cwd or "", name)
        if not stat.S_ISREG(os.stat(found).st_mode):
            raise PermissionError(errno.EACCES, f"is no regular file: {name}")
        return os.path.abspath(found) if cwd is not None else found
    problem: OSError = FileNotFoundError(errno.ENOENT, f"no such command: {name}")
    for directory in path.split(os.pathsep):
        candidate = os.path.join(directory or os.curdir, name)
        if name and os.path.isfile(candidate):
            if os.access(candidate, os.X_OK):
                return candidate
            problem = PermissionError(errno.EACCES, f"may not be executed: {candidate}")
    raise problem


def _reap_left_over() -> None:
    for pid in list(_unreaped):
        with contextlib.suppress(OSError, ValueError):
            try:
                gone = os.waitpid(pid, os.WNOHANG)[0] == pid
            except ChildProcessError:
                gone = True
            if gone:
                _unreaped.remove(pid)
