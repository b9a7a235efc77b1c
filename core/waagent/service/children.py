"""Start, name and end the supervisor's own children (posix_spawn, no subprocess module). Standard library alone."""

from __future__ import annotations

import fcntl
import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_ABOVE = 20
"""Our ends of pipes live above this number, so that placing one in a child never lands on another."""

_DEFAULTS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGPIPE,
    signal.SIGTERM,
    signal.SIGCHLD,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


class Child:
    """A process of ours that has not been waited for, so its number cannot belong to anybody else yet."""

    __slots__ = ("name", "pid", "started")

    def __init__(self, name: str, pid: int, started: float) -> None:
        self.name = name
        self.pid = pid
        self.started = started

    def signal(self, signum: int) -> None:
        """Send *signum*; a child that just died takes it without complaint."""
        try:
            os.kill(self.pid, signum)
        except ProcessLookupError:
            pass


def pipe() -> tuple[int, int]:
    """Return read and write end of a new pipe, both closed in children and numbered high.

    Raises:
        OSError: this process or the system has no descriptor left; none is lost.
    """
    low = os.pipe()
    high: list[int] = []
    try:
        for end in low:
            high.append(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _ABOVE))  # noqa: PERF401 - kept when the next fails
    except OSError:
        for end in high:
            os.close(end)
        raise
    finally:
        for end in low:
            os.close(end)
    return high[0], high[1]


def spawn(argv: list[str], environ: Mapping[str, str], descriptors: Mapping[int, int]) -> int:
    """Start *argv* in a process group of its own and return its pid.

    Args:
        argv: program and arguments.
        environ: its whole environment.
        descriptors: number in the child → descriptor of ours that it gets there (besides 0, 1, 2).

    Raises:
        OSError: the program cannot be started.
    """
    actions = [(os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in descriptors.items()]
    return os.posix_spawn(argv[0], argv, environ, file_actions=actions, setpgroup=0, setsigmask=[], setsigdef=_DEFAULTS)


def describe(status: int) -> str:
    """Return a wait status in words: ``exit code 1`` or ``signal 9 (SIGKILL)``."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
    return f"signal {-code} ({name})"
