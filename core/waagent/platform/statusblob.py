"""The status blob: its document (schema 1.1) and the storage calls that upload it (wireserver §17, service §6).

Nothing that a plugin or an extension reports can keep the rest from being reported: an item that cannot be shown is
replaced by one that says so, and values of odd types become text.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from waagent.platform import ticks
from waagent.platform.models import (
    ExtensionReport,
    GoalStateReport,
    HandlerReport,
    StatusReport,
    Substatus,
    UpdateReport,
)
from waagent.redaction import redact
from waagent.version import WIRE_VERSION

STORAGE_VERSION = "2014-02-14"
PAGE_ALIGNMENT = 512
MAX_PAGE_WRITE = 4 << 20
RUNNING = "Guest Agent is running"

_MAX_MESSAGE = 4096
_LARGEST_NUMBER = 2**53


def build_status(
    reports: Iterable[StatusReport],
    *,
    computer_name: str,
    os_name: str,
    os_version: str,
    features: Iterable[str] = (),
    problems: Iterable[str] = (),
    status: str = "Ready",
    message: str = RUNNING,
    version: str = WIRE_VERSION,
    timestamp: str | None = None,
) -> dict[str, Any]:
    """Return the document that tells the platform how this machine is.

    Args:
        reports: the plugins' parts, in call order; the first part with a goal state or an update counts.
        computer_name: the host name.
        os_name: identifier of the distribution, such as ``debian``.
        os_version: its version.
        features: names that the core itself announces (``FastTrack``); those of the reports follow.
        problems: one line each, appended to the agent's message before those of the reports.
        status: the agent's own status.
        message: the agent's own message.
        version: the agent's version.
        timestamp: ``YYYY-MM-DDTHH:MM:SSZ``, now by default.

    Returns:
        A value of JSON types alone; messages and names of substatuses redacted.
    """
    now = timestamp or ticks.seconds_text()
    parts = [part for part in reports if isinstance(part, StatusReport)]
    lines = [message, *problems, *(line for part in parts for line in _items(part.problems))]
    agent: dict[str, Any] = {
        "version": version,
        "status": status,
        "formattedMessage": _message("; ".join(_text(line) for line in lines)[:_MAX_MESSAGE]),
    }
    update = next((part.update for part in parts if isinstance(part.update, UpdateReport)), None)
    if update is not None:
        agent["updateStatus"] = _update(update)
    aggregate: dict[str, Any] = {
        "guestAgentStatus": agent,
        "handlerAggregateStatus": [_safe_handler(item, now) for part in parts for item in _items(part.handlers)],
    }
    goal_state = next((part.goal_state for part in parts if isinstance(part.goal_state, GoalStateReport)), None)
    if goal_state is not None:
        aggregate["vmArtifactsAggregateStatus"] = {"goalStateAggregateStatus": _goal_state(goal_state)}
    document: dict[str, Any] = {
        "version": "1.1",
        "timestampUTC": now,
        "aggregateStatus": aggregate,
        "guestOSInfo": {
            "computerName": _text(computer_name),
            "osName": _text(os_name),
            "osVersion": _text(os_version),
            "version": version,
        },
    }
    names = dict.fromkeys(map(_text, [*features, *(name for part in parts for name in _items(part.features))]))
    if names:
        document["supportedFeatures"] = [{"Key": name, "Value": "1.0"} for name in names]
    return document


def encode_status(document: dict[str, Any]) -> bytes:
    """Return a document of :func:`build_status` as ASCII JSON, so that characters and bytes count alike."""
    # The document is a tree; the search for circles costs time, and in Python 3.13.0 a few bytes for good.
    text = json.dumps(document, ensure_ascii=True, allow_nan=False, check_circular=False, separators=(",", ":"))
    return text.encode("ascii")


def timeless(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document of :func:`build_status` without the time of reporting (ruling 28)."""
    kept = {name: value for name, value in document.items() if name != "timestampUTC"}
    aggregate = dict(kept.get("aggregateStatus", {}))
    aggregate["handlerAggregateStatus"] = [_timeless(item) for item in aggregate.get("handlerAggregateStatus", ())]
    kept["aggregateStatus"] = aggregate
    return kept


def _timeless(item: dict[str, Any]) -> dict[str, Any]:
    runtime = item.get("runtimeSettingsStatus")
    if not runtime:
        return item
    settings = {name: value for name, value in runtime["settingsStatus"].items() if name != "timestampUTC"}
    return {**item, "runtimeSettingsStatus": {**runtime, "settingsStatus": settings}}


def _safe_handler(report: HandlerReport, now: str) -> dict[str, Any]:
    try:
        return _handler(report, now)
    except Exception as problem:  # a third party's report may be anything
        return {
            "handlerName": _text(getattr(report, "name", "")),
            "handlerVersion": _text(getattr(report, "version", "")),
            "status": "NotReady",
            "code": -1,
            "useExactVersion": True,
            "formattedMessage": _message(f"The status could not be put into the report: {type(problem).__name__}"),
        }


def _handler(report: HandlerReport, now: str) -> dict[str, Any]:
    item: dict[str, Any] = {
        "handlerName": _text(report.name),
        "handlerVersion": _text(report.version),
        "status": _text(report.status),
        "code": _number(report.code),
        "useExactVersion": True,
    }
    if report.message is not None:
        item["formattedMessage"] = _message(report.message)
    if report.extension is not None:
        runtime: dict[str, Any] = {"sequenceNumber": _number(report.extension.sequence_number)}
        if report.multi_config:
            runtime["extensionName"] = _text(report.extension.name)
        runtime["settingsStatus"] = {
            "version": 1.0,
            "timestampUTC": now,
            "status": _extension(report.extension),
        }
        item["runtimeSettingsStatus"] = runtime
    return item


def _extension(report: ExtensionReport) -> dict[str, Any]:
    status: dict[str, Any] = {
        "name": _text(report.name),
        "operation": _optional(report.operation),
        "status": _text(report.status),
        "code": _number(report.code),
        "configurationAppliedTime": _optional(report.configuration_applied_time),
        "formattedMessage": _message(report.message, report.lang),
    }
    if report.substatus:
        status["substatus"] = [_substatus(item) for item in report.substatus]
    return status


def _substatus(item: Substatus) -> dict[str, Any]:
    return {
        "name": redact(_text(item.name)),
        "status": _text(item.status),
        "code": _number(item.code),
        "formattedMessage": _message(item.message, item.lang),
    }


def _goal_state(report: GoalStateReport) -> dict[str, Any]:
    return {
        "inSvdSeqNo": _number(report.sequence),
        "status": _text(report.status),
        "code": _number(report.code),
        "timestampUTC": _text(report.timestamp),
        "formattedMessage": _message(report.message),
    }


def _update(report: UpdateReport) -> dict[str, Any]:
    return {
        "expectedVersion": _text(report.expected_version),
        "status": _text(report.status),
        "code": _number(report.code),
        "formattedMessage": _message(report.message),
    }


def _message(message: Any, lang: Any = "en-US") -> dict[str, str]:
    return {"lang": _text(lang) or "en-US", "message": redact(_text(message))}


def _items(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else ()


def _text(value: Any) -> str:
    if value is None:
        return ""
    try:
        text = str(value)
        if not text.isascii():
            text.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair: other JSON readers refuse it
        return text.encode("utf-8", "replace").decode("utf-8")
    except Exception:  # a third party's object
        return type(value).__name__
    return text


def _optional(value: Any) -> str | None:
    return None if value is None else _text(value)


def _number(value: Any) -> int | str:
    """Return a code or sequence number in the type it came in, text for what is neither number nor text."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and -_LARGEST_NUMBER <= value <= _LARGEST_NUMBER:
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST_NUMBER:
        return int(value)
    return _text(value)[:_MAX_MESSAGE]


@attrs.frozen(eq=False, repr=False)
class StorageCall:
    """One ``PUT`` to storage, for either channel (wireserver §17.4).

    Attributes:
        url: where to; a secret.
        headers: names and values in order, values as text.
        body: ``None`` for the call that only creates a page blob.
    """

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None = None


def storage_calls(url: str, blob_type: str, content: bytes, timestamp: str | None = None) -> list[StorageCall]:
    """Return the calls that upload *content*, to be made in order; a failure ends the upload.

    Args:
        url: the status blob's URL.
        blob_type: ``PageBlob``, or anything else for a block blob.
        content: the document's bytes.
        timestamp: ``YYYY-MM-DDTHH:MM:SSZ`` for ``x-ms-date``, now by default.

    Returns:
        One call for a block blob. For a page blob the creation, then slices of at most 4 MiB; the content is filled up
        with blanks to whole pages, so that it stays valid JSON on either channel (DIFF-12).
    """
    common = (("x-ms-date", timestamp or ticks.seconds_text()), ("x-ms-version", STORAGE_VERSION))
    if blob_type != "PageBlob":
        headers = (("Content-Length", str(len(content))), ("x-ms-blob-type", "BlockBlob"), *common)
        return [StorageCall(url, headers, content)]
    padded = content + b" " * (-len(content) % PAGE_ALIGNMENT)
    creation = (
        ("Content-Length", "0"),
        ("x-ms-blob-content-length", str(len(padded))),
        ("x-ms-blob-type", "PageBlob"),
        *common,
    )
    calls = [StorageCall(url, creation)]
    page_url = f"{url}{'&' if '?' in url else '?'}comp=page"
    for start in range(0, len(padded), MAX_PAGE_WRITE):
        piece = padded[start : start + MAX_PAGE_WRITE]
        page = (
            ("Content-Length", str(len(piece))),
            ("x-ms-range", f"bytes={start}-{start + len(piece) - 1}"),
            ("x-ms-page-write", "update"),
            *common,
        )
        calls.append(StorageCall(page_url, page, piece))
    return calls


def host_plugin_body(call: StorageCall) -> bytes:
    """Return the body of ``PUT /status`` that makes the host plugin do *call* (wireserver §14.4)."""
    body: dict[str, Any] = {}
    if call.body is not None:
        body["content"] = binascii.b2a_base64(call.body, newline=False).decode("ascii")
    body["headers"] = [{"headerName": name, "headerValue": value} for name, value in call.headers]
    body["requestUri"] = call.url
    return json.dumps(body, ensure_ascii=True).encode("ascii")
