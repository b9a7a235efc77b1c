"""Waiting for others, vetoes, what is said and to whom: the engine over a disk on paper (§8, §10, §14.6)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from waagent import NoAnswer, Veto
from waagent.agent import BOOT, make_agent
from waagent.distro import DistroFacts
from waagent.events import Event
from waagent_resourcedisk.engine import Engine
from waagent_resourcedisk.records import (
    PROVEN,
    SCSI,
    Candidate,
    DiskFacts,
    Mounted,
    Partition,
    Surroundings,
    Survey,
    Wishes,
)

DISK = Candidate("sdb", "/dev/sdb", SCSI, PROVEN, ("virtual bus",))
NTFS = DiskFacts(DISK, size=1 << 30, table="mbr", partitions=(Partition("/dev/sdb1", 1, "7", "ntfs", contents=()),))


class Paper:
    """A driver whose disk is a value, with a clock that runs while somebody waits."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 0.0
        self.found = Survey(DISK)
        self.disk = NTFS
        self.surroundings = Surroundings()
        self.events: list[tuple[float, Callable[[], None]]] = []
        self.did: list[str] = []
        self.swap = False
        self.kept = 0
        self.looks: list[bool] = []

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        for when, change in list(self.events):
            if when <= self.now:
                self.events.remove((when, change))
                change()
        return False

    def is_set(self) -> bool:
        return False

    def mounted(self) -> None:
        self.disk = attrs.evolve(self.disk, mounted=(Mounted("/dev/sdb1", str(self.root / "mnt"), "ext4"),))

    def survey(self) -> Survey:
        return self.found

    def look(self, candidate: Candidate, wishes: Wishes, *, closely: bool) -> DiskFacts:
        self.looks.append(closely)
        return self.disk

    def around(self, candidate: Candidate | None, wishes: Wishes, *, waited: bool) -> Surroundings:
        return attrs.evolve(self.surroundings, waited=waited)

    @contextlib.contextmanager
    def locked(self, disk: DiskFacts) -> Iterator[None]:
        self.did.append("lock")
        yield
        self.did.append("unlock")

    def make(self, disk: DiskFacts, wishes: Wishes) -> str:
        self.did.append("make")
        return "/dev/sdb1"

    def mount(self, partition: str, filesystem: str, wishes: Wishes) -> None:
        self.did.append("mount")
        self.mounted()

    def keep(self) -> None:
        self.kept += 1

    def swap_in_place(self, mount: Mounted, wishes: Wishes) -> bool:
        return self.swap

    def enable_swap(self, mount: Mounted, wishes: Wishes) -> None:
        self.did.append("swap")
        self.swap = True


class Machine:
    """The boot stage's part of it: an agent, its plugins, and what was said."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "mnt").mkdir()
        (root / "etc").mkdir()
        self.paper = Paper(root)
        self.hooks = self
        self.distribution = DistroFacts("linux")
        self.told: list[tuple[Any, ...]] = []
        self.answer: Callable[[dict[str, Any]], Veto | None] = lambda facts: None
        self.lines: list[str] = []
        self.telemetry: list[Event] = []

    def decide_resource_disk(self, agent: object, facts: dict[str, Any]) -> Veto | None:
        return self.answer(facts)

    def on_resource_disk_ready(self, agent: object, mount_point: str, device: str, filesystem: str) -> None:
        self.told.append(("ready", mount_point))

    def on_resource_disk_failed(self, agent: object, reason: str) -> None:
        self.told.append(("failed", reason))

    def start(self, conf: str = "") -> None:
        (self.root / "etc/waagent.conf").write_text(conf)
        agent = make_agent(BOOT, str(self.root), plugins=False)
        agent._plugins = self  # type: ignore[assignment]
        agent.stopping = self.paper  # type: ignore[assignment]
        agent.log.also = lambda level, text: self.lines.append(f"{level} {text}")
        agent.events.subscribe(self.telemetry.append)
        engine = Engine(agent, self.paper, lambda: self.paper.now)
        for plan in (engine.disk_plan(), engine.background_plan()):
            agent.executor.run(plan)

    def said(self, text: str) -> int:
        return sum(text in line for line in self.lines if not line.startswith("0"))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_formats_mounts_and_tells(machine: Machine) -> None:
    machine.start()
    assert machine.paper.did == ["lock", "make", "unlock", "mount"]
    assert machine.told == [("ready", str(machine.root / "mnt"))]
    assert machine.paper.kept == 1
    assert [event.success for event in machine.telemetry] == [True]


def test_no_disk_is_no_failure(machine: Machine) -> None:
    machine.paper.found = Survey()
    machine.start()
    assert machine.said("This VM size has no resource disk") == 1
    assert not machine.telemetry
    assert not machine.told


def test_what_cloud_init_mounts_after_half_a_minute_is_used(machine: Machine) -> None:
    machine.paper.surroundings = Surroundings(cloud_init="running")
    machine.paper.events.append((30.0, machine.paper.mounted))
    machine.start()
    assert machine.paper.did == []
    assert machine.told == [("ready", str(machine.root / "mnt"))]
    assert 30 <= machine.paper.now < 32
    assert not any(machine.paper.looks), "the disk was opened while cloud-init worked on it"


def test_never_formats_while_cloud_init_runs_and_does_afterwards(machine: Machine) -> None:
    paper = machine.paper
    paper.surroundings = Surroundings(cloud_init="running")

    def finished() -> None:
        assert paper.did == []
        paper.surroundings = Surroundings(cloud_init="done")

    paper.events.append((300.0, finished))
    machine.start()
    assert paper.did == ["lock", "make", "unlock", "mount"]
    assert paper.now >= 300


def test_a_line_of_fstab_that_mounts_nothing(machine: Machine) -> None:
    machine.paper.surroundings = Surroundings(fstab="/dev/disk/azure/resource-part1 at /data")
    machine.start()
    assert machine.paper.did == []
    assert machine.told[0][0] == "failed"
    assert 60 <= machine.paper.now < 62


def test_a_veto_is_said_once_a_boot_and_keeps_everything_away(machine: Machine) -> None:
    reason = "cloud-init is in charge of the resource disk on Ubuntu"
    machine.answer = lambda facts: Veto(reason)
    conf = "ResourceDisk.EnableSwap=y\nResourceDisk.SwapSizeMB=64\n"
    for _ in range(2):
        machine.start(conf)
    machine.paper.mounted()
    machine.start(conf)
    assert machine.paper.did == []
    assert machine.said(f"stays as it is: {reason}") == 1
    assert machine.said(reason) <= 3, "the steps of each start quote it, nothing more"
    assert sorted(path.name for path in (machine.root / "mnt").iterdir()) == []


def test_a_plugin_that_cannot_answer_refuses(machine: Machine) -> None:
    def fails(facts: dict[str, Any]) -> Veto | None:
        raise NoAnswer("decide_resource_disk: acme: ValueError")

    machine.answer = fails
    machine.start()
    assert machine.paper.did == []
    assert "acme" in machine.told[0][1]


def test_a_plugin_is_told_what_would_be_lost(machine: Machine) -> None:
    asked: list[dict[str, Any]] = []

    def remember(facts: dict[str, Any]) -> None:
        asked.append(facts)

    machine.answer = remember
    machine.start()
    assert asked[0]["action"] == "format"
    assert asked[0]["device"] == "/dev/sdb"
    assert asked[0]["filesystem"] == "ntfs"
    assert asked[0]["contents"] == ()


def test_swap_follows_without_formatting(machine: Machine) -> None:
    machine.paper.mounted()
    machine.start("ResourceDisk.Format=n\nResourceDisk.EnableSwap=y\nResourceDisk.SwapSizeMB=64\n")
    assert machine.paper.did == ["swap"]
    assert not machine.told
    assert not any(machine.paper.looks), "the disk was opened though it is not wanted"


def test_a_failure_is_reported_once(machine: Machine) -> None:
    def broken(partition: str, filesystem: str, wishes: Wishes) -> None:
        raise OSError("no such thing")

    machine.paper.mount = broken  # type: ignore[method-assign]
    machine.start()
    assert [word for word, _ in machine.told] == ["failed"]
    assert [event.success for event in machine.telemetry] == [False]
    assert machine.telemetry[0].operation == "ActivateResourceDisk"


def test_fstab_wins_over_the_options_and_that_is_said_once_a_boot(machine: Machine) -> None:
    line = "/dev/disk/cloud/azure_resource-part1 at /mnt"
    machine.paper.surroundings = Surroundings(fstab=line, cloud_init="done")
    machine.paper.mounted()
    for _ in range(2):
        machine.start("ResourceDisk.Format=y\n")
    warnings = [text for text in machine.lines if text.startswith("2") and line in text]
    assert len(warnings) == 1
    assert machine.paper.did == []
    assert machine.told == [("ready", str(machine.root / "mnt"))] * 2


def test_an_owners_line_in_fstab_that_agrees_is_nothing_to_warn_of(machine: Machine) -> None:
    machine.paper.surroundings = Surroundings(fstab="/dev/disk/azure/resource-part1 at /mnt")
    machine.paper.mounted()
    machine.start("ResourceDisk.MountPoint=/mnt\n")
    assert not [text for text in machine.lines if text.startswith("2")]
