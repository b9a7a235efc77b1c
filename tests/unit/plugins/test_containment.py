"""A plugin may raise, hang, exit or lie: the agent goes on, says so once, and keeps the books."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from waagent.containment import ANSWERED, FAILED, LATE, SKIPPED, STUCK, Containment


@pytest.fixture
def containment(log):
    return Containment(log)


def fail(problem):
    def function():
        raise problem

    return function


def test_an_answer_comes_through_and_is_counted(containment):
    outcome = containment.call("acme", "on_start", lambda: 42, deadline=30)
    assert (outcome.state, outcome.value) == (ANSWERED, 42)
    tally = containment.tallies("acme")["on_start"]
    assert (tally.calls, tally.failures, tally.consecutive) == (1, 0, 0)
    assert tally.last_success is not None


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even a text")


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (ValueError("no luck"), "ValueError: no luck"),
        (SystemExit(3), "SystemExit: 3"),
        (AssertionError(), "AssertionError"),
        (GeneratorExit(), "GeneratorExit"),
        (RecursionError("deep"), "RecursionError: deep"),
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (Unspeakable(), "Unspeakable: (its text cannot be read)"),
    ],
)
def test_whatever_a_plugin_raises_stays_with_it(containment, lines, problem, said):
    containment.labels["acme"] = "acme (acme-waagent 1.0)"
    outcome = containment.call("acme", "on_start", fail(problem), deadline=30)
    assert (outcome.state, outcome.error) == (FAILED, said)
    assert lines.having("WARNING plugin acme (acme-waagent 1.0) failed in on_start: " + said)


def test_a_keyboard_interrupt_ends_the_agent(containment):
    with pytest.raises(KeyboardInterrupt):
        containment.call("acme", "on_start", fail(KeyboardInterrupt()), deadline=30)


def test_the_traceback_of_a_failure_is_in_the_verbose_log(containment, lines):
    containment.call("acme", "on_start", fail(ValueError("no luck")), deadline=30)
    (line,) = lines.having("VERBOSE plugin acme in on_start:")
    assert __file__ in line
    assert "in function" in line


def test_the_same_failure_is_told_the_first_tenth_and_hundredth_time(containment, lines):
    for _ in range(150):
        containment.call("acme", "on_start", fail(ValueError("no luck")), deadline=30)
    told = lines.having("WARNING", "no luck")
    assert len(told) == 3
    assert "(10 times the same)" in told[1]
    assert "(100 times the same)" in told[2]


def test_another_failure_and_a_failure_after_success_are_told(containment, lines):
    containment.call("acme", "h", fail(ValueError("one")), deadline=30)
    containment.call("acme", "h", fail(OSError("two")), deadline=30)
    containment.call("acme", "h", lambda: None, deadline=30)
    containment.call("acme", "h", fail(OSError("two")), deadline=30)
    assert [line.split(": ", 1)[1] for line in lines.having("WARNING")] == [
        "ValueError: one",
        "OSError: two",
        "OSError: two",
    ]


def test_a_hanging_call_is_left_behind_and_its_plugin_not_called_until_it_returns(containment, lines, eventually):
    gate = threading.Event()
    began = time.monotonic()
    late = containment.call("acme", "on_goal_state", lambda: gate.wait(30), deadline=0.05)
    assert time.monotonic() - began < 5
    assert (late.state, late.error) == (LATE, "no answer within 0.05 s")
    assert containment.stuck() == {"acme": "on_goal_state"}

    called = []
    refused = containment.call("acme", "on_start", lambda: called.append(1), deadline=30)
    assert refused.state == STUCK
    assert "on_goal_state has not returned" in refused.error
    assert containment.call("other", "on_start", lambda: called.append(2), deadline=30).answered
    assert called == [2]

    gate.set()
    eventually(lambda: not containment.stuck())
    assert containment.call("acme", "on_start", lambda: "again", deadline=30).value == "again"
    assert lines.having("INFO plugin acme: on_goal_state has returned")


def test_the_stack_of_a_hanging_call_is_written_once(containment, lines):
    gate = threading.Event()

    def somewhere_in_the_plugin():
        gate.wait(30)

    containment.call("acme", "on_goal_state", somewhere_in_the_plugin, deadline=0.05)
    for _ in range(20):
        containment.call("acme", "on_goal_state", somewhere_in_the_plugin, deadline=0.05)
    gate.set()
    (stack,) = lines.having("it is here:")
    assert "in somewhere_in_the_plugin" in stack


def test_a_late_result_does_not_land_in_a_later_call(containment, eventually):
    gate = threading.Event()

    def slow():
        gate.wait(30)
        return "of the first call"

    containment.call("acme", "h", slow, deadline=0.05)
    gate.set()
    eventually(lambda: not containment.stuck())
    assert containment.call("acme", "h", lambda: "of the second", deadline=30).value == "of the second"


def test_a_periodic_hook_that_keeps_failing_is_left_out_more_and_more_and_one_success_resets(containment):
    def states(count, function):
        return [
            containment.call("acme", "report_status", function, deadline=30, periodic=True).state for _ in range(count)
        ]

    assert states(5, fail(ValueError())) == [FAILED] * 5
    assert states(2, fail(ValueError())) == [SKIPPED, FAILED]
    assert states(3, fail(ValueError())) == [SKIPPED, SKIPPED, FAILED]
    assert states(5, fail(ValueError())) == [SKIPPED] * 4 + [FAILED]
    for _ in range(10):
        states(61, fail(ValueError()))
    most = states(200, fail(ValueError()))
    gaps = "".join("x" if state == SKIPPED else "." for state in most).strip("x").split(".")
    assert max(map(len, gaps)) == 60
    while states(1, lambda: None) != [ANSWERED]:
        pass
    assert states(4, fail(ValueError())) == [FAILED] * 4


def test_other_hooks_of_a_failing_plugin_are_not_left_out(containment):
    for _ in range(20):
        containment.call("acme", "report_status", fail(ValueError()), deadline=30, periodic=True)
        assert containment.call("acme", "on_deprovision", lambda: 1, deadline=30).answered
        assert containment.call("acme", "on_stop", fail(ValueError()), deadline=30).state == FAILED


def test_a_machine_without_threads_is_a_failed_call(containment, monkeypatch):
    def no_thread(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", no_thread)
    outcome = containment.call("acme", "h", lambda: 1, deadline=30)
    assert (outcome.state, outcome.error) == (FAILED, "RuntimeError: can't start new thread")


def test_several_calls_run_at_once_under_one_deadline(containment):
    met = threading.Barrier(3)
    gate = threading.Event()
    calls = [(name, lambda: met.wait(10) is not None) for name in ("a", "b", "c")] + [("d", lambda: gate.wait(30))]
    outcomes = containment.call_all(calls, "import", deadline=2)
    gate.set()
    assert [outcomes[name].state for name in "abcd"] == [ANSWERED] * 3 + [LATE]


@pytest.mark.parametrize("ours", [True, False])
def test_calls_in_turn_end_each_in_its_own_way_and_in_their_order(containment, eventually, ours):
    over = threading.Event()
    order = []
    calls = [
        ("a", lambda: order.append("a") or "first"),
        ("b", fail(ValueError("no luck"))),
        ("c", lambda: over.wait(30)),
        ("d", lambda: order.append("d") or threading.current_thread().name),
        ("e", fail(SystemExit(2))),
    ]
    if ours:
        containment.ours.update("abcde")
    outcomes = containment.call_in_turn(calls, "report_status", deadline=0.5)
    assert [outcome.plugin for outcome in outcomes] == list("abcde")
    assert [outcome.state for outcome in outcomes] == [ANSWERED, FAILED, LATE, ANSWERED, FAILED]
    assert [outcomes[0].value, outcomes[3].value, order] == ["first", "d.report_status", ["a", "d"]]
    again = containment.call_in_turn(calls[2:4], "report_status", deadline=0.5)
    assert [outcome.state for outcome in again] == [STUCK, ANSWERED]
    over.set()
    eventually(lambda: not containment.stuck())
    assert [outcome.state for outcome in containment.call_in_turn(calls[:3], "h", deadline=30)] == [
        ANSWERED,
        FAILED,
        ANSWERED,
    ]


def test_each_call_in_turn_has_the_whole_deadline(containment):
    containment.ours.update("abcd")
    calls = [(name, lambda: time.sleep(0.4)) for name in "abcd"]
    outcomes = containment.call_in_turn(calls, "h", deadline=1)
    assert [outcome.state for outcome in outcomes] == [ANSWERED] * 4


def test_nobody_is_called_after_a_keyboard_interrupt(containment):
    containment.ours.update("ab")
    called = []
    with pytest.raises(KeyboardInterrupt):
        containment.call_in_turn([("a", fail(KeyboardInterrupt())), ("b", lambda: called.append(1))], "h", deadline=5)
    assert called == []


@pytest.mark.parametrize("ours", [True, False])
def test_an_interrupt_that_a_plugin_raises_in_a_lane_is_a_failure_like_others(containment, ours):
    """Else it would take every status report with it."""
    if ours:
        containment.ours.update("ab")
    outcomes = []
    calls = [("a", fail(KeyboardInterrupt())), ("b", lambda: 1)]
    lane = threading.Thread(target=lambda: outcomes.extend(containment.call_in_turn(calls, "h", deadline=30)))
    lane.start()
    lane.join(30)
    assert [(outcome.plugin, outcome.state) for outcome in outcomes] == [("a", FAILED), ("b", ANSWERED)]


def test_failing_names_only_those_whose_last_call_failed(containment):
    containment.call("a", "h", fail(ValueError("x")), deadline=30)
    containment.call("b", "h", fail(ValueError("x")), deadline=30)
    containment.call("b", "h", lambda: 1, deadline=30)
    assert containment.failing() == {"a": "h: ValueError: x"}
    assert containment.failing("other") == {}


def test_what_a_third_party_does_to_its_thread_meets_nobody_else(containment):
    containment.ours.add("good")

    def bad() -> None:
        sys.settrace(lambda *_: 1 / 0)

    containment.call("good", "h", lambda: 1, deadline=30)
    for _ in range(3):
        containment.call("bad", "h", bad, deadline=1)
        assert containment.call("good", "h", lambda: list(map(str, range(3))), deadline=5).value == ["0", "1", "2"]


def test_one_thread_makes_many_calls_and_a_late_one_ends_with_its_call(containment, eventually):
    containment.ours.update({"acme", "slow", *(f"p{number}" for number in range(9))})
    before = set(threading.enumerate())
    threads = [containment.call("acme", "on_start", threading.get_ident, deadline=30).value for _ in range(50)]
    assert len(set(threads)) == 1
    over = threading.Event()
    assert containment.call("slow", "on_start", over.wait, deadline=0.05).state == LATE
    assert containment.call("acme", "on_start", threading.get_ident, deadline=30).value != threads[0]
    over.set()
    eventually(lambda: len(set(threading.enumerate()) - before) == 1)
    outcomes = containment.call_all([(f"p{number}", lambda: 1) for number in range(9)], "import", deadline=30)
    assert all(outcome.answered for outcome in outcomes.values())
    eventually(lambda: len(set(threading.enumerate()) - before) == 1)


def test_a_thread_is_named_after_what_it_does(containment):
    name = containment.call("acme", "on_start", lambda: threading.current_thread().name, deadline=30).value
    assert name == "acme.on_start"


def test_a_deadline_that_is_over_before_the_call_begins_hurts_nobody(containment):
    for _ in range(200):
        assert containment.call("acme", "h", lambda: 1, deadline=0).state in (ANSWERED, LATE, STUCK)
