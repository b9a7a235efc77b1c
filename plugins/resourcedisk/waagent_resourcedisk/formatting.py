"""Partition, format, mount (spec/resourcedisk.md §4.2). Who calls has decided, under the lock, that it may be done."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from waagent import AgentError, ensure_dir
from waagent_resourcedisk import facts, filesystems
from waagent_resourcedisk.surroundings import installed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from waagent import Agent
    from waagent_resourcedisk.marker import Marker
    from waagent_resourcedisk.records import DiskFacts
    from waagent_resourcedisk.system import System

MKFS_TIMEOUT = 300.0
_NODE_WAIT, _NODE_PAUSE = 25.0, 0.25
_NUDGES = (("blockdev", "--rereadpt"), ("partx", "--update"), ("partprobe",))
_NUDGE_EVERY = 1.0
_LOCK_TRIES = 20
_START_SECTOR = 2048  # 1 MiB, in the sectors of 512 bytes that the kernel counts in
_LOST_AT_MOST = 4 << 20


@contextlib.contextmanager
def locked(agent: Agent, device: str) -> Iterator[None]:
    """Hold the lock of a whole disk, which keeps udev and other well-behaved programs from it.

    udev holds it for moments itself, so a few seconds are given to whoever has it.

    Raises:
        AgentError: somebody else holds it, or the disk is not there.
    """
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as problem:
        raise AgentError(f"{device} cannot be opened: {problem.strerror}") from problem
    try:
        patience = _LOCK_TRIES
        while not _flock(descriptor):
            patience -= 1
            if not patience or agent.stopping.wait(_NODE_PAUSE):
                raise AgentError(f"{device} is in use: another program holds its lock")
        yield
    finally:
        os.close(descriptor)


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def make(agent: Agent, system: System, disk: DiskFacts, filesystem: str, marker: Marker) -> str:
    """Give the disk one partition with a file system; return the partition's node. Destroys what is on the disk.

    Raises:
        AgentError: the kernel did not show the new partition.
        CommandError: a tool failed.
    """
    kind = "gpt" if disk.table == "gpt" or disk.size > filesystems.LARGEST_MBR else "dos"
    identifier = marker.begin(kind, disk.size)
    try:
        if installed("sfdisk"):
            _write_table(agent, disk.device, kind, identifier)
        else:
            marker.carries(_write_table_with_parted(agent, disk.device, kind))
        partition = _wait_for_partition(agent, system, disk.candidate.name)
        agent.run(("wipefs", "--all", partition), timeout=60, check=True)
        agent.log.info(f"Make {filesystem} on {partition}")
        mkfs = (f"mkfs.{filesystem}", *filesystems.MAKING.get(filesystem, ()), partition)
        agent.run(mkfs, timeout=MKFS_TIMEOUT, check=True)
    except Exception as problem:
        marker.end(str(problem))
        raise
    marker.end()
    return partition


def settle(agent: Agent) -> None:
    """Let udev finish with the new partition. Not under the lock: udev would wait for us as we for it."""
    if installed("udevadm"):
        agent.run(("udevadm", "settle", "--timeout=30"), timeout=40)


def _write_table(agent: Agent, device: str, kind: str, identifier: str) -> None:
    agent.log.info(f"Write a table of partitions ({kind}) on {device}")
    name = identifier.upper() if kind == "gpt" else f"0x{identifier}"
    script = f"label: {kind}\nlabel-id: {name}\nstart=1MiB, type={filesystems.TABLE_TYPES[kind]}\n"
    sfdisk = ("sfdisk", "--quiet", "--wipe", "always", "--wipe-partitions", "always", device)
    agent.run(sfdisk, input=script, timeout=60, check=True)


def _write_table_with_parted(agent: Agent, device: str, kind: str) -> str:
    """Write the table and return its identifier, which parted chooses by itself.

    Raises:
        AgentError: the table cannot be read back.
    """
    agent.log.info(f"Write a table of partitions ({kind}) on {device} with parted")
    label = "gpt" if kind == "gpt" else "msdos"
    command = ("parted", "-s", "-a", "optimal", device, "mklabel", label, "mkpart", "primary", "ext2", "1MiB", "100%")
    agent.run(command, timeout=60, check=True)
    values, problem = facts.probe(agent, device)
    if not values.get("PTUUID"):
        raise AgentError(f"the table of {device} cannot be read back: {problem or 'it is not there'}")
    return values["PTUUID"].lower()


def _wait_for_partition(agent: Agent, system: System, name: str) -> str:
    """Return the node of the only partition, once the kernel shows it as one of this disk.

    Raises:
        AgentError: it did not within 25 s.
    """
    waited, nudged = 0.0, 0
    while True:
        node = _new_partition(system, name)
        if node:
            return agent.paths.at(node)
        if waited >= _NODE_WAIT:
            raise AgentError(f"Partition was not created [{agent.paths.at('/dev/' + partition_name(name))}]")
        if waited >= nudged * _NUDGE_EVERY:
            program, *rest = _NUDGES[nudged % len(_NUDGES)]
            if installed(program):
                agent.run((program, *rest, agent.paths.at("/dev/" + name)), timeout=20)
            nudged += 1
            if _new_partition(system, name):
                continue
        agent.stopping.wait(_NODE_PAUSE)
        waited += _NODE_PAUSE


def _new_partition(system: System, name: str) -> str:
    """Return the node of the partition that was just written; the kernel may still show those of the old table."""
    parts = system.partitions(name)
    if len(parts) != 1 or parts[0][0] != 1:
        return ""
    node = f"/dev/{parts[0][1]}"
    in_place = system.text(f"/sys/block/{name}/{parts[0][1]}/start") == str(_START_SECTOR)
    whole = system.size(name) - system.size(name, parts[0][1]) <= _LOST_AT_MOST
    return node if in_place and whole and system.number_of(node) in system.numbers(name) else ""


def partition_name(name: str, number: int = 1) -> str:
    """Return the kernel's name of a partition: ``sdb1``, but ``nvme0n1p1``."""
    return f"{name}p{number}" if name[-1:].isdigit() else f"{name}{number}"


def mount(agent: Agent, system: System, partition: str, filesystem: str, mount_point: str, options: str | None) -> None:
    """Mount a file system as what it is; when the options are to blame, mount it without them and warn.

    What cannot be mounted stays as it is: it is never formatted for that.

    Raises:
        AgentError: it cannot be mounted.
    """
    ensure_dir(mount_point, 0o755)
    if os.listdir(mount_point):
        agent.log.warning(f"{mount_point} is not empty: the resource disk hides what is in it")
    kinds = ("ntfs3", "ntfs") if filesystem == "ntfs" else (filesystem,)
    # These file systems have no owners, and would take the agent's own umask: nobody but root could look in.
    shared = "umask=022" if filesystem in ("vfat", "exfat", "ntfs") else ""

    def flags(more: str = "") -> tuple[str, ...]:
        words = ",".join(word for word in (shared, more) if word)
        return ("-o", words) if words else ()

    done = None
    for attempt in range(2):
        for kind in kinds:
            done = agent.run(("mount", "-t", kind, *flags(options or ""), partition, mount_point), timeout=60)
            if done.ok:
                return _verify(system, partition, mount_point)
        if attempt == 0:  # just made, the kernel or udev may be behind
            settle(agent)
    assert done is not None
    if options:
        for kind in kinds:
            if agent.run(("mount", "-t", kind, *flags(), partition, mount_point), timeout=60).ok:
                agent.log.warning(f"{partition} is mounted without the options {options!r}: {done.describe()}")
                return _verify(system, partition, mount_point)
    raise AgentError(f"Failed to mount resource disk {partition}, which stays as it is: {done.describe()}")


def _verify(system: System, partition: str, mount_point: str) -> None:
    found = system.mounted_at(mount_point)
    number = system.number_of("/dev/" + os.path.basename(partition))
    if found is None or number not in found.numbers:
        raise AgentError(f"{partition} was mounted at {mount_point}, and is not there")
