"""The temporary disk of a machine: which one it is (spec/resourcedisk.md §2), and SCSI timeouts."""

from __future__ import annotations

import glob
import os
import re
from typing import TYPE_CHECKING

from waagent import AgentError
from waagent_distro.steps import mounts, textfiles

if TYPE_CHECKING:
    from waagent import Agent

LINKS = ("/dev/disk/azure/resource", "/dev/disk/cloud/azure_resource")
"""Links that udev rules make: those of agents and azure-vm-utils, then cloud-init's."""

_GEN1 = "00000000-0001"
_GEN2 = "f8b3781a-1e82-4818-a1c3-63d806ec15bb"
_RESOURCE_LUN = 1
_SYSTEM = ("/", "/boot", "/boot/efi", "/efi", "/usr", "/var")
_WAIT_TRIES, _WAIT_PAUSE = 20, 0.5
_LONGEST_TIMEOUT = 86400


def find(agent: Agent) -> str:
    """Return the device of the resource disk, empty when this size of machine has none.

    Raises:
        AgentError: udev's link and the virtual bus name different disks, or the system itself lies on it.
    """
    bus = agent.paths.at("/sys/bus/vmbus/devices")
    linked = _linked(agent)
    named = _on_bus(agent)
    for _ in range(_WAIT_TRIES if os.path.isdir(bus) and not (linked or named) and _expects(agent) else 0):
        agent.stopping.wait(_WAIT_PAUSE)  # early at boot the disk may still be on its way
        linked, named = _linked(agent), _on_bus(agent)
        if linked or named:
            break
    if linked and named and os.path.realpath(linked) != os.path.realpath(named):
        raise AgentError(
            f"udev says that the resource disk is {linked}, the virtual bus says {named}: neither is touched"
        )
    device = named or linked
    if device:
        _refuse_system_disk(agent, device)
    return device


def kernel_name(device: str) -> str:
    """Return the kernel's name of a device (``sdb``)."""
    return os.path.basename(os.path.realpath(device))


def sys_block(agent: Agent, device: str) -> str:
    """Return the directory of a disk below ``/sys/block``."""
    return agent.paths.at(f"/sys/block/{kernel_name(device)}")


def partitions(agent: Agent, device: str) -> list[str]:
    """Return the kernel's names of a disk's partitions, by number."""
    name, place = kernel_name(device), sys_block(agent, device)
    found = [
        entry for entry in _listed(place) if entry.startswith(name) and os.path.exists(f"{place}/{entry}/partition")
    ]
    return sorted(found, key=lambda entry: int(textfiles.first_line(f"{place}/{entry}/partition") or 0))


def numbers(agent: Agent, device: str) -> set[tuple[int, int]]:
    """Return the device numbers of a disk, of its partitions and of everything built on them."""
    found: set[tuple[int, int]] = set()
    place = sys_block(agent, device)
    todo = [place, *(f"{place}/{name}" for name in partitions(agent, device))]
    while todo:
        here = todo.pop()
        major, colon, minor = textfiles.first_line(here + "/dev").partition(":")
        if colon:
            found.add((int(major), int(minor)))
        todo += [agent.paths.at(f"/sys/class/block/{name}") for name in _listed(here + "/holders")]
    return found


def set_scsi_timeout(agent: Agent, seconds: int) -> bool:
    """Set the timeout of every ``sd*`` disk that has another one (provisioning §22.3).

    Raises:
        AgentError: it is no number of seconds from 1 to a day.
    """
    if not 1 <= seconds <= _LONGEST_TIMEOUT:
        raise AgentError(f"{seconds} s is no timeout for disks: 1 to {_LONGEST_TIMEOUT}")
    for path in sorted(glob.glob(agent.paths.at("/sys/block/sd*/device/timeout"))):
        if textfiles.first_line(path) == str(seconds):
            continue
        try:
            with open(path, "w", encoding="ascii") as stream:
                stream.write(str(seconds))
        except FileNotFoundError:
            continue  # the disk was taken away meanwhile
        agent.log.info(f"Set the timeout of {path.split('/')[-3]} to {seconds} s")
    return True


def _linked(agent: Agent) -> str:
    for link in LINKS:
        path = agent.paths.at(link)
        if os.path.exists(path):
            return agent.paths.at("/dev/" + kernel_name(path))
    return ""


def _on_bus(agent: Agent) -> str:
    for device in _bus_devices(agent):
        guid = textfiles.first_line(device + "/device_id").strip("{}").lower()
        first_generation = guid.startswith(_GEN1)
        if not first_generation and guid != _GEN2:
            continue
        for block in sorted(glob.glob(f"{glob.escape(device)}/host*/target*/*:*:*:*/block/*")):
            lun = block.split("/")[-3].rpartition(":")[2]
            if first_generation or lun == str(_RESOURCE_LUN):
                return agent.paths.at("/dev/" + os.path.basename(block))
    return ""


def _expects(agent: Agent) -> bool:
    """Return whether a controller is there that could bring the disk, and has not brought one yet."""
    for device in _bus_devices(agent):
        guid = textfiles.first_line(device + "/device_id").strip("{}").lower()
        if guid.startswith(_GEN1) and not glob.glob(f"{glob.escape(device)}/host*"):
            return True
    return False


def _bus_devices(agent: Agent) -> list[str]:
    place = agent.paths.at("/sys/bus/vmbus/devices")
    return [os.path.join(place, name) for name in _listed(place)]


def _refuse_system_disk(agent: Agent, device: str) -> None:
    ours = numbers(agent, device)
    for mount in mounts.points_of(agent, ours):
        if mount.point in _SYSTEM:
            raise AgentError(f"{device} holds {mount.point}: it is not the resource disk")


def _listed(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def partition_name(name: str, number: int) -> str:
    """Return the kernel's name of a partition: ``sdb1``, but ``nvme0n1p1``."""
    return f"{name}p{number}" if re.search(r"\d\Z", name) else f"{name}{number}"
