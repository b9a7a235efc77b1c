"""Real disks: what is formatted, what is only mounted, and what stays as it is to the last byte (§14.3, §14.4)."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.resourcedisk.loops import GPT_RESERVED, LoopDisk, sh, tool
from waagent import Veto

pytestmark = pytest.mark.system


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


def test_places_are_open_to_everybody(disk: LoopDisk, as_the_service_does: None) -> None:
    disk.configure(MountPoint="/srv/scratch/disk")
    disk.ntfs()
    disk.boot()
    disk.unmount()
    for place in ("srv", "srv/scratch", "srv/scratch/disk"):
        assert (disk.root / place).stat().st_mode & 0o777 == 0o755


def test_a_link_on_the_way_to_the_mount_point(disk: LoopDisk) -> None:
    (disk.root / "var/mnt").mkdir()
    (disk.root / "mnt").symlink_to("var/mnt")
    disk.ntfs()
    assert all(result.ok for result in disk.boot())
    assert disk.mounted() == f"{disk.part} ext4"
    assert disk.host.told == [("ready", f"{disk.root}/var/mnt/resource", f"{disk.root}{disk.part}", "ext4")]


@pytest.mark.parametrize(
    ("names", "state", "wanted"),
    [
        ([], "", "format"),
        (["dataloss_WARNING_readme.TXT", "System Volume Information", "$Recycle.Bin"], "", "format"),
        (["DATALOSS_WARNING_README.txt", "x"], "", "holds 1 files (x)"),
        ([".hidden"], "", "holds 1 files (.hidden)"),
        (["x"], "no driver", "format"),
        ([], "dirty", "format"),
        (["x"], "dirty", "holds 1 files (x)"),
        ([], "damaged", "cannot be looked into"),
        ([], "unrecognisable", "nothing that is known"),
    ],
    ids=str,
)
def test_what_ntfs_holds(
    disk: LoopDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], state: str, wanted: str
) -> None:
    disk.ntfs(*names)
    if state == "no driver":
        tool(tmp_path, monkeypatch, "mount", 'exec /usr/bin/mount -i "$@"')  # without the helper that is a driver here
    elif state == "dirty":
        sh("ntfsfix", disk.part)
    elif state:
        with open(disk.part, "r+b") as stream:
            boot = stream.read(512)
            table = int.from_bytes(boot[48:56], "little") * boot[13] * 512
            stream.seek(table + (5 * 1024 if state == "damaged" else 0))
            stream.write(bytes(1024))
    before = disk.content_digest()
    disk.boot()
    if wanted == "format":
        assert disk.mounted() == f"{disk.part} ext4", told(disk)
    else:
        assert disk.content_digest() == before
        assert wanted in told(disk)
        assert disk.host.told[-1][0] == "failed"


def md_superblock(device: str) -> None:
    """Write the superblock of a RAID member (md 1.2), which mdadm makes in the kernel alone."""
    block = bytearray(256)
    struct.pack_into("<IIII", block, 0, 0xA92B4EFC, 1, 0, 0)
    block[16:32] = b"waagent-test-raid"[:16]
    struct.pack_into("<QQQII", block, 128, 2048, 65536, 8, 0, 0)  # the superblock lies at sector 8
    words = struct.unpack("<64I", bytes(block))
    total = sum(words)
    struct.pack_into("<I", block, 216, ((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF)
    with open(device, "r+b") as stream:
        stream.seek(4096)
        stream.write(block)


MEMBERS = {
    "crypto_LUKS": ("cryptsetup", "luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2",
                    "--pbkdf-force-iterations", "1000"),
    "LVM2_member": ("pvcreate", "-q", "-y"),
    "bcache": ("make-bcache", "-B"),
    "swap": ("mkswap",),
    "linux_raid_member": (),
}  # fmt: skip


@pytest.mark.parametrize("whole", [False, True], ids=["partition", "disk"])
@pytest.mark.parametrize("kind", sorted(MEMBERS))
def test_members_of_something_else_are_not_touched(disk: LoopDisk, kind: str, whole: bool) -> None:
    command = MEMBERS[kind]
    if command and shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    if not whole:
        disk.table("label: dos\nstart=2048, type=83\n")
    device = disk.device if whole else disk.part
    if command:
        sh(*command, device, *(["-"] if kind == "crypto_LUKS" else []), text="secret")
    else:
        md_superblock(device)
    assert disk.type_of(device) == kind
    disk.configure(AllowReformat="y")
    before = disk.content_digest()
    disk.boot()
    assert disk.content_digest() == before
    assert f"carries {kind}" in told(disk)
    assert [word for word, *_ in disk.host.told] == ["failed"]


def test_swap_beside_a_mount(disk: LoopDisk) -> None:
    disk.table("label: dos\nstart=2048, size=64MiB, type=83\ntype=82\n")
    sh("mkfs.ext4", "-q", disk.part)
    sh("mkswap", f"{disk.device}p2")
    disk.point.mkdir(parents=True)
    sh("mount", disk.part, str(disk.point))
    sh("swapon", f"{disk.device}p2")
    try:
        disk.boot()
    finally:
        sh("swapoff", f"{disk.device}p2")
    assert "is used by swap on" in told(disk)
    assert [path.name for path in disk.point.iterdir()] == ["lost+found"]


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
    disk.ntfs(table=GPT_RESERVED, part=2)
    disk.boot()
    assert disk.mounted() == f"{disk.part} ext4"
    listed = sh("sfdisk", "--json", disk.device)
    assert listed.count('"node"') == 1
    assert '"label": "gpt"' in listed


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
        (lambda disk: (disk.ntfs(), sh("blockdev", "--setro", disk.device, disk.part)), "is read-only"),
        (
            lambda disk: (
                disk.ntfs(),
                disk.point.mkdir(parents=True),
                sh("mount", "-t", "tmpfs", "others", str(disk.point)),
            ),
            "is taken by others",
        ),
        (
            lambda disk: (
                disk.ntfs(),
                disk.root.joinpath("etc/cloud").mkdir(),
                disk.root.joinpath("etc/cloud/cloud.cfg").write_text(
                    "datasource:\n  Azure: {never_destroy_ntfs: true}\n"
                ),
            ),
            "never_destroy_ntfs",
        ),
    ],
    ids=["files", "three", "swap", "whole", "noise", "no tool", "bad place", "veto", "read-only", "taken", "never"],
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


def test_formatted_once_between_two_starts_of_the_machine(disk: LoopDisk) -> None:
    disk.ntfs()
    disk.boot()
    disk.unmount()
    disk.ntfs()
    before = disk.content_digest()
    disk.boot()
    assert disk.content_digest() == before
    assert "formatted already since the machine started" in told(disk)


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
