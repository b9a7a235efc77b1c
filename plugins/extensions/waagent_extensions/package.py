"""Expand a handler's package without trusting a byte of it (extensions §4.4)."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from waagent import AgentError, ensure_dir, write_atomic
from waagent_extensions import codes, records, unpacked
from waagent_extensions.codes import HandlerError
from waagent_extensions.environment import make_directories, write_handler_environment
from waagent_extensions.layout import HandlerDir, split_directory

if TYPE_CHECKING:
    import zipfile

CARRIED = ("config", "status", "mrseq", "heartbeat.log")
"""What belongs to the handler's history and moves into the new tree."""
_BESIDE = ("partial", "old", "new")
"""Endings of what lies beside a handler's directory for a moment."""
_PIECE = 1 << 20
_SPARE = 64 << 20


@attrs.frozen(eq=False, repr=False)
class Limits:
    """How large a package may be (ruling 34).

    Attributes:
        total: bytes of all entries, expanded.
        entries: number of entries.
        ratio, ratio_from: an entry larger than ``ratio_from`` bytes may not be ``ratio`` times its packed size.
    """

    total: int = 4 << 30
    entries: int = 100_000
    ratio: int = 200
    ratio_from: int = 256 << 20


HANDLER_LIMITS = Limits()


class UnsafePackage(HandlerError):
    """A whole package that would write elsewhere or fill the disk: getting it once more would not help."""


def expand(
    zip_path: str,
    handler: HandlerDir,
    *,
    limits: Limits = HANDLER_LIMITS,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Unpack *zip_path* into the handler's directory: first beside it, then in its place.

    A directory that is already there keeps its settings, status, ``mrseq`` and heartbeat; the rest is replaced.

    Args:
        zip_path: the package; stays.
        handler: where it goes.
        limits: how large it may be.
        stopped: asked between pieces; ``True`` ends with an error, nothing changed.

    Raises:
        HandlerError: code 1005; names the package, the entry and the reason. The old directory is as it was.
    """
    import zipfile

    recover(handler)
    partial = _beside(handler, "partial")
    try:
        with zipfile.ZipFile(zip_path) as archive:
            members = _checked(archive, limits, zip_path)
            _require_space(handler, sum(member.file_size for member in members))
            os.mkdir(partial, 0o755)
            os.chmod(partial, 0o755)
            budget = limits.total
            for member in members:
                budget -= _extract(archive, member, partial, budget, stopped)
        files = [member for member in members if not member.is_dir()]
        entries = [(os.path.normpath(member.filename), member.file_size, member.CRC) for member in files]
        _carry_over(handler, partial)
        _mark(partial)
        _swap(handler, partial)
        # A package whose note is missing was not taken into use: what is done next is on record only later.
        unpacked.note(handler, entries)
    except HandlerError:
        _discard(partial)
        raise
    except OSError as problem:
        _discard(partial)
        reason = "no space left on the disk" if problem.errno == errno.ENOSPC else str(problem)
        raise _failed(zip_path, reason) from problem
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as problem:
        _discard(partial)
        raise _failed(zip_path, f"not a usable zip file: {problem}") from problem
    except Exception as problem:  # zlib, lzma and struct raise their own errors on broken data
        _discard(partial)
        raise _failed(zip_path, f"broken: {problem}") from problem


def expand_apart(apart: Callable[..., Any], zip_path: str, handler: HandlerDir) -> None:
    """Do :func:`expand` in a process that ends: unzipping would leave 1.5 MB of modules in the resident one.

    Args:
        apart: ``agent.platform.apart``.
        zip_path, handler: as for :func:`expand`.

    Raises:
        HandlerError: as :func:`expand` does, or the process could not do it.
    """
    lib_dir, log_root = os.path.dirname(handler.base), os.path.dirname(handler.log_dir)
    place = {"lib_dir": lib_dir, "log_root": log_root, "name": handler.name, "version": handler.version}
    try:
        failure = apart(f"{__name__}:try_to_expand", {"zip_path": zip_path, **place})
    except AgentError as problem:
        raise _failed(zip_path, str(problem)) from problem
    if failure is not None:
        *told, unsafe = failure
        raise (UnsafePackage if unsafe else HandlerError)(*told)


def try_to_expand(zip_path: str, **place: str) -> tuple[str, int, str, bool] | None:
    """Do :func:`expand` for :func:`expand_apart`: the :class:`HandlerError`'s arguments and whether it is unsafe."""
    try:
        expand(zip_path, HandlerDir(**place))
    except HandlerError as problem:
        return str(problem), problem.code, problem.operation, isinstance(problem, UnsafePackage)
    return None


def recover(handler: HandlerDir) -> None:
    """Clear what an expansion left that was killed: the old tree comes back when the new one is not in its place."""
    _discard(_beside(handler, "partial"))
    _discard(_beside(handler, "new"))
    old = _beside(handler, "old")
    if os.path.isdir(old):
        if os.path.isdir(handler.base):
            _discard(old)
        else:
            os.rename(old, handler.base)


def recover_all(lib_dir: str, log_root: str) -> None:
    """Do :func:`recover` for every expansion that was cut off, whatever handler it was for."""
    names = set()
    for entry in os.listdir(lib_dir):
        stem, dot, what = entry.rpartition(".")
        parts = split_directory(stem[1:]) if dot and stem.startswith(".") and what in _BESIDE else None
        if parts is not None:
            names.add(parts)
    for name, version in sorted(names):
        recover(HandlerDir(lib_dir, log_root, name, version))


def _beside(handler: HandlerDir, what: str) -> str:
    directory, name = os.path.split(handler.base)
    return os.path.join(directory, f".{name}.{what}")


def _discard(path: str) -> None:
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    elif os.path.isdir(path):
        import shutil

        shutil.rmtree(path, ignore_errors=True)


def _checked(archive: zipfile.ZipFile, limits: Limits, zip_path: str) -> list[zipfile.ZipInfo]:
    members = archive.infolist()
    if len(members) > limits.entries:
        raise _unsafe(zip_path, f"{len(members)} entries; at most {limits.entries} are taken")
    total = 0
    seen: set[str] = set()
    for member in members:
        _check_name(member, zip_path)
        normal = os.path.normpath(member.filename)
        if normal in seen:
            raise _unsafe(zip_path, f"the entry {member.filename!r} occurs twice")
        seen.add(normal)
        mode = member.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _unsafe(zip_path, f"the entry {member.filename!r} is a link or a device")
        total += member.file_size
        if total > limits.total:
            raise _unsafe(zip_path, f"expands to more than {limits.total} bytes")
        if member.file_size > limits.ratio_from and member.file_size > limits.ratio * max(member.compress_size, 1):
            raise _unsafe(zip_path, f"the entry {member.filename!r} expands to more than {limits.ratio} times its size")
    return members


def _check_name(member: zipfile.ZipInfo, zip_path: str) -> None:
    # zipfile cuts names at NUL and turns separators; orig_filename is what the package says.
    for name in (member.orig_filename, member.filename):
        parts = name.split("/")
        if (
            not name
            or name.startswith("/")
            or "\\" in name
            or "\0" in name
            or ".." in parts
            or (len(name) > 1 and name[1] == ":")
            or len(name) > 4096
            or any(len(os.fsencode(part)) > 255 for part in parts)
        ):
            raise _unsafe(zip_path, f"the entry name {name[:200]!r} is not allowed")


def _require_space(handler: HandlerDir, needed: int) -> None:
    state = os.statvfs(os.path.dirname(handler.base))
    free = state.f_bavail * state.f_frsize
    if free < needed + _SPARE:
        raise OSError(errno.ENOSPC, f"{needed} bytes and {_SPARE} to spare are needed, {free} are free")


def _extract(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, root: str, budget: int, stopped: Callable[[], bool]
) -> int:
    target = os.path.join(root, os.path.normpath(member.filename))
    if member.is_dir():
        ensure_dir(target, 0o755)
        return 0
    ensure_dir(os.path.dirname(target), 0o755)
    # Zips carry no usable modes: everything is executable for its owner, nothing is writable for others.
    mode = ((member.external_attr >> 16) & 0o755) | 0o700 if member.external_attr >> 16 else 0o744
    written = 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with open(descriptor, "wb", closefd=True) as out, archive.open(member) as source:
        os.fchmod(descriptor, mode)
        while True:
            piece = source.read(_PIECE)
            if not piece:
                break
            written += len(piece)
            # Never more than was declared and checked, whatever the stream holds.
            if written > member.file_size or written > budget:
                raise ValueError(f"the entry {member.filename!r} is larger than it says")
            if stopped():
                raise ValueError("the agent was asked to stop")
            out.write(piece)
    if written != member.file_size:
        raise ValueError(f"the entry {member.filename!r} is shorter than it says")
    return written


def _carry_over(handler: HandlerDir, partial: str) -> None:
    import shutil

    for name in CARRIED:
        source, target = os.path.join(handler.base, name), os.path.join(partial, name)
        if os.path.islink(source) or not os.path.exists(source):
            continue
        if os.path.isdir(source):
            # What the package brings under these names gives way to what is known of the handler.
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
        elif os.path.isfile(source):
            shutil.copy2(source, target)


def _mark(partial: str) -> None:
    """Make the tree recognisable as the agent's before it takes its place: a kill right then leaves no stranger.

    Nothing is installed from it yet, whatever state the package itself brings.
    """
    config = os.path.join(partial, "config")
    ensure_dir(config, 0o700)
    write_atomic(os.path.join(config, "HandlerState"), records.NOT_INSTALLED, 0o644, durable=False)


def _swap(handler: HandlerDir, partial: str) -> None:
    if os.path.isdir(handler.base):
        old = _beside(handler, "old")
        _discard(old)
        os.rename(handler.base, old)
        os.rename(partial, handler.base)
        _discard(old)
    else:
        os.rename(partial, handler.base)


def _failed(zip_path: str, reason: str) -> HandlerError:
    return HandlerError(*_told(zip_path, reason))


def _unsafe(zip_path: str, reason: str) -> UnsafePackage:
    return UnsafePackage(*_told(zip_path, reason))


def _told(zip_path: str, reason: str) -> tuple[str, int, str]:
    text = f"The package {os.path.basename(zip_path)} cannot be expanded: {reason}"
    return text, codes.PACKAGE_EXTRACTION_FAILED, "Download"


def initialize(handler: HandlerDir) -> None:
    """Make an expanded package ready: executable files, manifest at the root, directories, environment file.

    Raises:
        HandlerError: no manifest in the package (1002), or the disk refused (-1).
    """
    try:
        for directory, _, files in os.walk(handler.base):
            for name in files:
                path = os.path.join(directory, name)
                with contextlib.suppress(FileNotFoundError):
                    state = os.lstat(path)
                    if stat.S_ISREG(state.st_mode) and not state.st_mode & stat.S_IXUSR:
                        os.chmod(path, stat.S_IMODE(state.st_mode) | stat.S_IXUSR)
        _place_manifest(handler)
        make_directories(handler)
        write_handler_environment(handler)
    except OSError as problem:
        raise HandlerError(f"Initializing the extension failed: {problem}", codes.UNKNOWN, "Download") from problem


def _place_manifest(handler: HandlerDir) -> None:
    found = handler.manifest if os.path.isfile(handler.manifest) else None
    if found is None:
        for directory, subdirectories, files in os.walk(handler.base):
            subdirectories.sort()
            if "HandlerManifest.json" in files:
                found = os.path.join(directory, "HandlerManifest.json")
                break
    if found is None:
        raise HandlerError("HandlerManifest.json not found", codes.MANIFEST_NOT_FOUND, "Download")
    with open(found, "rb") as stream:
        data = stream.read()
    plain = data[3:] if data.startswith(b"\xef\xbb\xbf") else data
    if found != handler.manifest or plain is not data:
        write_atomic(handler.manifest, plain, 0o744)


def remove_version(handler: HandlerDir) -> None:
    """Delete one version of a handler: first out of its place, so that a kill leaves nothing that looks whole."""
    import shutil

    for path in (handler.zip, unpacked.note_path(handler)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    directory, name = os.path.split(handler.base)
    aside = os.path.join(directory, f".{name}.removed")
    shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.rename(handler.base, aside)
    # Handlers may still be taking their own files away.
    shutil.rmtree(aside, ignore_errors=True)
