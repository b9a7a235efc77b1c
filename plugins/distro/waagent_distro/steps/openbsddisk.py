"""The resource disk and swap of OpenBSD (spec/resourcedisk.md §7)."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from waagent import AgentError
from waagent_distro.steps import bsd

if TYPE_CHECKING:
    from waagent import Agent

_DISK = "wd1"
_LARGEST_SWAP = 524288  # MiB
_ENTRY = re.compile(r"^ +([a-p]): +(\d+) +\d+ +(\S+)", re.MULTILINE)


def find(agent: Agent) -> str:
    """Return the second disk of the controller, empty when the kernel did not find one."""
    names = agent.run(("sysctl", "-n", "hw.disknames"), check=True).stdout
    found = [word.partition(":")[0].strip() for word in names.split(",")]
    return agent.paths.at("/dev/" + _DISK) if _DISK in found else ""


def read(agent: Agent, device: str) -> dict[str, Any]:
    """Return the facts that ``read_resource_disk`` documents; what this system does not tell is left at "no"."""
    name = os.path.basename(device)
    listing = agent.run(("fdisk", name)).stdout
    table = "gpt" if "Usable LBA" in listing else "mbr" if "Signature: 0xAA55" in listing else None
    found: list[dict[str, Any]] = []
    size = 0
    for letter, sectors, kind in _ENTRY.findall(agent.run(("disklabel", name)).stdout):
        if letter == "c":  # the whole disk
            size = int(sectors) * 512
            continue
        if letter == "b" and kind == "swap" and found and found[0]["filesystem"] == "ufs":
            continue  # the half that formatting left for swap
        found.append({
            "device": device + letter, "type": kind.lower(), "filesystem": "ufs" if kind == "4.2BSD" else kind.lower(),
            "label": "", "size": int(sectors) * 512, "contents": None, "problem": "",
        })  # fmt: skip
    mounted = bsd.mounts_of(agent, device, "[a-p]")
    return {
        "device": device, "table": table, "partitions": found, "mounted": mounted[0][1] if mounted else None,
        "mounted_device": mounted[0][0] if mounted else "", "size": size,
        "read_only": False, "serial": "", "signature": "", "blank": False, "holders": (),
    }  # fmt: skip


def make(agent: Agent, device: str, filesystem: str) -> str:
    """Write a table, a label of two halves (files, swap) and a file system on the first.

    Raises:
        AgentError: another file system is wanted, or the disk is in use.
        CommandError: a tool failed.
    """
    if filesystem not in ("ffs", "ufs", "ufs2"):
        raise AgentError(f"OpenBSD's resource disk takes ffs, not {filesystem}")
    facts = read(agent, device)
    if facts["mounted"]:
        raise AgentError(f"{device} is not formatted: mounted {facts['mounted']}")
    name = os.path.basename(device)
    agent.run(("fdisk", "-yi", name), timeout=60, check=True)
    point = agent.config.text("ResourceDisk.MountPoint") or "/mnt/resource"
    swap = min(agent.config.integer("ResourceDisk.SwapSizeMB"), _LARGEST_SWAP)
    if agent.config.boolean("ResourceDisk.EnableSwap") and swap > 0:
        template = f"{point} 1G-* 50%\nswap 1-{swap}M 50%\n"
    else:
        template = f"{point} 1G-* 100%\n"
    agent.run(("disklabel", "-w", "-A", "-T", "/dev/stdin", name), input=template.encode(), timeout=60, check=True)
    agent.run(("newfs", "-O2", name + "a"), timeout=300, check=True)
    return device + "a"


def mount(agent: Agent, partition: str, mount_point: str) -> bool:
    """Mount the partition.

    Raises:
        AgentError: the place is taken.
        CommandError: it cannot be mounted.
    """
    taken = bsd.mounted_at(agent, mount_point)
    if taken == partition:
        return True
    if taken:
        raise AgentError(f"{mount_point} is taken by {taken}")
    os.makedirs(mount_point, 0o755, exist_ok=True)
    agent.run(("mount", partition, mount_point), timeout=60, check=True)
    return True


def enable_swap(agent: Agent, path: str) -> bool:
    """Use the second partition of the disk that holds *path*.

    Raises:
        AgentError: no disk of ours is mounted there, or it was formatted without swap.
        CommandError: ``swapctl`` refuses.
    """
    source = bsd.mounted_at(agent, os.path.dirname(path))
    if not re.search(r"/wd\d+a\Z", source):
        raise AgentError(f"no disk with a swap partition is mounted at {os.path.dirname(path)}")
    partition = source[:-1] + "b"
    if not any(line.split()[:1] == [partition] for line in agent.run(("swapctl", "-l")).stdout.splitlines()):
        agent.run(("swapctl", "-a", partition), check=True)
    return True
