"""One provisions at a time: the boot stage, or somebody at a terminal."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from waagent import ensure_dir

if TYPE_CHECKING:
    from waagent import Agent

_NAME = "provisioning.lock"


class Lock:
    """Held from :meth:`acquire` until :meth:`release` or the end of the process, whichever comes first."""

    def __init__(self, agent: Agent) -> None:
        self._path = agent.paths.run(_NAME)
        self._descriptor = -1

    def acquire(self) -> bool:
        """Take the lock; return whether nobody else has it.

        Raises:
            OSError: there can be no lock.
        """
        ensure_dir(os.path.dirname(self._path), 0o755)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let it go."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
