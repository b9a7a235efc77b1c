"""Run inside the virtual machine, whose kernel has what that of the tests may lack: FAT, and a living udev."""

from __future__ import annotations

from pathlib import Path

from tests.system.resourcedisk.loops import LoopDisk


def test_a_disk_is_made_ready_with_fat(tmp_path: Path) -> None:
    root = tmp_path / "machine"
    root.mkdir()
    disk = LoopDisk(root, 64)
    try:
        disk.configure(Filesystem="vfat")
        assert all(result.ok for result in disk.boot())
        assert disk.mounted() == f"{disk.part} vfat"
        assert disk.type_of(disk.part, "LABEL") == "AZURE-RES"
        assert "temporary disk" in (disk.point / "DATALOSS_WARNING_README.txt").read_text()
        disk.lines.clear()
        assert all(result.ok for result in disk.boot())
        assert any("is already mounted" in line for line in disk.lines)
    finally:
        disk.close()
