"""Platform JSON to plain values, safe against hostile documents (wireserver §10, §23).

UTF-8 with or without a byte order mark; at most 16 MiB, 100 levels, 250 000 brackets and a million commas; no ``NaN``,
no infinite number, no integer of more than 400 digits. Whatever a document asks of memory and time is bounded by that.
"""

from __future__ import annotations

import json
from typing import Any

from waagent.errors import ProtocolError

MAX_BYTES = 16 << 20
MAX_DEPTH = 100
MAX_BRACKETS = 250_000
MAX_COMMAS = 1_000_000
MAX_DIGITS = 400

_SAME_TWICE = "\0same key twice"
"""The key under which :func:`parse` remembers a repeated name; no platform document can hold it by chance."""


def parse(data: bytes | str, document: str, *, mark_repeated: bool = False) -> Any:
    """Return the JSON value in *data*.

    Args:
        data: the bytes as they came, or text.
        document: the document's name, for messages.
        mark_repeated: let :func:`fields` refuse an object that names a key twice with different values;
            otherwise the last one counts.

    Raises:
        ProtocolError: not JSON, or refused by the rules of this module. The text says where, never what stood there.
    """
    if len(data) > MAX_BYTES:
        raise ProtocolError(f"{document}: expected at most {MAX_BYTES} bytes, found {len(data)}")
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise ProtocolError(f"{document}: expected UTF-8 text, found a bad byte at {problem.start}") from None
    if text.count("[") + text.count("{") > MAX_BRACKETS or text.count(",") > MAX_COMMAS:
        raise ProtocolError(f"{document}: expected at most {MAX_BRACKETS} lists and objects, found more")
    try:
        value = json.loads(
            text,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_constant,
            object_pairs_hook=_marked if mark_repeated else None,
        )
    except RecursionError:
        raise ProtocolError(f"{document}: expected at most {MAX_DEPTH} levels, found more") from None
    except ValueError as problem:
        raise ProtocolError(f"{document}: expected JSON, found: {problem}") from None
    if _deeper_than(value, MAX_DEPTH):
        raise ProtocolError(f"{document}: expected at most {MAX_DEPTH} levels, found more")
    return value


def fields(value: Any, where: str) -> dict[str, Any]:
    """Return the members of object *value* under case-folded names (wireserver §10).

    Raises:
        ProtocolError: it is no object, or two names that differ in case at most have different values.
    """
    if not isinstance(value, dict):
        raise ProtocolError(f"{where}: expected an object, found {kind(value)}")
    if _SAME_TWICE in value:
        raise ProtocolError(f"{where}: expected every name once, found one with two values")
    found: dict[str, Any] = {}
    for name, member in value.items():
        folded = name.casefold()
        if folded in found and found[folded] != member:
            raise ProtocolError(f"{where}: expected every name once, found one with two values")
        found[folded] = member
    return found


def kind(value: Any) -> str:
    """Return what sort of JSON value this is, for a message: never the value, it may be a secret."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text" if value else "empty text"
    return "a list" if isinstance(value, list) else "an object"


def _integer(digits: str) -> int:
    # Older interpreters take quadratic time over long integers.
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("a number out of range")
    return value


def _constant(_name: str) -> float:
    raise ValueError("a number that is none (NaN or Infinity)")


def _marked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs) and any(value[name] != member for name, member in pairs):
        value[_SAME_TWICE] = True
    return value


def _deeper_than(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            member
            for container in level
            if isinstance(container, (dict, list))
            for member in (container.values() if isinstance(container, dict) else container)
            if isinstance(member, (dict, list))
        ]
        if not level:
            return False
    return True
