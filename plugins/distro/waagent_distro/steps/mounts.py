"""What is mounted where, from the kernel's own table; devices are compared by number, never by name."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

import attrs

from waagent_distro.steps import textfiles

if TYPE_CHECKING:
    from waagent import Agent

_OCTAL = re.compile(r"\\([0-7]{3})")
_LIMIT = 16 << 20


@attrs.frozen
class Mount:
    """One line of ``mountinfo``.

    Attributes:
        number: major and minor of the device.
        root: what of the file system is mounted.
        point: where.
        kind: the file system.
        source: the device's name, as whoever mounted it gave it.
    """

    number: tuple[int, int]
    root: str
    point: str
    kind: str
    source: str


def table(agent: Agent) -> list[Mount]:
    """Return all mounts of this process's view, in the order in which they were made."""
    found = []
    for line in _read_proc(agent, "/proc/self/mountinfo").split("\n"):
        left, dash, right = line.partition(" - ")
        words, more = left.split(" "), right.split(" ")
        if dash and len(words) >= 5 and len(more) >= 2:
            major, _, minor = words[2].partition(":")
            number = (int(major), int(minor))
            found.append(Mount(number, unescaped(words[3]), unescaped(words[4]), more[0], unescaped(more[1])))
    return found


def at(agent: Agent, mount_point: str) -> Mount | None:
    """Return what is mounted on top at *mount_point*."""
    place = os.path.realpath(mount_point)
    return next((one for one in reversed(table(agent)) if one.point == place), None)


def device_at(agent: Agent, mount_point: str) -> str:
    """Return the device that is mounted at *mount_point*, empty when nothing is."""
    found = at(agent, mount_point)
    return found.source if found is not None else ""


def points_of(agent: Agent, numbers: set[tuple[int, int]]) -> list[Mount]:
    """Return the mounts of the devices with these numbers.

    A file system that spans devices (btrfs) has a number of its own; there the device that it was mounted by counts.
    """
    return [one for one in table(agent) if one.number in numbers or number_of(agent.paths.at(one.source)) in numbers]


def swaps(agent: Agent) -> list[str]:
    """Return the devices and files in use as swap."""
    lines = _read_proc(agent, "/proc/swaps").split("\n")[1:]
    return [unescaped(line.split()[0]) for line in lines if line.strip()]


def number_of(path: str) -> tuple[int, int] | None:
    """Return major and minor of the block device *path*, ``None`` when it is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (os.major(found.st_rdev), os.minor(found.st_rdev)) if stat.S_ISBLK(found.st_mode) else None


def same_device(agent: Agent, one: str, other: str) -> bool:
    """Return whether two names mean one device."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    number = number_of(one)
    return number is not None and number == number_of(other)


def unescaped(text: str) -> str:
    """Return a name of the kernel's tables, where blanks and the like are octal numbers."""
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), text)


def _read_proc(agent: Agent, path: str) -> str:
    try:
        return textfiles.read(agent.paths.at(path), _LIMIT)
    except OSError:
        return ""
