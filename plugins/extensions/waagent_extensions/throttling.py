"""How long a CPU quota held a command back: a command that is out of time may not have had any (extensions §12.1)."""

from __future__ import annotations

import os

_TREES = (
    # Which line of /proc/PID/cgroup, where its tree is mounted, the file with the quota, the unit of the time.
    ("", "", "cpu.max", "throttled_usec", 1e6),
    ("cpu", "cpu,cpuacct", "cpu.cfs_quota_us", "throttled_time", 1e9),
)


def seconds_held_back(pid: int, proc: str = "/proc", groups: str = "/sys/fs/cgroup") -> float | None:
    """Return for how many seconds the quota above process *pid* held processes back; ``None`` without a quota.

    The quota is that of the handler's slice, a group above the command's own, and its count is of the slice's life.
    """
    lines = [line.split(":", 2) for line in _read(f"{proc}/{pid}/cgroup").splitlines()]
    for controller, mount, quota_file, field, unit in _TREES:
        path = next((line[2] for line in lines if len(line) == 3 and controller in line[1].split(",")), "/")
        while path.startswith("/") and path != "/":
            directory = os.path.join(groups, mount, path[1:])
            quota = _read(os.path.join(directory, quota_file)).split()
            if quota and quota[0].isdigit():
                words = _read(os.path.join(directory, "cpu.stat")).split()
                told = dict(zip(words[::2], words[1::2]))
                return int(told[field]) / unit if told.get(field, "").isdigit() else None
            path = os.path.dirname(path)
    return None


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as stream:
            return stream.read(65536)
    except OSError:
        return ""
