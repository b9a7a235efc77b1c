"""A loop device that the virtual bus of a scratch root calls the resource disk; everything else is this machine's.

There is no VMBus here. The root holds a recorded tree of it, with the loop device where the platform's disk would be,
and links to the real ``/dev``, ``/proc`` and ``/sys/block``: identity is recorded, disks and tools are real.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from waagent import Veto
from waagent.agent import BOOT, Agent, make_agent
from waagent.distro import DistroFacts
from waagent.events import Event
from waagent.plan import PlanResult
from waagent_resourcedisk.engine import Engine

GEN2 = "f8b3781a-1e82-4818-a1c3-63d806ec15bb"
GPT_RESERVED = """\
label: gpt
start=2048, size=32768, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE
type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7
"""
"""The platform's disk where it is large."""

LEVELS = ("VERBOSE", "INFO", "WARNING", "ERROR")
TOOLS = {
    "sfdisk": "fdisk",
    "parted": "parted",
    "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ntfs": "ntfs-3g",
    "mkfs.ext4": "e2fsprogs",
}


def missing() -> list[str]:
    """Return the packages whose programs are not here."""
    return sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})


def sh(*argv: str, text: str | None = None, check: bool = True) -> str:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{argv}: {done.stderr}"
    return done.stdout


def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str) -> Path:
    """Put a program of our own before the system's."""
    place = tmp_path / "bin"
    place.mkdir(exist_ok=True)
    program = place / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return program


class Host:
    """Plugins: nothing but a veto, and a memory of what they were told."""

    def __init__(self) -> None:
        self.hooks = self
        self.distribution = DistroFacts("linux")
        self.told: list[tuple[Any, ...]] = []
        self.asked: list[dict[str, Any]] = []
        self.veto: Veto | None = None

    def implementations(self, name: str) -> tuple[()]:
        return ()

    def decide_resource_disk(self, agent: Agent, facts: dict[str, Any]) -> Veto | None:
        self.asked.append(facts)
        return self.veto

    def on_resource_disk_ready(self, agent: Agent, mount_point: str, device: str, filesystem: str) -> None:
        self.told.append(("ready", mount_point, device, filesystem))

    def on_resource_disk_failed(self, agent: Agent, reason: str) -> None:
        self.told.append(("failed", reason))


class LoopDisk:
    """A disk of *size* MiB, and the machine that it belongs to."""

    def __init__(self, root: Path, size: int = 256) -> None:
        self.root = root
        self.image = root.parent / f"{root.name}.img"
        with open(self.image, "wb") as stream:
            stream.truncate(size << 20)
        self.device = sh("losetup", "--find", "--show", str(self.image)).strip()
        sh("partx", "--delete", self.device, check=False)  # of an earlier user of this loop device
        self.name = os.path.basename(self.device)
        self.part = f"{self.device}p1"
        self.point = root / "mnt" / "resource"
        for place in ("etc", "run", "var/lib/waagent", "sys"):
            (root / place).mkdir(parents=True)
        for name in ("dev", "proc"):
            (root / name).symlink_to(f"/{name}")
        (root / "sys/block").symlink_to("/sys/block")
        unit = root / f"sys/bus/vmbus/devices/vmbus_1/host1/target1:0:0/1:0:0:1/block/{self.name}"
        unit.mkdir(parents=True)
        (root / "sys/bus/vmbus/devices/vmbus_1/device_id").write_text("{" + GEN2 + "}\n")
        self.host = Host()
        self.lines: list[str] = []
        self.telemetry: list[Event] = []
        self.configure()

    # ---- Preparing ----

    def configure(self, **options: object) -> None:
        lines = [f"ResourceDisk.{name}={value}\n" for name, value in options.items()]
        (self.root / "etc/waagent.conf").write_text("".join(lines))

    def table(self, script: str) -> None:
        """Write a table of partitions, and tell the kernel."""
        sh("sfdisk", "--quiet", self.device, text=script)
        self.read_table()

    def read_table(self) -> None:
        sh("partx", "--update", self.device, check=False)
        deadline = time.monotonic() + 10
        while not os.path.exists(self.part) and time.monotonic() < deadline:
            sh("partx", "--add", self.device, check=False)

    def ntfs(self, *files: str, table: str = "label: dos\nstart=2048, type=7\n", part: int = 1) -> None:
        """Make the disk as the platform delivers it, with *files* on it."""
        self.table(table)
        node = f"{self.device}p{part}"
        sh("mkfs.ntfs", "--fast", "--quiet", "--force", node)
        place = self.root / "look"
        place.mkdir(exist_ok=True)
        sh("mount", "-t", "ntfs", node, str(place))
        try:
            for name in files:
                (place / name).write_text("x")
        finally:
            sh("umount", str(place))

    def filesystem(self, kind: str, *arguments: str) -> None:
        self.table("label: dos\nstart=2048, type=83\n")
        sh(f"mkfs.{kind}", *arguments, self.part)

    # ---- Looking ----

    def type_of(self, device: str, tag: str = "TYPE") -> str:
        return sh("blkid", "-p", "-o", "value", "-s", tag, device, check=False).strip()

    def mounted(self) -> str:
        return sh("findmnt", "-n", "-o", "SOURCE,FSTYPE", "--target", str(self.point), check=False).strip()

    def bytes(self) -> bytes:
        with open(self.device, "rb") as stream:
            return stream.read()

    def content_digest(self) -> str:
        return sh("sha256sum", self.device).split()[0]

    # ---- Acting ----

    def agent(self) -> Agent:
        agent = make_agent(BOOT, str(self.root), plugins=False)
        agent._plugins = self.host  # type: ignore[assignment]
        agent.log.also = lambda level, text: self.lines.append(f"{LEVELS[level]} {text}")
        agent.events.subscribe(self.telemetry.append)
        return agent

    def engine(self, **more: Any) -> Engine:
        return Engine(self.agent(), **more)

    def boot(self, *, forced: bool = False) -> list[PlanResult]:
        """Do what a start of the service does."""
        engine = self.engine(forced=forced)
        run = engine.agent.executor.run
        return [run(engine.disk_plan()), run(engine.background_plan())]

    def unmount(self) -> None:
        for line in Path("/proc/swaps").read_text().splitlines()[1:]:
            if line.startswith(str(self.root) + "/"):
                sh("swapoff", line.split()[0])
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            place = line.split()[4]
            if place.startswith(str(self.root) + "/"):
                sh("umount", place)

    def close(self) -> None:
        self.unmount()
        sh("blockdev", "--setrw", self.device)  # it would stay so for the next user of this loop device
        sh("partx", "--delete", self.device, check=False)
        sh("losetup", "--detach", self.device)
        self.image.unlink()
