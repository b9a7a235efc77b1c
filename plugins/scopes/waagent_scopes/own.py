"""The agent's own group: which unit it is, who else is in it, how long it was held back (ruling 50, service §10)."""

from __future__ import annotations

import os

import attrs

from waagent import Paths, StateError, read_limited

_GROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified")
_CPU = ("/sys/fs/cgroup", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/cpu")
_LIMIT = 1 << 20
_DEEPEST = 64


@attrs.frozen(eq=False, repr=False)
class OwnGroup:
    """The group of this process.

    Attributes:
        unit: the service.
        path: below the mount point of the hierarchy.
    """

    unit: str
    path: str


def find(paths: Paths) -> OwnGroup | None:
    """Return the group of this process; ``None`` unless it is that of a service."""
    for line in _read(paths, "/proc/self/cgroup").split("\n"):
        controllers, _, path = line.partition(":")[2].partition(":")
        unit = os.path.basename(path)
        if controllers in ("", "name=systemd") and unit.endswith(".service"):
            return OwnGroup(unit, path)
    return None


def strangers(paths: Paths, group: OwnGroup, root: int) -> list[int] | None:
    """Return the processes of *group* that do not descend from process *root*: handlers' of old, for example.

    ``None`` when nobody knows.
    """
    for place in _GROUPS:
        text = _read(paths, f"{place}{group.path}/cgroup.procs")
        if text:
            return [int(word) for word in text.split() if word.isdigit() and not _descends(paths, int(word), root)]
    return None


def throttled(paths: Paths, group: OwnGroup) -> float | None:
    """Return the seconds that *group* was held back by its quota since it began; ``None`` when nobody knows."""
    for place in _CPU:
        for line in _read(paths, f"{place}{group.path}/cpu.stat").split("\n"):
            name, _, value = line.partition(" ")
            if name in ("throttled_usec", "throttled_time") and value.isdigit():
                return int(value) / (1e6 if name == "throttled_usec" else 1e9)
    return None


def _descends(paths: Paths, pid: int, root: int) -> bool:
    """Whether *pid* descends from *root*, or is no more."""
    for _ in range(_DEEPEST):
        if pid == root:
            return True
        if pid <= 1:
            return False
        fields = _read(paths, f"/proc/{pid}/stat").rpartition(")")[2].split()
        if len(fields) < 2 or fields[0] in ("Z", "X"):
            return True
        pid = int(fields[1])
    return False


def _read(paths: Paths, path: str) -> str:
    try:
        return read_limited(paths.at(path), _LIMIT).decode("utf-8", "replace")
    except (OSError, StateError):
        return ""
