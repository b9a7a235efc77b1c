"""Events that handlers leave in ``<Extension.LogDir>/<handler>/events`` (extensions §14.1, §14.2)."""

from __future__ import annotations

import contextlib
import json
import os
import re
from typing import Any

from waagent import StateError, TelemetryEvent, read_limited, redact
from waagent_telemetry.eventfile import LOG, LOGS

FILE_LIMIT = 4 << 20
PER_SWEEP = 360
"""Events of one handler in one sweep; the rest is dropped."""
MESSAGE_LIMIT = 3072
"""Characters that are kept of a message."""
EVENT_LIMIT = 6144
"""Characters of all values of an event together."""
KEPT_BYTES = 16 << 20
"""Bytes of files of one handler that are kept while nothing can be sent."""

MISSING, EMPTY, OVERSIZE = "MissingKeyError", "EmptyMessageError", "OversizeEventError"
UNREADABLE, TOO_LARGE, TOO_MANY = "UnreadableFileError", "OversizeFileError", "TooManyEventsError"
"""Why something is dropped; the first three are the platform's words."""

_NAME = re.compile(r"[0-9]+\.json", re.IGNORECASE)
_TEXTS = ("version", "timestamp", "taskname", "eventlevel", "message", "operationid")
_NUMBERS = ("eventpid", "eventtid")


class Dropped(ValueError):
    """An event or file that is not sent; the text is the reason."""


class Unfinished(ValueError):
    """A file that is no JSON: perhaps its writer is not done yet."""


def directories(log_root: str) -> list[tuple[str, str]]:
    """Return (handler, its directory of events) for all handlers, by name.

    A link is none: what is in a directory of events is deleted, and a link may lead anywhere.
    """
    found = []
    try:
        entries = sorted(os.listdir(log_root))
    except OSError:
        return []
    for handler in entries:
        path = os.path.join(log_root, handler, "events")
        if os.path.isdir(path) and not os.path.islink(path):
            found.append((handler, path))
    return found


def split(directory: str) -> tuple[list[str], list[str]]:
    """Return the names of event files, newest first, and those of all other files in *directory*."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]
    except OSError:
        return [], []
    events = sorted((name for name in names if _NAME.fullmatch(name)), reverse=True)
    return events, [name for name in names if not _NAME.fullmatch(name)]


def read(path: str) -> list[Any]:
    """Return what is in an event file: one value for each event, whatever it may be.

    Raises:
        Dropped: larger than allowed, or no regular file.
        Unfinished: no JSON.
        OSError: it cannot be read.
    """
    try:
        data = read_limited(path, FILE_LIMIT)
    except StateError:
        raise Dropped(TOO_LARGE) from None
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as problem:
        raise Unfinished(str(problem)) from None
    return document if isinstance(document, list) else [document]


def convert(handler: str, found: Any) -> TelemetryEvent:
    """Return an event as the platform wants it, without secrets.

    Args:
        handler: the handler's name.
        found: one value of the file.

    Raises:
        Dropped: with the reason.
    """
    if not isinstance(found, dict):
        raise Dropped(MISSING)
    given = {key.lower(): value for key, value in found.items()}
    for key in _TEXTS:
        if not isinstance(given.get(key), str):
            raise Dropped(MISSING)
    for key in _NUMBERS:
        if not isinstance(given.get(key), (str, int)) or isinstance(given[key], bool):
            raise Dropped(MISSING)
    given["message"] = given["message"][:MESSAGE_LIMIT]
    if not given["message"]:
        raise Dropped(EMPTY)
    if sum(len(str(given[key])) for key in (*_TEXTS, *_NUMBERS)) > EVENT_LIMIT:
        raise Dropped(OVERSIZE)
    clean = {key: redact(given[key]) for key in _TEXTS}
    numbers = {key: redact(given[key]) if isinstance(given[key], str) else given[key] for key in _NUMBERS}
    return TelemetryEvent(
        LOGS,
        LOG,
        (
            ("EventName", f"{handler}-{clean['version']}"),
            ("CapabilityUsed", clean["eventlevel"]),
            ("TaskName", clean["taskname"]),
            ("Context1", clean["message"][:MESSAGE_LIMIT]),
            ("Context2", clean["timestamp"]),
            ("Context3", clean["operationid"]),
            ("EventPid", numbers["eventpid"]),
            ("EventTid", numbers["eventtid"]),
        ),
    )


def trim(directory: str) -> int:
    """Keep the newest event files alone, while nothing can be sent; return how many were deleted of the older ones."""
    events, others = split(directory)
    delete(directory, others)
    room = KEPT_BYTES
    for number, name in enumerate(events):
        try:
            room -= os.lstat(os.path.join(directory, name)).st_size
        except OSError:
            continue
        if number >= PER_SWEEP or room < 0:
            delete(directory, events[number:])
            return len(events) - number
    return 0


def delete(directory: str, names: list[str]) -> None:
    """Delete files of a directory of events."""
    for name in names:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(directory, name))
