"""FreeBSD and OpenBSD from the probe to the mount, over what their commands print (§7).

Neither system was there: the transcripts are written after the manual pages of gpart(8), fstyp(8), diskinfo(8),
camcontrol(8), disklabel(8) and fdisk(8).
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.distro.conftest import Machine
from waagent.journal import Journal
from waagent.plan import Executor
from waagent_resourcedisk.engine import Engine

RESERVED, BASIC = "e3c9e316-0b5c-4db8-817d-f92df00215ae", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
ZFS = "516e7cba-6ecf-11d6-8ff8-00022d09712b"
STORVSC = "dev.storvsc.1.%pnpinfo: classid=32412632-86cb-44a2-9b5c-50d1417354f5 deviceid=00000000-0001-8899-0000-0000\n"
DEVLIST = """scbus1 on storvsc0 bus 0:
<Msft Virtual Disk 1.0>            at scbus1 target 0 lun 0 (da0,pass0)
scbus2 on storvsc1 bus 0:
<Msft Virtual Disk 1.0>            at scbus2 target 1 lun 0 (da1,pass1)
"""
ROOT = "/dev/da0p2 on / (ufs, local, journaled soft-updates)\n"


def gpart(scheme: str, *parts: tuple[str, str, str]) -> str:
    """Return what ``gpart list da1`` prints of partitions (name, raw type, mode)."""
    text = f"Geom name: da1\nmodified: false\nstate: OK\nscheme: {scheme}\nProviders:\n"
    for number, (name, kind, mode) in enumerate(parts, 1):
        text += f"{number}. Name: {name}\n   Mediasize: 8589934592 (8.0G)\n   Sectorsize: 512\n   Mode: {mode}\n"
        text += f"   rawtype: {kind}\n   index: {number}\n"
    return text + "Consumers:\n1. Name: da1\n   Mediasize: 17179869184 (16G)\n   Mode: r0w0e0\n"


class Bsd:
    """One machine, with what an agent has on it."""

    def __init__(self, tmp_path: Path, name: str, disk: str) -> None:
        self.machine = Machine(tmp_path)
        self.machine.become("" if name == "OpenBSD" else "ID=freebsd\n", (name, "14.1-RELEASE"))
        self.told: list[tuple[str, str]] = []
        self.mounts = ROOT if name == "FreeBSD" else "/dev/sd0a on / type ffs (local)\n"
        self.disk = self.machine.at(disk)
        answer = self.machine.answer
        answer("mount", lambda command, _d: self.mounts if len(command) == 1 else self.mount(*command[-2:]))

    def mount(self, device: str, point: str) -> str:
        kind = " (ufs, local)" if "/da" in device else " type ffs (local)"
        self.mounts += f"{device} on {point}{kind}\n"
        return ""

    def boot(self, conf: str = "") -> str:
        """Do what a start of the service does; return the action that was decided on before."""
        self.machine.write("etc/waagent.conf", conf)
        machine = self.machine
        hooks = SimpleNamespace(
            decide_resource_disk=lambda agent, facts: None,
            on_resource_disk_ready=lambda agent, point, device, kind: self.told.append(("ready", f"{device} {kind}")),
            on_resource_disk_failed=lambda agent, reason: self.told.append(("failed", reason)),
        )
        events = SimpleNamespace(add=lambda *words, **more: None)
        agent: Any = SimpleNamespace(
            config=machine.config, paths=machine.paths, log=machine.log, distro=machine.distro, run=machine.run,
            stopping=machine.stopping, hooks=hooks, events=events,
            executor=Executor(Journal(machine.at("/journal")), machine.log),
        )  # fmt: skip
        engine = Engine(agent)
        action = engine.view().decision.action
        for plan in (engine.disk_plan(), engine.background_plan()):
            agent.executor.run(plan)
        return action

    def changes(self) -> list[str]:
        words = ("newfs", "fdisk -yi", "disklabel -w")
        return [line for line in self.machine.commands() if line.startswith(words)]


@pytest.fixture
def freebsd(tmp_path: Path) -> Bsd:
    found = Bsd(tmp_path, "FreeBSD", "/dev/da1")
    answer = found.machine.answer
    answer("sysctl dev.storvsc", STORVSC)
    answer("camcontrol devlist -v", DEVLIST)
    answer("diskinfo", "da1\t512\t17179869184\t33554432\t0\t0\n")
    answer("fstyp", 1)
    answer("newfs")
    return found


GPT_FRESH = gpart("GPT", ("da1p1", RESERVED, "r0w0e0"), ("da1p2", BASIC, "r0w0e0"))


def test_a_fresh_disk_of_freebsd(freebsd: Bsd) -> None:
    freebsd.machine.answer("gpart list da1", GPT_FRESH)
    kinds = {"da1p2": "ntfs\n"}
    freebsd.machine.answer(
        "fstyp -u", lambda command, _d: kinds.get(command[-1].rpartition("/")[2], "") or (1, "", "not recognized")
    )
    freebsd.machine.answer("newfs", lambda command, _d: kinds.update(da1p2="ufs\n") or "")
    assert freebsd.boot() == "format"
    assert freebsd.changes() == [f"newfs -U {freebsd.disk}p2"]
    assert freebsd.told == [("ready", f"{freebsd.disk}p2 ufs")]
    assert (freebsd.machine.root / "mnt/resource/DATALOSS_WARNING_README.txt").exists()
    assert freebsd.boot() == "adopt"
    freebsd.mounts = ROOT
    assert freebsd.boot("ResourceDisk.Filesystem=ufs2\nResourceDisk.AllowReformat=y\n") == "mount"
    assert freebsd.changes() == [f"newfs -U {freebsd.disk}p2"]


@pytest.mark.parametrize(
    ("table", "kind", "mounts", "wanted"),
    [
        (gpart("MBR", ("da1s1", "7", "r0w0e0")), "ntfs", "", "format"),
        (gpart("MBR", ("da1s1", "165", "r0w0e0")), "", "", "format"),
        (gpart("MBR", ("da1s1", "165", "r0w0e0")), "ufs", "", "mount"),
        (gpart("MBR", ("da1s1", "165", "r0w0e0")), "zfs", "", "refuse"),
        (gpart("MBR", ("da1s1", "165", "r0w0e0")), "geli", "", "refuse"),
        (gpart("MBR", ("da1s1", "131", "r0w0e0")), "", "", "refuse"),
        (gpart("MBR", ("da1s1", "165", "r1w1e1")), "", "", "refuse"),
        (gpart("GPT", ("da1p1", ZFS, "r0w0e0")), "", "", "refuse"),
        (gpart("MBR", ("da1s1", "7", "r0w0e0")), "ntfs", "/dev/da10s1 on /data (ufs, local)\n", "format"),
        (gpart("MBR", ("da1s1", "165", "r1w1e1")), "ufs", "{disk}s1 on /data (ufs, local)\n", "adopt"),
        (gpart("MBR", ("da1s1", "165", "r1w1e1")), "ufs", "{disk}s1a on /usr (ufs, local)\n", "refuse"),
        ("", "", "", "refuse"),
    ],
    ids=[
        "fresh", "bare", "ours", "zfs", "geli", "linux", "open", "zfs of another kind", "a name that begins alike",
        "mounted", "the system's", "no table",
    ],
)  # fmt: skip
def test_every_other_disk_of_freebsd(freebsd: Bsd, table: str, kind: str, mounts: str, wanted: str) -> None:
    freebsd.machine.answer("gpart list da1", table)
    freebsd.machine.answer("fstyp -u", kind + "\n" if kind else 1)
    freebsd.mounts += mounts.format(disk=freebsd.disk)
    assert freebsd.boot() == wanted
    assert bool(freebsd.changes()) is (wanted == "format")
    assert freebsd.told[0][0] == ("failed" if wanted == "refuse" else "ready")


def test_freebsd_takes_no_other_file_system(freebsd: Bsd) -> None:
    freebsd.machine.answer("gpart list da1", GPT_FRESH)
    freebsd.machine.answer("fstyp -u", "ntfs\n")
    freebsd.boot("ResourceDisk.Filesystem=ext4\n")
    assert freebsd.changes() == []
    assert "takes ufs, not ext4" in freebsd.told[0][1]


def test_a_disk_that_cannot_be_looked_at(freebsd: Bsd) -> None:
    freebsd.machine.answer("mount", 1)
    assert freebsd.boot() == "refuse"
    assert freebsd.changes() == []


def test_a_disk_of_openbsd(tmp_path: Path) -> None:
    openbsd = Bsd(tmp_path, "OpenBSD", "/dev/wd1")
    label = ["  c:         33554432                0  unused\n  i:         33550336              128    NTFS\n"]
    ours = "  a:         16777216               64  4.2BSD   2048 16384     1\n  b: 16777152 16777280    swap\n"
    answer = openbsd.machine.answer
    answer("sysctl -n hw.disknames", "sd0:0123456789abcdef,cd0:,wd1:,fd0:\n")
    answer("fdisk", "Disk: wd1\tgeometry: 1044/255/63 [16777216 Sectors]\nOffset: 0\tSignature: 0xAA55\n")
    answer("disklabel", lambda _c, _d: label[0])
    answer("disklabel -w", lambda _c, _d: label.__setitem__(0, label[0].split("\n", 1)[0] + "\n" + ours) or "")
    answer("newfs")
    assert openbsd.boot() == "format"
    assert openbsd.told == [("ready", f"{openbsd.disk}a ufs")]
    openbsd.mounts = "/dev/sd0a on / type ffs (local)\n/dev/wd10a on /data type ffs (local)\n"
    assert openbsd.boot("ResourceDisk.Filesystem=ufs2\nResourceDisk.AllowReformat=y\n") == "mount"
    assert [line.split()[0] for line in openbsd.changes()] == ["fdisk", "disklabel", "newfs"]
    assert openbsd.boot() == "adopt"
