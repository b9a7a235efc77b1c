"""The ring of real disks: root, loop devices, the tools of the distribution."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.resourcedisk.loops import LoopDisk, missing


@pytest.fixture(scope="session")
def tools() -> None:
    """Have the tools here, or say what is missing."""
    if os.geteuid() != 0:
        pytest.skip("disks need root")
    if not os.path.exists("/dev/loop-control"):
        pytest.skip("this kernel has no loop devices")
    packages = missing()
    if packages and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages], check=False)
    if missing():
        pytest.skip(f"not installed: {', '.join(missing())}")


@pytest.fixture
def make_disk(tools: None, tmp_path: Path) -> Iterator[Callable[..., LoopDisk]]:
    made: list[LoopDisk] = []

    def make(size: int = 256) -> LoopDisk:
        root = tmp_path / f"machine{len(made)}"
        root.mkdir()
        try:
            disk = LoopDisk(root, size)
        except AssertionError as problem:
            pytest.skip(f"no loop device to be had: {problem}")
        made.append(disk)
        return disk

    yield make
    for disk in made:
        disk.close()


@pytest.fixture
def disk(make_disk: Callable[..., LoopDisk]) -> LoopDisk:
    return make_disk()
