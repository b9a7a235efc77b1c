"""The file that tells whoever finds the disk what it is for (spec/resourcedisk.md §5)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waagent import write_atomic

if TYPE_CHECKING:
    from waagent import Agent

NAME = "DATALOSS_WARNING_README.txt"
TEXT = """\
WARNING: THIS IS A TEMPORARY DISK.

This is the VM's temporary disk. Its contents disappear when the VM is stopped, resized, moved or repaired, and cannot
be brought back. Do not keep personal or application data here: only what you can afford to lose.

See the Azure documentation on temporary disks:
https://learn.microsoft.com/azure/virtual-machines/managed-disks-overview#temporary-disk
"""


def write(agent: Agent, mount_point: str) -> None:
    """Write the file anew; a failure is a line in the log."""
    path = os.path.join(mount_point, NAME)
    try:
        write_atomic(path, TEXT, 0o644, durable=False)
    except OSError as problem:
        agent.log.warning(f"{path} cannot be written: {problem}")
