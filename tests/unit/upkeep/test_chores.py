"""Disk timeouts, persistent network names, randomness: what is missing, and what is done about it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.upkeep.machine import Machine
from waagent_upkeep.chores import NET_RULES, RANDOM_TABLE, Chores
from waagent_upkeep.patience import Patience
from waagent_upkeep.upkeep import UpkeepPlugin


def add_disk(machine: Machine, name: str, timeout: str) -> Path:
    return machine.write(f"/sys/block/{name}/device/timeout", timeout + "\n")


def set_timeouts(machine: Machine) -> None:
    def write(seconds: int) -> bool:
        for path in (machine.root / "sys/block").glob("sd*/device/timeout"):
            path.write_text(f"{seconds}\n")
        return True

    machine.distro.answers["set_scsi_timeout"] = write


@pytest.mark.parametrize(
    ("conf", "disks", "wanted"),
    [
        ("", {"sda": "300", "sdb": "300"}, []),
        ("", {"sda": "30", "sdb": "300"}, ["disk timeout"]),
        ("", {"nvme0n1": "30"}, []),
        ("OS.RootDeviceScsiTimeout=None\n", {"sda": "30"}, ["disk timeout"]),  # unset: the default
        ("OS.RootDeviceScsiTimeout=0\n", {"sda": "30"}, []),
        ("OS.RootDeviceScsiTimeout=30\n", {"sda": "30"}, []),
        ("OS.RootDeviceScsiTimeout=90000\n", {"sda": "30"}, []),
        ("", {}, []),
    ],
)
def test_the_timeout_of_every_scsi_disk(machine: Machine, conf: str, disks: dict[str, str], wanted: list[str]) -> None:
    machine.configure(conf)
    for name, timeout in disks.items():
        add_disk(machine, name, timeout)
    assert machine.names(Chores(machine).boot_plan()) == wanted


def test_a_disk_that_is_added_later_gets_it_too(machine: Machine) -> None:
    plugin = UpkeepPlugin()
    duty = next(one for one in plugin.declare_periodic(machine) if one.name == "disk timeouts")
    set_timeouts(machine)
    disk = add_disk(machine, "sdc", "30")
    duty.run(machine)
    assert disk.read_text() == "300\n"
    duty.run(machine)
    assert machine.distro.asked("set_scsi_timeout") == [(300,)], "nothing is done where nothing is missing"


def test_an_absurd_timeout_is_told_once(machine: Machine) -> None:
    machine.configure("OS.RootDeviceScsiTimeout=90000\n")
    chores = Chores(machine)
    assert not chores.timeout
    assert not chores.timeout
    assert len(machine.logged("OS.RootDeviceScsiTimeout is 90000")) == 1
    assert [duty.name for duty in UpkeepPlugin().declare_periodic(machine)] == ["network rules"]


def test_persistent_network_rules_go_at_boot(machine: Machine) -> None:
    for name in NET_RULES:
        machine.write(name, "SUBSYSTEM==...")

    def move() -> bool:
        for name in NET_RULES:
            os.rename(machine.paths.at(name), machine.paths.lib(os.path.basename(name)))
        return True

    machine.distro.answers["move_persistent_net_rules"] = move
    os.makedirs(machine.paths.lib_dir)
    plan = Chores(machine).boot_plan()
    assert plan.phase == "early"
    assert machine.executor.run(plan).ok
    assert not machine.there(NET_RULES[0])
    assert not machine.logged("stays")


def test_rules_that_an_administrator_masked_stay_masked(machine: Machine) -> None:
    place = Path(machine.paths.at(NET_RULES[1]))
    place.parent.mkdir(parents=True)
    place.symlink_to("/dev/null")
    assert machine.names(Chores(machine).boot_plan()) == []


def test_rules_that_the_distribution_keeps_are_asked_about_once(machine: Machine) -> None:
    path = machine.write(NET_RULES[1], "SUBSYSTEM==...")
    plugin = UpkeepPlugin()
    duty = plugin.declare_periodic(machine)[0]
    for _ in range(5):
        duty.run(machine)
    assert len(machine.distro.asked("move_persistent_net_rules")) == 1
    assert not machine.logged("failed")
    os.utime(path, ns=(1, 1))
    duty.run(machine)
    assert len(machine.distro.asked("move_persistent_net_rules")) == 2, "a new file may be another matter"


def test_randomness_of_the_host_is_used_once_per_boot(machine: Machine) -> None:
    machine.write(RANDOM_TABLE, b"r" * 5000)
    pool = machine.write("/dev/urandom")
    assert machine.executor.run(Chores(machine).boot_plan()).ok
    assert pool.read_bytes() == b"r" * 4096
    assert machine.names(Chores(machine).boot_plan()) == []


def test_what_fails_is_tried_once_an_hour(machine: Machine) -> None:
    add_disk(machine, "sda", "30")
    now = [0.0]
    patience = Patience(clock=lambda: now[0])
    machine.distro.answers["set_scsi_timeout"] = OSError("the disk says no")
    chores = Chores(machine)
    for minute in range(181):
        now[0] = minute * 60.0
        patience.run(machine, chores.timeout_plan)
    assert len(machine.distro.asked("set_scsi_timeout")) == 4, "at 0, 1, 2 and 3 hours"
    set_timeouts(machine)
    now[0] += 3600
    assert patience.run(machine, chores.timeout_plan), "and when it works again, it is done"
