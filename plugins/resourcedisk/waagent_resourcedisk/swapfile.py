"""The swap file on the resource disk: exact size, no holes, never without swap in between (spec/resourcedisk.md §6).

The file is made under another name and gets its own when it is complete, so that what is found under that name is
whole. No swap but this file is ever touched.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from waagent import AgentError

if TYPE_CHECKING:
    from waagent import Agent
    from waagent_resourcedisk.system import System

NAME = "swapfile"
LABEL = "waagent"
SPARE = 256 << 20
"""Bytes that stay free beside the file."""

METHODS: dict[str, tuple[str, ...]] = {
    "ext2": ("write",),  # has no extents to promise
    "ext3": ("write",),
    "ext4": ("allocate", "write"),
    "xfs": ("allocate", "write"),
    "btrfs": ("allocate", "write"),
}
"""How the space is had, by file system, in the order in which it is tried: whether allocated space is good enough is
the kernel's to say, and it says so when the file is switched on. What is not here has no swap files."""

_PIECE = 1 << 20
_MKSWAP_TIMEOUT, _ON_TIMEOUT = 60.0, 60.0
_OFF_TIMEOUT = 7200.0  # all that is swapped is read back
_MAGIC, _MAGIC_AT = b"SWAPSPACE2", 4096 - 10
_NO_COPY = "+C"


def path_in(mount_point: str) -> str:
    """Return where the swap file is."""
    return os.path.join(mount_point, NAME)


def is_in_place(system: System, path: str, size: int) -> bool:
    """Return whether *path* is in use as swap, has *size* bytes, and is readable by root alone."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    private = not found.st_mode & 0o077
    return stat.S_ISREG(found.st_mode) and found.st_size == size and private and system.is_swap(path)


def enable(agent: Agent, system: System, path: str, size_mib: int, filesystem: str) -> None:
    """Make *path* a swap file of exactly *size_mib* MiB that is in use.

    Raises:
        AgentError: size, file system or free space do not allow it, or something else has the name.
        CommandError: ``mkswap``, ``swapon`` or ``swapoff`` failed. An old swap file stays in use then.
    """
    if size_mib <= 0:
        raise AgentError(f"Invalid swap size [{size_mib}]")
    if filesystem not in METHODS:
        raise AgentError(f"no swap file is made on {filesystem}")
    size = size_mib << 20
    draft = path + ".new"
    _tidy(agent, system, path, draft, size)
    old = _existing(path, draft)
    active = old is not None and system.is_swap(path)
    if old is not None and old.st_size == size:
        os.chmod(path, 0o600)
        if active or agent.run(("swapon", path), timeout=_ON_TIMEOUT).ok:
            _told(agent, path, size)
            return
    active = _make_room(agent, path, old, size, active)
    for way in METHODS[filesystem]:
        try:
            _fill(agent, draft, path, size, filesystem, _FILLERS[way])
            agent.run(("mkswap", "-L", LABEL, draft), timeout=_MKSWAP_TIMEOUT, check=True)
            if not active:
                os.rename(draft, path)
            done = agent.run(("swapon", draft if active else path), timeout=_ON_TIMEOUT)
        except BaseException:
            _unlink(draft)
            raise
        if done.ok:
            break
        _unlink(draft if active else path)
        if way == METHODS[filesystem][-1]:
            raise AgentError(done.describe())
        agent.log.info(f"The kernel does not take {path} with allocated space; it is written in full")
    if active:
        _replace(agent, system, path, draft)
    _told(agent, path, size)


def _told(agent: Agent, path: str, size: int) -> None:
    agent.log.info(f"Enabled {size >> 10}KB of swap at {path}")


def _existing(path: str, draft: str) -> os.stat_result | None:
    """Return what is at *path*, ``None`` when nothing is.

    Raises:
        AgentError: it is something that this plugin never made.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    names = 2 if _is_same(path, draft) else 1
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != names:
        raise AgentError(f"{path} is no regular file of its own: it is left alone")
    with open(path, "rb") as stream:
        stream.seek(_MAGIC_AT)
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise AgentError(f"{path} is no swap file: it is left alone")
    return found


def _is_same(path: str, draft: str) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.lstat(draft))
    except OSError:
        return False


def _tidy(agent: Agent, system: System, path: str, draft: str, size: int) -> None:
    """Deal with a draft that is there: one in use takes its place or goes, any other is what a killed run left."""
    if not os.path.lexists(draft):
        return
    if not system.is_swap(draft):
        os.unlink(draft)
    elif _is_same(path, draft):
        if os.lstat(draft).st_size != size:
            # The new file needs the name, which the kernel holds on to while the file is in use.
            _off(agent, draft)
            os.unlink(draft)
            agent.run(("swapon", path), timeout=_ON_TIMEOUT, check=True)
    elif os.lstat(draft).st_size == size:
        _replace(agent, system, path, draft)
    else:
        _off(agent, draft)
        os.unlink(draft)


def _make_room(agent: Agent, path: str, old: os.stat_result | None, size: int, active: bool) -> bool:
    """See to it that the new file fits; the old one only goes first where both do not fit beside each other.

    Returns:
        Whether the old file is still in use.

    Raises:
        AgentError: it does not fit at all.
        CommandError: memory does not take back what is swapped out: the old file stays.
    """
    free = _free(path)
    if free >= size + SPARE:
        return active
    before = old.st_blocks * 512 if old is not None else 0
    if free + before < size + SPARE:
        room = (free + before) >> 20
        raise AgentError(f"{size >> 20} MiB of swap and {SPARE >> 20} MiB to spare do not fit into {room} MiB")
    if active:
        _off(agent, path)
    os.unlink(path)
    return False


def _replace(agent: Agent, system: System, path: str, draft: str) -> None:
    """Let the draft, which is in use, take the old file's place: memory never runs short in between.

    The kernel refuses to rename or remove a file that it swaps to, but gives it a second name. The first one goes when
    the file is next found out of use, at the latest after a restart of the machine.
    """
    if system.is_swap(path):
        try:
            _off(agent, path)
        except BaseException:
            agent.run(("swapoff", draft), timeout=_OFF_TIMEOUT)
            _unlink(draft)
            raise
    _unlink(path)
    os.link(draft, path)


def _off(agent: Agent, path: str) -> None:
    agent.run(("swapoff", path), timeout=_OFF_TIMEOUT, check=True)


def _fill(
    agent: Agent, draft: str, path: str, size: int, filesystem: str, filler: Callable[[Agent, int, str, int], None]
) -> None:
    descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        if filesystem == "btrfs":
            # It copies on writing, which swap cannot have; only an empty file can be told otherwise.
            agent.run(("chattr", _NO_COPY, draft), timeout=20, check=True)
        filler(agent, descriptor, path, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _allocate(agent: Agent, descriptor: int, path: str, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as problem:
        if problem.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        _write(agent, descriptor, path, size)


def _write(agent: Agent, descriptor: int, path: str, size: int) -> None:
    """Write zeros from the beginning to the end, and say how far it is."""
    zeros = memoryview(bytes(_PIECE))
    written = told = 0
    while written < size:
        if agent.stopping.is_set():
            raise AgentError("the agent was asked to stop while it wrote the swap file")
        written += os.write(descriptor, zeros[: size - written])
        quarter = written * 4 // size
        if quarter > told:
            told = quarter
            agent.log.info(f"Swap file {path}: {told * 25} % written")


_FILLERS = {"allocate": _allocate, "write": _write}


def _free(path: str) -> int:
    found = os.statvfs(os.path.dirname(path))
    return found.f_bavail * found.f_frsize


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
