"""File systems as data: how their ``mkfs`` wants to be called, and which ones a disk may carry."""

from __future__ import annotations

import re

LABEL = "azure-resource"
"""The label of what is made here."""

_SHORT = "azure-res"

MAKING: dict[str, tuple[str, ...]] = {
    "ext2": ("-F", "-L", LABEL),
    "ext3": ("-F", "-L", LABEL),
    "ext4": ("-F", "-L", LABEL),
    "xfs": ("-f", "-L", _SHORT),  # twelve letters at most
    "btrfs": ("-f", "-L", LABEL),
    "f2fs": ("-f", "-l", LABEL),
    "bcachefs": ("--force", "-L", LABEL),
    "exfat": ("-L", _SHORT),
    "vfat": ("-n", "AZURE-RES"),  # -F would be the size of the table
    "jfs": ("-q", "-L", LABEL),
    "nilfs2": ("-f", "-L", LABEL),
    "reiserfs": ("-ff", "-l", LABEL),
}
"""Arguments of ``mkfs.<name>`` before the device; one that is not here is called with the device alone."""

NEVER_MADE = frozenset(("ntfs", "cramfs", "erofs", "squashfs", "bfs", "swap", "iso9660", "udf"))
"""Never made by the agent: images that cannot be written to, and NTFS, which means "do not format" (§11 rule 8)."""

MOUNTABLE = frozenset(("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "exfat", "vfat", "jfs", "nilfs2", "reiserfs",
                       "bcachefs", "ufs"))  # fmt: skip
"""Signatures that are file systems a person may keep data on. Whatever is not here is foreign: it is left alone."""

NTFS_TYPES = frozenset(("7", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"))
RESERVED_TYPES = frozenset(("e3c9e316-0b5c-4db8-817d-f92df00215ae",))
LINUX_TYPES = frozenset(("83", "0fc63daf-8483-4772-8e79-3d69d8477de4"))
BSD_TYPES = frozenset(("a5", "a6", "516e7cb6-6ecf-11d6-8ff8-00022d09712b"))
"""Types of partitions that are the system's own: Linux's (also what the agent makes), FreeBSD's and OpenBSD's."""

TABLE_TYPES = {"gpt": "0FC63DAF-8483-4772-8E79-3D69D8477DE4", "dos": "83"}
LARGEST_MBR = 2 << 40
"""Bytes; a larger disk gets a GPT."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}\Z")


def may_be_made(filesystem: str) -> bool:
    """Return whether *filesystem* is a name that ``mkfs.`` may be put before."""
    return _NAME.match(filesystem) is not None and filesystem not in NEVER_MADE
