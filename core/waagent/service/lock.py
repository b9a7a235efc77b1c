"""One holder per role: an flock that dies with its process, with the holder's name inside (ruling 19c).

Standard library alone.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time

from waagent.files import ensure_dir, move_aside
from waagent.service import identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Lock:
    """The lock file at *path*, which holds ``<pid> <start time>`` of its holder.

    The kernel releases it however the holder dies, so a number that was left behind, garbage in the file or a pid
    that another process has got since mean nothing.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor = -1

    def acquire(self) -> bool:
        """Take the lock; ``False`` when another process holds it.

        Raises:
            OSError: the lock can be neither made nor replaced by a lock on its directory.
        """
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            os.close(descriptor)
            if problem.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise
        self._descriptor = descriptor
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {identity.start_time(os.getpid()) or '-'}\n".encode("ascii"), 0)
        except OSError:
            pass  # a full disk, or the directory stands in: the lock holds all the same
        return True

    def _open(self) -> int:
        directory = os.path.dirname(self.path)
        try:
            ensure_dir(directory, 0o755)
            return os.open(self.path, _FLAGS, 0o600)
        except OSError as problem:
            if problem.errno in (errno.EISDIR, errno.ELOOP, errno.ENXIO):  # something else in the lock's place
                move_aside(self.path)
                return os.open(self.path, _FLAGS, 0o600)
            if problem.errno in (errno.EEXIST, errno.ENOTDIR):  # or in its directory's
                move_aside(directory)
                ensure_dir(directory, 0o755)
                return os.open(self.path, _FLAGS, 0o600)
            if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                return os.open(directory, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
            raise

    def free(self) -> bool:
        """Return whether nobody holds the lock now."""
        if not self.acquire():
            return False
        self.release()
        return True

    def holder(self) -> tuple[int, str] | None:
        """Return pid and start time that the present holder wrote; ``None`` when that cannot be read."""
        try:
            with open(self.path, "rb") as stream:
                pid, _, started = stream.read(64).decode("ascii").strip().partition(" ")
            return (int(pid), started) if int(pid) > 1 else None
        except (OSError, ValueError):
            return None

    def acquire_or_take_over(
        self,
        patience: float = 10.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> str | None:
        """Take the lock, waiting *patience* seconds for its holder to go and then killing it (pid and start time).

        Returns:
            ``None``, or a line that says who was killed.

        Raises:
            TimeoutError: the holder cannot be told from a stranger, or does not die.
        """
        deadline = clock() + patience
        while not self.acquire():
            if clock() >= deadline:
                break
            sleep(0.05)
        else:
            return None
        holder = self.holder()
        if holder is None or not identity.kill(*holder):
            if self.acquire():
                return None
            raise TimeoutError(f"{self.path} is held by another process for more than {patience:.0f} s: {holder}")
        deadline = clock() + 5.0
        while not self.acquire():
            if clock() >= deadline:
                raise TimeoutError(f"{self.path} is still held by process {holder[0]} after it was killed")
            sleep(0.05)
        return f"killed process {holder[0]}, which still held {self.path} after {patience:.0f} s"

    def release(self) -> None:
        """Give the lock back; the file stays, because removing it would let two processes lock two files."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
