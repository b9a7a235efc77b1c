"""Sending: in time and not too often, refusals cost the culprit alone, outages cost nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.telemetry.fakes import PROVIDER, Bench
from waagent import HttpError, InvalidContainer, ResourceGone, TelemetryEvent, Throttled
from waagent_telemetry.sending import Item, Source, summary


def add(bench: Bench, count: int, message: str = "m") -> None:
    for number in range(count):
        bench.agent.events.add("Test", message=f"{message}{number}")


def items(bench: Bench, count: int, size: int = 10) -> list[Item]:
    bench.directory.mkdir(parents=True, exist_ok=True)
    found = []
    for number in range(count):
        path = bench.directory / f"{number}.tld"
        path.write_text("")
        event = TelemetryEvent(PROVIDER, 1, (("Message", f"{number} ".ljust(size, "x")),))
        found.append(Item(event, Source(str(path), 1)))
    return found


def numbers(bench: Bench) -> list[int]:
    return [int(message.split()[0]) for message in bench.telemetry.messages]


def test_events_wait_a_little_for_each_other(bench: Bench) -> None:
    add(bench, 3)
    (timer,) = bench.agent.timers
    assert timer[0] == bench.clock.now + 5
    timer[1]()
    assert bench.agent.queued == ["telemetry"]
    bench.clock.now += 5
    bench.collector.work()
    assert bench.telemetry.messages == ["m0", "m1", "m2"]
    assert not bench.files()


def test_what_happens_next_waits_for_a_minute_unless_it_is_much(bench: Bench) -> None:
    add(bench, 1)
    bench.clock.now += 5
    bench.collector.work()
    bench.agent.timers.clear()
    add(bench, 1)
    assert [at - bench.clock.now for at, _ in bench.agent.timers] == [60]
    add(bench, 30)
    assert [at - bench.clock.now for at, _ in bench.agent.timers] == [60, 5]


def test_every_event_says_where_it_happened(bench: Bench) -> None:
    add(bench, 1)
    bench.collector.work()
    values = dict(bench.telemetry.requests[0][0].parameters)
    assert {name: values[name] for name in list(values)[-16:] if name not in ("RAM", "Processors", "KeywordName")} == {
        "EventTid": values["EventTid"], "EventPid": values["EventPid"], "TaskName": "MainThread",
        "OSVersion": values["OSVersion"], "ExecutionMode": "IAAS",
        "TenantName": "tenant", "RoleName": "_role", "RoleInstanceName": "_vm",
        "Location": "westeurope", "SubscriptionId": "s", "ResourceGroupName": "rg", "VMId": "id", "ImageOrigin": 2,
    }  # fmt: skip
    assert values["ContainerId"] == "c-1"
    assert str(values["OSVersion"]).startswith("Linux:acmeos-1-anvil:")
    assert list(json.loads(str(values["KeywordName"]))) == ["CpuArchitecture"]
    assert isinstance(values["RAM"], int)
    assert len(values) == len(bench.telemetry.requests[0][0].parameters), "no parameter comes twice"


def test_a_silent_metadata_service_is_asked_again_only_now_and_then(bench: Bench) -> None:
    platform = bench.agent.platform
    compute, platform.compute = platform.compute, None
    for _ in range(3):
        add(bench, 1)
        bench.collector.work()
        bench.clock.now += 61
    values = dict(bench.telemetry.requests[0][0].parameters)
    assert (values["VMId"], values["ImageOrigin"]) == ("VMId_UNINITIALIZED", 0)
    assert platform.asked == 1
    platform.compute = compute
    bench.clock.now += 300
    add(bench, 1)
    bench.collector.work()
    assert dict(bench.telemetry.requests[-1][0].parameters)["VMId"] == "id"
    assert platform.asked == 2


def test_before_the_first_goal_state_events_wait(bench: Bench) -> None:
    state, bench.agent.platform.goal_state = bench.agent.platform.goal_state, None
    add(bench, 2)
    bench.collector.work()
    assert not bench.telemetry.requests
    bench.agent.platform.goal_state = state
    bench.collector.look()
    bench.clock.now += 5
    bench.collector.work()
    assert len(bench.telemetry.messages) == 2


def test_one_request_for_each_provider(bench: Bench) -> None:
    other = TelemetryEvent("FFF0196F-EE4C-4EAF-9AA5-776F622DEB4F", 7, (("Message", "7"),))
    mixed = items(bench, 4)
    mixed.insert(2, Item(other, Source("/nonexistent", 1)))
    bench.sending.send(mixed)
    assert [len(request) for request in bench.telemetry.requests] == [4, 1]


def test_no_more_than_the_service_takes_in_a_while(bench: Bench) -> None:
    bench.sending.send(items(bench, 120, 30_000))
    assert numbers(bench) == list(range(120))
    at = bench.telemetry.at
    assert len(at) >= 60
    for moment in at:
        assert len([other for other in at if moment <= other < moment + 15]) <= 15


@pytest.mark.parametrize("culprits", [{0}, {63}, {5, 6}, {10, 40, 50}])
def test_a_refused_event_costs_no_other(bench: Bench, culprits: set[int]) -> None:
    bench.telemetry.refusal = HttpError("bad", 400)
    bench.telemetry.refuses = lambda event: int(str(event.parameters[0][1]).split()[0]) in culprits
    bench.sending.send(items(bench, 64))
    assert numbers(bench) == [number for number in range(64) if number not in culprits]
    assert bench.sending.lost == {"refused with 400": len(culprits)}
    assert not bench.files()
    assert len(bench.telemetry.at) < 40


def test_a_platform_that_refuses_everything_gets_few_requests_and_later_the_rest(bench: Bench) -> None:
    add(bench, 100)
    bench.telemetry.refusal = HttpError("bad", 400)
    bench.telemetry.refuses = lambda event: True
    bench.collector.work()
    assert len(bench.telemetry.at) < 20
    assert len(bench.files()) == 95
    bench.telemetry.refuses = lambda event: False
    bench.clock.now += 60
    bench.collector.work()
    assert len(bench.telemetry.messages) == 95


@pytest.mark.parametrize(
    "problem",
    [
        HttpError("no answer"),
        HttpError("ailing", 500),
        HttpError("denied by a rule", 403),
        HttpError("not there", 404),
        ResourceGone("stale", 410),
        InvalidContainer("stale", 400),
    ],
)
def test_what_is_not_taken_now_is_kept_for_later(bench: Bench, problem: Exception) -> None:
    add(bench, 3)
    waits = []
    for _ in range(6):
        bench.telemetry.answers = [problem]
        bench.agent.timers.clear()
        bench.collector.work()
        (timer,) = bench.agent.timers
        waits.append(timer[0] - bench.clock.now)
        bench.clock.now = timer[0]
    assert waits == [60, 120, 300, 900, 900, 900]
    assert len(bench.files()) == 3
    assert len([line for line in bench.agent.lines if "Telemetry is not taken" in line]) == 1
    assert bench.collector.details()["problem"] == str(problem)
    bench.collector.work()
    assert bench.telemetry.messages == ["m0", "m1", "m2"]
    assert bench.collector.details() == {
        "waiting": 0, "sent": 3, "dropped": 0, "lost": {}, "unread": {}, "problem": ""
    }  # fmt: skip


@pytest.mark.parametrize(("asked", "waits"), [(None, 8.0), (3.0, 8.0), (200.0, 200.0)])
def test_a_throttled_round_ends_at_once(bench: Bench, asked: float | None, waits: float) -> None:
    add(bench, 1)
    bench.telemetry.answers = [Throttled("slowly", 429, asked)]
    bench.agent.timers.clear()
    bench.collector.work()
    assert len(bench.telemetry.at) == 1
    assert [at - bench.clock.now for at, _ in bench.agent.timers] == [waits]
    bench.clock.now += max(asked or 0.0, 8.0) - 0.1
    bench.collector.work()
    assert len(bench.telemetry.at) == 1
    bench.clock.now += 0.2
    bench.collector.work()
    assert bench.telemetry.messages == ["m0"]


def test_what_was_sent_before_the_outage_is_not_sent_again(bench: Bench) -> None:
    add(bench, 60, "x" * 5000 + " ")
    bench.telemetry.answers = [None, HttpError("no", 500)]
    bench.collector.work()
    sent = len(bench.telemetry.messages)
    assert 0 < sent < 60
    assert len(bench.files()) == 60 - sent
    bench.clock.now += 60
    bench.collector.work()
    assert len(bench.telemetry.messages) == len(set(bench.telemetry.messages)) == 60


def test_an_event_file_that_nobody_can_read_holds_up_nothing(bench: Bench) -> None:
    bench.queue.prepare()
    (bench.directory / "1.tld").write_text("{")
    (bench.directory / "2.waagent.tld").write_bytes(b"x" * 300_000)
    (bench.directory / "3.tld").mkdir()
    add(bench, 1)
    bench.collector.work()
    assert bench.telemetry.messages == ["m0"]
    assert bench.files() == ["3.tld"]
    assert bench.collector.unread["event file"] == 2
    assert bench.queue.count == 0, "what is no file is not counted"


def test_an_agent_that_stops_leaves_the_rest_for_the_next(bench: Bench) -> None:
    found = items(bench, 3, 40_000)
    bench.telemetry.refuses = lambda event: bool(bench.agent.stopping.set())  # the stop comes with the first request
    bench.sending.send(found)
    assert numbers(bench) == [0]
    assert bench.files() == ["1.tld", "2.tld"]


def test_an_event_that_is_too_large_is_left_out_and_counted(bench: Bench) -> None:
    add(bench, 1)
    bench.agent.events.add("Test", message="x" * 70_000)
    bench.agent.events.add("Test", message='"' * 20_000)  # fits only before it is encoded
    add(bench, 1, "n")
    bench.collector.work()
    assert bench.telemetry.messages == ["m0", "n0"]
    assert (bench.collector.unread["too large"], bench.sending.lost["too large"]) == (1, 1)
    assert not bench.files()


def test_losses_are_reported_once(bench: Bench) -> None:
    seen: list[Any] = []
    bench.agent.events.subscribe(lambda event: seen.append((event.operation, event.message)))
    bench.collector.report_errors()
    assert not seen
    bench.sending.lost.update({f"refused with {code}": code - 399 for code in range(400, 407)})
    bench.collector.unread["event file"] = 2
    bench.telemetry.errors = {"hostplugin": 1, "protocol": 0, "other": 3}
    bench.collector.report_errors()
    bench.collector.report_errors()
    assert seen == [
        ("HttpErrors", "hostplugin:1;protocol:0;other:3"),
        (
            "ReportEventErrors",
            ", ".join([*(f"refused with {code}: {code - 399}" for code in range(406, 401, -1)), "others: 3"]),
        ),
        ("CollectEventErrors", "event file: 2"),
    ]
    bench.sending.lost["refused with 400"] += 1
    bench.collector.report_errors()
    assert seen[3:] == [("ReportEventErrors", "refused with 400: 1")]


def test_counts_in_words() -> None:
    assert summary([]) == ""
    assert summary([("a", 1), ("b", 2), ("c", 1)]) == "b: 2, a: 1, c: 1"


def test_switched_off_it_only_deletes(bench: Bench) -> None:
    add(bench, 2)
    (bench.handler() / "1.json").write_text("{}")
    (bench.handler() / "x").write_text("")
    bench.collector.discard()
    assert not bench.files()
    assert not list(bench.handler().iterdir())
    assert not bench.telemetry.requests
