"""Wait for the end of a process that may be nobody's child, and be woken meanwhile (measured.md §5)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
import time
from collections.abc import Callable


class Wake:
    """Interrupts a wait from another thread: something new is there, or the agent stops."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def set(self) -> None:
        """Wake whoever waits; one that comes to wait later returns at once."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"\0")

    def clear(self) -> None:
        """Forget earlier calls of :meth:`set`."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read, 4096):
                pass

    def fileno(self) -> int:
        """Return the descriptor that is readable while a wake-up is pending."""
        return self._read

    def wait(self, seconds: float) -> bool:
        """Wait until woken, at most *seconds*; return whether woken."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        woken = bool(poll.poll(_milliseconds(seconds)))
        self.clear()
        return woken

    def close(self) -> None:
        """Give the descriptors back."""
        os.close(self._read)
        os.close(self._write)


class EndWatch:
    """A descriptor that becomes readable when the holder of a lock file ends.

    Args:
        lock_path: the file whose ``flock`` the process holds as long as it lives.
        pid: its process id when known: then a pidfd does, where the kernel has them; otherwise a thread that blocks in
            ``flock``.
    """

    def __init__(self, lock_path: str, pid: int | None, *, own_child: bool = False) -> None:
        self._lock_path = lock_path
        self._fd = -1
        if pid is not None:
            self._fd = _pidfd(pid)
            # A stranger's number may have been given to another process: it is the right one while the lock is held.
            if self._fd >= 0 and not own_child and not is_locked(lock_path):
                os.close(self._fd)
                self._fd = -1
        if self._fd < 0:
            self._fd, write_end = os.pipe2(os.O_CLOEXEC)
            threading.Thread(target=self._block, args=(write_end,), name="command-watch", daemon=True).start()

    def _block(self, write_end: int) -> None:
        try:
            with open(self._lock_path, "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            pass  # the directory is gone: nobody can hold it
        finally:
            os.close(write_end)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def close(self) -> None:
        """Give the descriptor back; a blocked thread ends with the command."""
        os.close(self._fd)


def _pidfd(pid: int) -> int:
    if not hasattr(os, "pidfd_open"):
        return -1
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def is_locked(path: str) -> bool:
    """Return whether some process holds the lock on *path*."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def wait_readable(fd: int, wake_fd: int | None, seconds: float) -> tuple[bool, bool]:
    """Wait for *fd* or *wake_fd*, at most *seconds*; return which of them is readable."""
    poll = select.poll()
    poll.register(fd, select.POLLIN | select.POLLHUP)
    if wake_fd is not None:
        poll.register(wake_fd, select.POLLIN)
    ready = {descriptor for descriptor, _ in poll.poll(_milliseconds(seconds))}
    return fd in ready, wake_fd in ready


def _milliseconds(seconds: float) -> int:
    return min(max(int(seconds * 1000) + 1, 0), 3_600_000) if seconds > 0 else 0


def session_members(session: int) -> list[int]:
    """Return the living processes of a session; empty where ``/proc`` cannot tell."""
    found = []
    try:
        entries = os.listdir("/proc")
    except OSError:
        return []
    for entry in entries:
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as stream:
                # The name may hold anything; what follows its last parenthesis is state, ppid, pgrp, session.
                fields = stream.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if len(fields) > 3 and fields[0] not in (b"Z", b"X") and int(fields[3]) == session:
            found.append(int(entry))
    return found


def wait_for_strangers(pids: list[int], wake: Callable[[], bool], seconds: float) -> None:
    """Wait until one of *pids* ended, *wake* says so, or *seconds* passed."""
    watched = [fd for fd in (_pidfd(pid) for pid in pids) if fd >= 0]
    poll = select.poll()
    for fd in watched:
        poll.register(fd, select.POLLIN)
    try:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not wake():
            # Half a minute at most between two looks where no pidfd can be had: nobody hurries for a lost command.
            if poll.poll(_milliseconds(min(deadline - time.monotonic(), 30.0 if watched else 1.0))) or not watched:
                return
    finally:
        for fd in watched:
            os.close(fd)
