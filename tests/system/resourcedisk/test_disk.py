"""Real disks: what is formatted, what is only mounted, and what stays as it is to the last byte (§14.3, §14.4)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.system.resourcedisk.loops import LoopDisk, sh
from waagent import Veto

pytestmark = pytest.mark.system

GPT_RESERVED = """\
label: gpt
start=2048, size=32768, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE
type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7
"""


def told(disk: LoopDisk) -> str:
    return "\n".join(disk.lines)


def test_the_platforms_disk_becomes_a_linux_disk(disk: LoopDisk) -> None:
    disk.ntfs("DATALOSS_WARNING_README.txt")
    results = disk.boot()
    assert all(result.ok for result in results), results
    assert disk.mounted() == f"{disk.part} ext4"
    assert disk.type_of(disk.part, "PART_ENTRY_TYPE") == "0x83"
    assert disk.type_of(disk.part, "LABEL") == "azure-resource"
    warning = disk.point / "DATALOSS_WARNING_README.txt"
    assert "temporary disk" in warning.read_text()
    assert warning.stat().st_mode & 0o777 == 0o644
    assert disk.host.told == [("ready", str(disk.point), f"{disk.root}{disk.part}", "ext4")]
    assert disk.host.asked[0]["action"] == "format"
    assert "INFO Activate resource disk" in disk.lines
    assert f"INFO Resource disk {disk.name} is mounted at {disk.point} with ext4" in disk.lines


@pytest.mark.parametrize("kind", ["ext3", "xfs", "btrfs"])
def test_every_file_system_that_can_be_made(make_disk: Callable[..., LoopDisk], kind: str) -> None:
    disk = make_disk(400)
    disk.configure(Filesystem=kind)
    disk.ntfs()
    disk.boot()
    assert disk.mounted() == f"{disk.part} {kind}"
    assert disk.type_of(disk.part, "LABEL").startswith("azure-res")


def test_a_reserved_partition_and_ntfs_become_one(disk: LoopDisk) -> None:
    disk.ntfs(table=GPT_RESERVED, part=2)
    disk.boot()
    assert disk.mounted() == f"{disk.part} ext4"
    listed = sh("sfdisk", "--json", disk.device)
    assert listed.count('"node"') == 1
    assert '"label": "gpt"' in listed


def test_without_sfdisk_parted_does_it(disk: LoopDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    from waagent_resourcedisk import formatting, surroundings

    there = surroundings.installed
    monkeypatch.setattr(formatting, "installed", lambda program: program != "sfdisk" and there(program))
    disk.ntfs()
    disk.boot()
    assert disk.mounted() == f"{disk.part} ext4"


def test_a_blank_disk_and_a_bare_partition(make_disk: Callable[..., LoopDisk]) -> None:
    blank, bare = make_disk(), make_disk()
    bare.table("label: dos\nstart=2048, type=83\n")
    for disk in (blank, bare):
        disk.boot()
        assert disk.mounted() == f"{disk.part} ext4"


def test_files_survive_three_starts_and_bad_options(disk: LoopDisk) -> None:
    disk.filesystem("ext4", "-q")
    disk.configure(MountOptions="no-such-option")
    for start in range(3):
        disk.boot()
        assert disk.mounted() == f"{disk.part} ext4"
        if start == 0:
            (disk.point / "precious").write_text("kept")
        assert (disk.point / "precious").read_text() == "kept"
        disk.unmount()
    assert "mounted without the options 'no-such-option'" in told(disk)


def test_another_file_system_is_kept_and_said(disk: LoopDisk) -> None:
    disk.filesystem("ext3", "-q")
    disk.boot()
    assert disk.mounted() == f"{disk.part} ext3"
    assert "WARNING" in told(disk)
    assert "it stays, though ext4 is configured" in told(disk)


def test_another_file_system_is_replaced_when_the_owner_says_so(disk: LoopDisk) -> None:
    disk.filesystem("ext3", "-q")
    disk.configure(AllowReformat="y")
    disk.boot()
    assert disk.mounted() == f"{disk.part} ext4"


def test_a_second_start_changes_nothing(disk: LoopDisk) -> None:
    disk.ntfs()
    disk.boot()
    identity = disk.type_of(disk.part, "UUID")
    disk.lines.clear()
    disk.boot()
    assert disk.type_of(disk.part, "UUID") == identity
    assert f"Resource disk [{disk.root}{disk.part}] is already mounted [{disk.point}]" in told(disk)
    assert "Format " not in told(disk)


def test_a_disk_mounted_elsewhere_is_used_there(disk: LoopDisk) -> None:
    disk.filesystem("ext4", "-q")
    elsewhere = disk.root / "data"
    elsewhere.mkdir()
    sh("mount", disk.part, str(elsewhere))
    disk.boot()
    assert disk.mounted().split()[:1] != [disk.part]
    assert (elsewhere / "DATALOSS_WARNING_README.txt").exists()
    assert disk.host.told[0][:2] == ("ready", str(elsewhere))


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda disk: disk.ntfs("payroll.xls"), "holds 1 files (payroll.xls)"),
        (lambda disk: disk.table("label: dos\nsize=32MiB, type=83\nsize=32MiB, type=83\ntype=83\n"), "3 partitions"),
        (lambda disk: (disk.table("label: dos\ntype=82\n"), sh("mkswap", disk.part)), "carries swap"),
        (lambda disk: sh("mkfs.ext4", "-q", disk.device), "not blank"),
        (lambda disk: sh("dd", "if=/dev/urandom", f"of={disk.device}", "bs=512", "count=1", "seek=9"), "not blank"),
        (lambda disk: (disk.ntfs(), disk.configure(Filesystem="ntfs3g")), "mkfs.ntfs3g is not installed"),
        (lambda disk: (disk.ntfs(), disk.configure(MountPoint="/var/lib")), "belongs to the system"),
        (lambda disk: (disk.ntfs(), setattr(disk.host, "veto", Veto("not today"))), "not today"),
    ],
    ids=["files", "three", "swap", "whole", "noise", "no tool", "bad place", "veto"],
)
def test_what_is_refused_is_not_touched(disk: LoopDisk, prepare: Callable[[LoopDisk], object], reason: str) -> None:
    prepare(disk)
    before = disk.content_digest()
    disk.boot()
    assert disk.content_digest() == before
    assert not disk.mounted().startswith(disk.device)
    assert reason in told(disk)
    assert [word for word, *_ in disk.host.told] == ["failed"]


def test_ntfs_is_mounted_when_that_is_configured(disk: LoopDisk) -> None:
    disk.ntfs("payroll.xls")
    disk.configure(Filesystem="ntfs")
    disk.boot()
    assert (disk.point / "payroll.xls").exists()


def test_held_by_another_owner(disk: LoopDisk) -> None:
    import os

    disk.ntfs()
    before = disk.content_digest()
    descriptor = os.open(disk.part, os.O_RDONLY | os.O_EXCL)
    try:
        disk.boot()
    finally:
        os.close(descriptor)
    assert disk.content_digest() == before
    assert "is in use" in told(disk)


def test_mkfs_that_fails_is_not_tried_again_before_a_reboot(disk: LoopDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    from waagent_resourcedisk import filesystems

    monkeypatch.setitem(filesystems.MAKING, "ext4", ("--no-such-option",))
    disk.ntfs()
    disk.boot()
    assert disk.host.told[-1][0] == "failed"
    monkeypatch.undo()
    disk.boot()
    assert "formatting failed since the machine started" in told(disk)
    assert not disk.mounted().startswith(disk.device)
    disk.boot(forced=True)
    assert disk.mounted() == f"{disk.part} ext4"


def test_a_disk_that_changes_between_the_two_looks(disk: LoopDisk) -> None:
    disk.ntfs()
    engine = disk.engine()
    seen = engine.view()
    assert seen.decision.action == "format"
    sh("wipefs", "-a", disk.part)
    sh("mkfs.ext4", "-q", disk.part)
    with pytest.raises(Exception, match="has changed since it was looked at"):
        engine._activate(seen)
    assert disk.type_of(disk.part) == "ext4"
    assert not disk.mounted().startswith(disk.device)
