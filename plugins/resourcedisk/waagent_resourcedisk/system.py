"""What the kernel says of block devices, mounts and swap. Devices are compared by number, not by name."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

import attrs

from waagent import StateError, read_limited

if TYPE_CHECKING:
    from waagent import Paths

_OCTAL = re.compile(r"\\([0-7]{3})")
_TABLE_LIMIT = 16 << 20
_SECTOR = 512


@attrs.frozen
class Mount:
    """One line of ``mountinfo``.

    Attributes:
        number: major and minor as the kernel lists them; btrfs has numbers of its own that no device has.
        root: what of the file system is mounted; ``/`` for all of it.
        point: where.
        options: of this mount and of the file system, joined by commas.
        filesystem: its type.
        source: the device, as whoever mounted it gave it.
        numbers: ``number``, and the number of the device that ``source`` names.
    """

    number: tuple[int, int]
    root: str
    point: str
    options: str
    filesystem: str
    source: str
    numbers: frozenset[tuple[int, int]]


class System:
    """The kernel's tables, under the agent's root.

    Args:
        paths: where ``/proc``, ``/sys`` and ``/dev`` lie.
    """

    def __init__(self, paths: Paths) -> None:
        self.paths = paths

    def text(self, path: str) -> str:
        """Return the first line of a small file, empty when it cannot be read."""
        try:
            with open(self.paths.at(path), encoding="utf-8", errors="replace") as stream:
                return stream.read(4096).partition("\n")[0].strip()
        except OSError:
            return ""

    def whole(self, path: str) -> str:
        """Return all of a file, empty when it cannot be read."""
        try:
            return read_limited(self.paths.at(path), _TABLE_LIMIT).decode("utf-8", "replace")
        except (OSError, StateError):
            return ""

    def listed(self, path: str) -> list[str]:
        """Return the names in a directory, sorted; none when there is no such directory."""
        try:
            return sorted(os.listdir(self.paths.at(path)))
        except OSError:
            return []

    def exists(self, path: str) -> bool:
        """Return whether *path* is there; a link that leads nowhere is not."""
        return os.path.exists(self.paths.at(path))

    def resolved(self, path: str) -> str:
        """Return the kernel's name of the device that *path* leads to, empty when it leads nowhere."""
        place = self.paths.at(path)
        return os.path.basename(os.path.realpath(place)) if os.path.exists(place) else ""

    def number_of(self, path: str) -> tuple[int, int] | None:
        """Return major and minor of the block device *path*, ``None`` when it is none."""
        try:
            found = os.stat(self.paths.at(path))
        except OSError:
            return None
        return (os.major(found.st_rdev), os.minor(found.st_rdev)) if stat.S_ISBLK(found.st_mode) else None

    # ---- Disks ----

    def disks(self) -> list[str]:
        """Return the kernel's names of all disks, without their partitions."""
        return self.listed("/sys/block")

    def partitions(self, disk: str) -> list[tuple[int, str]]:
        """Return number and name of each partition of *disk*, by number."""
        found = []
        for name in self.listed(f"/sys/block/{disk}"):
            number = self.text(f"/sys/block/{disk}/{name}/partition")
            if name.startswith(disk) and number.isdigit():
                found.append((int(number), name))
        return sorted(found)

    def size(self, disk: str, partition: str = "") -> int:
        """Return the bytes of a disk or of one of its partitions, 0 when unknown."""
        sectors = self.text(f"/sys/block/{disk}/{partition}/size" if partition else f"/sys/block/{disk}/size")
        return int(sectors) * _SECTOR if sectors.isdigit() else 0

    def holders(self, disk: str) -> list[str]:
        """Return what is built directly on a disk or its partitions: mappings, RAID, bcache."""
        found = self.listed(f"/sys/block/{disk}/holders")
        for _, name in self.partitions(disk):
            found += self.listed(f"/sys/block/{disk}/{name}/holders")
        return sorted(set(found))

    def numbers(self, disk: str) -> dict[tuple[int, int], str]:
        """Return the numbers, each with its name, of a disk, its partitions, and all that is built on them."""
        found: dict[tuple[int, int], str] = {}
        todo, seen = [disk], set()
        while todo:
            name = todo.pop()
            if name in seen:
                continue
            seen.add(name)
            places = [(name, f"/sys/block/{name}")]
            places += [(part, f"/sys/block/{name}/{part}") for _, part in self.partitions(name)]
            for own, place in places:
                number = _number(self.text(f"{place}/dev"))
                if number is not None:
                    found[number] = own
                todo += self.listed(f"{place}/holders")
        return found

    # ---- Mounts, swap ----

    def mounts(self) -> list[Mount]:
        """Return all mounts that this process sees, in the order in which they were made."""
        found = []
        for line in self.whole("/proc/self/mountinfo").split("\n"):
            left, dash, right = line.partition(" - ")
            words, more = left.split(" "), right.split(" ")
            number = _number(words[2]) if dash and len(words) >= 6 and len(more) >= 2 else None
            if number is None:
                continue
            source = unescaped(more[1])
            device = self.number_of(source) if source.startswith("/dev/") else None
            numbers = frozenset(one for one in (number, device) if one is not None)
            options = ",".join([words[5], *more[2:3]])
            found.append(Mount(number, unescaped(words[3]), unescaped(words[4]), options, more[0], source, numbers))
        return found

    def mounted_at(self, point: str) -> Mount | None:
        """Return what is mounted on top at *point*."""
        place = os.path.realpath(point)
        return next((mount for mount in reversed(self.mounts()) if mount.point == place), None)

    def swaps(self) -> list[str]:
        """Return the devices and files that are in use as swap."""
        lines = self.whole("/proc/swaps").split("\n")[1:]
        return [unescaped(line.split()[0]) for line in lines if line.split()]

    def is_swap(self, path: str) -> bool:
        """Return whether the file *path* (really there, not under the root) is in use as swap."""
        try:
            wanted = os.stat(path)
        except OSError:
            return False
        for name in self.swaps():
            try:
                if os.path.samestat(os.stat(name), wanted):
                    return True
            except OSError:
                continue
        return False

    def uptime(self) -> float:
        """Return the seconds since the kernel started; a large number when it does not say."""
        word = self.text("/proc/uptime").partition(" ")[0]
        try:
            return float(word)
        except ValueError:
            return 1e9

    def boot_id(self) -> str:
        """Return what names this run of the kernel."""
        return self.text("/proc/sys/kernel/random/boot_id")


def unescaped(text: str) -> str:
    """Return a name of the kernel's tables, where blanks and the like are octal numbers."""
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), text)


def _number(text: str) -> tuple[int, int] | None:
    major, colon, minor = text.partition(":")
    return (int(major), int(minor)) if colon and major.isdigit() and minor.isdigit() else None
