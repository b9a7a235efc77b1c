"""What is mounted where, from the kernel's own table; devices are compared by number, never by name."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from waagent_distro.steps import textfiles

if TYPE_CHECKING:
    from waagent import Agent

_OCTAL = re.compile(r"\\([0-7]{3})")
_LIMIT = 16 << 20


def device_at(agent: Agent, mount_point: str) -> str:
    """Return what is mounted on top at *mount_point*, as whoever mounted it gave it; empty when nothing is."""
    place = os.path.realpath(mount_point)
    found = ""
    try:
        table = textfiles.read(agent.paths.at("/proc/self/mountinfo"), _LIMIT)
    except OSError:
        return ""
    for line in table.split("\n"):
        left, dash, right = line.partition(" - ")
        words, more = left.split(" "), right.split(" ")
        if dash and len(words) >= 5 and len(more) >= 2 and _unescaped(words[4]) == place:
            found = _unescaped(more[1])
    return found


def same_device(one: str, other: str) -> bool:
    """Return whether two names mean one device."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    number = _number_of(one)
    return number is not None and number == _number_of(other)


def _number_of(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (os.major(found.st_rdev), os.minor(found.st_rdev)) if stat.S_ISBLK(found.st_mode) else None


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), text)
