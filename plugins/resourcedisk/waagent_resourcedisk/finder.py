"""Which disk is the resource disk: the virtual bus, udev's links, NVMe models (spec/resourcedisk.md §2).

Only the virtual bus proves it. A link that agrees adds nothing but comfort, a link that disagrees ends it, and a link
alone is good enough to use what is there but never to format.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from waagent_resourcedisk.records import (
    CLAIMED,
    LINKED,
    NVME_LOCAL,
    PROVEN,
    ROLE_DATA,
    ROLE_LOCAL,
    ROLE_OTHER,
    ROLE_RESOURCE,
    ROLE_SYSTEM,
    SCSI,
    UNKNOWN,
    Candidate,
    Survey,
)

if TYPE_CHECKING:
    from waagent_resourcedisk.system import System

BUS = "/sys/bus/vmbus/devices"
LINKS = ("/dev/disk/azure/resource", "/dev/disk/cloud/azure_resource")
"""Links that udev rules make: those of the agents and azure-vm-utils, then cloud-init's."""

_GEN1_SYSTEM, _GEN1_RESOURCE = "00000000-0000", "00000000-0001"
_GEN2 = "f8b3781a-1e82-4818-a1c3-63d806ec15bb"
_GEN2_ROLES = {0: ROLE_SYSTEM, 1: ROLE_RESOURCE}
LOCAL_MODELS = frozenset(("Microsoft NVMe Direct Disk", "Microsoft NVMe Direct Disk v2"))
"""Models of local NVMe disks; everything else on NVMe is the system's or the owner's data."""

_ADDRESS = re.compile(r"\d+:\d+:\d+:(\d+)\Z")
_NO_DISKS = ("sr", "fd", "st")
EARLY = 120.0
"""Seconds after the kernel's start in which a disk may still be on its way though its neighbour is there."""


@attrs.frozen
class _OnBus:
    name: str
    role: str
    evidence: str


def survey(system: System, claimed: str = "") -> Survey:
    """Find out who is who among the disks. Nothing is written.

    Args:
        system: the kernel's tables.
        claimed: a device that a plugin calls the resource disk (operation ``find_resource_disk``), empty for none.
    """
    found, pending = _on_bus(system)
    roles = {one.name: one.role for one in found}
    local = _nvme(system, roles)
    proven = [one for one in found if one.role == ROLE_RESOURCE]
    linked, disagreement = _linked(system)
    disk, refusal = _agreed(proven, linked, disagreement, roles)
    if claimed and (disk is None or system.resolved(claimed) != disk.name):
        disk, refusal = _claim(system, claimed, roles, local, refusal)
    candidate = None if disk is None or refusal else _candidate(system, disk)
    return Survey(candidate, refusal, roles, local, pending and candidate is None and not refusal)


def _agreed(
    proven: list[_OnBus], linked: dict[str, str], disagreement: str, roles: dict[str, str]
) -> tuple[Candidate | None, str]:
    if len(proven) > 1:
        names = ", ".join(one.name for one in proven)
        return None, f"the virtual bus names several resource disks ({names}): none is touched"
    if disagreement:
        return None, disagreement
    link, name = next(iter(linked.items()), ("", ""))
    if proven:
        one = proven[0]
        if name and name != one.name:
            return None, f"{link} leads to {name}, the virtual bus says {one.name}: neither is touched"
        more = (f"{link} leads to it",) if name else ()
        return Candidate(one.name, "", SCSI, PROVEN, (one.evidence, *more)), ""
    if name and name in roles:
        return None, f"{link} leads to {name}, which the platform gives as a {roles[name]} disk: it is not touched"
    if name:
        return Candidate(name, "", UNKNOWN, LINKED, (f"{link} leads to it; the virtual bus does not confirm it",)), ""
    return None, ""


def _claim(
    system: System, claimed: str, roles: dict[str, str], local: tuple[Candidate, ...], refusal: str
) -> tuple[Candidate | None, str]:
    """Return what becomes of a plugin's claim: only local NVMe disks are given to plugins."""
    name = system.resolved(claimed)
    if refusal:
        return None, refusal
    for one in local:
        if one.name == name:
            return attrs.evolve(one, trust=CLAIMED, evidence=(*one.evidence, "a plugin claims it")), ""
    role = roles.get(name)
    if role is not None:
        return None, f"a plugin claims {claimed}, which the platform gives as a {role} disk: it is not touched"
    return None, f"a plugin claims {claimed}, and nothing proves that it is a temporary disk: it is not touched"


def _candidate(system: System, disk: Candidate) -> Candidate:
    return attrs.evolve(disk, device=system.paths.at("/dev/" + disk.name))


# ---- The virtual bus -------------------------------------------------------------------------------------------------


def _on_bus(system: System) -> tuple[list[_OnBus], bool]:
    """Return the disks on the bus, and whether one is missing that may yet come."""
    found: list[_OnBus] = []
    pending = False
    for entry in system.listed(BUS):
        guid = system.text(f"{BUS}/{entry}/device_id").strip("{}").lower()
        units = _units(system, f"{BUS}/{entry}")
        for lun, name in units:
            role = role_of(guid, lun)
            if name.startswith(_NO_DISKS):
                continue
            found.append(_OnBus(name, role, f"virtual bus device {guid}, logical unit {lun}"))
        if guid.startswith(_GEN1_RESOURCE) and not units:
            pending = True
        elif guid == _GEN2 and not any(lun == 1 for lun, _ in units):
            pending = pending or not units or system.uptime() < EARLY
    return found, pending


def role_of(guid: str, lun: int) -> str:
    """Return the role of the disk at a logical unit of a controller (resourcedisk §2.1).

    Controllers that are not known carry what the owner attached: data.
    """
    if guid.startswith(_GEN1_SYSTEM):
        return ROLE_SYSTEM
    if guid.startswith(_GEN1_RESOURCE):
        return ROLE_RESOURCE
    if guid == _GEN2:
        return _GEN2_ROLES.get(lun, ROLE_OTHER)
    return ROLE_DATA


def _units(system: System, device: str) -> list[tuple[int, str]]:
    """Return logical unit and kernel name of every block device below a controller."""
    found = []
    for host in system.listed(device):
        if not host.startswith("host"):
            continue
        for target in system.listed(f"{device}/{host}"):
            if not target.startswith("target"):
                continue
            for address in system.listed(f"{device}/{host}/{target}"):
                match = _ADDRESS.match(address)
                if match:
                    place = f"{device}/{host}/{target}/{address}"
                    found += [(int(match.group(1)), name) for name in _block_names(system, place)]
    return found


def _block_names(system: System, unit: str) -> list[str]:
    """Return the names in ``block/``; kernels before 2.6.26 have an entry ``block:sdb`` instead."""
    names = system.listed(f"{unit}/block")
    return names or [entry.partition(":")[2] for entry in system.listed(unit) if entry.startswith("block:")]


# ---- Links, NVMe -----------------------------------------------------------------------------------------------------


def _linked(system: System) -> tuple[dict[str, str], str]:
    """Return kernel names by link, and what is wrong when they disagree."""
    found = {link: name for link in LINKS for name in [system.resolved(link)] if name}
    if len(set(found.values())) > 1:
        text = ", ".join(f"{link} leads to {name}" for link, name in found.items())
        return found, f"links disagree ({text}): neither is touched"
    return found, ""


def _nvme(system: System, roles: dict[str, str]) -> tuple[Candidate, ...]:
    """Note the role of every NVMe disk in *roles*, and return the local ones."""
    found = []
    names = [name for name in system.disks() if name.startswith("nvme")]
    for controller in system.listed("/sys/class/nvme"):
        model = system.text(f"/sys/class/nvme/{controller}/model")
        for name in names:
            if re.match(re.escape(controller) + r"(c\d+)?n\d+\Z", name):
                is_local = model in LOCAL_MODELS
                roles[name] = ROLE_LOCAL if is_local else ROLE_DATA
                if is_local:
                    device = system.paths.at("/dev/" + name)
                    found.append(Candidate(name, device, NVME_LOCAL, "", (f"model {model}",)))
    for name in names:
        roles.setdefault(name, ROLE_DATA)
    return tuple(found)
