"""One event as a file: what the agent writes, and what agents and handlers of old wrote (wireserver §19.3)."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from typing import Any

from waagent import Event, TelemetryEvent, redact, timestamp

OPERATIONS = "69B669B9-4AF8-4C50-BDC4-6006FA76E975"
LOGS = "FFF0196F-EE4C-4EAF-9AA5-776F622DEB4F"
"""Providers: the tables that events go to (wireserver §19.1)."""
OPERATION, LOG = 1, 7
"""Kinds of events."""

AGENT = "WALinuxAgent"
OF_THE_MOMENT = ("GAVersion", "OpcodeName", "EventTid", "EventPid", "TaskName")
"""Common parameters that are known when something happens; the others are added when it is sent."""

_OF_HANDLERS = ("Name", "Version", "Operation", "OperationSuccess", "Message", "Duration")
"""All that is taken from a handler's own event file."""
MESSAGE_LIMIT = 64512
"""Characters; a message of as many cannot be sent (wireserver §19.2)."""


def from_event(event: Event, version: str) -> bytes | None:
    """Return the file for an event of the agent, ``None`` when its message is longer than any request.

    Args:
        event: what happened; called in the thread in which it did.
        version: the agent's, four parts.
    """
    if len(event.message) >= MESSAGE_LIMIT:
        return None
    values: tuple[tuple[str, str | int | bool], ...] = (
        ("Name", redact(event.name)),
        ("Version", event.version),
        ("Operation", event.operation),
        ("OperationSuccess", event.success),
        ("Message", redact(event.message)),
        ("Duration", event.duration_ms),
        ("ExtensionType", ""),
        ("IsInternal", False),
        ("GAVersion", f"{AGENT}-{version}"),
        ("OpcodeName", timestamp(event.time)),
        ("EventTid", threading.get_native_id()),
        ("EventPid", os.getpid()),
        ("TaskName", threading.current_thread().name),
    )
    document = {
        "eventId": OPERATION,
        "providerId": OPERATIONS,
        "parameters": [{"name": name, "value": value} for name, value in values],
    }
    return json.dumps(document).encode("ascii")


def parse(
    data: bytes, changed: float, *, own: bool, parse_xml: Callable[[bytes], TelemetryEvent], version: str
) -> TelemetryEvent:
    """Return the event in a file, its texts without secrets.

    Args:
        data: the file's content, JSON or XML.
        changed: when the file was last changed, seconds since 1970.
        own: it is an agent's; of a handler's only what it may say is taken.
        parse_xml: reads the XML form.
        version: the agent's, for events that do not name one.

    Raises:
        ValueError: it is no event.
        ProtocolError: likewise, as XML.
    """
    if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        event = parse_xml(data)
    else:
        event = _from_json(data)
    values = {name: redact(value) if isinstance(value, str) else value for name, value in event.parameters}
    if own:
        return TelemetryEvent(event.provider, event.id, tuple(values.items()))
    kept = [(name, values[name]) for name in _OF_HANDLERS if name in values]
    if not kept:
        raise ValueError("names nothing that happened")
    kept += [("ExtensionType", ""), ("IsInternal", False)]
    kept += [("GAVersion", f"{AGENT}-{version}"), ("OpcodeName", timestamp(changed))]
    return TelemetryEvent(OPERATIONS, OPERATION, tuple(kept))


def _from_json(data: bytes) -> TelemetryEvent:
    try:
        document: Any = json.loads(data.decode("utf-8-sig"))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError("is no object")
    provider, number, listed = (document.get(key) for key in ("providerId", "eventId", "parameters"))
    if not isinstance(provider, str) or not isinstance(number, int) or not isinstance(listed, list):
        raise ValueError("lacks providerId, eventId or parameters")
    found = [
        (item["name"], item["value"])
        for item in listed
        if isinstance(item, dict)
        and isinstance(item.get("name"), str)
        and isinstance(item.get("value"), (str, int, float))
    ]
    return TelemetryEvent(provider, int(number), tuple(found))
