"""What is on a disk, before anything is decided. Nothing is written; NTFS is looked into through a read-only mount."""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

import attrs

from waagent import ensure_dir
from waagent_resourcedisk import filesystems
from waagent_resourcedisk.records import Candidate, DiskFacts, Mounted, Partition

if TYPE_CHECKING:
    from waagent import Agent
    from waagent_resourcedisk.marker import Marker
    from waagent_resourcedisk.system import Mount, System

SYSTEM_POINTS = frozenset(("/", "/boot", "/boot/efi", "/efi", "/usr", "/var"))
IGNORED = frozenset(("dataloss_warning_readme.txt", "system volume information", "$recycle.bin"))
"""What the platform itself, and the warning, leave on a fresh disk; in lower case."""

_EDGE = 1 << 20
_TABLES = {"dos": "mbr"}
_AMBIVALENT = 8
_NO_DRIVER = re.compile(r"unknown filesystem type|No such device|unknown filesystem")
_OWN_LEFT_OVER = 30.0


def look(agent: Agent, system: System, candidate: Candidate, marker: Marker, mount_point: str = "") -> DiskFacts:
    """Look at one disk; its lock is held, so that no other run of ours looks or works at the same time.

    Args:
        agent: runs ``blkid`` and, for NTFS, ``mount``.
        system: the kernel's tables.
        candidate: which disk.
        marker: whether an earlier run began to format it.
        mount_point: where it is wanted: of several mounts this one comes first.
    """
    clear_look_point(agent, system)
    facts = glance(agent, system, candidate, mount_point)
    facts = attrs.evolve(facts, serial=_serial(agent, system, candidate.name, candidate.device))
    numbers = system.numbers(candidate.name)
    if not numbers or system.number_of(f"/dev/{candidate.name}") not in numbers:
        problem = f"{candidate.device} is not there, or is another disk than the kernel's {candidate.name}"
        return attrs.evolve(facts, problem=problem)
    return _with_content(agent, system, facts, marker)


def glance(agent: Agent, system: System, candidate: Candidate, mount_point: str = "") -> DiskFacts:
    """Return what the kernel says of a disk and its uses; nothing on it is read, so that nobody is disturbed.

    Args:
        agent: knows where a close look mounts it.
        system: the kernel's tables.
        candidate: which disk.
        mount_point: where it is wanted: of several mounts this one comes first.
    """
    name = candidate.name
    numbers, own = system.numbers(name), _look_point(agent)
    mounts = [mount for mount in system.mounts() if mount.numbers & set(numbers) and mount.point != own]
    return DiskFacts(
        candidate,
        size=system.size(name),
        read_only=system.text(f"/sys/block/{name}/ro") == "1",
        mounted=_mounted(mounts, numbers, system, mount_point),
        system=tuple(mount.point for mount in mounts if mount.point in SYSTEM_POINTS),
        holders=() if mounts else (*system.holders(name), *system.listed(f"/sys/block/{name}/slaves")),
        swaps=tuple(path for path in system.swaps() if system.number_of(path) in numbers),
    )


def clear_look_point(agent: Agent, system: System) -> None:
    """Unmount what a run that was killed left mounted to look into it."""
    point = _look_point(agent)
    if system.mounted_at(point) is not None:
        agent.run(("umount", point), timeout=30)


def _with_content(agent: Agent, system: System, facts: DiskFacts, marker: Marker) -> DiskFacts:
    name, device = facts.candidate.name, facts.device
    whole, problem = probe(agent, device)
    table = whole.get("PTTYPE")
    table_id = whole.get("PTUUID", "").lower()
    ours = marker.is_ours(table_id, facts.size)
    idle = not (facts.mounted or facts.holders or facts.swaps)
    busy = idle and _is_busy(agent, device, _OWN_LEFT_OVER if ours else 0.0)
    parts = []
    for number, entry in system.partitions(name):
        node = agent.paths.at("/dev/" + entry)
        if system.number_of(f"/dev/{entry}") is None:
            problem = problem or f"{node} is not there"
            continue
        values, trouble = probe(agent, node)
        problem = problem or trouble
        part = Partition(
            node,
            number,
            _type(values.get("PART_ENTRY_TYPE", "")),
            values.get("TYPE", ""),
            values.get("LABEL", ""),
            system.size(name, entry),
        )
        if part.filesystem == "ntfs" and idle and not busy:
            contents, why = _ntfs_contents(agent, node)
            part = attrs.evolve(part, contents=contents, problem=why)
        elif part.type in filesystems.NTFS_TYPES and not part.filesystem and not _is_blank(node, part.size):
            part = attrs.evolve(part, problem="it is not empty, and nothing that is known")  # a damaged file system?
        parts.append(part)
    listed = _listed(agent, device, len(parts)) if table and not problem and idle else len(parts)
    # Cut short between the new table and the kernel's look at it: there is nothing in the one partition yet.
    torn = ours and not busy and listed == 1 and len(parts) > 1
    if listed != len(parts) and not torn:
        problem = f"its table lists {listed} partitions, the kernel knows {len(parts)}"
    signature = whole.get("TYPE", "")
    # More than our one partition: somebody worked on the disk after us.
    unfinished = torn or (ours and idle and not busy and len(parts) == 1 and not _is_usable(agent, parts[0]))
    blank = not table and not signature and not parts and not problem and idle and _is_blank(device, facts.size)
    return attrs.evolve(
        facts,
        table=_TABLES.get(table, table) if table else None,
        table_id=table_id,
        signature=signature,
        blank=blank,
        partitions=tuple(parts),
        busy=busy,
        problem=problem,
        unfinished=unfinished,
    )


def probe(agent: Agent, device: str) -> tuple[dict[str, str], str]:
    """Return what ``blkid`` recognises on *device*, by its names, and why nothing can be said of it.

    Several signatures at once count as one called ``ambivalent``.
    """
    done = agent.run(("blkid", "-p", "-o", "export", device), timeout=30)
    values = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if done.returncode == _AMBIVALENT:
        return {"TYPE": "ambivalent"}, ""
    if done.returncode == 2 and not done.timed_out and not done.stdout.strip():
        return ({}, "") if not done.stderr.strip() else ({}, done.describe())
    if not done.ok or "DEVNAME" not in values:
        return {}, f"{done.describe()}; blkid of util-linux is needed"
    return values, ""


def _listed(agent: Agent, device: str, known: int) -> int:
    """Return how many partitions the table lists; *known*, the kernel's number, where that cannot be had."""
    done = agent.run(("sfdisk", "--dump", device), timeout=30)
    if not done.ok:
        return known  # no sfdisk here, or a table that it does not read: the rows of the decision deal with that
    return sum(1 for line in done.stdout.splitlines() if " start=" in line and _has_extent(line))


def _has_extent(line: str) -> bool:
    match = re.search(r"size=\s*(\d+)", line)
    return match is None or int(match.group(1)) > 0


def _type(text: str) -> str:
    kind = text.lower()
    return kind.removeprefix("0x")


def _mounted(
    mounts: list[Mount], numbers: dict[tuple[int, int], str], system: System, wanted: str
) -> tuple[Mounted, ...]:
    found = []
    for mount in mounts:
        name = next((numbers[number] for number in mount.numbers if number in numbers), "")
        writable = "ro" not in mount.options.split(",")
        rank = (mount.point != wanted, mount.root != "/")
        found.append((rank, Mounted(system.paths.at("/dev/" + name), mount.point, mount.filesystem, writable)))
    return tuple(one for _, one in sorted(found, key=lambda pair: pair[0]))


def _serial(agent: Agent, system: System, name: str, device: str) -> str:
    own = system.text(f"/sys/block/{name}/device/serial")
    if own:
        return own
    done = agent.run(("udevadm", "info", "--query=property", "--name", device), timeout=10)
    lines = (line.partition("=") for line in done.stdout.splitlines())
    return next((value for key, _, value in lines if key == "ID_SERIAL"), "")


def _is_busy(agent: Agent, device: str, patience: float) -> bool:
    """Return whether the kernel refuses the disk to a second owner, waiting for a ``mkfs`` that outlived its agent."""
    while True:
        try:
            os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
        except OSError as problem:
            if problem.errno != errno.EBUSY:
                return False  # whatever it is, the other probes say so
            patience -= 0.5
            if patience <= 0 or agent.stopping.wait(0.5):
                return True
        else:
            return False


def _is_blank(device: str, size: int) -> bool:
    """Return whether the first and the last MiB hold nothing but zeros."""
    if size <= 0:
        return False
    try:
        with open(device, "rb", buffering=0) as stream:
            for at in (0, max(0, size - _EDGE)):
                stream.seek(at)
                data = stream.read(_EDGE) or b""
                if not data or data.strip(b"\0"):
                    return False
    except OSError:
        return False
    return True


# ---- Mounting to look ------------------------------------------------------------------------------------------------


def _look_point(agent: Agent) -> str:
    return os.path.realpath(agent.paths.run("resourcedisk-look"))


def _ntfs_contents(agent: Agent, device: str) -> tuple[tuple[str, ...] | None, str]:
    """Return the names at the top of an NTFS file system, without the platform's; and why they cannot be had."""
    problems = []
    for kind in ("ntfs3", "ntfs"):
        names, problem = _look_into(agent, device, kind)
        if names is not None:
            return tuple(sorted(name for name in names if name.lower() not in IGNORED)), ""
        if problem:
            problems.append(problem)
    return None, "; ".join(problems)  # no driver at all: nobody can have used the disk from here


def _look_into(agent: Agent, device: str, kind: str) -> tuple[list[str] | None, str]:
    """Return the names at the top of a file system; ``None`` and an empty text when the kernel has no driver."""
    point = _look_point(agent)
    environment = {**os.environ, "LANG": "C", "LC_ALL": "C"}
    try:
        ensure_dir(point)
    except OSError as problem:
        return None, f"{point} cannot be made: {problem}"
    options = "ro,nodev,noexec,nosuid"
    done = agent.run(("mount", "-t", kind, "-o", options, device, point), timeout=30, env=environment)
    if not done.ok:
        return None, "" if _NO_DRIVER.search(done.stderr) else done.describe()
    names: list[str] | None = None
    trouble = ""
    try:
        names = os.listdir(point)
    except OSError as error:
        trouble = f"{device} cannot be read: {error}"
    ended = agent.run(("umount", point), timeout=30)
    if not ended.ok:
        return None, ended.describe()
    try:
        os.rmdir(point)
    except OSError:
        pass  # the next look uses it
    return names, trouble


def _is_usable(agent: Agent, part: Partition) -> bool:
    """Return whether the partition that an earlier run was formatting can be mounted, so that it is complete."""
    return bool(part.filesystem) and _look_into(agent, part.device, part.filesystem)[0] is not None
