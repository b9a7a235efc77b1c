"""Every row of the table (§14.2), and that no input whatever leads to formatting what must stay."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waagent_resourcedisk import filesystems
from waagent_resourcedisk.decision import ADOPT, FORMAT, MOUNT, NONE, OFF, REFUSE, WAIT, decide
from waagent_resourcedisk.records import (
    CLAIMED,
    DISTRIBUTION,
    LINKED,
    NVME_LOCAL,
    PROVEN,
    SCSI,
    Candidate,
    DiskFacts,
    Mounted,
    Partition,
    Surroundings,
    Survey,
    Wishes,
)

DISK = Candidate("sdb", "/dev/sdb", SCSI, PROVEN, ("virtual bus",))
RESERVED = Partition("/dev/sdb1", 1, "e3c9e316-0b5c-4db8-817d-f92df00215ae")
NTFS = Partition("/dev/sdb1", 1, "7", "ntfs", contents=())
EXT4 = Partition("/dev/sdb1", 1, "83", "ext4")
BARE = Partition("/dev/sdb1", 1, "83")
BASE = DiskFacts(DISK, size=1 << 30, table="mbr", partitions=(NTFS,))


def disk(*parts: Partition, **values: object) -> DiskFacts:
    return attrs.evolve(BASE, partitions=parts or BASE.partitions, **values)  # type: ignore[arg-type]


def action(facts: DiskFacts, around: Surroundings | None = None, **wishes: object) -> str:
    found = decide(Survey(DISK), facts, around or Surroundings(), Wishes(**wishes))  # type: ignore[arg-type]
    assert found.reason
    return found.action


@pytest.mark.parametrize(
    ("facts", "wanted"),
    [
        (disk(), FORMAT),
        (disk(RESERVED, attrs.evolve(NTFS, device="/dev/sdb2", number=2)), FORMAT),
        (disk(attrs.evolve(NTFS, contents=None)), FORMAT),
        (disk(Partition("/dev/sdb1", 1, "7")), FORMAT),
        (disk(BARE), FORMAT),
        (attrs.evolve(BASE, table=None, partitions=(), blank=True), FORMAT),
        (attrs.evolve(BASE, table=None, partitions=(), blank=False), REFUSE),
        (attrs.evolve(BASE, table=None, partitions=(), signature="ext4"), REFUSE),
        (attrs.evolve(BASE, partitions=()), REFUSE),
        (disk(attrs.evolve(NTFS, contents=("a.txt",))), REFUSE),
        (disk(attrs.evolve(NTFS, contents=None, problem="dirty")), REFUSE),
        (disk(EXT4), MOUNT),
        (disk(attrs.evolve(EXT4, filesystem="ext3")), MOUNT),
        (disk(BARE, attrs.evolve(BARE, number=2)), REFUSE),
        (disk(NTFS, NTFS, NTFS), REFUSE),
        (disk(mounted=(Mounted("/dev/sdb1", "/data", "ext4"),)), ADOPT),
        (disk(system=("/",), mounted=(Mounted("/dev/sdb1", "/", "ext4"),)), REFUSE),
        (disk(holders=("dm-0",)), REFUSE),
        (disk(swaps=("/dev/sdb1",)), REFUSE),
        (disk(swaps=("/dev/sdb2",), mounted=(Mounted("/dev/sdb1", "/data", "ext4"),)), REFUSE),
        (disk(attrs.evolve(BARE, type="a5")), REFUSE),
        (disk(read_only=True), REFUSE),
        (disk(size=0), REFUSE),
        (disk(busy=True), REFUSE),
        (disk(problem="blkid failed"), REFUSE),
        (disk(signature="linux_raid_member"), REFUSE),
        (disk(attrs.evolve(EXT4, filesystem="xfs"), unfinished=True), FORMAT),
    ],
)
def test_rows(facts: DiskFacts, wanted: str) -> None:
    assert action(facts) == wanted


@pytest.mark.parametrize(
    "signature",
    [
        "crypto_LUKS",
        "LVM2_member",
        "linux_raid_member",
        "zfs_member",
        "swap",
        "bcache",
        "BitLocker",
        "ambivalent",
        "new",
    ],
)
def test_foreign_signatures(signature: str) -> None:
    assert action(disk(attrs.evolve(EXT4, filesystem=signature)), reformat=True) == REFUSE


@pytest.mark.parametrize(
    ("around", "facts", "wanted"),
    [
        (Surroundings(occupied_by="/dev/sdc1"), disk(), REFUSE),
        (Surroundings(mount_point_problem="no"), disk(EXT4), REFUSE),
        (Surroundings(cloud_init="running"), disk(), WAIT),
        (Surroundings(cloud_init="running", waited=True), disk(), REFUSE),
        (Surroundings(cloud_init="done"), disk(), FORMAT),
        (Surroundings(fstab="LABEL=x at /mnt"), disk(EXT4), WAIT),
        (Surroundings(fstab="LABEL=x at /mnt", waited=True), disk(EXT4), REFUSE),
        (Surroundings(fstab="x at /mnt", ephemeral_service=True), disk(), REFUSE),
        (Surroundings(never_destroy_ntfs=True), disk(), REFUSE),
        (Surroundings(never_destroy_ntfs=True), disk(BARE), FORMAT),
        (Surroundings(missing_tool="mkfs.ext4"), disk(), REFUSE),
        (Surroundings(missing_tool="mkfs.ext4"), disk(EXT4), MOUNT),
        (Surroundings(gave_up="it failed"), disk(), REFUSE),
    ],
)
def test_surroundings(around: Surroundings, facts: DiskFacts, wanted: str) -> None:
    assert action(facts, around) == wanted


def test_wishes() -> None:
    assert action(disk(), format=False) == OFF
    assert action(disk(), filesystem="ntfs") == MOUNT
    assert action(disk(BARE), filesystem="ntfs") == REFUSE
    assert action(disk(BARE), filesystem="../../x") == REFUSE
    ext3 = disk(attrs.evolve(EXT4, filesystem="ext3"))
    assert action(ext3, reformat=True) == FORMAT
    assert action(disk(EXT4), reformat=True) == MOUNT


@pytest.mark.parametrize(
    ("trust", "kind", "facts", "wanted"),
    [
        (LINKED, SCSI, disk(), REFUSE),
        (LINKED, SCSI, disk(EXT4), MOUNT),
        (DISTRIBUTION, SCSI, disk(), FORMAT),
        (DISTRIBUTION, SCSI, disk(attrs.evolve(BARE, type="a5")), FORMAT),
        (DISTRIBUTION, SCSI, disk(BARE), REFUSE),
        (CLAIMED, SCSI, disk(), REFUSE),
        (CLAIMED, NVME_LOCAL, disk(), REFUSE),
        (CLAIMED, NVME_LOCAL, attrs.evolve(BASE, table=None, partitions=(), blank=True), FORMAT),
    ],
)
def test_trust(trust: str, kind: str, facts: DiskFacts, wanted: str) -> None:
    assert action(attrs.evolve(facts, candidate=attrs.evolve(DISK, trust=trust, kind=kind))) == wanted


def test_no_disk_and_no_certainty() -> None:
    local = (Candidate("nvme1n1", "/dev/nvme1n1", NVME_LOCAL, ""),)
    none = decide(Survey(local=local), None, Surroundings(), Wishes())
    assert none.action == NONE
    assert "/dev/nvme1n1" in none.reason
    assert decide(Survey(refusal="two"), None, Surroundings(), Wishes()).action == REFUSE


_text = st.sampled_from(["", "x"])
_kinds = st.sampled_from(["", "ntfs", "ext4", "xfs", "crypto_LUKS", "LVM2_member", "swap", "vfat", "unheard_of"])
_types = st.sampled_from(
    ["7", "83", "82", "fd", "ef", "", *filesystems.RESERVED_TYPES, *filesystems.LINUX_TYPES, *filesystems.BSD_TYPES]
)
_parts = st.lists(
    st.builds(
        Partition,
        device=st.just("/dev/sdb1"),
        type=_types,
        filesystem=_kinds,
        contents=st.sampled_from([None, (), ("file",)]),
        problem=_text,
    ),
    max_size=4,
).map(tuple)
_disks = st.builds(
    DiskFacts,
    candidate=st.builds(
        Candidate,
        name=st.just("sdb"),
        device=st.just("/dev/sdb"),
        kind=st.sampled_from([SCSI, NVME_LOCAL]),
        trust=st.sampled_from([PROVEN, LINKED, CLAIMED, DISTRIBUTION, ""]),
    ),
    size=st.sampled_from([0, 1 << 30, 3 << 40]),
    read_only=st.booleans(),
    table=st.sampled_from([None, "mbr", "gpt", "bsd"]),
    signature=_kinds,
    blank=st.booleans(),
    partitions=_parts,
    mounted=st.sampled_from([(), (Mounted("/dev/sdb1", "/data", "ext4"),)]),
    system=st.sampled_from([(), ("/",)]),
    holders=st.sampled_from([(), ("dm-0",)]),
    swaps=st.sampled_from([(), ("/dev/sdb1",)]),
    busy=st.booleans(),
    problem=_text,
    unfinished=st.booleans(),
)
_around = st.builds(
    Surroundings,
    mount_point_problem=_text,
    occupied_by=_text,
    fstab=_text,
    ephemeral_service=st.booleans(),
    cloud_init=st.sampled_from(["", "running", "done"]),
    never_destroy_ntfs=st.booleans(),
    missing_tool=_text,
    gave_up=_text,
    waited=st.booleans(),
)
_wishes = st.builds(
    Wishes, format=st.booleans(), filesystem=st.sampled_from(["ext4", "xfs", "ntfs", "a/b"]), reformat=st.booleans()
)


@settings(max_examples=1500, deadline=None)
@given(facts=_disks, around=_around, wishes=_wishes)
def test_no_input_formats_what_must_stay(facts: DiskFacts, around: Surroundings, wishes: Wishes) -> None:
    found = decide(Survey(facts.candidate), facts, around, wishes)
    if found.action not in (FORMAT, MOUNT):
        return
    assert wishes.format
    used = [facts.mounted, facts.system, facts.holders, facts.swaps, facts.busy, facts.read_only, facts.problem]
    assert not any(used)
    others = [around.mount_point_problem, around.occupied_by, around.fstab, around.cloud_init == "running"]
    assert not any(others)
    assert {part.filesystem for part in facts.partitions} <= {"", "ntfs", "ext4", "xfs", "vfat"}
    if found.action != FORMAT:
        return
    assert facts.candidate.trust in (PROVEN, DISTRIBUTION, CLAIMED)
    assert wishes.filesystem in ("ext4", "xfs")
    assert not any([around.missing_tool, around.gave_up])
    if facts.unfinished or (wishes.reformat and found.row == "convert"):
        return
    assert not any(part.contents for part in facts.partitions if part.filesystem == "ntfs")
    data = [part for part in facts.partitions if part.type not in filesystems.RESERVED_TYPES]
    assert not any(part.filesystem in filesystems.MOUNTABLE for part in data)
    assert len(facts.partitions) <= 2
