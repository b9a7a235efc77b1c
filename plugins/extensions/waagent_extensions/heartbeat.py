"""``heartbeat.log``: a handler that says by itself whether it is alive (extensions §9)."""

from __future__ import annotations

import json
import os
import stat

import attrs

from waagent import StateError, read_limited, redact
from waagent_extensions import codes, records
from waagent_extensions.layout import HandlerDir

STALE_AFTER = 600.0
"""Seconds after which a silent handler is unresponsive, and that a fresh one has for its first beat."""
_LIMIT = 1 << 20
_WORDS = {"ready": records.READY, "notready": records.NOT_READY}


@attrs.frozen(eq=False, repr=False)
class Heartbeat:
    """What to report instead of the recorded handler status."""

    status: str
    code: int = 0
    message: str | None = None


def read(handler: HandlerDir, now: float, enabled_at: float | None = None) -> Heartbeat | None:
    """Return what the heartbeat says, or ``None`` while a handler may still be starting.

    Args:
        handler: the handler.
        now: seconds since the epoch.
        enabled_at: when it was enabled, seconds since the epoch; ``None`` gives no grace.
    """
    try:
        status = os.stat(handler.heartbeat)
    except OSError:
        if enabled_at is not None and now - enabled_at < STALE_AFTER:
            return None
        return Heartbeat(records.NOT_READY, codes.UNKNOWN, "The extension writes no heartbeat although it promises one")
    if not stat.S_ISREG(status.st_mode):
        return Heartbeat(records.NOT_READY, codes.UNKNOWN, "heartbeat.log is no regular file")
    if now - status.st_mtime > STALE_AFTER:
        return Heartbeat(records.UNRESPONSIVE, codes.UNKNOWN, "Extension heartbeat is not responsive")
    try:
        return _parse(read_limited(handler.heartbeat, _LIMIT))
    except (OSError, StateError, ValueError, RecursionError) as problem:
        return Heartbeat(records.NOT_READY, codes.UNKNOWN, f"heartbeat.log cannot be used: {problem}")


def _parse(data: bytes) -> Heartbeat:
    document = json.loads(data.decode("utf-8-sig"))
    if not isinstance(document, list) or not document or not isinstance(document[0], dict):
        raise ValueError("an array of one object was expected")
    beat = document[0].get("heartbeat")
    if not isinstance(beat, dict) or not isinstance(beat.get("status"), str):
        raise ValueError("heartbeat.status is missing")
    message = beat.get("formattedMessage")
    text = None
    if isinstance(message, dict):
        text = message.get("message", message.get("Message"))
    word: str = beat["status"]
    return Heartbeat(_WORDS.get(word.lower(), redact(word)), 0, None if text is None else str(text))
