"""Telemetry on the wire: the body of ``POST /machine?comp=telemetrydata``, and event files of old (wireserver §19)."""

from __future__ import annotations

from collections.abc import Sequence

from waagent.errors import ProtocolError
from waagent.platform import xmldoc
from waagent.platform.healthdoc import escape
from waagent.platform.models import TelemetryEvent

LIMIT = 64512
"""Bytes of encoded events in one request; the service takes 65536 of everything (wireserver §19.2)."""

_WHITE = {"\t": "&#9;", "\n": "&#10;", "\r": "&#13;", '"': "&quot;"}
_BODY = '<?xml version="1.0"?><TelemetryData version="1.0"><Provider id="{}">{}</Provider></TelemetryData>'


def build_request(events: Sequence[TelemetryEvent], limit: int = LIMIT) -> tuple[bytes, int, int]:
    """Return a request with the first of *events*: as many as fit, of the first one's provider alone.

    Args:
        events: in the order in which they are to be sent.
        limit: an event of this many bytes or more is left out; all together stay below it.

    Returns:
        The body (empty when nothing is left to send), how many of the events it is done with, and how many of those
        are left out because they are too large.
    """
    pieces: list[str] = []
    provider: str | None = None
    size = done = oversize = 0
    for event in events:
        if provider is not None and event.provider != provider:
            break
        piece = encode(event)
        length = len(piece.encode("utf-8"))
        if length >= limit:
            oversize += 1
        elif size + length >= limit:
            break
        else:
            provider = event.provider
            pieces.append(piece)
            size += length
        done += 1
    if provider is None:
        return b"", done, oversize
    return _BODY.format(_attribute(provider), "".join(pieces)).encode("utf-8"), done, oversize


def encode(event: TelemetryEvent) -> str:
    """Return one ``Event`` element; values are escaped, so that no ``]]>`` can end its CDATA section."""
    params = "".join(
        f'<Param Name="{_attribute(name)}" Value="{_attribute(_text(value))}" T="{_type(value)}" />'
        for name, value in event.parameters
    )
    return f'<Event id="{event.id}"><![CDATA[{params}]]></Event>'


def parse_legacy_event(data: bytes) -> TelemetryEvent:
    """Return the event in an XML file that a handler or an agent of old left (wireserver §19.3).

    Raises:
        ProtocolError: it is none.
    """
    root = xmldoc.parse(data, "event file", "Data")
    provider, event = root.find("Provider"), root.find("Event")
    number = event.get("id") if event is not None else ""
    if provider is None or not number.isascii() or not number.isdecimal() or len(number) > 9:
        raise ProtocolError("event file: expected Provider and Event with their ids")
    parameters = tuple(
        (item.get("Name"), _value(item.attributes.get("Value", ""), item.get("T")))
        for item in root.find_all("Param")
        if item.get("Name")
    )
    return TelemetryEvent(provider.get("id"), int(number), parameters)


def _value(text: str, kind: str) -> str | int | float | bool:
    try:
        if kind == "mt:uint64":
            return int(text)
        if kind == "mt:float64":
            return float(text)
    except ValueError:
        return text
    return text.strip().lower() == "true" if kind == "mt:bool" else text


def _type(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return "mt:bool"
    if isinstance(value, int):
        return "mt:uint64"
    return "mt:float64" if isinstance(value, float) else "mt:wstr"


def _text(value: str | int | float | bool) -> str:
    return str(value)


def _attribute(text: str) -> str:
    escaped = escape(text)
    for character, entity in _WHITE.items():
        if character in escaped:
            escaped = escaped.replace(character, entity)
    return escaped
