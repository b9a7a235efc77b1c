"""The provisioning media: which device it is, and what is done when it does not mount."""

from __future__ import annotations

import pytest

from waagent.errors import NoAnswer


def devices(machine, *names):
    for name in names:
        machine.write("dev/" + name, "")


def mountinfo(machine, *entries):
    lines = [f"36 25 {number} / {point} rw - {kind} {source} rw" for number, point, kind, source in entries]
    machine.write("proc/self/mountinfo", "\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("sda", "sr0", "sr1"), "/dev/sr0"),
        (("sr10", "sr2"), "/dev/sr2"),
        (("hdc", "hdb"), "/dev/hdc"),
        (("cdrom0", "cd1"), "/dev/cdrom0"),
        (("hdb", "vdb1", "srx", "cd0c"), ""),
        ((), ""),
    ],
)
def test_the_device_is_an_optical_one(machine, names, found):
    devices(machine, *names)
    assert machine.distro.find_provisioning_media() == (machine.at(found) if found else "")


@pytest.mark.parametrize(("kind", "taken"), [("udf\n", True), ("iso9660\n", True), ("ext4\n", False), ("", False)])
def test_a_virtual_disk_is_only_taken_with_an_optical_file_system(machine, kind, taken):
    devices(machine, "vda", "vdb")
    machine.answer("blkid", kind or 2)
    assert machine.distro.find_provisioning_media() == (machine.at("/dev/vdb") if taken else "")


def test_it_is_mounted_read_only_and_once(machine):
    point = machine.at("/mnt/cdrom/secure")

    def mount(_command, _data):
        mountinfo(machine, ("11:0", point, "udf", "/dev/sr0"))
        return 0

    machine.answer("mount", mount)
    for _ in range(2):
        assert machine.distro.mount_provisioning_media("/dev/sr0", point) is True
    assert machine.commands() == [f"mount -o ro,nodev,noexec,nosuid -t udf,iso9660,vfat /dev/sr0 {point}"]
    machine.answer("umount", lambda _c, _d: mountinfo(machine) or 0)
    for _ in range(2):
        assert machine.distro.unmount_provisioning_media(point) is True
    assert machine.commands()[1:] == [f"umount {point}"]


def test_one_try_and_the_reason(machine):
    machine.write("proc/filesystems", "nodev\tproc\n\text4\n")
    machine.answer("mount", (32, "", "mount: /mnt: unknown filesystem type 'udf'.\n"))
    with pytest.raises(NoAnswer, match=r"cannot mount /dev/sr0: .*unknown filesystem type.*install udf.*modprobe"):
        machine.distro.mount_provisioning_media("/dev/sr0", "/mnt")
    assert len(machine.commands()) == 1  # whoever looks for a medium has the patience, and other drives (§4)
    machine.write("proc/filesystems", "nodev\tproc\n\tudf\n")
    with pytest.raises(NoAnswer) as failure:
        machine.distro.mount_provisioning_media("/dev/sr0", "/mnt")
    assert "modprobe" not in str(failure.value)


def test_a_mount_point_in_use_is_left_alone(machine):
    mountinfo(machine, ("8:17", "/data", "ext4", "/dev/sdb1"))
    with pytest.raises(NoAnswer, match="/data is taken by /dev/sdb1"):
        machine.distro.mount_provisioning_media("/dev/sr0", "/data")
    assert machine.ran == []


def test_ejecting(machine):
    machine.answer("eject")
    assert machine.distro.eject_provisioning_media("/dev/vdb") is True
    assert machine.ran == []
    machine.distro.eject_provisioning_media("/dev/sr0")
    assert machine.commands() == ["eject /dev/sr0"]
    machine.answer("eject", (1, "", "eject: unable to eject\n"))
    with pytest.raises(NoAnswer, match="unable to eject"):
        machine.distro.eject_provisioning_media("/dev/sr0")
