"""How the disk is reached: on Linux by this plugin itself, on other systems through the distribution's operations."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from waagent import AgentError, NoAnswer, ensure_dir
from waagent_resourcedisk import facts, finder, formatting, surroundings, swapfile
from waagent_resourcedisk.marker import Marker
from waagent_resourcedisk.records import (
    DISTRIBUTION,
    UNKNOWN,
    Candidate,
    DiskFacts,
    Mounted,
    Partition,
    Surroundings,
    Survey,
    Wishes,
)
from waagent_resourcedisk.system import System

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from waagent import Agent

BASES = ("linux", "posix")
"""Distribution plugins under all others: what they find is no claim of somebody's."""


class Driver(Protocol):
    """What the engine needs of a system."""

    def survey(self) -> Survey:
        """Find out who is who among the disks."""

    def look(self, candidate: Candidate, wishes: Wishes, *, closely: bool) -> DiskFacts:
        """Look at one disk; unless *closely*, only at who uses it, so that nobody who works on it is disturbed."""

    def around(self, candidate: Candidate | None, wishes: Wishes, *, waited: bool) -> Surroundings:
        """Look around."""

    def locked(self, disk: DiskFacts) -> AbstractContextManager[None]:
        """Hold the disk's lock."""

    def make(self, disk: DiskFacts, wishes: Wishes) -> str:
        """Format the disk; return the partition."""

    def mount(self, partition: str, filesystem: str, wishes: Wishes) -> None:
        """Mount a partition at the configured place."""

    def keep(self) -> None:
        """Remember that the disk is mounted: what is on it is complete, and somebody's."""

    def swap_in_place(self, mount: Mounted, wishes: Wishes) -> bool:
        """Return whether the swap that is wished for is in use."""

    def enable_swap(self, mount: Mounted, wishes: Wishes) -> None:
        """Make the swap file and use it."""


class LinuxDriver:
    """Linux: the kernel's tables, util-linux, mkfs.

    Args:
        agent: runs commands, holds state.
        forced: a person asked: that formatting failed before does not keep it from being tried.
    """

    def __init__(self, agent: Agent, *, forced: bool = False) -> None:
        self._agent = agent
        self._system = System(agent.paths)
        self._marker = Marker(agent, self._system.boot_id())
        self._forced = forced
        self._held = ""
        self._cloud_init: bool | None = None

    def survey(self) -> Survey:
        """Find out who is who among the disks; a plugin may claim a local NVMe disk."""
        return finder.survey(self._system, self._claim())

    def _claim(self) -> str:
        asked = self._agent.hooks.implementations("find_resource_disk")
        if not asked or asked[0].plugin in BASES:
            return ""
        try:
            return str(self._agent.distro.find_resource_disk())
        except NoAnswer as problem:
            self._agent.log.warning(str(problem))
            return ""

    def look(self, candidate: Candidate, wishes: Wishes, *, closely: bool) -> DiskFacts:
        """Look at one disk; closely only under its lock."""
        point = os.path.realpath(self._agent.paths.at(wishes.mount_point))
        if not closely:
            return facts.glance(self._agent, self._system, candidate, point)
        if self._held == candidate.device:
            return facts.look(self._agent, self._system, candidate, self._marker, point)
        try:
            with formatting.locked(self._agent, candidate.device):
                return facts.look(self._agent, self._system, candidate, self._marker, point)
        except AgentError as problem:
            return DiskFacts(candidate, self._system.size(candidate.name), problem=str(problem))

    def around(self, candidate: Candidate | None, wishes: Wishes, *, waited: bool) -> Surroundings:
        """Look around."""
        gave_up = "" if self._forced else self._marker.gave_up()
        if self._cloud_init is None:
            self._cloud_init = surroundings.cloud_init_is_enabled(self._agent, self._system)
        return surroundings.look(
            self._system, candidate, wishes, cloud_init=self._cloud_init, waited=waited, gave_up=gave_up
        )

    @contextlib.contextmanager
    def locked(self, disk: DiskFacts) -> Iterator[None]:
        """Hold the lock of the whole disk."""
        with formatting.locked(self._agent, disk.device):
            self._held = disk.device
            try:
                yield
            finally:
                self._held = ""

    def make(self, disk: DiskFacts, wishes: Wishes) -> str:
        """Format the disk; return the partition."""
        return formatting.make(self._agent, self._system, disk, wishes.filesystem, self._marker)

    def mount(self, partition: str, filesystem: str, wishes: Wishes) -> None:
        """Mount a partition at the configured place."""
        point = self._agent.paths.at(wishes.mount_point)
        formatting.mount(self._agent, self._system, partition, filesystem, point, wishes.options)

    def keep(self) -> None:
        """Remember that the disk is mounted: an interrupted formatting is over."""
        self._marker.keep()

    def swap_in_place(self, mount: Mounted, wishes: Wishes) -> bool:
        """Return whether the swap file is in use as it should be."""
        return swapfile.is_in_place(self._system, swapfile.path_in(mount.point), wishes.swap_mib << 20)

    def enable_swap(self, mount: Mounted, wishes: Wishes) -> None:
        """Make the swap file and use it; one process at a time."""
        ensure_dir(self._agent.paths.run_dir, 0o755)
        descriptor = os.open(self._agent.paths.run("swap.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as problem:
                raise AgentError("the swap file is being made by another process") from problem
            here = self._system.mounted_at(mount.point)
            if here is None or self._system.number_of("/dev/" + os.path.basename(mount.device)) not in here.numbers:
                raise AgentError(f"{mount.device} is not mounted at {mount.point} any more")
            path = swapfile.path_in(mount.point)
            swapfile.enable(self._agent, self._system, path, wishes.swap_mib, mount.filesystem)
        finally:
            os.close(descriptor)


class OperationsDriver:
    """A system whose distribution plugin does the work: FreeBSD, OpenBSD.

    Args:
        agent: reaches the operations.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._swapped = False

    def survey(self) -> Survey:
        """Ask the distribution."""
        try:
            device = str(self._agent.distro.find_resource_disk())
        except NoAnswer as problem:
            return Survey(refusal=str(problem))
        if not device:
            return Survey()
        name = os.path.basename(device)
        return Survey(Candidate(name, device, UNKNOWN, DISTRIBUTION, ("the distribution's plugin found it",)))

    def look(self, candidate: Candidate, wishes: Wishes, *, closely: bool) -> DiskFacts:
        """Ask the distribution, which disturbs nobody."""
        try:
            read: dict[str, Any] = self._agent.distro.read_resource_disk(candidate.device)
        except NoAnswer as problem:
            return DiskFacts(candidate, problem=str(problem))
        known = attrs.fields_dict(DiskFacts)
        parts = tuple(_partition(number, one) for number, one in enumerate(read.get("partitions") or (), 1))
        simple = ("table", "size", "read_only", "serial", "signature", "blank", "problem")
        values = {name: read[name] for name in simple if name in read and name in known and read[name] is not None}
        point = read.get("mounted")
        mounted: tuple[Mounted, ...] = ()
        if point:
            first = parts[0] if parts else Partition(candidate.device)
            where = str(read.get("mounted_device") or first.device)
            kind = next((part.filesystem for part in parts if part.device == where), first.filesystem)
            mounted = (Mounted(where, str(point), kind),)
        system = tuple(mount.point for mount in mounted if mount.point in facts.SYSTEM_POINTS)
        holders = tuple(str(one) for one in read.get("holders") or ())
        return DiskFacts(candidate, partitions=parts, mounted=mounted, system=system, holders=holders, **values)

    def around(self, candidate: Candidate | None, wishes: Wishes, *, waited: bool) -> Surroundings:
        """Look around."""
        problem = surroundings.mount_point_problem(System(self._agent.paths), wishes.mount_point)
        # Where the disk itself is mounted there, nobody asks any more.
        occupant = "another file system" if os.path.ismount(self._agent.paths.at(wishes.mount_point)) else ""
        return Surroundings(mount_point_problem=problem, occupied_by=occupant, waited=waited)

    @contextlib.contextmanager
    def locked(self, disk: DiskFacts) -> Iterator[None]:
        """Hold a lock of our own: devices take none there, and no udev would look at it."""
        path = self._agent.paths.run("resourcedisk.lock")
        ensure_dir(self._agent.paths.run_dir, 0o755)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        with formatting.locked(self._agent, path):
            yield

    def make(self, disk: DiskFacts, wishes: Wishes) -> str:
        """Ask the distribution."""
        return str(self._agent.distro.format_resource_disk(disk.device, wishes.filesystem))

    def mount(self, partition: str, filesystem: str, wishes: Wishes) -> None:
        """Ask the distribution."""
        point = self._agent.paths.at(wishes.mount_point)
        ensure_dir(point, 0o755)
        self._agent.distro.mount_resource_disk(partition, point, wishes.options)

    def keep(self) -> None:
        """Nothing is remembered there."""

    def swap_in_place(self, mount: Mounted, wishes: Wishes) -> bool:
        """Return whether the operation succeeded in this run: it finds out by itself what is there already."""
        return self._swapped

    def enable_swap(self, mount: Mounted, wishes: Wishes) -> None:
        """Ask the distribution."""
        if wishes.swap_mib <= 0:
            raise AgentError(f"Invalid swap size [{wishes.swap_mib}]")
        self._agent.distro.enable_swap(swapfile.path_in(mount.point), wishes.swap_mib)
        self._swapped = True


def _partition(number: int, read: dict[str, Any]) -> Partition:
    contents = read.get("contents")
    return Partition(
        str(read.get("device", "")),
        number,
        str(read.get("type") or "").lower(),
        str(read.get("filesystem") or ""),
        str(read.get("label") or ""),
        int(read.get("size") or 0),
        None if contents is None else tuple(str(name) for name in contents),
        str(read.get("problem") or ""),
    )


def choose(agent: Agent, *, forced: bool = False) -> Driver:
    """Return the driver for this system."""
    if agent.distro.facts.base == "linux":
        return LinuxDriver(agent, forced=forced)
    return OperationsDriver(agent)
