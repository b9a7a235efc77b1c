"""Whole-file writes that survive SIGKILL and power cuts (architecture §11). Standard library alone.

The supervisor uses this module and never needs JSON in good times, so ``json`` is imported where it is used.
"""

from __future__ import annotations

import os
import stat

from waagent.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def ensure_dir(path: str, mode: int = 0o700) -> None:
    """Create *path* and its parents; the last one gets *mode* when it is new.

    Raises:
        OSError: it cannot be made, or something that is no directory has its name.
    """
    if not os.path.isdir(path):
        parent = os.path.dirname(path)
        if parent and not os.path.isdir(parent):
            ensure_dir(parent, 0o755)
        try:
            os.mkdir(path, mode)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
            return
        os.chmod(path, mode)


def write_atomic(
    path: str, data: bytes | str, mode: int = 0o600, *, durable: bool = True, sync_name: bool = True
) -> None:
    """Replace *path* by *data* in one step: temporary file beside it, fsync, rename, fsync of the directory.

    Args:
        path: the target; its directory must exist.
        data: the whole new content; text is written as UTF-8.
        mode: the file's mode, whatever the umask.
        durable: ``False`` leaves out the syncs, for what need not outlive a power cut.
        sync_name: ``False`` leaves out the sync of the directory: a power cut may bring the old content back, whole.

    Raises:
        OSError: the file system refused; nothing of the old content is lost and no temporary file stays.
    """
    content = data.encode("utf-8") if isinstance(data, str) else data
    directory, name = os.path.split(path)
    # The name is cut so that the longest legal target (255 bytes) still has room for the rest.
    temporary = os.path.join(directory, f".{name[:50]}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with open(descriptor, "wb", closefd=True) as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(content)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise
    if durable and sync_name:
        sync_directory(directory or ".")


def remove_leftovers(directory: str) -> list[str]:
    """Delete the temporary files that :func:`write_atomic` left in *directory* when its process was killed.

    Returns:
        The names of those that were deleted. What a living process writes stays.
    """
    gone: list[str] = []
    try:
        names = os.listdir(directory)
    except OSError:
        return gone
    for name in names:
        parts = name.rsplit(".", 3)
        if not name.startswith(".") or len(parts) != 4 or parts[3] != "tmp" or len(parts[2]) != 8:
            continue
        if not parts[1].isdigit() or _lives(int(parts[1])):
            continue
        try:
            os.unlink(os.path.join(directory, name))
            gone.append(name)
        except OSError:
            pass
    return gone


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # it is somebody else's
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            state = stream.read(4096).rpartition(b")")[2].split()[:1]
    except OSError:
        return True
    return state not in ([b"Z"], [b"X"])  # a dead one that nobody has asked about writes nothing more


def sync_directory(path: str) -> None:
    """Make the names in directory *path* durable; file systems that cannot are left as they are."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def read_limited(path: str, limit: int) -> bytes:
    """Return the content of *path*, at most *limit* bytes.

    Raises:
        StateError: the file is larger, or is no regular file.
        OSError: it cannot be read.
    """
    # Without O_NONBLOCK a FIFO that somebody put there would hold the agent for good.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StateError(f"{path}: is no regular file")
        with open(descriptor, "rb", closefd=False) as stream:
            data = stream.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise StateError(f"{path}: larger than {limit} bytes")
    return data


def write_json(path: str, value: Any, mode: int = 0o600, *, durable: bool = True) -> None:
    """Write *value* as JSON with :func:`write_atomic`."""
    import json

    write_atomic(path, json.dumps(value, ensure_ascii=True, sort_keys=True) + "\n", mode, durable=durable)


def read_json(path: str, limit: int = 16 << 20) -> Any:
    """Return the JSON value in *path*, or ``None`` when the file is absent.

    Raises:
        StateError: the file cannot be read or is not JSON; names the file and why.
    """
    import json

    try:
        return json.loads(read_limited(path, limit).decode("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as problem:
        raise StateError(f"{path}: {problem}") from problem


def move_aside(path: str) -> str:
    """Rename a corrupt state file to ``<path>.bad`` (replacing an older one) and return that name."""
    aside = path + ".bad"
    os.replace(path, aside)
    return aside


class umask:
    """Run the block under another umask."""

    def __init__(self, mask: int) -> None:
        self._mask = mask
        self._before = 0

    def __enter__(self) -> None:
        self._before = os.umask(self._mask)

    def __exit__(self, *_: object) -> None:
        os.umask(self._before)
