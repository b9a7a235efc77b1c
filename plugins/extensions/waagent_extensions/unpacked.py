"""Packages that a power cut may have damaged: unpacked, but the disk was not yet told to write everything down.

Syncing each file costs more than unpacking it. So the content of a package is noted beside it, the disk is synced once
at the end of a goal state, and the notes go. What a new start of the machine finds noted is checked (measured.md §6).
"""

from __future__ import annotations

import binascii
import contextlib
import os
import stat
from typing import Any

from waagent import StateError, read_json, write_json
from waagent_extensions.layout import HandlerDir, Layout, split_directory

_SUFFIX = ".unpacked"
_PIECE = 1 << 20
_LIMIT = 64 << 20


def note_path(handler: HandlerDir) -> str:
    """Return where the note about a handler's files lies."""
    directory, name = os.path.split(handler.base)
    return os.path.join(directory, f".{name}{_SUFFIX}")


def note(handler: HandlerDir, files: list[tuple[str, int, int]]) -> None:
    """Write down what was unpacked, for good.

    Args:
        handler: whose files.
        files: path below its directory, size, CRC-32.

    Raises:
        OSError: the disk refused.
    """
    found = [[path, size, crc, os.stat(os.path.join(handler.base, path)).st_mtime_ns] for path, size, crc in files]
    write_json(note_path(handler), {"files": found})


def forget(handler: HandlerDir) -> None:
    """Remove the note: the files are on the disk, or gone."""
    with contextlib.suppress(OSError):
        os.unlink(note_path(handler))


def noted(layout: Layout) -> list[HandlerDir]:
    """Return every handler version whose files may not be on the disk yet."""
    try:
        entries = sorted(os.listdir(layout.lib_dir))
    except OSError:
        return []
    names = [entry[1 : -len(_SUFFIX)] for entry in entries if entry.startswith(".") and entry.endswith(_SUFFIX)]
    parts = [split_directory(name) for name in names]
    return [layout.handler(*pair) for pair in parts if pair is not None]


def damage(handler: HandlerDir) -> str:
    """Return what is wrong with a handler's files, for people; empty when nothing is.

    A file that the handler has changed since is its own affair, unless nothing is left of it.
    """
    try:
        document = read_json(note_path(handler), _LIMIT)
        files = document["files"]
        for path, size, crc, modified in files:
            problem = _damage(os.path.join(handler.base, path), size, crc, modified)
            if problem:
                return f"{path} {problem}"
    except (StateError, OSError, KeyError, TypeError, ValueError) as problem:
        return f"the note about its files cannot be read: {problem}"
    return ""


def _damage(path: str, size: int, crc: int, modified: int) -> str:
    try:
        state = os.lstat(path)
    except FileNotFoundError:
        return "is missing"
    if not stat.S_ISREG(state.st_mode):
        return ""
    if state.st_size == 0 and size:
        return "is empty"
    if state.st_mtime_ns != modified:
        return ""
    if state.st_size != size:
        return f"has {state.st_size} bytes instead of {size}"
    return "" if _crc(path) == crc else "has another content"


def _crc(path: str) -> int:
    found: Any = 0
    with open(path, "rb") as stream:
        while piece := stream.read(_PIECE):
            found = binascii.crc32(piece, found)
    return int(found)
