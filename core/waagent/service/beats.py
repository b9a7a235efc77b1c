"""What supervisor, boot stage and worker say to each other on their pipes. Standard library alone."""

from __future__ import annotations

import os
import signal

BEAT_FD = 3
"""In a worker: write end of its heartbeat pipe."""
BOOT_FD = 4
"""In a worker: read end whose end of file says that boot is over; in the boot stage: where it reports that."""

BEAT = b"."
HANDOVER = b"+"
STATUS = b"="
"""First byte of a line on the heartbeat pipe: a beat, "I end on purpose for another version", a status text."""

DONE = b"d"
"""What the boot stage writes when its work is done, however long swap may run on in the same process."""

DUMP_SIGNAL = signal.SIGUSR1
"""The worker's faulthandler writes every thread's stack to ``worker.stacks`` when it gets this signal."""
STACKS = "worker.stacks"
PLUGIN_LIST = "plugins.json"
BOOT_RESULT = "boot.json"
"""Files in the runtime directory: stacks of a hang, the boot stage's list, and how its plans ended."""


def list_identity(path: str) -> str:
    """Return which file lies at *path* now, ``none`` when there is none; a rewritten file is another one.

    The supervisor tells a worker which list was there before the boot stage began: only another one, or one that is
    still right, counts.
    """
    try:
        status = os.stat(path)
    except OSError:
        return "none"
    return f"{status.st_ino}-{status.st_mtime_ns}"
