"""What is done with the resource disk: one table, read from the top (spec/resourcedisk.md §4, §11). Pure.

The first row that applies decides. A row that ends in *format* passes the gates below as well: each of them can turn it
into a refusal, none can turn anything into *format*.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from waagent_resourcedisk import filesystems
from waagent_resourcedisk.records import (
    CLAIMED,
    DISTRIBUTION,
    NVME_LOCAL,
    PROVEN,
    DiskFacts,
    Partition,
    Surroundings,
    Survey,
    Wishes,
)

NONE, OFF, ADOPT, MOUNT, FORMAT, WAIT, REFUSE = "none", "off", "adopt", "mount", "format", "wait", "refuse"
CHANGING = frozenset((MOUNT, FORMAT, WAIT))
"""Actions that lead to a change, so that plugins are asked for a veto first."""


@attrs.frozen
class Decision:
    """What is to be done.

    Attributes:
        action: ``none`` (no such disk), ``off`` (not wanted), ``adopt`` (use the mount that is there), ``mount``,
            ``format``, ``wait`` (somebody else may mount it in a moment) or ``refuse``.
        row: the row of the table that decided.
        reason: why, for people.
        remedy: what a person can do about a refusal; empty when there is nothing.
        partition: what is adopted or mounted; empty when a new one is made.
        filesystem: its type.
        mount_point: where it is, or will be.
    """

    action: str
    row: str
    reason: str
    remedy: str = ""
    partition: str = ""
    filesystem: str = ""
    mount_point: str = ""


@attrs.frozen(eq=False, repr=False)
class Row:
    """One row: it applies when ``test`` gives a reason."""

    name: str
    action: str
    test: Callable[[DiskFacts, Surroundings, Wishes], str]
    remedy: str = ""


def decide(survey: Survey, disk: DiskFacts | None, around: Surroundings, wishes: Wishes) -> Decision:
    """Return what is to be done; total, and the same for the same input.

    Args:
        survey: who is who among the disks.
        disk: what is on the candidate; ``None`` exactly when there is no candidate.
        around: what else matters.
        wishes: the configuration.
    """
    if survey.refusal:
        return Decision(REFUSE if wishes.format else OFF, "identity", survey.refusal)
    if disk is None:
        return Decision(NONE, "no disk", _no_disk(survey))
    row, reason = _first(ROWS, disk, around, wishes)
    if row.action == FORMAT:
        gate, objection = _first(GATES, disk, around, wishes)
        if objection:
            return Decision(REFUSE, gate.name, objection, gate.remedy)
    return _complete(row, reason, disk, wishes)


def _first(rows: tuple[Row, ...], disk: DiskFacts, around: Surroundings, wishes: Wishes) -> tuple[Row, str]:
    for row in rows:
        reason = row.test(disk, around, wishes)
        if reason:
            return row, reason
    return rows[-1], ""


def _complete(row: Row, reason: str, disk: DiskFacts, wishes: Wishes) -> Decision:
    if row.action == ADOPT:
        mount = disk.mounted[0]
        return Decision(ADOPT, row.name, reason, "", mount.device, mount.filesystem, mount.point)
    if row.action == MOUNT:
        first = data_partitions(disk)[0]
        return Decision(MOUNT, row.name, reason, "", first.device, first.filesystem, wishes.mount_point)
    if row.action == FORMAT:
        return Decision(FORMAT, row.name, reason, "", "", wishes.filesystem, wishes.mount_point)
    return Decision(row.action, row.name, reason, row.remedy)


def data_partitions(disk: DiskFacts) -> tuple[Partition, ...]:
    """Return the partitions without the one that Windows reserves in front of them."""
    parts = disk.partitions
    return parts[1:] if parts and parts[0].type in filesystems.RESERVED_TYPES else parts


def others_at_work(around: Surroundings) -> str:
    """Return who else may be about to mount or format the disk; nobody looks closely at it then, let alone acts."""
    if around.fstab:
        return f"/etc/fstab mounts the disk ({around.fstab})"
    return "cloud-init has not finished and may be about to use the disk" if around.cloud_init == "running" else ""


# ---- Tests -----------------------------------------------------------------------------------------------------------


def _no_disk(survey: Survey) -> str:
    if survey.local:
        names = ", ".join(one.device for one in survey.local)
        return f"this VM size has no SCSI resource disk; its local NVMe disks ({names}) are left as they are"
    return "this VM size has no resource disk"


def _system(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    return f"{disk.device} holds {', '.join(disk.system)}: it is not the resource disk" if disk.system else ""


def _mounted(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    if not disk.mounted:
        return ""
    mount = disk.mounted[0]
    elsewhere = "" if mount.point == wishes.mount_point else f", not at {wishes.mount_point} as configured"
    return f"{mount.device} is mounted at {mount.point}{elsewhere}"


def _off(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    return "" if wishes.format else "ResourceDisk.Format is n"


def _read_only(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    if disk.size <= 0:
        return f"{disk.device} has no size"
    return f"{disk.device} is read-only" if disk.read_only else ""


def _held(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    users = [*disk.holders, *(f"swap on {path}" for path in disk.swaps)]
    return f"{disk.device} is used by {', '.join(users)}" if users else ""


def _mixed(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    return _held(disk, around, wishes) if disk.mounted and disk.swaps else ""


def _busy(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    return f"{disk.device} is in use, and the kernel does not say by whom" if disk.busy else ""


def _foreign(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    for device, signature in [(disk.device, disk.signature), *((p.device, p.filesystem) for p in disk.partitions)]:
        if signature and signature != "ntfs" and signature not in filesystems.MOUNTABLE:
            return f"{device} carries {signature}"
    if disk.signature and disk.table:
        return f"{disk.device} carries {disk.signature} beside its table of partitions"
    return ""


def _unknown(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    return f"{disk.device} cannot be looked at: {disk.problem}" if disk.problem else ""


def _bad_place(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    return around.mount_point_problem


def _occupied(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    return f"{wishes.mount_point} is taken by {around.occupied_by}" if around.occupied_by else ""


def _other_service(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    return "azure-ephemeral-disk-setup uses the mount point" if around.ephemeral_service else ""


def _others_first(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    return "" if around.waited else _others(disk, around, wishes)


def _others(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    return others_at_work(around)


def _unfinished(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    return f"an earlier run of the agent was cut short while it formatted {disk.device}" if disk.unfinished else ""


def _convert(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    found = data_partitions(disk)
    if not wishes.reformat or len(found) != 1 or found[0].filesystem not in filesystems.MOUNTABLE:
        return ""
    if found[0].filesystem == wishes.filesystem:
        return ""
    return f"ResourceDisk.AllowReformat is y, and {found[0].device} is {found[0].filesystem}, not {wishes.filesystem}"


def _mountable(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    found = data_partitions(disk)
    if not found or found[0].filesystem not in filesystems.MOUNTABLE:
        return ""
    wanted = "" if found[0].filesystem == wishes.filesystem else f"; it stays, though {wishes.filesystem} is configured"
    return f"{found[0].device} holds {found[0].filesystem}{wanted}"


def _wanted_ntfs(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    found = data_partitions(disk)
    is_wanted = wishes.filesystem == "ntfs" and bool(found) and found[0].filesystem == "ntfs"
    return f"{found[0].device} holds ntfs, as configured" if is_wanted else ""


def _ntfs_disk(disk: DiskFacts) -> Partition | None:
    """Return the NTFS partition of a disk as the platform delivers it, ``None`` for any other disk."""
    found = data_partitions(disk)
    if len(found) != 1 or len(disk.partitions) > 2:
        return None
    part = found[0]
    if part.filesystem == "ntfs":
        return part
    alone = len(disk.partitions) == 1
    return part if alone and not part.filesystem and part.type in filesystems.NTFS_TYPES else None


def _used_ntfs(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    part = _ntfs_disk(disk)
    if part is None:
        return ""
    if part.contents:
        return f"{part.device} holds {len(part.contents)} files ({', '.join(part.contents[:3])})"
    return f"{part.device} is NTFS and cannot be looked into: {part.problem}" if part.problem else ""


def _pristine(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    part = _ntfs_disk(disk)
    if part is None:
        return ""
    how = "empty" if part.contents is not None else "as delivered"
    return f"{part.device} is the platform's NTFS partition, {how}"


def _bare_linux(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    if len(disk.partitions) != 1:
        return ""
    part = disk.partitions[0]
    own = filesystems.BSD_TYPES if disk.candidate.trust == DISTRIBUTION else filesystems.LINUX_TYPES
    bare = part.type in own and not part.filesystem
    return f"{part.device} is a partition for this system without a file system" if bare else ""


def _blank(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    is_blank = disk.blank and disk.table is None and not disk.partitions and not disk.signature
    return f"{disk.device} has no table of partitions, and is blank" if is_blank else ""


def _no_table(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    return f"{disk.device} has no table of partitions, and is not blank" if disk.table is None else ""


def _anything(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    kinds = ", ".join(part.filesystem or part.type or "unknown" for part in disk.partitions)
    return f"{disk.device} has {len(disk.partitions)} partitions ({kinds}): nothing that the platform delivers"


def _untrusted(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    one = disk.candidate
    if one.trust in (PROVEN, DISTRIBUTION) or (one.trust == CLAIMED and one.kind == NVME_LOCAL):
        return ""
    return f"nothing proves that {one.device} is the resource disk ({'; '.join(one.evidence)})"


def _claimed_not_blank(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    claimed = disk.candidate.trust == CLAIMED and not disk.blank and not disk.unfinished
    return f"{disk.device} is claimed by a plugin, and is not blank" if claimed else ""


def _never(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    if wishes.filesystem == "ntfs":
        return "ResourceDisk.Filesystem is ntfs: nothing is formatted"
    made = filesystems.may_be_made(wishes.filesystem)
    return "" if made else f"ResourceDisk.Filesystem is {wishes.filesystem!r}, which cannot be made"


def _cloud_init_forbids(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    ntfs = any(part.filesystem == "ntfs" or part.type in filesystems.NTFS_TYPES for part in disk.partitions)
    return "cloud-init is configured with never_destroy_ntfs" if around.never_destroy_ntfs and ntfs else ""


def _no_tool(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    return f"{around.missing_tool} is not installed" if around.missing_tool else ""


def _gave_up(disk: DiskFacts, around: Surroundings, wishes: Wishes) -> str:
    return around.gave_up


# ---- The table -------------------------------------------------------------------------------------------------------

_TAKE_OFF = "take off what is on the disk, or set ResourceDisk.Format=n"

ROWS = (
    Row("system disk", REFUSE, _system),
    Row("swap beside", REFUSE, _mixed, _TAKE_OFF),
    Row("mounted", ADOPT, _mounted),
    Row("switched off", OFF, _off),
    Row("read-only", REFUSE, _read_only),
    Row("held", REFUSE, _held, _TAKE_OFF),
    Row("foreign signature", REFUSE, _foreign, "wipe it with wipefs if nobody needs it, or set ResourceDisk.Format=n"),
    Row("in use", REFUSE, _busy, _TAKE_OFF),
    Row("unknown", REFUSE, _unknown),
    Row("mount point", REFUSE, _bad_place, "set ResourceDisk.MountPoint to a directory of its own"),
    Row("mount point taken", REFUSE, _occupied, "set ResourceDisk.MountPoint to another place"),
    Row("other service", REFUSE, _other_service, "set ResourceDisk.Format=n, or disable that service"),
    Row("others first", WAIT, _others_first),
    Row(
        "others in charge",
        REFUSE,
        _others,
        "set ResourceDisk.Format=n, or take the disk from cloud-init and fstab",
    ),
    Row("unfinished", FORMAT, _unfinished),
    Row("convert", FORMAT, _convert),
    Row("mountable", MOUNT, _mountable),
    Row("ntfs wanted", MOUNT, _wanted_ntfs),
    Row("used ntfs", REFUSE, _used_ntfs, "move the files elsewhere, then run waagent resourcedisk --apply"),
    Row("pristine", FORMAT, _pristine),
    Row("bare partition", FORMAT, _bare_linux),
    Row("blank", FORMAT, _blank),
    Row("no table", REFUSE, _no_table, "if nobody needs it: wipefs -a and zeros over its first and last MiB"),
    Row("unlisted", REFUSE, _anything, _TAKE_OFF),
)

GATES = (
    Row("not proven", REFUSE, _untrusted),
    Row("claimed, not blank", REFUSE, _claimed_not_blank),
    Row("never formatted", REFUSE, _never),
    Row("never_destroy_ntfs", REFUSE, _cloud_init_forbids, "set datasource.Azure.never_destroy_ntfs to false"),
    Row("no tool", REFUSE, _no_tool, "install it"),
    Row("once a boot", REFUSE, _gave_up, "look at the log, then restart the machine"),
)
