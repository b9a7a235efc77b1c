"""The hand-over to SCVMM's own agent (provisioning §20)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.upkeep.machine import Machine
from waagent.commands import run
from waagent_upkeep import scvmm
from waagent_upkeep.scvmminstall import Handover, drives


@pytest.fixture
def host(machine: Machine) -> Machine:
    machine.configure("DetectScvmmEnv=y\nDVD.MountPoint=/media\n")
    machine.run = lambda argv, **more: run(argv, **more)  # type: ignore[attr-defined]
    machine.distro.answers["service_name"] = "waagent"
    for name in ("sr1", "sr0", "sda", "sr0x", "cdrom"):
        machine.write(f"/dev/{name}")
    return machine


def insert(machine: Machine, drive: str, *names: str) -> None:
    """Let that drive hold a medium with these files."""

    def mount(device: str, place: str) -> bool:
        if device.endswith(drive):
            for name in names:
                Path(place, name).write_text(f'echo "$@" >{machine.root}/installed\n' if name == "install" else "x")
        return True

    machine.distro.answers["mount_provisioning_media"] = mount


def test_the_installer_is_started_and_the_service_makes_room(host: Machine) -> None:
    insert(host, "sr1", "linuxosconfiguration.xml", "install")
    plan = Handover(host, wait=0.0).plan()
    assert plan.phase == "early"
    result = host.executor.run(plan)
    assert [step.name.replace(host.paths.at("/dev") + "/", "") for step in result.steps] == [
        "look at sr0",
        "look at sr1",
        "start",
        "wait",
        "leave",
    ]
    deadline = time.monotonic() + 20
    while not host.there("/installed") or not host.read("/installed"):
        assert time.monotonic() < deadline, "the installer never ran"
    assert host.read("/installed") == f"-p {host.paths.at('/media')}\n"
    assert host.distro.asked("service_action") == [("waagent", "stop")]
    assert host.distro.asked("unmount_provisioning_media") == [(host.paths.at("/media"),)], "what is not it"


def test_media_of_others_are_let_go(host: Machine) -> None:
    insert(host, "sr0", "ovf-env.xml")
    result = host.executor.run(Handover(host).plan())
    assert result.ok
    assert len(host.distro.asked("mount_provisioning_media")) == len(drives(host)), "one try per drive"
    assert not host.distro.asked("service_action")


def test_a_drive_without_medium_is_no_obstacle(host: Machine) -> None:
    def mount(device: str, place: str) -> bool:
        if device.endswith("sr0"):
            raise OSError("no medium")
        Path(place, "linuxosconfiguration.xml").write_text("x")
        Path(place, "install").write_text("")
        return True

    host.distro.answers["mount_provisioning_media"] = mount
    result = host.executor.run(Handover(host, wait=0.0).plan())
    assert result.steps[-1].name == "leave"


def test_it_is_off_unless_asked_for(machine: Machine) -> None:
    assert scvmm.on_boot(machine) is None


def test_the_drives_are_the_optical_ones_in_order(host: Machine) -> None:
    assert [path.rpartition("/")[2] for path in drives(host)] == ["sr0", "sr1", "cdrom"]


def test_the_hook(host: Machine) -> None:
    plan: Any = scvmm.on_boot(host)
    assert len(host.names(plan)) == 3
