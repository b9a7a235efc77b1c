"""Telemetry on the wire: what fits into a request, and that nothing breaks out of it."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.errors import ProtocolError
from waagent.platform.models import TelemetryEvent
from waagent.platform.telemetrydoc import LIMIT, build_request, encode, parse_legacy_event

GUID = "69B669B9-4AF8-4C50-BDC4-6006FA76E975"


def event(*parameters: tuple[str, str | int | float | bool], provider: str = GUID, number: int = 1) -> TelemetryEvent:
    return TelemetryEvent(provider, number, parameters)


def of_size(size: int) -> TelemetryEvent:
    """Return an event that takes exactly *size* bytes."""
    rest = size - len(encode(event(("Message", ""))))
    return event(("Message", "x" * rest))


def read(body: bytes) -> list[dict[str, tuple[str, str]]]:
    """Return the parameters of each event as the service reads them: name to (value, type)."""
    return [
        {
            str(item.get("Name")): (str(item.get("Value")), str(item.get("T")))
            for item in ET.fromstring(f"<e>{found.text}</e>").findall("Param")
        }
        for found in ET.fromstring(body).iter("Event")
    ]


def test_the_body_is_the_documented_one() -> None:
    body, done, oversize = build_request(
        [event(("Name", "WALinuxAgent"), ("OperationSuccess", True), ("Duration", 0), ("Value", 1.5))]
    )
    assert (done, oversize) == (1, 0)
    assert body == (
        b'<?xml version="1.0"?><TelemetryData version="1.0"><Provider id="69B669B9-4AF8-4C50-BDC4-6006FA76E975">'
        b'<Event id="1"><![CDATA[<Param Name="Name" Value="WALinuxAgent" T="mt:wstr" />'
        b'<Param Name="OperationSuccess" Value="True" T="mt:bool" /><Param Name="Duration" Value="0" T="mt:uint64" />'
        b'<Param Name="Value" Value="1.5" T="mt:float64" />]]></Event></Provider></TelemetryData>'
    )


@given(st.text(alphabet=st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\t\n\r]<>&\"'")))
def test_any_text_arrives_as_it_was(text: str) -> None:
    body, _, _ = build_request([event(("Message", text)), event(("Message", "after"))])
    values = [found["Message"][0] for found in read(body)]
    assert values == ["".join(c if c not in "\ufffe\uffff" else "?" for c in text), "after"]


def test_what_xml_cannot_hold_spoils_nothing() -> None:
    body, _, _ = build_request([event(("Message", "a\x00\x1b[31m\ud800b ]]> </Event>"))])
    assert read(body) == [{"Message": ("a??[31m?b ]]> </Event>", "mt:wstr")}]


@pytest.mark.parametrize(("size", "kept"), [(LIMIT - 1, 1), (LIMIT, 0), (LIMIT + 1, 0), (70_000, 0)])
def test_an_event_of_the_limit_or_more_is_left_out(size: int, kept: int) -> None:
    body, done, oversize = build_request([of_size(size), of_size(500)])
    assert oversize == 1 - kept
    assert done == (1 if kept else 2)  # one that is just below leaves no room for the next
    assert [len(found["Message"][0]) > 1000 for found in read(body)] == ([True] if kept else [False])


@pytest.mark.parametrize(("second", "together"), [(LIMIT - 40_001, True), (LIMIT - 40_000, False)])
def test_events_stay_below_the_limit_together(second: int, together: bool) -> None:
    body, done, _ = build_request([of_size(40_000), of_size(second)])
    assert done == (2 if together else 1)
    assert len(body) < 65_536
    assert len(read(body)) == done


def test_sizes_are_counted_in_bytes() -> None:
    _, done, oversize = build_request([event(("Message", "\u20ac" * 22_000))])
    assert (done, oversize) == (1, 1)


def test_a_request_has_one_provider() -> None:
    events = [event(), event(), event(provider="FFF0196F-EE4C-4EAF-9AA5-776F622DEB4F", number=7), event()]
    body, done, _ = build_request(events)
    assert done == 2
    assert body.count(b"<Provider ") == 1


def test_nothing_makes_no_request() -> None:
    assert build_request([]) == (b"", 0, 0)


def test_a_file_of_old_is_read() -> None:
    found = parse_legacy_event(
        b'<?xml version="1.0"?><Data><Provider id="69B669B9-4AF8-4C50-BDC4-6006FA76E975"/><Event id="1"/>'
        b'<Param Name="Operation" Value="Enable" T="mt:wstr"/><Param Name="OperationSuccess" Value="True" T="mt:bool"/>'
        b'<Param Name="Duration" Value="7" T="mt:uint64"/><Param Name="Share" Value="0.5" T="mt:float64"/>'
        b'<Param Name="Odd" Value="x" T="mt:uint64"/><Param Value="nameless"/></Data>'
    )
    assert (found.provider, found.id) == (GUID, 1)
    assert dict(found.parameters) == {
        "Operation": "Enable", "OperationSuccess": True, "Duration": 7, "Share": 0.5, "Odd": "x"
    }  # fmt: skip


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<Data>",
        b"<Other/>",
        b"<Data/>",
        b'<Data><Provider id="x"/><Event id="one"/></Data>',
        b'<Data><Provider id="x"/><Event id="99999999999"/></Data>',
        b'<!DOCTYPE Data [<!ENTITY a "b">]><Data><Provider id="x"/><Event id="1"/></Data>',
    ],
)
def test_what_is_no_event_file_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_legacy_event(data)
