"""The status file that a handler writes, read as hostile bytes (extensions §8)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import attrs

from waagent import ExtensionReport, StateError, Substatus, ensure_dir, read_limited, redact, write_atomic
from waagent_extensions import codes, records
from waagent_extensions.layout import HandlerDir
from waagent_extensions.moments import utc

VALUES = ("transitioning", "warning", "error", "success")
TERMINAL = ("success", "error")
LIMIT = 131072
"""Characters of a status file that are taken whole; a larger one is cut by the rules of §8."""
_MESSAGE, _ITEM = 1024, 10240
_CUT = " ... [TRUNCATED]"
_READ_LIMIT = 16 << 20
_TRIES = 5
_PAUSE = 2.0


class _Malformed(ValueError):
    """The file breaks a rule of §8."""


@attrs.define(eq=False, repr=False)
class _Seen:
    stamp: tuple[int, int, int]
    report: ExtensionReport
    tries: int = 0
    retry_at: float = 0.0


class StatusReader:
    """Read status files, and remember what a file said as long as it does not change.

    A file that cannot be parsed is read again a few times, two seconds apart, before it counts as bad: handlers may
    write it in place. The pause is kept by the clock, never by sleeping; meanwhile the extension is transitioning.

    Args:
        clock: monotonic seconds.
        note: told of a file that is not as it should be: handler, full name, text, whether its form or size is wrong.
    """

    def __init__(
        self, clock: Callable[[], float], note: Callable[[HandlerDir, str, str, bool], None] | None = None
    ) -> None:
        self._clock = clock
        self._note = note
        self._seen: dict[str, _Seen] = {}

    def read(self, handler: HandlerDir, extension: str | None, sequence: int | str, full_name: str) -> ExtensionReport:
        """Return what the extension says of itself.

        Args:
            handler: the handler.
            extension: its own name for multi-config, else ``None``.
            sequence: the goal state's sequence number, never the highest on disk.
            full_name: ``<name>`` or ``<name>.<extension>``, for messages.
        """
        path = handler.status_file(extension, sequence)
        name = extension or handler.name
        try:
            status = os.stat(path)
        except OSError:
            self._seen.pop(path, None)
            return missing(name, sequence, full_name)
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        seen = self._seen.get(path)
        if seen is not None and seen.stamp == stamp and (not seen.tries or self._clock() < seen.retry_at):
            return seen.report
        if len(self._seen) > 2000:
            self._seen.clear()
        report, problem = self._fresh(path, stamp, seen, name, sequence, full_name)
        if problem and self._note is not None:
            self._note(handler, full_name, problem, report.code != codes.UNKNOWN)
        return report

    def _fresh(
        self, path: str, stamp: tuple[int, int, int], seen: _Seen | None, name: str, sequence: int | str, full_name: str
    ) -> tuple[ExtensionReport, str]:
        tries = seen.tries if seen is not None and seen.stamp == stamp else 0
        problem: ExtensionReport
        try:
            data = read_limited(path, _READ_LIMIT)
        except (OSError, StateError) as error:
            problem = _bad(name, sequence, codes.UNKNOWN, f"The status file of {full_name} cannot be read: {error}")
        else:
            text = data.decode("utf-8-sig", "replace")
            try:
                report = parse(text, name, sequence)
            except _Malformed as error:
                problem = _bad(
                    name,
                    sequence,
                    codes.STATUS_INVALID,
                    f"Could not get a valid status from the extension {full_name}. {error}",
                )
            except (ValueError, RecursionError) as error:
                problem = _bad(
                    name,
                    sequence,
                    codes.STATUS_INVALID,
                    f"Could not get a valid status from the extension {full_name}. Not JSON: {error}. "
                    f"Content: {text[:2000]}",
                )
            else:
                self._seen[path] = _Seen(stamp, report)
                return report, _too_large(text, full_name)
        tries += 1
        if tries >= _TRIES:
            self._seen[path] = _Seen(stamp, problem)
            return problem, problem.message or ""
        waiting = missing(name, sequence, full_name, "its status file could not be read yet")
        self._seen[path] = _Seen(stamp, waiting, tries, self._clock() + _PAUSE)
        return waiting, ""


def _too_large(text: str, full_name: str) -> str:
    if len(text) <= LIMIT:
        return ""
    return f"The status file of {full_name} holds {len(text)} characters, more than {LIMIT}: it is cut"


def missing(
    name: str, sequence: int | str, full_name: str, reason: str = "it has not written a status file yet"
) -> ExtensionReport:
    """Return the report for an extension that has said nothing (extensions §8)."""
    return ExtensionReport(
        name=name,
        sequence_number=sequence,
        status="transitioning",
        message=f"This status is being reported by the Guest Agent since no status was reported by extension "
        f"{full_name}: {reason}",
    )


def _bad(name: str, sequence: int | str, code: int, message: str) -> ExtensionReport:
    return ExtensionReport(name=name, sequence_number=sequence, status="error", code=code, message=message)


def parse(text: str, name: str, sequence: int | str) -> ExtensionReport:
    """Return the report in a status file's *text*, cut to size and without secrets.

    Raises:
        ValueError: not JSON, or a rule of §8 is broken; says which.
    """
    document = json.loads(text)
    if not isinstance(document, list):
        raise _Malformed("The status file is no JSON array.")
    if not document:
        return ExtensionReport(name=name, sequence_number=sequence, status="transitioning", message=None)
    top = document[0]
    body = top.get("status") if isinstance(top, dict) else None
    if not isinstance(body, dict):
        raise _Malformed("The object status is missing.")
    word = body.get("status")
    if word is None:
        raise _Malformed("The field status.status is missing.")
    large = len(text) > LIMIT
    message, lang = _message(body.get("formattedMessage"), "status")
    if large:
        message = _cut(message, _MESSAGE)
    items = []
    total = len(message or "")
    for item in _list(body.get("substatus")):
        substatus = _substatus(item)
        if large:
            substatus = attrs.evolve(
                substatus, name=_cut(substatus.name, _ITEM) or "", message=_cut(substatus.message, _ITEM)
            )
            total += len(substatus.name) + len(substatus.message or "")
            if total > LIMIT:
                break
        items.append(substatus)
    return ExtensionReport(
        name=name,
        sequence_number=sequence,
        status=word if word in VALUES else "error",
        code=_code(body.get("code")),
        message=message,
        lang=lang,
        operation=_optional_text(body.get("operation")),
        configuration_applied_time=_optional_text(body.get("configurationAppliedTime")),
        substatus=tuple(items),
    )


def _substatus(item: Any) -> Substatus:
    if not isinstance(item, dict):
        raise _Malformed("An item of substatus is no object.")
    word = item.get("status")
    if word not in VALUES:
        raise _Malformed("An item of substatus has no valid status.")
    message, lang = _message(item.get("formattedMessage"), "substatus")
    return Substatus(
        name=_optional_text(item.get("name")) or "",
        status=word,
        code=_code(item.get("code")),
        message=message,
        lang=lang,
    )


def _message(value: Any, where: str) -> tuple[str | None, str]:
    if value is None:
        return None, "en-US"
    if not isinstance(value, dict) or "lang" not in value or "message" not in value:
        raise _Malformed(f"formattedMessage of {where} needs lang and message.")
    return _optional_text(value["message"]) or "", _optional_text(value["lang"]) or "en-US"


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _Malformed("substatus is no array.")
    return [item for item in value if item is not None]


def _code(value: Any) -> int | str:
    if value is None or isinstance(value, bool):
        return 0
    return value if isinstance(value, int) else redact(str(value))


def _optional_text(value: Any) -> str | None:
    # A name or an operation may carry a download URL as well as a message can.
    return None if value is None else redact(value if isinstance(value, str) else json.dumps(value))


def _cut(text: str | None, length: int) -> str | None:
    if text is None or len(text) <= length:
        return text
    return text[:length] + _CUT


def write_placeholder(
    handler: HandlerDir,
    extension: str | None,
    sequence: int,
    *,
    full_name: str,
    status: str,
    code: int,
    message: str,
    operation: str,
    overwrite: bool = False,
) -> None:
    """Write a status in the handler's place, unless it has written one (extensions §8, last part).

    Raises:
        OSError: the disk refused.
    """
    path = handler.status_file(extension, sequence)
    if not overwrite and os.path.exists(path):
        return
    records.ensure_place(handler)
    ensure_dir(handler.status_dir, 0o700)
    body = {
        "name": full_name,
        "operation": operation,
        "status": status,
        "code": code,
        "formattedMessage": {"lang": "en-US", "message": redact(message)},
    }
    document = [{"version": 1.0, "timestampUTC": utc(), "status": body}]
    write_atomic(path, json.dumps(document), 0o600)
