"""The resource disk: found beyond doubt, or not at all (spec/resourcedisk.md §2, §4)."""

from __future__ import annotations

import pytest

from tests.unit.distro.test_media import mountinfo
from waagent.errors import NoAnswer
from waagent_distro.steps import disks

GEN1_ROOT, GEN1 = "{00000000-0000-8899-0000-000000000000}", "{00000000-0001-8899-0000-000000000000}"
GEN2 = "{f8b3781a-1e82-4818-a1c3-63d806ec15bb}"
DATA = "{f8b3781b-1e82-4818-a1c3-63d806ec15bb}"


def disk(machine, bus, guid, lun, name, partitions=1, number=16):
    """Put a disk on the virtual bus, as the kernel shows it."""
    machine.write(f"sys/bus/vmbus/devices/{bus}/device_id", guid + "\n")
    place = machine.root / f"sys/bus/vmbus/devices/{bus}/host0/target0:0:{lun}/0:0:0:{lun}/block/{name}"
    place.mkdir(parents=True)
    machine.write("dev/" + name, "")
    machine.write(f"sys/block/{name}/dev", f"8:{number}\n")
    machine.write(f"sys/block/{name}/size", "20480\n")
    for index in range(1, partitions + 1):
        machine.write(f"sys/block/{name}/{name}{index}/partition", f"{index}\n")
        machine.write(f"sys/block/{name}/{name}{index}/dev", f"8:{number + index}\n")
        machine.write(f"sys/block/{name}/{name}{index}/size", "18432\n")


def link(machine, name, path="dev/disk/azure/resource"):
    place = machine.root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(machine.root / "dev" / name)


def test_first_generation_machines(machine):
    disk(machine, "a", GEN1_ROOT, 0, "sda", number=0)
    disk(machine, "b", GEN1, 0, "sdb")
    disk(machine, "c", DATA, 1, "sdc", number=32)
    assert machine.distro.find_resource_disk() == machine.at("/dev/sdb")


def test_second_generation_machines_by_number(machine):
    for lun, name, number in ((2, "sr0", 64), (1, "sdz", 16), (0, "sda", 0)):
        disk(machine, "scsi", GEN2, lun, name, number=number)
    assert machine.distro.find_resource_disk() == machine.at("/dev/sdz")


def test_a_machine_without_one(machine):
    assert machine.distro.find_resource_disk() == ""
    disk(machine, "scsi", GEN2, 0, "sda", number=0)
    disk(machine, "data", DATA, 1, "sdb")
    assert machine.distro.find_resource_disk() == ""
    assert machine.stopping.slept == []


def test_a_disk_that_is_on_its_way_is_waited_for(machine):
    machine.write("sys/bus/vmbus/devices/b/device_id", GEN1 + "\n")
    assert machine.distro.find_resource_disk() == ""
    assert sum(machine.stopping.slept) == 10


@pytest.mark.parametrize("path", ["dev/disk/azure/resource", "dev/disk/cloud/azure_resource"])
def test_links_are_taken_and_compared(machine, path):
    machine.write("dev/sdb", "")
    link(machine, "sdb", path)
    assert machine.distro.find_resource_disk() == machine.at("/dev/sdb")
    disk(machine, "scsi", GEN2, 1, "sdc")
    with pytest.raises(NoAnswer, match=r"udev says that the resource disk is .*sdb, the virtual bus says .*sdc"):
        machine.distro.find_resource_disk()


@pytest.mark.parametrize("point", ["/", "/boot", "/usr", "/var"])
def test_the_disk_of_the_system_is_never_it(machine, point):
    disk(machine, "b", GEN1, 0, "sdb")
    mountinfo(machine, ("8:17", point, "ext4", "/dev/root"))
    with pytest.raises(NoAnswer, match=f"holds {point}: it is not the resource disk"):
        machine.distro.find_resource_disk()


def test_neither_is_one_that_the_system_is_built_on(machine):
    disk(machine, "b", GEN1, 0, "sdb")
    (machine.root / "sys/block/sdb/sdb1/holders/dm-0").mkdir(parents=True)
    machine.write("sys/class/block/dm-0/dev", "253:0\n")
    mountinfo(machine, ("253:0", "/", "xfs", "/dev/mapper/root"))
    with pytest.raises(NoAnswer, match="holds /"):
        machine.distro.find_resource_disk()


def test_neither_is_one_whose_file_system_spans_devices(machine, monkeypatch):
    disk(machine, "b", GEN1, 0, "sdb")
    mountinfo(machine, ("0:29", "/", "btrfs", "/dev/sdb1"))
    numbers = {machine.at("/dev/sdb1"): (8, 17)}
    monkeypatch.setattr("waagent_distro.steps.mounts.number_of", numbers.get)
    with pytest.raises(NoAnswer, match="holds /"):
        machine.distro.find_resource_disk()


@pytest.mark.parametrize(("name", "partition"), [("sdb", "sdb1"), ("sdba", "sdba1"), ("nvme0n1", "nvme0n1p1")])
def test_partitions_are_named_as_the_kernel_does(name, partition):
    assert disks.partition_name(name, 1) == partition


def blkid(machine, values):
    def run(command, _data):
        found = values.get(command[-1].rpartition("/")[2])
        return (0, found, "") if found else (2, "", "")

    machine.answer("blkid", run)


def test_facts_of_a_disk_fresh_from_the_platform(machine):
    disk(machine, "b", GEN1, 0, "sdb", partitions=2)
    machine.write("sys/block/sdb/ro", "0\n")
    machine.answer("udevadm", "14d53465420202020\n")
    blkid(machine, {
        "sdb": "DEVNAME=/dev/sdb\nPTTYPE=gpt\n",
        "sdb1": "DEVNAME=x\nPART_ENTRY_TYPE=E3C9E316-0B5C-4DB8-817D-F92DF00215AE\n",
        "sdb2": "TYPE=ntfs\nLABEL=Temporary\\ Storage\nPART_ENTRY_TYPE=ebd0a0a2-b9e5-4433-87c0-68b6b72699c7\n",
    })  # fmt: skip
    facts = machine.distro.read_resource_disk(machine.at("/dev/sdb"))
    assert facts["table"] == "gpt"
    assert facts["size"] == 20480 * 512
    assert facts["serial"] == "14d53465420202020"
    assert (facts["mounted"], facts["holders"], facts["read_only"], facts["blank"]) == (None, (), False, False)
    first, second = facts["partitions"]
    assert first["type"] == "e3c9e316-0b5c-4db8-817d-f92df00215ae"
    assert (second["filesystem"], second["size"]) == ("ntfs", 18432 * 512)
    assert second["device"] == machine.at("/dev/sdb2")
    assert (second["contents"], second["problem"]) == (None, "nothing is mounted under another root")


def test_facts_of_a_disk_in_use(machine):
    disk(machine, "b", GEN1, 0, "sdb")
    machine.write("sys/block/sdb/ro", "1\n")
    (machine.root / "sys/block/sdb/sdb1/holders/dm-0").mkdir(parents=True)
    machine.write("sys/class/block/dm-0/dev", "253:0\n")
    mountinfo(machine, ("253:0", "/mnt/with\\040blank", "ext4", "/dev/mapper/x"))
    blkid(machine, {"sdb": "PTTYPE=dos\n", "sdb1": "TYPE=crypto_LUKS\nPART_ENTRY_TYPE=0x83\n"})
    facts = machine.distro.read_resource_disk(machine.at("/dev/sdb"))
    assert facts["table"] == "mbr"
    assert facts["mounted"] == "/mnt/with blank"
    assert facts["holders"] == ("dm-0",)
    assert facts["read_only"] is True
    assert (facts["partitions"][0]["type"], facts["partitions"][0]["filesystem"]) == ("83", "crypto_LUKS")


@pytest.mark.parametrize(
    ("content", "blank"), [(bytes(3 << 20), True), (b"x" + bytes(3 << 20), False), (bytes(3 << 20) + b"x", False)]
)
def test_a_blank_disk_is_told_from_one_that_is_not(machine, content, blank):
    disk(machine, "b", GEN1, 0, "sdb", partitions=0)
    machine.write("dev/sdb", content)
    machine.write("sys/block/sdb/size", f"{-(-len(content) // 512)}\n")
    blkid(machine, {})
    facts = machine.distro.read_resource_disk(machine.at("/dev/sdb"))
    assert (facts["table"], facts["blank"]) == (None, blank)


def test_signatures_that_contradict_each_other_are_one(machine):
    disk(machine, "b", GEN1, 0, "sdb", partitions=0)
    machine.answer("blkid", 8)
    assert machine.distro.read_resource_disk(machine.at("/dev/sdb"))["signature"] == "ambivalent"


@pytest.mark.parametrize("change", ["mount", "holder", "read-only"])
def test_a_disk_that_came_into_use_is_not_formatted(machine, change):
    disk(machine, "b", GEN1, 0, "sdb")
    blkid(machine, {"sdb": "PTTYPE=dos\n"})
    for command in ("mkfs.ext4", "sfdisk", "wipefs"):
        machine.answer(command)
    if change == "mount":
        mountinfo(machine, ("8:17", "/data", "ext4", "/dev/sdb1"))
    elif change == "holder":
        (machine.root / "sys/block/sdb/sdb1/holders/md0").mkdir(parents=True)
    else:
        machine.write("sys/block/sdb/ro", "1\n")
    with pytest.raises(NoAnswer, match="is not formatted"):
        machine.distro.format_resource_disk(machine.at("/dev/sdb"), "ext4")
    assert [line for line in machine.commands() if "-V" not in line and "--version" not in line] == ["udevadm info "
        "--query=property --property=ID_SERIAL --value --name " + machine.at("/dev/sdb")]  # fmt: skip


@pytest.mark.parametrize("missing", ["mkfs.ext4", "sfdisk", "wipefs"])
def test_a_missing_tool_is_found_before_the_first_write(machine, missing):
    disk(machine, "b", GEN1, 0, "sdb")
    for command in {"mkfs.ext4", "sfdisk", "wipefs"} - {missing}:
        machine.answer(command)
    with pytest.raises(NoAnswer, match=f"{missing} is not installed: the disk stays as it is"):
        machine.distro.format_resource_disk(machine.at("/dev/sdb"), "ext4")
    for filesystem in ("ntfs", "ext4;reboot", "../x", ""):
        with pytest.raises(NoAnswer, match="is no file system to make"):
            machine.distro.format_resource_disk(machine.at("/dev/sdb"), filesystem)


@pytest.mark.parametrize("point", ["/", "/etc", "/home", "/usr/", "/var/lib", "relative", "/mnt/link"])
def test_a_mount_never_hides_the_system(machine, point):
    (machine.root / "mnt").mkdir()
    (machine.root / "mnt/link").symlink_to("/")
    place = machine.at(point) + ("/" if point.endswith("s/") else "") if point.startswith("/") else point
    with pytest.raises(NoAnswer, match="is no place to mount a disk"):
        machine.distro.mount_resource_disk("/dev/sdb1", place)
    assert machine.ran == []


def test_options_to_blame_are_left_out_and_nothing_is_formatted(machine):
    point = machine.at("/mnt/resource")
    machine.answer("blockdev")
    machine.answer("mount", lambda command, _d: (32, "", "mount: bad option") if "-o" in command else 0)
    assert machine.distro.mount_resource_disk("/dev/sdb1", point, "compress=lzo") is True
    assert machine.commands()[-1] == f"mount /dev/sdb1 {point}"
    assert any("mounted without the options 'compress=lzo'" in line for line in machine.lines)
    machine.answer("mount", (32, "", "mount: wrong fs type"))
    with pytest.raises(NoAnswer, match=r"which stays as it is: .*wrong fs type"):
        machine.distro.mount_resource_disk("/dev/sdb1", point)
    assert not any(line.startswith(("mkfs", "wipefs", "sfdisk")) for line in machine.commands())


def test_timeouts_of_scsi_disks(machine):
    for name, old in (("sda", "30\n"), ("sdb", "300\n"), ("nvme0n1", "30\n"), ("sdaa", "1\n")):
        machine.write(f"sys/block/{name}/device/timeout", old)
    assert machine.distro.set_scsi_timeout(300) is True
    values = {name: machine.read(f"sys/block/{name}/device/timeout") for name in ("sda", "sdb", "nvme0n1", "sdaa")}
    assert values == {"sda": "300", "sdb": "300\n", "nvme0n1": "30\n", "sdaa": "300"}
    for seconds in (0, 86401):
        with pytest.raises(NoAnswer, match="is no timeout for disks"):
            machine.distro.set_scsi_timeout(seconds)


# ---- Swap ----


@pytest.fixture
def swappable(machine):
    (machine.root / "mnt").mkdir()
    point = str((machine.root / "mnt").resolve())
    mountinfo(machine, ("8:1", "/", "btrfs", "/dev/sda1"), ("8:17", point, "ext4", "/dev/sdb1"))
    machine.write("proc/swaps", "Filename Type Size Used Priority\n")
    machine.answer("mkswap")
    machine.answer("swapon")
    return machine


def test_a_swap_file_is_written_in_full(swappable):
    path = swappable.root / "mnt/swapfile"
    assert swappable.distro.enable_swap(str(path), 3) is True
    assert path.stat().st_size == 3 << 20
    assert path.stat().st_blocks * 512 >= 3 << 20  # no holes
    assert path.stat().st_mode & 0o777 == 0o600
    tool, on = swappable.ran
    assert tool[:3] == ("mkswap", "-L", "waagent")
    assert on == ("swapon", str(path))
    assert list(path.parent.iterdir()) == [path]
    assert any(f"Enabled 3072KB of swap at {path}" in line for line in swappable.lines)


def test_one_in_use_of_the_right_size_is_left_alone(swappable):
    path = swappable.root / "mnt/swap file"
    path.write_bytes(bytes(2 << 20))
    swappable.write(
        "proc/swaps", "Filename Type Size Used Priority\n" + str(path).replace(" ", "\\040") + " file 2044 0 -2\n"
    )
    assert swappable.distro.enable_swap(str(path), 2) is True
    assert swappable.ran == []
    assert path.stat().st_mode & 0o777 == 0o600


def test_one_of_the_right_size_that_is_not_used_is_used(swappable):
    path = swappable.root / "mnt/swapfile"
    path.write_bytes(bytes(2 << 20))
    swappable.distro.enable_swap(str(path), 2)
    assert swappable.commands() == [f"swapon {path}"]


def test_one_that_swapon_refuses_is_made_anew(swappable):
    path = swappable.root / "mnt/swapfile"
    path.write_bytes(b"x" * (2 << 20))
    answers = iter([1, 0, 0, 0])
    swappable.answer("swapon", lambda _c, _d: next(answers))
    assert swappable.distro.enable_swap(str(path), 2) is True
    assert path.read_bytes() == bytes(2 << 20)


def test_the_old_one_is_given_up_when_the_new_one_is_ready(swappable):
    path = swappable.root / "mnt/swapfile"
    path.write_bytes(bytes(1 << 20))
    swappable.write("proc/swaps", f"Filename Type Size Used Priority\n{path} file 1020 0 -2\n")
    swappable.answer("swapoff", lambda _c, _d: swappable.write("proc/swaps", "Filename\n") and 0)
    swappable.distro.enable_swap(str(path), 2)
    assert [command[0] for command in swappable.ran] == ["mkswap", "swapoff", "swapon"]
    assert path.stat().st_size == 2 << 20


def test_where_memory_is_short_the_old_one_stays(swappable):
    path = swappable.root / "mnt/swapfile"
    path.write_bytes(bytes(1 << 20))
    swappable.write("proc/swaps", f"Filename Type Size Used Priority\n{path} file 1020 0 -2\n")
    swappable.answer("swapoff", (255, "", "swapoff failed: Cannot allocate memory\n"))
    with pytest.raises(NoAnswer, match="Cannot allocate memory"):
        swappable.distro.enable_swap(str(path), 2)
    assert path.stat().st_size == 1 << 20
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("size", "said"), [(0, r"Invalid swap size \[0\]"), (-1, "Invalid"), (1 << 30, "do not fit")])
def test_sizes_that_cannot_be(swappable, size, said):
    with pytest.raises(NoAnswer, match=said):
        swappable.distro.enable_swap(str(swappable.root / "mnt/swapfile"), size)
    assert list((swappable.root / "mnt").iterdir()) == []


def test_a_failure_leaves_no_file(swappable):
    swappable.answer("swapon", (255, "", "swapon failed: Invalid argument\n"))
    path = swappable.root / "mnt/swapfile"
    path.with_name("swapfile.dead.new").write_text("of an attempt that was killed")
    with pytest.raises(NoAnswer, match="Invalid argument"):
        swappable.distro.enable_swap(str(path), 1)
    assert list((swappable.root / "mnt").iterdir()) == []


def test_file_systems_that_cannot_hold_swap(swappable):
    point = str((swappable.root / "mnt").resolve())
    mountinfo(swappable, ("8:17", point, "vfat", "/dev/sdb1"))
    with pytest.raises(NoAnswer, match="no swap file is made on vfat"):
        swappable.distro.enable_swap(point + "/swapfile", 1)


def test_links_are_no_swap_files(swappable):
    (swappable.root / "mnt/swapfile").symlink_to("/etc/passwd")
    with pytest.raises(NoAnswer, match="is no regular file"):
        swappable.distro.enable_swap(str(swappable.root / "mnt/swapfile"), 1)
