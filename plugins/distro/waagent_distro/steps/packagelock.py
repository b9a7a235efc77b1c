"""Who holds the package manager's lock: the third cause of failed extensions (ruling 37)."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import TYPE_CHECKING

from waagent_distro.steps import textfiles

if TYPE_CHECKING:
    from waagent import Agent

RECORD_LOCKS = (
    "/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock",
    "/var/lib/rpm/.rpm.lock", "/usr/lib/sysimage/rpm/.rpm.lock", "/var/lock/opkg.lock",
)  # fmt: skip
"""Files on which the manager holds a record lock while it works (dpkg, apt, rpm, opkg)."""

FILE_LOCKS = ("/lib/apk/db/lock", "/usr/lib/apk/db/lock")
"""Files that the manager locks whole with ``flock`` (apk)."""

PID_FILES = ("/run/zypp.pid", "/var/run/yum.pid", "/var/cache/dnf/metadata_lock.pid", "/var/lib/dnf/rpmdb_lock.pid")
"""Files that hold the process id of whoever works (zypper, yum, dnf)."""

PRESENT_FILES = ("/var/lib/pacman/db.lck",)
"""Files whose presence is the lock (pacman)."""

# struct flock of Linux with 64-bit offsets: type, whence, start, length, pid.
_FLOCK = struct.Struct("hhqqi4x" if struct.calcsize("P") == 8 else "hhqqi")


def holder(agent: Agent) -> str:
    """Return who holds a lock, as ``name (pid), file``; empty when nobody does."""
    for path in RECORD_LOCKS:
        found = _record_holder(agent, path)
        if found:
            return found
    for path in FILE_LOCKS:
        found = _file_holder(agent, path)
        if found:
            return found
    for path in PID_FILES:
        text = textfiles.first_line(agent.paths.at(path))
        if text.isdigit() and os.path.isdir(agent.paths.at(f"/proc/{text}")):
            return _named(agent, int(text), path)
    for path in PRESENT_FILES:
        if os.path.exists(agent.paths.at(path)):
            return f"somebody, {path}"
    return ""


def _record_holder(agent: Agent, path: str) -> str:
    try:
        descriptor = os.open(agent.paths.at(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        # Asking does not lock: the package manager never meets a lock of ours.
        question = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _whence, _start, _length, pid = _FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_GETLK, question))
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    return "" if kind == fcntl.F_UNLCK else _named(agent, pid, path)


def _file_holder(agent: Agent, path: str) -> str:
    try:
        wanted = os.stat(agent.paths.at(path))
        text = textfiles.read(agent.paths.at("/proc/locks"), 4 << 20)
    except OSError:
        return ""
    place = f"{os.major(wanted.st_dev):02x}:{os.minor(wanted.st_dev):02x}:{wanted.st_ino}"
    for line in text.split("\n"):
        words = line.split()
        if len(words) > 5 and words[1] == "FLOCK" and words[5] == place:
            return _named(agent, int(words[4]), path)
    return ""


def _named(agent: Agent, pid: int, path: str) -> str:
    name = textfiles.first_line(agent.paths.at(f"/proc/{pid}/comm")) if pid > 0 else ""
    return f"{name or 'somebody'} ({pid}), {path}"
