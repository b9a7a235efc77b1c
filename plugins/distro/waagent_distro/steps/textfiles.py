"""Reading and replacing files of the system without changing who owns them."""

from __future__ import annotations

import os
import stat

from waagent import read_limited, sync_directory

LIMIT = 1 << 20
_LABEL = "security.selinux"


def read(path: str, limit: int = LIMIT) -> str:
    """Return the text of *path*; bytes that are no UTF-8 survive :func:`replace`.

    Raises:
        OSError: it cannot be read.
        StateError: it is larger than *limit* bytes, or no regular file.
    """
    return read_limited(path, limit).decode("utf-8", "surrogateescape")


def read_or_empty(path: str, limit: int = LIMIT) -> str:
    """Return the text of *path*, empty when there is no such file; otherwise like :func:`read`."""
    try:
        return read(path, limit)
    except (FileNotFoundError, NotADirectoryError):
        return ""


def first_line(path: str) -> str:
    """Return the first line of a small file of the kernel (``/sys``, ``/proc``), empty when it cannot be read."""
    try:
        with open(path, "rb") as stream:
            return stream.read(4096).decode("utf-8", "replace").partition("\n")[0].strip()
    except OSError:
        return ""


def replace(path: str, text: str, mode: int = 0o644) -> None:
    """Give *path* new content at once: whoever reads sees the old or the new, and a power cut leaves one of them.

    Mode, owner and security label of an existing file stay. Missing directories are made. A link stays a link; what it
    leads to is replaced.

    Args:
        mode: of a new file.

    Raises:
        OSError: it cannot be written; the old content is there.
    """
    place = os.path.realpath(path)
    directory, name = os.path.split(place)
    os.makedirs(directory, 0o755, exist_ok=True)  # stateless systems begin with an empty /etc
    try:
        before: os.stat_result | None = os.stat(place)
    except FileNotFoundError:
        before = None
    # The dot keeps sudo and sshd, which read whole directories, from taking the file for one of theirs.
    temporary = os.path.join(directory, f".{name[:50]}.{os.urandom(4).hex()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as stream:
            if before is not None:
                os.fchown(stream.fileno(), before.st_uid, before.st_gid)
                mode = stat.S_IMODE(before.st_mode)
                _copy_label(place, stream.fileno())
            os.fchmod(stream.fileno(), mode)
            stream.write(text.encode("utf-8", "surrogateescape"))
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, place)
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise
    sync_directory(directory)


def replace_if_different(path: str, text: str, mode: int = 0o644) -> bool:
    """Like :func:`replace`, unless *path* holds that text already; return whether it was written."""
    if os.path.exists(path) and read(path) == text:
        return False
    replace(path, text, mode)
    return True


def remove(path: str) -> bool:
    """Delete *path*; return whether it was there.

    Raises:
        OSError: it is there and cannot be deleted.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def _copy_label(path: str, descriptor: int) -> None:
    if not hasattr(os, "getxattr"):  # not on the BSDs
        return
    try:
        os.setxattr(descriptor, _LABEL, os.getxattr(path, _LABEL))
    except OSError:
        return  # no SELinux, or a file system without labels
