"""The provisioning media: found, mounted, ejected (spec/provisioning.md §4)."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from waagent import AgentError
from waagent_distro.steps import mounts

if TYPE_CHECKING:
    from waagent import Agent

PATTERNS = ("sr[0-9]+", "hd[c-z]", "cdrom[0-9]+", "cd[0-9]+", "vd[b-z]")
"""Names of devices that may be optical drives, the likeliest first; whole names, so that ``vdb1`` is none."""

FILE_SYSTEMS = ("udf", "iso9660")
_ALREADY = "already mounted"


def find(agent: Agent, patterns: Sequence[str] = PATTERNS, but: Collection[str] = ()) -> str:
    """Return the likeliest device that may hold provisioning data, none of *but*; empty when there is no other.

    A disk that may be somebody's data (``vd*``) is only taken when its file system is one of optical media.
    """
    try:
        names = os.listdir(agent.paths.at("/dev"))
    except OSError:
        return ""
    for pattern in patterns:
        for name in sorted(filter(re.compile(pattern + r"\Z").match, names), key=_natural):
            device = "/dev/" + name
            if agent.paths.at(device) in but:
                continue
            if not name.startswith("vd") or _is_optical(agent, device):
                return agent.paths.at(device)
    return ""


def mount(
    agent: Agent,
    device: str,
    mount_point: str,
    types: str = "udf,iso9660,vfat",
    options: str = "ro,nodev,noexec,nosuid",
) -> bool:
    """Mount *device* read-only; one try: whoever looks for a medium goes on to the next drive, and comes back.

    Raises:
        AgentError: it cannot be mounted; says why, and when the cause is a kernel without UDF.
    """
    found = mounts.device_at(agent, mount_point)
    if found and mounts.same_device(found, device):
        return True
    if found:
        raise AgentError(f"{mount_point} is taken by {found}")
    done = agent.run(("mount", "-o", options, "-t", types, device, mount_point), timeout=20)
    if done.ok or (_ALREADY in done.stderr + done.stdout and mounts.device_at(agent, mount_point)):
        return True
    raise AgentError(f"cannot mount {device}: {done.describe()}{_hint(agent)}")


def unmount(agent: Agent, mount_point: str) -> bool:
    """Unmount what is mounted at *mount_point*.

    Raises:
        CommandError: it is busy.
    """
    if mounts.device_at(agent, mount_point):
        agent.run(("umount", mount_point), check=True)
    return True


def eject(agent: Agent, device: str) -> bool:
    """Eject the media; a virtual disk cannot be ejected, which is no failure.

    Raises:
        CommandError: the drive does not obey.
    """
    if os.path.basename(device).startswith("vd"):
        return True
    if not _eject_directly(agent, device):
        agent.run(("eject", device), check=True)
    return True


def _eject_directly(agent: Agent, device: str) -> bool:
    """Ask the kernel's driver itself: many images carry no ``eject``."""
    if not agent.paths.is_real or not os.path.exists(device):
        return False
    import fcntl

    cdrom_lock_door, cdrom_eject = 0x5329, 0x5309
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.ioctl(descriptor, cdrom_lock_door, 0)
        fcntl.ioctl(descriptor, cdrom_eject, 0)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _natural(name: str) -> tuple[int, str]:
    """Order ``sr2`` before ``sr10``; all names of one pattern begin alike."""
    return len(name), name


def _is_optical(agent: Agent, device: str) -> bool:
    done = agent.run(("blkid", "-p", "-s", "TYPE", "-o", "value", device))
    return done.ok and done.stdout.strip() in FILE_SYSTEMS


def _hint(agent: Agent) -> str:
    try:
        with open(agent.paths.at("/proc/filesystems"), encoding="ascii", errors="replace") as stream:
            known = stream.read().split()
    except OSError:
        return ""
    if "udf" in known:
        return ""
    return "; the kernel has no UDF loaded: look for 'install udf' in /etc/modprobe.d"
