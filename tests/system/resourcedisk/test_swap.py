"""Real swap files: exact, private, never without swap in between, and nobody else's touched (§14.5)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.resourcedisk.loops import LoopDisk, sh
from waagent import AgentError
from waagent_resourcedisk import swapfile
from waagent_resourcedisk.system import System

pytestmark = pytest.mark.system


def active(path: Path) -> bool:
    names = [line.split()[0] for line in Path("/proc/swaps").read_text().splitlines()[1:]]
    return any(os.path.exists(name) and os.path.samefile(name, path) for name in names)


def swap_of(disk: LoopDisk) -> Path:
    return disk.point / "swapfile"


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "ext3"])
@pytest.mark.parametrize("size", [64, 100])
def test_exact_size_and_private(make_disk: Callable[..., LoopDisk], kind: str, size: int) -> None:
    disk = make_disk(700)
    disk.configure(Filesystem=kind, EnableSwap="y", SwapSizeMB=size)
    disk.boot()
    swap = swap_of(disk)
    assert active(swap), "\n".join(disk.lines)
    assert swap.stat().st_size == size << 20
    assert swap.stat().st_mode & 0o777 == 0o600
    assert disk.type_of(str(swap), "LABEL") == "waagent"
    assert f"INFO Enabled {size * 1024}KB of swap at {swap}" in disk.lines
    inode = swap.stat().st_ino
    disk.lines.clear()
    disk.boot()
    assert swap.stat().st_ino == inode
    assert not any("Enable swap" in line for line in disk.lines)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_size_that_is_no_multiple_of_anything(make_disk: Callable[..., LoopDisk], kind: str) -> None:
    disk = make_disk(1700)
    disk.configure(Filesystem=kind, EnableSwap="y", SwapSizeMB=1025)
    disk.boot()
    assert swap_of(disk).stat().st_size == 1025 << 20
    assert active(swap_of(disk))


def test_up_and_down_beside_other_swap(make_disk: Callable[..., LoopDisk], tmp_path: Path) -> None:
    disk = make_disk(900)
    other = tmp_path / "others"
    other.write_bytes(bytes(16 << 20))
    other.chmod(0o600)
    sh("mkswap", str(other))
    sh("swapon", str(other))
    try:
        for size in (64, 128, 70):
            disk.configure(EnableSwap="y", SwapSizeMB=size)
            disk.boot()
            assert swap_of(disk).stat().st_size == size << 20
            assert active(swap_of(disk))
            assert active(other)
    finally:
        sh("swapoff", str(other))
    # The kernel keeps the name that a file was switched on under; a restart of the machine ends that.
    sh("swapoff", str(swap_of(disk)))
    disk.boot()
    assert sorted(os.listdir(disk.point)) == ["DATALOSS_WARNING_README.txt", "lost+found", "swapfile"]
    assert active(swap_of(disk))


def test_room_for_one_only(make_disk: Callable[..., LoopDisk]) -> None:
    disk = make_disk(620)
    for size in (200, 210):
        disk.configure(EnableSwap="y", SwapSizeMB=size)
        disk.boot()
        assert swap_of(disk).stat().st_size == size << 20, "\n".join(disk.lines)
        assert active(swap_of(disk))


def test_too_large(disk: LoopDisk) -> None:
    disk.configure(EnableSwap="y", SwapSizeMB=64)
    results = disk.boot()
    assert not results[1].ok
    assert not swap_of(disk).exists()
    assert any("do not fit" in line for line in disk.lines)
    assert disk.mounted() == f"{disk.part} ext4"


def test_no_size(disk: LoopDisk) -> None:
    disk.configure(EnableSwap="y")
    disk.boot()
    assert any("Invalid swap size [0]" in line for line in disk.lines)


def test_swap_without_formatting_on_a_disk_that_somebody_else_mounted(make_disk: Callable[..., LoopDisk]) -> None:
    disk = make_disk(600)
    disk.filesystem("ext4", "-q")
    place = disk.root / "mnt"
    place.mkdir()
    sh("mount", disk.part, str(place))
    disk.configure(Format="n", EnableSwap="y", SwapSizeMB=64)
    engine = disk.engine()
    assert engine.agent.executor.run(engine.background_plan()).ok
    assert active(place / "swapfile")
    assert sorted(os.listdir(place)) == ["lost+found", "swapfile"]


def test_allocated_space_that_the_kernel_refuses_is_written(
    make_disk: Callable[..., LoopDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    def holes(agent: object, descriptor: int, path: str, size: int) -> None:
        os.ftruncate(descriptor, size)

    monkeypatch.setitem(swapfile._FILLERS, "allocate", holes)
    disk = make_disk(600)
    disk.configure(EnableSwap="y", SwapSizeMB=64)
    disk.boot()
    assert active(swap_of(disk)), "\n".join(disk.lines)
    assert any("does not take" in line for line in disk.lines)
    assert any("75 % written" in line for line in disk.lines)
    assert swap_of(disk).stat().st_blocks * 512 >= 64 << 20


@pytest.mark.parametrize("kind", ["file", "link", "directory"])
def test_what_is_no_swap_file_is_left_alone(disk: LoopDisk, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    swap = tmp_path / "swapfile"
    if kind == "file":
        swap.write_text("precious")
    elif kind == "link":
        swap.symlink_to(target)
    else:
        swap.mkdir()
    agent = disk.agent()
    with pytest.raises(AgentError, match="left alone"):
        swapfile.enable(agent, System(agent.paths), str(swap), 64, "ext4")
    assert target.read_text() == "precious"
    assert swap.exists()


@pytest.mark.parametrize("switched_on", [False, True])
def test_a_run_that_was_killed_left_its_draft(make_disk: Callable[..., LoopDisk], switched_on: bool) -> None:
    disk = make_disk(700)
    disk.configure(EnableSwap="y", SwapSizeMB=64)
    disk.boot()
    disk.configure(EnableSwap="y", SwapSizeMB=80)
    draft = disk.point / "swapfile.new"
    draft.write_bytes(bytes((80 if switched_on else 33) << 20))
    draft.chmod(0o600)
    if switched_on:
        sh("mkswap", "-L", "waagent", str(draft))
        sh("swapon", str(draft))
    disk.boot()
    assert swap_of(disk).stat().st_size == 80 << 20
    assert active(swap_of(disk)), Path("/proc/swaps").read_text()
    assert Path("/proc/swaps").read_text().count(str(disk.point)) == 1
