"""Whole machines, generated: from the bus, the kernel's tables and what blkid says, to what would be done (§11).

The devices are files in a scratch root, everything in between is the real code. What may happen to a disk is said here
once more and in other words, so that a mistake in the table of decisions cannot hide itself.
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.resourcedisk.scratch import FAST, GEN1_RESOURCE, GEN1_SYSTEM, GEN2, GEN2_DATA, Tree
from waagent import Paths, Veto
from waagent.agent import BOOT, Agent, make_agent
from waagent.commands import Completed
from waagent.distro import DistroFacts
from waagent_resourcedisk import surroundings
from waagent_resourcedisk.decision import ADOPT, FORMAT, MOUNT
from waagent_resourcedisk.engine import Engine, View
from waagent_resourcedisk.system import System

RESERVED, BASIC = "e3c9e316-0b5c-4db8-817d-f92df00215ae", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
SIZE = 4 << 20


@attrs.frozen
class Content:
    """What is on a disk: table, partitions as (type, signature, names on NTFS), signature of the whole disk."""

    table: str = ""
    parts: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    signature: str = ""
    zeros: bool = True


FRESH = {
    "mbr ntfs": Content("dos", (("0x7", "ntfs", ("DATALOSS_WARNING_README.txt",)),)),
    "gpt ntfs": Content("gpt", ((BASIC, "ntfs", ()),)),
    "gpt reserved": Content("gpt", ((RESERVED, "", ()), (BASIC, "ntfs", ("System Volume Information",)))),
    "ntfs type": Content("dos", (("0x7", "", ()),)),
    "bare": Content("dos", (("0x83", "", ()),)),
    "bare gpt": Content("gpt", ((LINUX, "", ()),)),
    "blank": Content(),
}
KEPT = {
    "ext4": Content("dos", (("0x83", "ext4", ()),)),
    "xfs": Content("gpt", ((LINUX, "xfs", ()),)),
    "two": Content("gpt", ((LINUX, "ext4", ()), (LINUX, "xfs", ()))),
}
FOREIGN = {
    "files": Content("dos", (("0x7", "ntfs", ("payroll.xls",)),)),
    "luks": Content("dos", (("0x83", "crypto_LUKS", ()),)),
    "lvm": Content("dos", (("0x8e", "LVM2_member", ()),)),
    "raid": Content("gpt", ((LINUX, "linux_raid_member", ()),)),
    "whole raid": Content(signature="linux_raid_member"),
    "whole luks": Content(signature="crypto_LUKS"),
    "swap": Content("dos", (("0x82", "swap", ()),)),
    "second luks": Content("dos", (("0x7", "ntfs", ()), ("0x83", "crypto_LUKS", ()))),
    "noise": Content(zeros=False),
    "damaged ntfs": Content("gpt", ((BASIC, "", ()),), zeros=False),
    "three": Content("gpt", ((RESERVED, "", ()), (BASIC, "ntfs", ()), (LINUX, "", ()))),
    "bsd": Content("dos", (("0xa5", "", ()),)),
    "empty table": Content("gpt"),
}
CONTENTS = {**FRESH, **KEPT, **FOREIGN}
USES = ("", "", "", "data", "root", "swap", "held", "root over dm", "read-only", "mounted beside swap")


class Machine:
    """One generated machine."""

    def __init__(self, root: Path) -> None:
        self.tree = Tree(root)
        self.nodes: dict[str, str] = {}
        self.names: dict[str, tuple[str, ...]] = {}
        self.mounts: list[str] = []
        self.swaps: list[str] = []
        self.looked: list[Sequence[str]] = []
        self.number = itertools.count(16)
        self.hooks = self
        self.distribution = DistroFacts("linux")

    # ---- Plugins: none ----

    def implementations(self, name: str) -> tuple[()]:
        return ()

    def decide_resource_disk(self, agent: object, facts: dict[str, Any]) -> Veto | None:
        return None

    # ---- Preparing ----

    def fill(self, name: str, content: Content, use: str) -> None:
        base = f"sys/block/{name}"
        self.tree.write(f"{base}/size", f"{SIZE // 512}\n")
        self.tree.write(f"{base}/ro", "1\n" if use == "read-only" else "0\n")
        with open(self.tree.root / "dev" / name, "wb") as stream:
            stream.truncate(SIZE)
            stream.write(b"" if content.zeros else b"somebody's")
        self.nodes[name] = self.values(PTTYPE=content.table, TYPE=content.signature)
        parts = []
        for number, (kind, signature, names) in enumerate(content.parts, 1):
            part = f"{name}{number}"
            parts.append(part)
            self.tree.write(f"{base}/{part}/partition", f"{number}\n")
            self.tree.write(f"{base}/{part}/dev", f"8:{next(self.number) + 4096}\n")
            self.tree.write(f"{base}/{part}/size", "2048\n")
            with open(self.tree.root / "dev" / part, "wb") as stream:
                stream.truncate(1 << 20)
                stream.write(b"" if content.zeros else b"somebody's")
            self.nodes[part] = self.values(PART_ENTRY_TYPE=kind, TYPE=signature)
            self.names[part] = names
        self.use((parts or [name])[0], name, use)

    def values(self, **found: str) -> str:
        return "".join(f"{key}={value}\n" for key, value in found.items() if value)

    def use(self, part: str, disk: str, use: str) -> None:
        place = f"sys/block/{disk}" if part == disk else f"sys/block/{disk}/{part}"
        number = (self.tree.root / place / "dev").read_text().strip()
        if use in ("data", "root", "mounted beside swap"):
            self.mounts.append(f"{number} / {'/' if use == 'root' else '/data-' + disk} rw - ext4 /dev/{part} rw")
        if use in ("swap", "mounted beside swap"):
            self.swaps.append(f"/dev/{part}")
        if use in ("held", "root over dm"):
            mapped = f"dm-{disk}"
            (self.tree.root / place / "holders" / mapped).mkdir(parents=True)
            self.tree.write(f"sys/block/{mapped}/dev", f"253:{next(self.number)}\n")
            if use == "root over dm":
                number = (self.tree.root / f"sys/block/{mapped}/dev").read_text().strip()
                self.mounts.append(f"{number} / / rw - xfs /dev/mapper/root rw")

    # ---- Looking ----

    def run(self, argv: Sequence[str], **more: Any) -> Completed:
        self.looked.append(argv)
        tool, device = argv[0], argv[-1].rpartition("/")[2]
        if tool == "blkid":
            found = self.nodes.get(device, "")
            return Completed(tuple(argv), 0 if found else 2, found and f"DEVNAME=/dev/{device}\n{found}", "")
        if tool == "sfdisk":
            assert argv[1] == "--dump"
            lines = [
                f"/dev/{name} : start= 1, size= 2048" for name in self.names if re.fullmatch(device + r"\d+", name)
            ]
            return Completed(tuple(argv), 0, "\n".join(lines), "")
        if tool == "mount":
            part = argv[-2].rpartition("/")[2]
            if argv[2] != "ntfs":
                return Completed(tuple(argv), 32, "", f"mount: unknown filesystem type '{argv[2]}'.\n")
            assert "ro" in argv[4].split(",")
            for name in self.names[part]:
                (Path(argv[-1]) / name).mkdir()
            return Completed(tuple(argv), 0, "", "")
        if tool == "umount":
            for entry in Path(argv[-1]).iterdir():
                entry.rmdir()
            return Completed(tuple(argv), 0, "", "")
        assert tool == "udevadm", f"{argv} is not for looking"
        return Completed(tuple(argv), 1, "", "")

    def number_of(self, path: str) -> tuple[int, int] | None:
        name = path.rpartition("/")[2]
        for place in (f"sys/block/{name}/dev", *self.tree.root.glob(f"sys/block/*/{name}/dev")):
            found = self.tree.root / place
            if found.exists():
                major, _, minor = found.read_text().strip().partition(":")
                return int(major), int(minor)
        return None

    def view(self, conf: str = "") -> View:
        root = self.tree.root
        self.tree.write("proc/self/mountinfo", "".join(f"{n} 1 {line}\n" for n, line in enumerate(self.mounts, 2)))
        self.tree.write("proc/swaps", "Filename\n" + "".join(f"{name} partition 1 0 -2\n" for name in self.swaps))
        self.tree.write("etc/waagent.conf", conf)
        agent = make_agent(BOOT, str(root), plugins=False)
        agent._plugins = self  # type: ignore[assignment]
        agent.log.also = lambda level, text: None
        runs = mock.patch.object(Agent, "run", lambda agent, argv, **more: self.run(argv, **more))
        numbers = mock.patch.object(System, "number_of", lambda system, path: self.number_of(path))
        with runs, numbers, mock.patch.object(surroundings, "installed", return_value=True):
            return Engine(agent).view()


PLACES = [GEN1_SYSTEM, GEN1_RESOURCE, GEN2, GEN2_DATA, "32412632-86cb-44a2-9b5c-50d1417354f5"]
_unit = st.tuples(st.integers(0, 3), st.sampled_from(sorted(CONTENTS)), st.sampled_from(USES))
_controllers = st.lists(
    st.tuples(st.sampled_from(PLACES), st.lists(_unit, max_size=3, unique_by=lambda unit: unit[0])), max_size=4
)


@settings(max_examples=250, deadline=None)
@given(controllers=_controllers, reformat=st.booleans(), first=st.integers(0, 60))
def test_only_the_unused_resource_disk_is_ever_touched(
    controllers: list[tuple[str, list[tuple[int, str, str]]]], reformat: bool, first: int
) -> None:
    with tempfile.TemporaryDirectory(dir=FAST) as place:
        machine = Machine(Path(place).resolve())
        letters = itertools.count(first)  # past z the kernel goes on with sdaa, sdba, …
        resource: dict[str, tuple[str, str]] = {}
        for guid, units in controllers:
            there = []
            for lun, content, use in units:
                name = disk_name(next(letters))
                there.append((lun, name, content, use))
                if guid == GEN1_RESOURCE or (guid == GEN2 and lun == 1):
                    resource[name] = (content, use)
            machine.tree.controller(guid, *[(lun, name) for lun, name, _, _ in there])
            for _, name, content, use in there:
                machine.fill(name, CONTENTS[content], use)
        found = machine.view(f"ResourceDisk.AllowReformat={'y' if reformat else 'n'}\n")
        action = found.decision.action
        if len(resource) != 1:
            assert action not in (FORMAT, MOUNT, ADOPT)
            return
        ((name, (content, use)),) = resource.items()
        if action in (FORMAT, MOUNT, ADOPT):
            assert found.disk is not None
            assert found.disk.candidate.name == name
            assert found.disk.device == f"{machine.tree.root}/dev/{name}"
        converts = reformat and content == "xfs"
        wanted = {
            FORMAT: use == "" and (content in FRESH or converts),
            MOUNT: use == "" and content in KEPT and not converts,
            ADOPT: use == "data",
        }
        assert wanted.get(action, not any(wanted.values())), (content, use, found.decision)


def disk_name(number: int) -> str:
    letters = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(97 + rest) + letters
    return "sd" + letters


@pytest.mark.parametrize(
    ("content", "use"),
    [(content, "") for content in CONTENTS] + [(content, use) for content in ("mbr ntfs", "ext4") for use in USES[3:]],
)
def test_every_content_in_every_use(tmp_path: Path, content: str, use: str) -> None:
    """Every row of §4 once, through the whole of probe and decision."""
    machine = Machine(tmp_path.resolve())
    machine.tree.controller(GEN2, (0, "sda"), (1, "sdb"))
    machine.fill("sda", CONTENTS["ext4"], "root")
    machine.fill("sdb", CONTENTS[content], use)
    found = machine.view().decision
    if use == "data":
        assert found.action == ADOPT
    elif use:
        assert found.action == "refuse"
    elif content in FRESH:
        assert found.action == FORMAT
    elif content in KEPT:
        assert found.action == MOUNT
    else:
        assert found.action == "refuse"
    assert found.reason


def test_names_that_begin_alike_are_other_disks(tmp_path: Path) -> None:
    """Hazard H1: ``/dev/sdb`` is no part of ``/dev/sdba1``."""
    machine = Machine(tmp_path.resolve())
    machine.tree.controller(GEN2, (0, "sda"), (1, "sdb"))
    machine.tree.controller(GEN2_DATA, (0, "sdba"))
    machine.fill("sda", CONTENTS["ext4"], "root")
    machine.fill("sdb", CONTENTS["mbr ntfs"], "")
    machine.fill("sdba", CONTENTS["ext4"], "data")
    assert machine.view().decision.action == FORMAT
    assert Paths(str(tmp_path)).at("/dev/sdb") == machine.view().disk.device  # type: ignore[union-attr]


@pytest.mark.parametrize("who", ["cloud-init", "fstab", "nobody wants it"])
def test_what_others_work_on_is_not_opened(tmp_path: Path, who: str) -> None:
    machine = Machine(tmp_path.resolve())
    machine.tree.controller(GEN2, (1, "sdb"))
    machine.fill("sdb", CONTENTS["mbr ntfs"], "")
    if who == "cloud-init":
        machine.tree.write("etc/cloud/cloud.cfg", "")
        machine.tree.write("etc/runlevels/boot/cloud-init-local", "")
    elif who == "fstab":
        machine.tree.write("etc/fstab", "/dev/disk/cloud/azure_resource-part1 /mnt auto defaults,nofail 0 2\n")
    found = machine.view("ResourceDisk.Format=n\n" if who == "nobody wants it" else "")
    assert found.decision.action == ("off" if who == "nobody wants it" else "wait")
    assert machine.looked == []
