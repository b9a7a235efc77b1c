"""The executor does what is missing, once where it must be; what fails is reported and not repeated for ever."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waagent.journal import Journal
from waagent.log import VERBOSE, Log, Sinks
from waagent.plan import Executor, Plan, Step


class Lines:
    """A stream that keeps what is logged."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


@pytest.fixture
def lines():
    return Lines()


@pytest.fixture
def log(lines):
    sinks = Sinks()
    sinks.stream = lines
    sinks.stream_level = VERBOSE
    return Log(sinks, "Test")


class Machine:
    """A machine whose facts are the names of what was done to it."""

    def __init__(self) -> None:
        self.facts: dict[str, bool] = {}
        self.ran: list[str] = []

    def step(self, name: str, effect=True, **more) -> Step:
        def run() -> None:
            self.ran.append(name)
            if isinstance(effect, BaseException):
                raise effect
            if callable(effect):
                effect()
            if effect:
                self.facts[name] = True

        return Step(name, f"do {name}", run, gives={name: True}, **more)

    def plan(self, *steps: Step) -> Plan:
        return Plan("boot", lambda: dict(self.facts), lambda facts: [s for s in steps if not facts.get(s.name)])


@pytest.fixture
def machine():
    return Machine()


@pytest.fixture
def executor(tmp_path, log):
    return Executor(Journal(str(tmp_path / "journal" / "boot.jsonl"), boot="b1"), log)


def restarted(executor: Executor, boot: str = "b1") -> Executor:
    """The executor of a new process, under the same or another boot id."""
    return Executor(Journal(executor.journal.path, boot=boot), executor._log)


def outcomes(result) -> dict[str, str]:
    return {step.name: step.outcome for step in result.steps}


def test_missing_steps_run_in_the_planners_order_and_what_is_there_is_left_alone(executor, machine, lines):
    machine.facts["b"] = True
    result = executor.run(machine.plan(machine.step("a"), machine.step("b"), machine.step("c")))
    assert result.ok
    assert machine.ran == ["a", "c"]
    assert outcomes(result) == {"a": "done", "c": "done"}
    assert "INFO MainThread Test boot: do a" in lines.text


def test_nothing_missing_writes_nothing(executor, machine, tmp_path):
    assert executor.run(machine.plan()).ok
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_appears_because_of_another_runs_too(executor, machine):
    steps = {name: machine.step(name) for name in "abc"}

    def planner(facts):
        if not facts.get("a"):
            return [steps["a"]]
        return [steps[name] for name in "bc" if not facts.get(name)]

    assert executor.run(Plan("boot", lambda: dict(machine.facts), planner)).ok
    assert machine.ran == ["a", "b", "c"]


def test_a_failure_ends_the_plan_and_says_what_failed(executor, machine, lines):
    plan = machine.plan(machine.step("a"), machine.step("b", effect=OSError("no space")), machine.step("c"))
    result = executor.run(plan)
    assert not result.ok
    assert result.error == "b: OSError: no space"
    assert outcomes(result) == {"a": "done", "b": "failed"}
    assert "WARNING MainThread Test boot: b failed: OSError: no space" in lines.text
    assert "Traceback" in lines.text


def test_an_optional_failure_does_not_keep_the_rest(executor, machine):
    result = executor.run(machine.plan(machine.step("a", effect=SystemExit(3), optional=True), machine.step("b")))
    assert result.ok
    assert outcomes(result) == {"a": "failed", "b": "done"}


def test_two_failures_under_one_boot_id_are_enough(executor, machine, lines):
    plan = machine.plan(machine.step("a", effect=ValueError("bad")), machine.step("b"))
    for _ in range(2):
        assert not restarted(executor).run(plan).ok
    third = restarted(executor).run(plan)
    assert outcomes(third) == {"a": "left"}
    assert "failed 2 times since the machine started" in third.error
    assert machine.ran == ["a", "a"]
    assert not restarted(executor, boot="b2").run(plan).ok
    assert machine.ran == ["a", "a", "a"]


def test_a_success_between_failures_starts_the_count_anew(executor, machine):
    mood = [ValueError("1"), None, ValueError("2"), ValueError("3"), ValueError("4")]

    def run() -> None:
        machine.ran.append("a")
        problem = mood.pop(0)
        if problem:
            raise problem
        machine.facts["a"] = True

    plan = machine.plan(Step("a", "do a", run))
    for _ in range(6):
        machine.facts.clear()
        restarted(executor).run(plan)
    assert len(machine.ran) == 4  # fails, succeeds, fails, fails, left, left


def test_a_step_without_effect_is_reported_and_not_repeated_in_the_run(executor, machine, lines):
    plan = machine.plan(machine.step("a", effect=False), machine.step("b"))
    result = executor.run(plan)
    assert not result.ok
    assert outcomes(result) == {"a": "no effect"}
    assert "had no effect" in result.error
    assert machine.ran == ["a"]
    for _ in range(4):
        restarted(executor).run(plan)
    assert machine.ran == ["a", "a"]  # it counts as a failure under this boot id


def test_an_optional_step_without_effect_lets_the_rest_run(executor, machine):
    result = executor.run(machine.plan(machine.step("a", effect=False, optional=True), machine.step("b")))
    assert result.ok
    assert outcomes(result) == {"a": "no effect", "b": "done"}


def test_done_in_an_earlier_run_and_missing_again_is_simply_done_again(executor, machine):
    plan = machine.plan(machine.step("swap"))
    assert executor.run(plan).ok
    machine.facts.clear()  # a reboot, an administrator
    assert restarted(executor, "b2").run(plan).ok
    assert machine.ran == ["swap", "swap"]


def test_a_once_step_that_was_done_never_runs_again(executor, machine):
    plan = machine.plan(machine.step("pay", once=True, settle=lambda: "redo"), machine.step("b"))
    assert executor.run(plan).ok
    machine.facts.clear()
    result = restarted(executor, "b2").run(plan)
    assert result.ok
    assert outcomes(result) == {"pay": "done before", "b": "done"}
    assert machine.ran.count("pay") == 1


@pytest.mark.parametrize(
    ("answer", "outcome", "runs", "ok"),
    [
        ("done", "settled", 0, True),
        ("redo", "done", 1, True),
        ("failed", "failed", 0, False),
        ("what?", "failed", 0, False),
        (OSError("cannot look"), "failed", 0, False),
        (None, "failed", 0, False),
    ],
)
def test_a_once_step_whose_end_is_unknown_is_settled_and_never_just_rerun(executor, machine, answer, outcome, runs, ok):
    executor.journal.started("boot", "pay", once=True)

    def settle() -> str:
        if isinstance(answer, Exception):
            raise answer
        if answer == "done":
            machine.facts["pay"] = True
        return answer

    step = machine.step("pay", once=True, settle=None if answer is None else settle)
    result = restarted(executor).run(machine.plan(step))
    assert outcomes(result) == {"pay": outcome}
    assert result.ok is ok
    assert len(machine.ran) == runs


def test_a_once_step_that_failed_is_settled_too(executor, machine):
    answers = ["redo"]
    plan = machine.plan(machine.step("pay", effect=OSError("x"), once=True, settle=lambda: answers[0]))
    executor.run(plan)
    restarted(executor).run(plan)
    assert machine.ran == ["pay", "pay"]
    answers[0] = "failed"
    restarted(executor, "b2").run(plan)
    assert machine.ran == ["pay", "pay"]


def test_a_once_step_without_a_journal_is_not_begun(log, machine, tmp_path, lines):
    (tmp_path / "journal").write_text("a file where the directory should be")
    executor = Executor(Journal(str(tmp_path / "journal" / "boot.jsonl"), boot="b1"), log)
    result = executor.run(machine.plan(machine.step("a"), machine.step("pay", once=True)))
    assert outcomes(result) == {"a": "done", "pay": "failed"}
    assert machine.ran == ["a"]
    assert lines.text.count("cannot be written: ") == 2  # once for what could go on, once for what could not


@pytest.mark.parametrize("kind", ["directory", "fifo", "link", "link to nowhere"])
@pytest.mark.timeout(20)
def test_something_else_in_the_journals_place_is_moved_aside_and_steps_run_once(log, machine, tmp_path, kind):
    path = tmp_path / "journal" / "boot.jsonl"
    path.parent.mkdir()
    (tmp_path / "victim").write_text("precious")
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / ("victim" if kind == "link" else "nowhere"))
    executor = Executor(Journal(str(path), boot="b1"), log)
    plan = machine.plan(machine.step("pay", once=True))
    assert outcomes(executor.run(plan)) == {"pay": "done"}
    machine.facts.clear()
    assert outcomes(restarted(executor).run(plan)) == {"pay": "done before"}
    assert path.is_file()
    assert not path.is_symlink()
    assert os.path.lexists(f"{path}.bad")
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_step_over_its_deadline_is_abandoned_and_not_begun_again_beside_itself(executor, machine, lines):
    gate = threading.Event()
    threads = []

    def hang() -> None:
        threads.append(threading.current_thread())
        gate.wait(30)

    plan = machine.plan(machine.step("mkfs", effect=hang, deadline=0.05), machine.step("b"))
    first = executor.run(plan)
    assert outcomes(first) == {"mkfs": "failed"}
    assert "took longer than 0.05 s and was abandoned" in first.error
    assert "in hang" in lines.text
    second = executor.run(plan)
    assert "still runs" in second.error
    assert machine.ran == ["mkfs"]
    gate.set()
    threads[0].join(20)
    third = executor.run(plan)
    assert third.ok
    assert outcomes(third) == {"b": "done"}  # the late end gave the fact


def test_a_step_within_its_deadline_is_like_any_other(executor, machine):
    plan = machine.plan(machine.step("a", deadline=30), machine.step("b", effect=ValueError("bad"), deadline=30))
    result = executor.run(plan)
    assert outcomes(result) == {"a": "done", "b": "failed"}
    assert result.error == "b: ValueError: bad"


def test_stop_is_obeyed_between_steps(executor, machine):
    stop = threading.Event()
    result = executor.run(machine.plan(machine.step("a", effect=stop.set), machine.step("b")), stop=stop)
    assert machine.ran == ["a"]
    assert result.stopped
    assert not result.ok


def test_a_probe_or_planner_that_raises_fails_the_plan_and_nothing_else(executor, machine):
    def broken(*facts):
        raise KeyError("disk")

    assert "KeyError" in executor.run(Plan("x", broken, lambda facts: [])).error
    assert "KeyError" in executor.run(Plan("x", dict, broken)).error


def test_two_steps_of_one_name_are_refused(executor, machine):
    steps = [machine.step("a"), machine.step("a")]
    result = executor.run(Plan("x", dict, lambda facts: steps))
    assert "step 'a' twice" in result.error
    assert machine.ran == []


def test_a_planner_that_never_has_enough_is_stopped(executor, machine):
    result = executor.run(Plan("x", dict, lambda facts: [machine.step(f"step {len(machine.ran)}")]))
    assert "still steps missing" in result.error
    assert len(machine.ran) < 2000


def test_a_dry_run_walks_the_promises_and_changes_nothing(executor, machine, tmp_path):
    steps = {name: machine.step(name) for name in "abc"}

    def planner(facts):
        if not facts.get("a"):
            return [steps["a"]]
        return [steps[name] for name in "bc" if not facts.get(name)]

    machine.facts["c"] = True
    plan = Plan("boot", lambda: dict(machine.facts), planner)
    assert [step.name for step in executor.dry_run(plan)] == ["a", "b"]
    assert machine.ran == []
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_leaves_out_what_never_runs_again_and_ends_without_promises(executor, machine):
    steps = [Step("pay", "pay", lambda: None, once=True), Step("b", "do b", lambda: None)]
    plan = Plan("boot", dict, lambda facts: steps)
    assert [step.name for step in executor.dry_run(plan)] == ["pay", "b"]
    executor.journal.started("boot", "pay", once=True)
    executor.journal.done("boot", "pay", 0.1, once=True)
    assert [step.name for step in executor.dry_run(plan)] == ["b"]


def test_the_journal_keeps_what_each_step_took(executor, machine):
    clock = [100.0]
    timed = Executor(executor.journal, executor._log, lambda: clock[0])

    def slow() -> None:
        clock[0] += 2.5

    result = timed.run(machine.plan(machine.step("mkfs", effect=slow), machine.step("fstab")))
    assert [step.seconds for step in result.steps] == [2.5, 0.0]
    assert [run["steps"] for run in restarted(executor).journal.runs()] == [
        [["mkfs", "done", 2.5], ["fstab", "done", 0.0]]
    ]


# Properties


class Killed(BaseException):
    """What a SIGKILL is to the test: nothing after it happens in this run."""


@st.composite
def stories(draw):
    """Steps with their behaviour in each attempt, and at which effects the process is killed."""
    count = draw(st.integers(1, 6))
    behaviour = st.sampled_from(["works", "works", "works", "raises", "nothing", "killed before", "killed after"])
    return [
        {
            "name": f"s{number}",
            "attempts": draw(st.lists(behaviour, max_size=5)),
            "once": draw(st.booleans()),
            "settle": draw(st.booleans()),
            "optional": draw(st.booleans()),
        }
        for number in range(count)
    ]


@settings(deadline=None, max_examples=150)
@given(stories())
def test_whatever_steps_do_runs_end_and_promises_hold(tmp_path_factory, story):
    path = str(tmp_path_factory.mktemp("p") / "j" / "boot.jsonl")
    facts: dict[str, bool] = {}
    effects: dict[str, int] = {}
    failures: dict[str, int] = {}
    redone: set[str] = set()
    left = {item["name"]: list(item["attempts"]) for item in story}

    def step_of(item) -> Step:
        name = item["name"]

        def run() -> None:
            what = left[name].pop(0) if left[name] else "works"
            if what == "killed before":
                raise Killed
            effects[name] = effects.get(name, 0) + 1
            if what == "raises":
                failures[name] = failures.get(name, 0) + 1
                raise OSError(name)
            if what != "nothing":
                facts[name] = True
            if what == "killed after":
                raise Killed

        def settle() -> str:
            if facts.get(name):
                return "done"
            redone.add(name)
            return "redo"

        return Step(
            name,
            name,
            run,
            once=item["once"],
            settle=settle if item["settle"] else None,
            optional=item["optional"],
        )

    steps = [step_of(item) for item in story]
    plan = Plan("p", lambda: dict(facts), lambda seen: [step for step in steps if not seen.get(step.name)])
    result = None
    for _ in range(40):
        try:
            result = Executor(Journal(path, boot="b"), Log(Sinks(), "Test")).run(plan)
        except Killed:
            continue
    assert result is not None
    for item in story:
        name = item["name"]
        if item["once"] and name not in redone:
            assert effects.get(name, 0) <= 1
        assert failures.get(name, 0) <= 2
        if set(item["attempts"]) <= {"works"} and result.ok:
            assert facts.get(name)
    # Without once, whatever was killed is done in the end, unless it failed twice or was kept from running.
    if all(not item["once"] and not {"raises", "nothing"} & set(item["attempts"]) for item in story):
        assert result.ok
        assert facts == {item["name"]: True for item in story}
