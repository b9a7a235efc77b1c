"""Steps that FreeBSD and OpenBSD share. Nothing here looks into ``/proc`` or ``/sys``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from waagent import AgentError

if TYPE_CHECKING:
    from waagent import Agent

_MOUNT = re.compile(r"(\S+) on (.+?) (?:type (\w+) )?\((\w+)")
_TRIES, _PAUSE = 5, 5.0
_SYSTEM = ("/", "/boot", "/boot/efi", "/usr", "/var")
_SPARE = 256 << 20
_PIECE = bytes(1 << 20)


def mount_table(agent: Agent) -> list[tuple[str, str, str]]:
    """Return what is mounted, as (device, mount point, file system)."""
    found = []
    for line in agent.run(("mount",), check=True).stdout.splitlines():
        match = _MOUNT.match(line)
        if match:  # OpenBSD writes "type ffs (local)", FreeBSD "(ufs, local)"
            found.append((match.group(1), match.group(2), match.group(3) or match.group(4)))
    return found


def mounts_of(agent: Agent, device: str, partition: str) -> list[tuple[str, str]]:
    """Return (device, mount point) of what of a disk is mounted, the system's places first.

    Args:
        agent: runs ``mount``.
        device: the disk; ``da1`` is no part of ``da10``.
        partition: an expression for what follows in the names of its partitions.
    """
    name = re.compile(re.escape(device) + partition)
    found = [(source, point) for source, point, _kind in mount_table(agent) if name.fullmatch(source)]
    return sorted(found, key=lambda one: one[1] not in _SYSTEM)


def mounted_at(agent: Agent, mount_point: str) -> str:
    """Return the device at *mount_point*, empty when there is none."""
    return next((device for device, point, _kind in reversed(mount_table(agent)) if point == mount_point), "")


def mount_media(agent: Agent, device: str, mount_point: str, kinds: Sequence[str]) -> bool:
    """Mount optical media read-only, as the first of *kinds* that works; five times, five seconds apart.

    Raises:
        AgentError: it cannot be mounted.
    """
    taken = mounted_at(agent, mount_point)
    if taken:
        if taken == device:
            return True
        raise AgentError(f"{mount_point} is taken by {taken}")
    problem = ""
    for attempt in range(_TRIES):
        if attempt and agent.stopping.wait(_PAUSE):
            break
        for kind in kinds:
            done = agent.run(("mount", "-o", "ro,nosuid,noexec", "-t", kind, device, mount_point), timeout=10)
            if done.ok:
                return True
            problem = done.describe()
    raise AgentError(f"cannot mount {device}: {problem}")


def unmount(agent: Agent, mount_point: str) -> bool:
    """Unmount what is at *mount_point*.

    Raises:
        CommandError: it is busy.
    """
    if mounted_at(agent, mount_point):
        agent.run(("umount", mount_point), check=True)
    return True


def machine(agent: Agent) -> dict[str, str | int]:
    """Return memory, processors and architecture."""
    done = agent.run(("sysctl", "-n", "hw.physmem", "hw.ncpu"), check=True)
    memory, processors = (int(word) for word in done.stdout.split()[:2])
    return {"memory_mib": memory >> 20, "processors": processors, "architecture": os.uname().machine}


def dhcp_processes(agent: Agent) -> tuple[int, ...]:
    """Return the ids of ``dhclient``."""
    done = agent.run(("pgrep", "-x", "dhclient"))
    return tuple(sorted(int(word) for word in done.stdout.split() if word.isdigit()))


def write_swap_file(agent: Agent, path: str, size_mib: int) -> bool:
    """Write a file of zeros for swap; return ``False`` when one of that size is there already.

    Raises:
        AgentError: the size is none, there is no room, or the name is taken by something else.
    """
    if size_mib <= 0:
        raise AgentError(f"Invalid swap size [{size_mib}]")
    size = size_mib << 20
    if os.path.lexists(path):
        if os.path.islink(path) or not os.path.isfile(path):
            raise AgentError(f"{path} is no regular file")
        if os.path.getsize(path) == size:
            os.chmod(path, 0o600)
            return False
        os.unlink(path)
    place = os.statvfs(os.path.dirname(path))
    if place.f_bavail * place.f_frsize < size + _SPARE:
        raise AgentError(f"{size_mib} MiB of swap and {_SPARE >> 20} MiB to spare do not fit beside {path}")
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        written = 0
        while written < size:
            if agent.stopping.is_set():
                raise AgentError("the agent was asked to stop while it wrote the swap file")
            written += os.write(descriptor, _PIECE[: size - written])
        os.fsync(descriptor)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)
    return True
