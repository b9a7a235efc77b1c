"""Events reach whoever subscribed, and nobody's failure reaches whoever adds them."""

from __future__ import annotations

import pytest

from waagent.events import KEPT, Event, Events
from waagent.log import Log, Sinks


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def events(lines: list[str]) -> Events:
    log = Log(Sinks(), "Test")
    log.also = lambda level, text: lines.append(text)
    return Events(log)


def test_a_subscriber_gets_what_happens(events: Events) -> None:
    seen: list[Event] = []
    events.subscribe(seen.append)
    events.add("Install", name="Acme.Tool", success=False, message="no", duration_ms=7, version="1.2")
    (event,) = seen
    found = (event.operation, event.name, event.success, event.message, event.duration_ms, event.version)
    assert found == ("Install", "Acme.Tool", False, "no", 7, "1.2")


def test_what_happened_before_the_plugins_were_there_is_not_lost(events: Events) -> None:
    for number in range(KEPT + 5):
        events.add("Restart", message=str(number))
    seen: list[str] = []
    events.subscribe(lambda event: seen.append(event.message))
    assert seen == [str(number) for number in range(5, KEPT + 5)]
    events.add("HeartBeat", message="next")
    assert seen[-1] == "next"


def test_a_failure_has_its_line_in_the_log(events: Events, lines: list[str]) -> None:
    events.add("Install", name="Acme.Tool", success=False, message="no", duration_ms=7)
    events.add("Install", name="Acme.Tool", success=False, message="again", logged=True)
    events.add("Enable", name="Acme.Tool")
    assert lines == ["Event: name=Acme.Tool, op=Install, message=no, duration=7"]


def test_a_sink_that_fails_keeps_nothing_from_the_others(events: Events, lines: list[str]) -> None:
    def broken(event: Event) -> None:
        raise OSError("disk full")

    seen: list[Event] = []
    events.add("Restart")
    events.subscribe(broken)
    events.subscribe(seen.append)
    events.add("HeartBeat")
    assert [event.operation for event in seen] == ["Restart", "HeartBeat"]
    assert lines == ["An event could not be handed on: OSError: disk full"]
