"""Recorded trees of ``/sys``, ``/proc`` and ``/dev``, with regular files where no device is needed."""

from __future__ import annotations

import os
from pathlib import Path

from waagent import Paths
from waagent_resourcedisk.system import System

FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where hundreds of trees are made and removed in no time."""

GEN1_SYSTEM = "00000000-0000-8899-0000-000000000000"
GEN1_RESOURCE = "00000000-0001-8899-0000-000000000000"
GEN2 = "f8b3781a-1e82-4818-a1c3-63d806ec15bb"
GEN2_DATA = "f8b3781b-1e82-4818-a1c3-63d806ec15bb"


class Tree:
    """A machine on paper."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "sys/block").mkdir(parents=True)
        (root / "dev").mkdir()
        self.controllers = 0
        self.minor = 0
        self.write("proc/uptime", "1000.0 1.0\n")

    @property
    def system(self) -> System:
        return System(Paths(str(self.root)))

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def disk(self, name: str) -> None:
        """Let the kernel know a disk, which is a plain file in ``/dev``."""
        place = self.root / "sys/block" / name
        if not place.exists():
            self.minor += 16
            self.write(f"sys/block/{name}/dev", f"8:{self.minor}\n")
            self.write(f"sys/block/{name}/size", "2097152\n")
            self.write(f"dev/{name}", "")

    def controller(self, guid: str, *units: tuple[int, str], old: bool = False) -> None:
        """Add a controller of the virtual bus with disks at logical units."""
        self.controllers += 1
        number = self.controllers
        base = f"sys/bus/vmbus/devices/vmbus_{number}"
        self.write(f"{base}/device_id", "{" + guid + "}\n")
        for lun, name in units:
            unit = f"{base}/host{number}/target{number}:0:0/{number}:0:0:{lun}"
            inner = f"{unit}/block:{name}" if old else f"{unit}/block/{name}"
            (self.root / inner).mkdir(parents=True)
            if not name.startswith("sr"):
                self.disk(name)

    def nvme(self, controller: str, model: str, *namespaces: str) -> None:
        self.write(f"sys/class/nvme/{controller}/model", f"{model}   \n")
        for name in namespaces:
            self.disk(name)

    def link(self, path: str, name: str) -> None:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(self.root / "dev" / name)
