"""What is on the resource disk, before anything is decided (spec/resourcedisk.md §4, §4.1). Nothing is written."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any

from waagent_distro.steps import disks, mounts, textfiles

if TYPE_CHECKING:
    from waagent import Agent

IGNORED = frozenset(("dataloss_warning_readme.txt", "system volume information", "$recycle.bin"))
"""What the platform itself leaves on the disk, in lower case (§4.1)."""

_TABLES = {"gpt": "gpt", "dos": "mbr"}
_SECTOR = 512
_EDGE = 1 << 20
_NO_DRIVER = "unknown filesystem type"


def read(agent: Agent, device: str) -> dict[str, Any]:
    """Return the facts that ``read_resource_disk`` documents.

    Raises:
        AgentError: the disk is not there.
        OSError: it cannot be read.
    """
    place = disks.sys_block(agent, device)
    whole = probe(agent, device)
    table = _TABLES.get(whole.get("PTTYPE", ""))
    signature = whole.get("TYPE", "")
    found = [_partition(agent, device, name) for name in disks.partitions(agent, device)]
    mounted = mounts.points_of(agent, disks.numbers(agent, device))
    size = _size(place)
    return {
        "device": device,
        "table": table,
        "partitions": found,
        "mounted": mounted[0].point if mounted else None,
        "size": size,
        "read_only": textfiles.first_line(place + "/ro") == "1",
        "serial": _serial(agent, device),
        "signature": signature,
        "blank": not whole.get("PTTYPE") and not signature and _is_blank(device, size),
        "holders": tuple(_holders(agent, device)),
    }


def probe(agent: Agent, device: str) -> dict[str, str]:
    """Return what ``blkid`` recognises on a device, by its names (``TYPE``, ``PTTYPE``, ``PART_ENTRY_TYPE``, …)."""
    # 0 and 2 are answers; 8 says that several signatures contradict each other.
    done = agent.run(("blkid", "-p", "-o", "export", device))
    values = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if done.returncode == 8:
        values["TYPE"] = "ambivalent"
    return values


def _partition(agent: Agent, disk: str, name: str) -> dict[str, Any]:
    device = os.path.join(os.path.dirname(os.path.realpath(disk)), name)
    values = probe(agent, device)
    kind = values.get("PART_ENTRY_TYPE", "").lower()
    contents, problem = None, ""
    if values.get("TYPE") == "ntfs":
        contents, problem = _contents(agent, device)
    return {
        "device": device,
        "type": kind.removeprefix("0x"),
        "filesystem": values.get("TYPE", ""),
        "label": values.get("LABEL", ""),
        "size": _size(disks.sys_block(agent, disk) + "/" + name),
        "contents": contents,
        "problem": problem,
    }


def _contents(agent: Agent, device: str) -> tuple[tuple[str, ...] | None, str]:
    """Return the names at the top of an NTFS file system, without the platform's; and why they cannot be had."""
    if not agent.paths.is_real:
        return None, "nothing is mounted under another root"
    point = tempfile.mkdtemp(prefix="waagent-ntfs-")
    try:
        problems = []
        for kind in ("ntfs3", "ntfs"):
            done = agent.run(
                ("mount", "-t", kind, "-o", "ro,nodev,noexec,nosuid", device, point),
                env={**os.environ, "LANG": "C", "LC_ALL": "C"},
            )
            if done.ok:
                try:
                    names = os.listdir(point)
                finally:
                    agent.run(("umount", point), check=True)
                return tuple(sorted(name for name in names if name.lower() not in IGNORED)), ""
            if _NO_DRIVER not in done.stderr:
                problems.append(done.describe())
        return None, "; ".join(problems)  # no driver at all: nobody used the disk from Linux either
    finally:
        os.rmdir(point)


def _holders(agent: Agent, device: str) -> list[str]:
    place = disks.sys_block(agent, device)
    found = []
    for here in (place, *(f"{place}/{name}" for name in disks.partitions(agent, device))):
        directory = here + "/holders"
        found += sorted(os.listdir(directory)) if os.path.isdir(directory) else []
    ours = disks.numbers(agent, device)
    found += [path for path in mounts.swaps(agent) if mounts.number_of(agent.paths.at(path)) in ours]
    return found


def _serial(agent: Agent, device: str) -> str:
    done = agent.run(("udevadm", "info", "--query=property", "--property=ID_SERIAL", "--value", "--name", device))
    return done.stdout.strip() if done.ok else ""


def _size(place: str) -> int:
    sectors = textfiles.first_line(place + "/size")
    return int(sectors) * _SECTOR if sectors.isdigit() else 0


def _is_blank(device: str, size: int) -> bool:
    """Return whether the first and last MiB of a disk hold nothing but zeros."""
    with open(device, "rb", buffering=0) as stream:
        for at in (0, max(0, size - _EDGE)):
            stream.seek(at)
            if (stream.read(_EDGE) or b"").strip(b"\0"):
                return False
    return True
