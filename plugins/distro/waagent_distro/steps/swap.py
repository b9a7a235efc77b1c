"""The swap file on the resource disk (spec/resourcedisk.md §6.3)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waagent import AgentError
from waagent_distro.steps import mounts, textfiles

if TYPE_CHECKING:
    from waagent import Agent

LABEL = "waagent"
SPARE = 256 << 20
"""Bytes that stay free beside the file."""

_ZEROS = bytes(1 << 20)
_OFF_TIMEOUT = 7200.0  # all that is swapped is read back
_PLAIN = frozenset(("ext2", "ext3", "ext4", "xfs"))


def enable(agent: Agent, path: str, size_mib: int) -> bool:
    """Make *path* a swap file of exactly *size_mib* MiB and use it. Other swap is not touched.

    The file is written in full: one with holes, or with space that is only promised, is no swap file to the kernel.

    Raises:
        AgentError: the size, the file system or the free space do not allow it.
        CommandError: ``mkswap`` or ``swapon`` failed; the half file is gone.
    """
    if size_mib <= 0:
        raise AgentError(f"Invalid swap size [{size_mib}]")
    size = size_mib << 20
    kind = _file_system(agent, os.path.dirname(path))
    if kind not in _PLAIN and kind != "btrfs":
        raise AgentError(f"no swap file is made on {kind or 'an unknown file system'}")
    _remove_drafts(path)
    active = _is_active(agent, path)
    there = os.path.lexists(path)
    if there and (os.path.islink(path) or not os.path.isfile(path)):
        raise AgentError(f"{path} is no regular file")
    if there and os.path.getsize(path) == size:
        os.chmod(path, 0o600)
        if active or agent.run(("swapon", path), timeout=60).ok:
            return True
    _make_room(agent, path, size, active)
    _replace(agent, path, size, kind)
    agent.log.info(f"Enabled {size >> 10}KB of swap at {path}")
    return True


def _make_room(agent: Agent, path: str, size: int, active: bool) -> None:
    """See to it that the file fits; an old one only goes first where both do not fit."""
    free = _free(path)
    if free >= size + SPARE:
        return
    old = os.stat(path).st_blocks * 512 if os.path.exists(path) else 0
    if free + old < size + SPARE:
        raise AgentError(f"{size >> 20} MiB of swap do not fit beside {SPARE >> 20} MiB that stay free")
    if active:
        agent.run(("swapoff", path), timeout=_OFF_TIMEOUT, check=True)
    textfiles.remove(path)


def _replace(agent: Agent, path: str, size: int, kind: str) -> None:
    draft = f"{path}.{os.urandom(4).hex()}.new"
    try:
        _write(agent, draft, size, kind)
        agent.run(("mkswap", "-L", LABEL, draft), timeout=60, check=True)
        # The kernel lets nobody rename or delete a file that is in use as swap. Where the old one cannot be given up,
        # because memory is short, it stays.
        if _is_active(agent, path):
            agent.run(("swapoff", path), timeout=_OFF_TIMEOUT, check=True)
        os.rename(draft, path)
        agent.run(("swapon", path), timeout=60, check=True)
    except BaseException:
        textfiles.remove(draft)
        if os.path.exists(path) and not _is_active(agent, path):
            textfiles.remove(path)
        raise


def _write(agent: Agent, path: str, size: int, kind: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb", buffering=0) as stream:
        os.fchmod(stream.fileno(), 0o600)
        if kind == "btrfs":  # copies on writing, which the kernel refuses for swap; only an empty file can be told
            agent.run(("chattr", "+C", path), check=True)
        told = 0
        for written in range(len(_ZEROS), size + 1, len(_ZEROS)):
            if agent.stopping.is_set():
                raise AgentError("the agent was asked to stop while it wrote the swap file")
            stream.write(_ZEROS)
            quarter = written * 4 // size
            if quarter > told:
                told = quarter
                agent.log.info(f"Swap file {path}: {told * 25} % written")
        os.fsync(stream.fileno())


def _is_active(agent: Agent, path: str) -> bool:
    try:
        wanted = os.stat(path)
    except OSError:
        return False
    for name in mounts.swaps(agent):
        try:
            if os.path.samestat(os.stat(name), wanted):
                return True
        except OSError:
            continue
    return False


def _file_system(agent: Agent, directory: str) -> str:
    place = os.path.realpath(directory)
    best = ""
    kind = ""
    for mount in mounts.table(agent):
        inside = place == mount.point or place.startswith(mount.point.rstrip("/") + "/")
        if inside and len(mount.point) >= len(best):
            best, kind = mount.point, mount.kind
    return kind


def _free(path: str) -> int:
    found = os.statvfs(os.path.dirname(path))
    return found.f_bavail * found.f_frsize


def _remove_drafts(path: str) -> None:
    """Delete what an attempt that was killed left behind; it never was in use."""
    directory, name = os.path.split(path)
    for entry in os.listdir(directory):
        if entry.startswith(name + ".") and entry.endswith(".new"):
            textfiles.remove(os.path.join(directory, entry))
