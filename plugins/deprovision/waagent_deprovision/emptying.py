"""Removing files without ever leaving the place they were looked for in: no link is followed, no mount point crossed.

What is mounted below a directory is somebody else's (``/proc`` in the jail of a DHCP client, a user's data): it stays,
with the directories that lead to it (provisioning §18.6).
"""

from __future__ import annotations

import errno
import glob
import os
import stat
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from waagent import AgentError

if TYPE_CHECKING:
    from waagent import Paths

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_BELOW = {
    "etc": ("ssh", "systemd", "sudoers.d"),
    "usr": ("bin", "lib", "lib64", "local", "sbin", "share"),
    "var": ("cache", "db", "lib", "log", "run", "spool", "tmp"),
}
PROTECTED = frozenset(f"/{top}/{name}" for top, names in _BELOW.items() for name in names)
"""Directories that an option may name by mistake and that are never emptied, besides all at the top."""


class Outcome:
    """What became of a removal.

    Attributes:
        kept: the mount points that were left alone.
        failed: what could not be removed, each with the reason.
        left: what would be removed (:func:`remaining`).
    """

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.failed: list[str] = []
        self.left: list[str] = []

    def check(self) -> None:
        """Raise when something could not be removed.

        Raises:
            AgentError: names what, the first few.
        """
        if self.failed:
            more = f" and {len(self.failed) - 3} more" if len(self.failed) > 3 else ""
            raise AgentError("; ".join(self.failed[:3]) + more)


def check_directory(paths: Paths, path: str) -> str:
    """Return the directory that *path*, an option's value, leads to.

    Raises:
        AgentError: it belongs to the system, or lies outside the agent's root.
    """
    place = os.path.realpath(path)
    root = os.path.realpath(paths.root)
    below = os.path.relpath(place, root)
    inner = "/" if below == "." else "/" + below
    if below.startswith("..") or inner in PROTECTED or inner.count("/") < 2:
        raise AgentError(f"{path} is not emptied: it is no directory of the agent's own")
    return place


def empty(directory: str) -> Outcome:
    """Remove everything in *directory*, which stays itself; one that is missing or a link counts as empty."""
    outcome = Outcome()
    _visit(directory, outcome, remove=True)
    return outcome


def remaining(directory: str) -> list[str]:
    """Return what :func:`empty` would have to remove; the first few are enough."""
    outcome = Outcome()
    _visit(directory, outcome, remove=False)
    return outcome.left


def matches(paths: Paths, patterns: Iterable[str]) -> list[str]:
    """Return the files and links below the agent's root that fit *patterns*; directories are passed over."""
    root = os.path.realpath(paths.root)
    found = []
    for pattern in patterns:
        for path in sorted(glob.glob(paths.at(pattern))):
            parent = os.path.realpath(os.path.dirname(path))
            outside = os.path.relpath(parent, root).startswith("..")
            if not outside and not stat.S_ISDIR(os.lstat(path).st_mode) and path not in found:
                found.append(path)
    return found


def unlink(files: Iterable[str]) -> None:
    """Remove *files*; what is gone already is.

    Raises:
        AgentError: some cannot be removed; the others are.
    """
    outcome = Outcome()
    for path in files:
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
        except OSError as problem:
            outcome.failed.append(f"{path}: {problem.strerror}")
    outcome.check()


def _visit(directory: str, outcome: Outcome, *, remove: bool) -> None:
    try:
        descriptor = os.open(directory, _OPEN)
    except OSError as problem:
        if problem.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            outcome.failed.append(f"{directory}: {problem.strerror}")
        return
    try:
        _visit_open(descriptor, directory, _mount_of(descriptor), outcome, remove)
    finally:
        os.close(descriptor)


def _visit_open(descriptor: int, place: str, mount: tuple[int, str], outcome: Outcome, remove: bool) -> bool:
    """Look at everything in an open directory; return whether nothing is left in it."""
    is_empty = True
    try:
        with os.scandir(descriptor) as entries:
            names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    except OSError as problem:
        outcome.failed.append(f"{place}: {problem.strerror}")
        return False
    for name, is_directory in names:
        path = os.path.join(place, name)
        if is_directory:
            gone = _visit_child(descriptor, name, path, mount, outcome, remove)
        else:
            gone = _remove(os.unlink, descriptor, name, path, outcome, remove)
        is_empty = is_empty and gone
        if not remove and len(outcome.left) >= 3:
            return False
    return is_empty


def _visit_child(parent: int, name: str, path: str, mount: tuple[int, str], outcome: Outcome, remove: bool) -> bool:
    try:
        descriptor = os.open(name, _OPEN, dir_fd=parent)
    except OSError as problem:
        if problem.errno == errno.ENOENT:
            return True
        outcome.failed.append(f"{path}: {problem.strerror}")
        return False
    try:
        if _mount_of(descriptor) != mount:
            outcome.kept.append(path)
            return False
        before = len(outcome.kept)
        is_empty = _visit_open(descriptor, path, mount, outcome, remove)
    finally:
        os.close(descriptor)
    if not is_empty and remove:
        return False  # what is left in it was told
    if not remove and len(outcome.kept) > before:
        return False  # it leads to a mount point
    return _remove(os.rmdir, parent, name, path, outcome, remove)


def _remove(act: Any, parent: int, name: str, path: str, outcome: Outcome, remove: bool) -> bool:
    if not remove:
        if act is os.unlink and _is_mounted_on(parent, name):
            outcome.kept.append(path)
        else:
            outcome.left.append(path)
        return False
    try:
        act(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except OSError as problem:
        if problem.errno == errno.EBUSY:
            outcome.kept.append(path)  # a mount point, of a file
        else:
            outcome.failed.append(f"{path}: {problem.strerror}")
        return False
    return True


def _is_mounted_on(parent: int, name: str) -> bool:
    """Return whether something is mounted on a file: then opening it leads to another mount."""
    flag = getattr(os, "O_PATH", None)
    if flag is None:
        return False
    try:
        descriptor = os.open(name, flag | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    except OSError:
        return False
    try:
        return _mount_of(descriptor) != _mount_of(parent)
    finally:
        os.close(descriptor)


def _mount_of(descriptor: int) -> tuple[int, str]:
    """Return what tells one mount from another; bind mounts of one file system have the same device number."""
    device = os.fstat(descriptor).st_dev
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as stream:
            for line in stream:
                if line.startswith("mnt_id:"):
                    return device, line.split()[1]
    except OSError:
        return device, ""
    return device, ""
