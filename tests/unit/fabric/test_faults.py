from __future__ import annotations

import pytest

from waagent_fabric.faults import Fault, FaultBoard


def hits(board, *requests):
    return [None if fault is None else fault.kind for fault in (board.pick(*request) for request in requests)]


REQUEST = ("wireserver", "GET", "/machine/?comp=goalstate")


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({}, "drop"),
        ({"server": "wireserver"}, "drop"),
        ({"server": "imds"}, None),
        ({"method": "POST"}, None),
        ({"path": "comp=goalstate"}, "drop"),
        ({"path": "comp=health"}, None),
    ],
)
def test_matching(match, expected):
    board = FaultBoard()
    board.add(Fault("drop", **match))
    assert hits(board, REQUEST) == [expected]


def test_times_and_skip():
    board = FaultBoard()
    board.add(Fault("reset", times=2, skip=1))
    assert hits(board, *[REQUEST] * 5) == [None, "reset", "reset", None, None]


def test_a_sequence_of_codes_is_said_once():
    board = FaultBoard()
    fault = Fault("status", statuses=(500, 429))
    board.add(fault)
    seen = []
    while board.pick(*REQUEST) is not None:
        seen.append(fault.status_now())
    assert seen == [500, 429]


def test_the_last_code_is_repeated_while_times_last():
    fault = Fault("status", statuses=(500, 503), times=4)
    assert [fault.status_now() for _ in iter(fault.take, False)] == [500, 503, 503, 503]


def test_the_first_unspent_fault_counts():
    board = FaultBoard()
    board.add(Fault("drop", times=1))
    board.add(Fault("garbage"))
    assert hits(board, REQUEST, REQUEST) == ["drop", "garbage"]


def test_clearing():
    board = FaultBoard()
    board.add(Fault("drop"))
    board.clear()
    assert hits(board, REQUEST) == [None]


@pytest.mark.parametrize("wrong", [{"kind": "earthquake"}, {"kind": "drop", "server": "nowhere"}])
def test_words_are_checked(wrong):
    with pytest.raises(ValueError, match="must be in"):
        Fault(wrong.pop("kind"), **wrong)
