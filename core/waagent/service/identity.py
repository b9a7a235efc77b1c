"""Who a process number belongs to: it may have passed to a stranger (service §1.5). Standard library alone."""

from __future__ import annotations

import os
import signal


def start_time(pid: int) -> str | None:
    """Return when *pid* started, in clock ticks since boot as text; ``None`` when it is gone or nobody can say."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            fields = stream.read().rpartition(b")")[2].split()
    except OSError:
        return None
    # A zombie is dead already: only its parent can do anything about it.
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return None
    return fields[19].decode("ascii")


def kill(pid: int, started: str, signum: int = signal.SIGKILL) -> bool:
    """Signal *pid* only if it is still the process that began at *started*; returns whether it was.

    Where the kernel has pidfds the check and the signal meet the same process for certain.
    """
    if pid <= 1 or not started:
        return False
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        descriptor = -1
    try:
        if start_time(pid) != started:
            return False
        if descriptor >= 0:
            signal.pidfd_send_signal(descriptor, signum)
        else:
            os.kill(pid, signum)
    except OSError:
        return False
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return True
