"""What is known of a disk, of its surroundings, and what the owner wishes: the whole input of the decision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

PROVEN, LINKED, CLAIMED, DISTRIBUTION = "proven", "linked", "claimed", "distribution"
"""How sure it is that a disk is the resource disk: the virtual bus says so; a udev link alone says so; a plugin claims
a local NVMe disk; the distribution's plugin found it (systems without Linux's ``/sys``)."""

SCSI, NVME_LOCAL, UNKNOWN = "scsi", "nvme-local", "unknown"
ROLE_SYSTEM, ROLE_RESOURCE, ROLE_DATA, ROLE_LOCAL, ROLE_OTHER = "system", "resource", "data", "local", "other"


@attrs.frozen
class Candidate:
    """A disk that may be the resource disk.

    Attributes:
        name: the kernel's (``sdb``).
        device: its node.
        kind: ``scsi``, ``nvme-local`` or ``unknown``.
        trust: ``proven``, ``linked``, ``claimed`` or ``distribution``.
        evidence: what speaks for it, for people.
    """

    name: str
    device: str
    kind: str
    trust: str
    evidence: tuple[str, ...] = ()


@attrs.frozen
class Survey:
    """Who is who among the disks.

    Attributes:
        candidate: the resource disk, ``None`` when there is none or when it is not certain which.
        refusal: why it is not certain; empty otherwise.
        roles: role of each disk whose role is known, by kernel name.
        local: local NVMe disks, which nobody touches unless a plugin claims one.
        pending: a controller is there whose disk is not: it may be on its way.
    """

    candidate: Candidate | None = None
    refusal: str = ""
    roles: Mapping[str, str] = attrs.field(factory=dict)
    local: tuple[Candidate, ...] = ()
    pending: bool = False


@attrs.frozen
class Partition:
    """One partition.

    Attributes:
        device: its node.
        number: in the table, from 1.
        type: hexadecimal MBR type (``83``) or GPT GUID, lower case; empty when unknown.
        filesystem: the signature on it as ``blkid`` names it, empty for none.
        label: of the file system.
        size: bytes.
        contents: names at the top of an NTFS file system without the platform's own; ``None``: not looked at.
        problem: why the contents cannot be had; empty also when the kernel has no driver.
    """

    device: str
    number: int = 1
    type: str = ""
    filesystem: str = ""
    label: str = ""
    size: int = 0
    contents: tuple[str, ...] | None = None
    problem: str = ""


@attrs.frozen
class Mounted:
    """A mount of the disk, or of something on it.

    Attributes:
        device: what is mounted.
        point: where.
        filesystem: its type.
        writable: it is not mounted read-only.
    """

    device: str
    point: str
    filesystem: str
    writable: bool = True


@attrs.frozen
class DiskFacts:
    """What was found on one disk.

    Attributes:
        candidate: which disk, and why it.
        size: bytes.
        serial: of the disk, may be empty.
        read_only: the kernel says that it cannot be written.
        table: ``gpt``, ``mbr``, another name for an unusual one, ``None`` for none.
        table_id: the identifier in the table.
        signature: of the whole disk, empty for none.
        blank: neither table nor signature, and nothing but zeros in the first and the last MiB.
        partitions: by number.
        mounted: its mounts, the whole file system before parts of it.
        system: mount points of the system that lie on it.
        holders: what is built on it.
        swaps: its devices that are in use as swap; files on it that are swap do not count.
        busy: the kernel does not give it to anybody else, though nothing visible holds it.
        problem: why it could not be looked at; empty when everything is known.
        unfinished: an earlier run of ours began to format it and did not come to the end, and it cannot be mounted.
    """

    candidate: Candidate
    size: int = 0
    serial: str = ""
    read_only: bool = False
    table: str | None = None
    table_id: str = ""
    signature: str = ""
    blank: bool = False
    partitions: tuple[Partition, ...] = ()
    mounted: tuple[Mounted, ...] = ()
    system: tuple[str, ...] = ()
    holders: tuple[str, ...] = ()
    swaps: tuple[str, ...] = ()
    busy: bool = False
    problem: str = ""
    unfinished: bool = False

    @property
    def device(self) -> str:
        """The disk's node."""
        return self.candidate.device

    def for_hooks(self, action: str, reason: str) -> dict[str, Any]:
        """Return the facts as ``decide_resource_disk`` gives them to plugins.

        Args:
            action: what would be done: ``format``, ``mount``, ``wait``, ``adopt`` or ``swap``.
            reason: why.
        """
        facts: dict[str, Any] = attrs.asdict(self)
        facts.update(facts.pop("candidate"))
        names = [name for part in self.partitions for name in part.contents or ()]
        kinds = [part.filesystem for part in self.partitions if part.filesystem]
        facts.update(action=action, reason=reason, contents=tuple(names), filesystem=kinds[0] if kinds else "")
        return facts


@attrs.frozen
class Surroundings:
    """What else matters.

    Attributes:
        mount_point_problem: why nothing may be mounted at the configured place; empty: it may.
        occupied_by: what is mounted there already; empty: nothing.
        fstab: the line of ``/etc/fstab`` that mounts the disk; empty: none.
        ephemeral_service: that line belongs to the service of azure-vm-utils.
        cloud_init: ``""`` (not enabled), ``running`` (not finished since the machine started) or ``done``.
        never_destroy_ntfs: cloud-init is configured never to format NTFS.
        missing_tool: the program that formatting lacks; empty: none.
        gave_up: why formatting is not tried again before the next start of the machine; empty: it may be.
        waited: there was enough waiting for whoever else mounts the disk.
    """

    mount_point_problem: str = ""
    occupied_by: str = ""
    fstab: str = ""
    ephemeral_service: bool = False
    cloud_init: str = ""
    never_destroy_ntfs: bool = False
    missing_tool: str = ""
    gave_up: str = ""
    waited: bool = False


@attrs.frozen
class Wishes:
    """The owner's configuration.

    Attributes:
        format: ``ResourceDisk.Format``.
        filesystem: ``ResourceDisk.Filesystem``, lower case.
        mount_point: ``ResourceDisk.MountPoint``.
        options: ``ResourceDisk.MountOptions``.
        reformat: ``ResourceDisk.AllowReformat``.
        swap: ``ResourceDisk.EnableSwap``.
        swap_mib: ``ResourceDisk.SwapSizeMB``.
    """

    format: bool = True
    filesystem: str = "ext4"
    mount_point: str = "/mnt/resource"
    options: str | None = None
    reformat: bool = False
    swap: bool = False
    swap_mib: int = 0
