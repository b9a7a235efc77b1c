"""Partition, format and mount the resource disk (spec/resourcedisk.md §4.2). The caller has decided that it may be."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from waagent import AgentError
from waagent_distro.steps import diskfacts, disks, mounts

if TYPE_CHECKING:
    from waagent import Agent

LABELS = {"xfs": "azure-res"}
LABEL = "azure-resource"
"""The label of what is made here; xfs takes twelve letters."""

_FORCE = {"btrfs": "-f", "xfs": "-f"}
_LINUX = {"dos": "83", "gpt": "0FC63DAF-8483-4772-8E79-3D69D8477DE4"}
_LARGEST_MBR = 2 << 40
_NODE_TRIES, _NODE_PAUSE = 50, 0.5
_MKFS_TIMEOUT = 300.0
_SYSTEM_DIRECTORIES = frozenset(("/", "/boot", "/etc", "/home", "/usr", "/var", "/var/lib", "/root", "/dev", "/proc"))


def make(agent: Agent, device: str, filesystem: str) -> str:
    """Give the disk one partition with a file system; return the partition's device.

    Everything that can be found missing is found before the first write. While it runs the whole disk is locked, which
    keeps udev from looking at half of it.

    Raises:
        AgentError: the tool for this file system is missing, or the disk is in use.
        CommandError: a tool failed.
    """
    if not filesystem.isalnum() or filesystem == "ntfs":
        raise AgentError(f"{filesystem!r} is no file system to make")
    tool = f"mkfs.{filesystem}"
    for program in (tool, "sfdisk", "wipefs"):
        if agent.run((program, "--version" if program != tool else "-V"), timeout=10).returncode == 127:
            raise AgentError(f"{program} is not installed: the disk stays as it is")
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as problem:
            raise AgentError(f"{device} is in use: somebody holds its lock") from problem
        facts = diskfacts.read(agent, device)
        _refuse_used(facts)
        _partition(agent, device, facts)
        partition = _wait_for_partition(agent, device)
        agent.run(("wipefs", "--all", partition), check=True)
        label = ("-L", LABELS.get(filesystem, LABEL))
        agent.log.info(f"Make {filesystem} on {partition}")
        agent.run((tool, _FORCE.get(filesystem, "-F"), *label, partition), timeout=_MKFS_TIMEOUT, check=True)
    finally:
        os.close(descriptor)
    agent.run(("udevadm", "settle", "--timeout=30"), timeout=40)
    return partition


def mount(agent: Agent, partition: str, mount_point: str, options: str | None) -> bool:
    """Mount a file system as the one that it is; when the options are to blame, mount it without and warn.

    Raises:
        AgentError: the mount point belongs to the system or is taken, or it cannot be mounted. It is never formatted.
    """
    check_mount_point(agent, mount_point)
    taken = mounts.at(agent, mount_point)
    if taken is not None:
        if mounts.number_of(partition) == taken.number or mounts.same_device(agent, taken.source, partition):
            return True
        raise AgentError(f"{mount_point} is taken by {taken.source}")
    os.makedirs(mount_point, 0o755, exist_ok=True)
    with_options = ("-o", options) if options else ()
    done = agent.run(("mount", *with_options, partition, mount_point), timeout=30)
    if not done.ok:
        agent.run(("blockdev", "--rereadpt", partition), timeout=5)  # just partitioned, the kernel may be behind
        agent.run(("udevadm", "settle", "--timeout=10"), timeout=15)
        done = agent.run(("mount", *with_options, partition, mount_point), timeout=30)
    if not done.ok and options:
        second = agent.run(("mount", partition, mount_point), timeout=30)
        if second.ok:
            agent.log.warning(f"{partition} is mounted without the options {options!r}: {done.describe()}")
            return True
    if not done.ok:
        raise AgentError(f"cannot mount {partition}, which stays as it is: {done.describe()}")
    return True


def check_mount_point(agent: Agent, mount_point: str) -> None:
    """Refuse a place where a mount would hide the system.

    Raises:
        AgentError: it is such a place, not absolute, or a link.
    """
    place = os.path.normpath(mount_point)
    inner = "/" + os.path.relpath(place, agent.paths.root) if place != agent.paths.root else "/"
    if not mount_point.startswith("/") or inner in _SYSTEM_DIRECTORIES or os.path.islink(place):
        raise AgentError(f"{mount_point} is no place to mount a disk")


def _refuse_used(facts: dict[str, object]) -> None:
    """Look once more, under the lock: the decision is older than that."""
    for name in ("mounted", "holders", "read_only"):
        if facts[name]:
            raise AgentError(f"{facts['device']} is not formatted: {name.replace('_', ' ')} {facts[name]}")


def _partition(agent: Agent, device: str, facts: dict[str, object]) -> None:
    size = facts["size"]
    assert isinstance(size, int)
    kind = "gpt" if facts["table"] == "gpt" or size > _LARGEST_MBR else "dos"
    for name in disks.partitions(agent, device):
        old = os.path.join(os.path.dirname(os.path.realpath(device)), name)
        agent.run(("wipefs", "--all", old), check=True)
    # Where the kernel still has the old partitions it may refuse new ones that overlap them.
    agent.run(("partx", "--delete", device), timeout=20)
    script = f"label: {kind}\nstart=1MiB, type={_LINUX[kind]}\n"
    agent.log.info(f"Write a table of partitions ({kind}) on {device}")
    command = ("sfdisk", "--quiet", "--wipe", "always", "--wipe-partitions", "always", device)
    agent.run(command, input=script.encode(), timeout=60, check=True)


def _wait_for_partition(agent: Agent, device: str) -> str:
    name = disks.partition_name(disks.kernel_name(device), 1)
    partition = os.path.join(os.path.dirname(os.path.realpath(device)), name)
    # The kernel may be behind, or know nothing of such tables: partx tells it what the table says.
    agent.run(("partx", "--update", device), timeout=20)
    for attempt in range(_NODE_TRIES):
        if os.path.exists(partition):
            return partition
        if attempt % 10 == 9:
            agent.run(("blockdev", "--rereadpt", device), timeout=20)
            agent.run(("partx", "--update", device), timeout=20)
        agent.stopping.wait(_NODE_PAUSE)
    raise AgentError(f"Partition was not created [{partition}]")
