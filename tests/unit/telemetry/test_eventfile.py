"""Events as files: what is written, what is taken from others, and that no secret is in either."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent import Event, ProtocolError, TelemetryEvent
from waagent.platform.telemetrydoc import parse_legacy_event
from waagent_telemetry import eventfile

PROVIDER = "69B669B9-4AF8-4C50-BDC4-6006FA76E975"
URL = "https://store.example/c?sv=1&sig=secret"


def happened(message: str = "done") -> Event:
    return Event("Install", "Contoso.Tool", False, message, 12, "1.4.2", 1700000000.25)


def read(data: bytes, own: bool = True) -> TelemetryEvent:
    return eventfile.parse(data, 1600000000.5, own=own, parse_xml=parse_legacy_event, version="3.0.0.0")


def test_an_event_of_the_agent_survives_the_disk() -> None:
    data = eventfile.from_event(happened(), "3.0.0.0")
    assert data is not None
    assert set(json.loads(data)) == {"eventId", "providerId", "parameters"}
    event = read(data)
    values = dict(event.parameters)
    assert (event.provider, event.id) == (PROVIDER, 1)
    assert {name: values[name] for name in list(values)[:8]} == {
        "Name": "Contoso.Tool", "Version": "1.4.2", "Operation": "Install", "OperationSuccess": False,
        "Message": "done", "Duration": 12, "ExtensionType": "", "IsInternal": False,
    }  # fmt: skip
    assert values["GAVersion"] == "WALinuxAgent-3.0.0.0"
    assert values["OpcodeName"] == "2023-11-14T22:13:20.250000Z"
    assert values["TaskName"] == "MainThread"


@pytest.mark.parametrize(("length", "kept"), [(64511, True), (64512, False), (70_000, False)])
def test_a_message_that_no_request_holds_is_not_kept(length: int, kept: bool) -> None:
    assert (eventfile.from_event(happened("x" * length), "3.0.0.0") is not None) is kept


def test_secrets_do_not_reach_the_disk() -> None:
    data = eventfile.from_event(happened(f"cannot get {URL}"), "3.0.0.0")
    assert data is not None
    assert b"secret" not in data
    assert b"store.example/c?<redacted>" in data


def test_of_a_handlers_file_only_what_it_may_say_is_taken() -> None:
    parameters = {
        "Operation": "Enable", "Name": "Old.Handler", "Message": f"see {URL}", "OperationSuccess": True, "Duration": 3,
        "Version": "1.0", "GAVersion": "faked", "ContainerId": "faked", "IsInternal": True,
    }  # fmt: skip
    listed = [{"name": name, "value": value} for name, value in parameters.items()]
    data = json.dumps({"eventId": 99, "providerId": "another", "parameters": listed}).encode()
    event = read(data, own=False)
    values = dict(event.parameters)
    assert (event.provider, event.id) == (PROVIDER, 1)
    assert values == {
        "Name": "Old.Handler", "Version": "1.0", "Operation": "Enable", "OperationSuccess": True,
        "Message": "see https://store.example/c?<redacted>", "Duration": 3, "ExtensionType": "", "IsInternal": False,
        "GAVersion": "WALinuxAgent-3.0.0.0", "OpcodeName": "2020-09-13T12:26:40.500000Z",
    }  # fmt: skip


def test_a_captured_event_file(fixtures: Path) -> None:
    (path,) = (fixtures / "events").glob("*.tld")
    event = read(path.read_bytes(), own=False)
    assert (event.provider, event.id) == (PROVIDER, 1)
    assert dict(event.parameters) == {
        "Name": "Test Event", "Version": "2.2.0", "Operation": "Some Operation", "OperationSuccess": True,
        "Message": "", "Duration": 0, "ExtensionType": "", "IsInternal": False,
        "GAVersion": "WALinuxAgent-3.0.0.0", "OpcodeName": "2020-09-13T12:26:40.500000Z",
    }  # fmt: skip


def test_a_handlers_file_may_be_xml() -> None:
    data = (
        b'\xef\xbb\xbf<?xml version="1.0"?>\n<Data><Provider id="x"/><Event id="1"/>'
        b'<Param Name="Operation" Value="Enable" T="mt:wstr"/>'
        b'<Param Name="OperationSuccess" Value="False" T="mt:bool"/></Data>'
    )
    values = dict(read(data, own=False).parameters)
    assert (values["Operation"], values["OperationSuccess"]) == ("Enable", False)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"null",
        b"[" * 100_000,
        b'{"eventId": "1", "providerId": "x", "parameters": []}',
        b'{"eventId": 1, "providerId": 2, "parameters": []}',
        b'{"eventId": 1, "providerId": "x", "parameters": {}}',
        b'{"eventId": 1, "providerId": "x", "parameters": []}',
        b"<Data/>",
    ],
)
def test_what_is_no_event_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, ProtocolError)):
        read(data, own=False)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["eventId", "providerId", "parameters", "name", "value", "x"]), inner)
    ),
)


@given(_JSON)
def test_no_json_breaks_the_reader(document: Any) -> None:
    try:
        event = read(json.dumps(document).encode())
    except ValueError:
        return
    assert all(isinstance(name, str) for name, _ in event.parameters)
