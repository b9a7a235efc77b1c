"""The rules of the status document, as the platform reads it (wireserver §17; extensions §13.3)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_HANDLER_STATES = ("Ready", "NotReady", "Installing", "Unresponsive")
_EXTENSION_STATES = ("transitioning", "warning", "error", "success")


def status_problems(document: Any) -> list[str]:
    """Return what is wrong with a status document; an empty list when nothing is."""
    if not isinstance(document, dict):
        return ["the status document is not an object"]
    return list(_problems(document))


def _dig(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _message_problem(where: str, holder: Any) -> Iterator[str]:
    message = _dig(holder, "formattedMessage")
    if message is not None and not (
        isinstance(_dig(message, "lang"), str) and isinstance(_dig(message, "message"), str)
    ):
        yield f"{where}: formattedMessage needs lang and message as text"


def _problems(document: dict[str, Any]) -> Iterator[str]:
    if document.get("version") not in ("1.0", "1.1"):
        yield f"version is {document.get('version')!r}"
    if not _TIME.fullmatch(str(document.get("timestampUTC"))):
        yield f"timestampUTC is {document.get('timestampUTC')!r}"
    agent = _dig(document, "aggregateStatus", "guestAgentStatus")
    if not isinstance(_dig(agent, "version"), str) or _dig(agent, "status") not in ("Ready", "NotReady"):
        yield "guestAgentStatus needs version and a status of Ready or NotReady"
    yield from _message_problem("guestAgentStatus", agent)
    handlers = _dig(document, "aggregateStatus", "handlerAggregateStatus")
    if not isinstance(handlers, list):
        yield "handlerAggregateStatus is not a list"
        handlers = []
    for item in handlers:
        yield from _handler_problems(item)
    goal_state = _dig(document, "aggregateStatus", "vmArtifactsAggregateStatus", "goalStateAggregateStatus")
    if goal_state is not None:
        for key in ("inSvdSeqNo", "status", "code", "timestampUTC"):
            if key not in goal_state:
                yield f"goalStateAggregateStatus has no {key}"
        yield from _message_problem("goalStateAggregateStatus", goal_state)
    for feature in document.get("supportedFeatures") or []:
        if not (isinstance(_dig(feature, "Key"), str) and isinstance(_dig(feature, "Value"), str)):
            yield f"supportedFeatures holds {feature!r}"


def _handler_problems(item: Any) -> Iterator[str]:
    name = _dig(item, "handlerName")
    if not isinstance(name, str) or not isinstance(_dig(item, "handlerVersion"), str):
        yield "a handler without name or version"
        return
    if _dig(item, "status") not in _HANDLER_STATES:
        yield f"{name}: handler status is {_dig(item, 'status')!r}"
    if not isinstance(_dig(item, "code"), int):
        yield f"{name}: code is {_dig(item, 'code')!r}"
    yield from _message_problem(name, item)
    extension = _dig(item, "runtimeSettingsStatus")
    if extension is None:
        return
    if not re.fullmatch(r"-?\d+", str(_dig(extension, "sequenceNumber"))):
        yield f"{name}: sequenceNumber is {_dig(extension, 'sequenceNumber')!r}"
    status = _dig(extension, "settingsStatus", "status")
    if _dig(status, "status") not in _EXTENSION_STATES:
        yield f"{name}: extension status is {_dig(status, 'status')!r}"
    yield from _message_problem(f"{name}: extension", status)
    substatus = _dig(status, "substatus")
    if substatus is not None and not (isinstance(substatus, list) and substatus):
        yield f"{name}: substatus is neither absent nor a list with items"
    for part in substatus or []:
        if _dig(part, "status") not in _EXTENSION_STATES:
            yield f"{name}: substatus {_dig(part, 'name')!r} is {_dig(part, 'status')!r}"
