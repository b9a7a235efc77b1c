"""The ring of real disks: root, loop devices, the tools of the distribution."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.resourcedisk.loops import LoopDisk, missing


@pytest.fixture(scope="session")
def tools() -> None:
    """Say what is missing here (``.ci/run`` installs all of it)."""
    if os.geteuid() != 0:
        pytest.skip("disks need root")
    if not os.path.exists("/dev/loop-control"):
        pytest.skip("this kernel has no loop devices")
    if missing():
        pytest.skip(f"not installed: {', '.join(missing())}")


@pytest.fixture
def make_disk(tools: None, tmp_path: Path) -> Iterator[Callable[..., LoopDisk]]:
    made: list[LoopDisk] = []

    def make(size: int = 128) -> LoopDisk:
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
def as_the_service_does() -> Iterator[None]:
    """Have the umask of the service's processes."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture
def disk(make_disk: Callable[..., LoopDisk]) -> LoopDisk:
    return make_disk()
