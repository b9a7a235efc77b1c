"""Events of handlers: every limit at, below and above (extensions §14.1, service §7.4)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.telemetry.fakes import Bench
from waagent import HttpError
from waagent_telemetry import handlerevents
from waagent_telemetry.handlerevents import EMPTY, EVENT_LIMIT, FILE_LIMIT, MESSAGE_LIMIT, MISSING, OVERSIZE, Dropped

NAME = "Contoso.Tool"
KEYS = ("Version", "Timestamp", "TaskName", "EventLevel", "Message", "EventPid", "EventTid", "OperationId")


def event(**values: Any) -> dict[str, Any]:
    return {
        "Version": "1.4.2", "Timestamp": "2026-02-03T04:05:06Z", "TaskName": "Setup", "EventLevel": "Informational",
        "Message": "hello", "EventPid": "4711", "EventTid": "1", "OperationId": "op", **values,
    }  # fmt: skip


def reason(found: Any) -> str:
    try:
        handlerevents.convert(NAME, found)
    except Dropped as problem:
        return str(problem)
    return ""


def of_size(size: int) -> dict[str, Any]:
    """Return an event whose eight values have *size* characters together, its message short."""
    rest = size - sum(len(value) for value in event(OperationId="").values())
    return event(OperationId="o" * rest)


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_required_in_any_case(key: str) -> None:
    given = event()
    value = given.pop(key)
    assert reason(given) == MISSING
    assert reason({**given, key.upper(): value}) == ""
    assert reason({**given, key: None}) == MISSING
    assert reason({**given, key: True}) == MISSING
    assert reason({**given, key: 5}) == ("" if key in ("EventPid", "EventTid") else MISSING)


@pytest.mark.parametrize("found", [None, 1, "x", [], [event()]])
def test_what_is_no_object_lacks_its_keys(found: Any) -> None:
    assert reason(found) == MISSING


@pytest.mark.parametrize("length", [MESSAGE_LIMIT - 1, MESSAGE_LIMIT, MESSAGE_LIMIT + 1, 100_000])
def test_messages_are_cut(length: int) -> None:
    values = dict(handlerevents.convert(NAME, event(Message="m" * length)).parameters)
    assert values["Context1"] == "m" * min(length, MESSAGE_LIMIT)


def test_an_empty_message_is_dropped() -> None:
    assert reason(event(Message="")) == EMPTY
    assert reason(event(Message=" ")) == ""


@pytest.mark.parametrize(("size", "why"), [(EVENT_LIMIT - 1, ""), (EVENT_LIMIT, ""), (EVENT_LIMIT + 1, OVERSIZE)])
def test_the_size_of_an_event(size: int, why: str) -> None:
    assert reason(of_size(size)) == why


def test_the_message_counts_as_it_is_cut() -> None:
    rest = EVENT_LIMIT - MESSAGE_LIMIT - sum(len(value) for value in event(OperationId="", Message="").values())
    assert reason(event(Message="m" * 50_000, OperationId="o" * rest)) == ""
    assert reason(event(Message="m" * 50_000, OperationId="o" * (rest + 1))) == OVERSIZE


def test_a_secret_that_is_cut_in_two_is_none() -> None:
    for at in range(MESSAGE_LIMIT - 60, MESSAGE_LIMIT):
        message = "m" * at + " https://s.example/c?sv=1&sig=SECRETSECRETSECRET"
        assert "SECRET" not in str(handlerevents.convert(NAME, event(Message=message)).parameters)


def test_numbers_are_sent_as_they_came() -> None:
    values = dict(handlerevents.convert(NAME, event(EventPid=12, EventTid="7")).parameters)
    assert (values["EventPid"], values["EventTid"]) == (12, "7")


# -- files and sweeps


def write(folder: Path, name: str, found: Any) -> None:
    (folder / name).write_text(found if isinstance(found, str) else json.dumps(found))


def messages(bench: Bench) -> list[str]:
    return [str(dict(e.parameters)["Context1"]) for request in bench.telemetry.requests for e in request]


@pytest.mark.parametrize("number", [359, 360, 361, 1000])
def test_events_of_one_sweep(bench: Bench, number: int) -> None:
    write(bench.handler(), "1.json", [event(Message=str(index)) for index in range(number)])
    write(bench.handler("Other.Tool"), "1.json", event(Message="other"))
    bench.sweep()
    assert messages(bench) == [*(str(index) for index in range(min(number, 360))), "other"]
    assert not list(bench.handler().iterdir())
    assert bench.collector.unread[handlerevents.TOO_MANY] == max(0, number - 360)


def test_the_newest_files_come_first_and_the_rest_goes(bench: Bench) -> None:
    for number in range(1, 10):
        write(bench.handler(), f"{number}.json", [event(Message=f"{number}-{index}") for index in range(100)])
    bench.sweep()
    assert [text.split("-")[0] for text in messages(bench)[::100]] == ["9", "8", "7", "6"]
    assert len(messages(bench)) == 360
    assert not list(bench.handler().iterdir())


@pytest.mark.parametrize(("size", "sent"), [(FILE_LIMIT - 1, 1), (FILE_LIMIT, 1), (FILE_LIMIT + 1, 0)])
def test_the_size_of_a_file(bench: Bench, size: int, sent: int) -> None:
    text = json.dumps(event())
    write(bench.handler(), "1.json", text + " " * (size - len(text)))
    bench.sweep()
    assert len(messages(bench)) == sent
    assert bench.collector.unread[handlerevents.TOO_LARGE] == 1 - sent
    assert not list(bench.handler().iterdir())


@pytest.mark.parametrize(
    ("name", "taken"),
    [("1.json", True), ("0099.JSON", True), ("1.json.tmp", False), ("a1.json", False), (".json", False), ("1", False)],
)
def test_names_of_files(bench: Bench, name: str, taken: bool) -> None:
    write(bench.handler(), name, event())
    bench.sweep()
    assert len(messages(bench)) == int(taken)
    assert not list(bench.handler().iterdir()), "everything in the directory goes"


def test_a_file_that_is_being_written_is_looked_at_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.handler() / "1.json"
    path.write_text('[{"Version": ')
    write(bench.handler(), "2.json", event(Message="whole"))
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            write(bench.handler(), "1.json", event(Message="late"))

    monkeypatch.setattr(bench.collector, "_wait", wait)
    bench.sweep()
    assert waits == [1.0, 1.0]
    assert messages(bench) == ["whole", "late"]


def test_garbage_is_given_up_after_three_looks(bench: Bench) -> None:
    for name, data in (("1.json", b"{"), ("2.json", b"\xff\xfe"), ("3.json", b"[" * 200_000)):
        (bench.handler() / name).write_bytes(data)
    before = bench.clock.now
    bench.sweep()
    assert bench.clock.now - before == 2.0
    assert bench.collector.unread[handlerevents.UNREADABLE] == 3
    assert not list(bench.handler().iterdir())


def test_what_is_dropped_is_said_once_for_each_handler(bench: Bench) -> None:
    write(bench.handler(), "1.json", [event(Message=""), event(Message=""), {}, event()])
    bench.sweep()
    said = "Dropped events for Extension: Contoso.Tool; EmptyMessageError: 2, MissingKeyError: 1"
    assert bench.agent.lines == [said]
    assert len(messages(bench)) == 1
    bench.clock.now += 100
    bench.collector.work()
    assert bench.telemetry.messages[-1] == said


def test_what_is_not_taken_stays_and_goes_with_the_next_sweep(bench: Bench) -> None:
    write(bench.handler(), "1.json", event(Message="one"))
    write(bench.handler(), "junk", "?")
    bench.telemetry.answers = [HttpError("no", 500)]
    bench.sweep()
    assert [path.name for path in bench.handler().iterdir()] == ["1.json"]
    bench.clock.now += 3600
    bench.sweep()
    assert messages(bench) == ["one"]
    assert not list(bench.handler().iterdir())


def test_in_an_outage_the_directories_stay_small(bench: Bench) -> None:
    bench.agent.platform.goal_state = None
    for number in range(500):
        write(bench.handler(), f"{number:04}.json", event())
    bench.sweep()
    left = sorted(path.name for path in bench.handler().iterdir())
    assert left == [f"{number:04}.json" for number in range(140, 500)]
    for number in range(500, 508):
        write(bench.handler(), f"{number:04}.json", " " * (3 << 20))
    bench.sweep()
    assert sum(path.stat().st_size for path in bench.handler().iterdir()) <= handlerevents.KEPT_BYTES
    assert (bench.handler() / "0507.json").exists()
    assert not messages(bench)


def test_a_directory_among_the_files_is_left_alone(bench: Bench) -> None:
    (bench.handler() / "5.json").mkdir()
    (bench.handler() / "mine").mkdir()
    write(bench.handler(), "1.json", event())
    bench.sweep()
    assert len(messages(bench)) == 1
    assert sorted(path.name for path in bench.handler().iterdir()) == ["5.json", "mine"]
    assert not bench.collector.unread, "it is no event that was lost"


def test_a_link_in_place_of_the_directory_leads_nowhere(bench: Bench, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    write(elsewhere, "1.json", event())
    write(elsewhere, "passwd", "x")
    directory = bench.handler()
    directory.rmdir()
    directory.symlink_to(elsewhere)
    bench.sweep()
    bench.collector.discard()
    assert messages(bench) == []
    assert sorted(path.name for path in elsewhere.iterdir()) == ["1.json", "passwd"]
