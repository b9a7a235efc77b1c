"""The event loop and its lanes, driven by a clock that the test moves, or by real descriptors and processes."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time

import pytest

from waagent.log import VERBOSE, Log, Sinks
from waagent.loop import Lane, Loop


class Clock:
    """Seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


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


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def loop(log, clock):
    made = Loop(log, clock)
    yield made
    made.close()


@pytest.fixture
def real_loop(log):
    made = Loop(log)
    yield made
    made.close()


def turn_until(loop: Loop, condition, seconds: float = 20.0) -> None:
    """Turn a loop on the real clock until *condition* holds."""
    end = time.monotonic() + seconds
    alarm = loop.call_later(seconds, lambda: None, "the test's patience")
    while not condition():
        assert time.monotonic() < end, "the condition never held"
        loop.turn()
    alarm.cancel()


def test_timers_fire_in_the_order_of_their_due_times(loop, clock):
    seen = []
    loop.call_later(3, lambda: seen.append("c"))
    loop.call_later(1, lambda: seen.append("a"))
    loop.call_later(2, lambda: seen.append("b"))
    loop.turn(block=False)
    assert seen == []
    clock.now += 2
    loop.turn(block=False)
    assert seen == ["a", "b"]
    clock.now += 1
    loop.turn(block=False)
    assert seen == ["a", "b", "c"]


def test_a_cancelled_timer_does_not_fire_even_when_cancelled_by_one_due_at_the_same_moment(loop, clock):
    seen = []
    second = None

    def first() -> None:
        second.cancel()
        seen.append("first")

    loop.call_later(1, first)
    second = loop.call_later(1, lambda: seen.append("second"))
    clock.now += 5
    loop.turn(block=False)
    assert seen == ["first"]


def test_thousands_of_cancelled_timers_leave_no_garbage_behind(loop):
    keep = loop.call_later(10_000, lambda: None)
    for _ in range(5000):
        loop.call_later(5000, lambda: None).cancel()
    assert len(loop._timers) < 200
    assert not keep.cancelled


def test_every_keeps_its_grid_though_callbacks_are_slow(loop, clock):
    moments = []

    def slow() -> None:
        moments.append(clock.now - 1000)
        clock.now += 0.5

    loop.every(1, slow)
    while clock.now < 1010.75:
        clock.now += 0.125
        loop.turn(block=False)
    # Counted from the end of each run, the tenth would come 3.6 s late.
    assert [int(moment) for moment in moments] == list(range(1, 11))
    assert max(moment % 1 for moment in moments) < 0.2


def test_periods_with_a_common_multiple_wake_the_machine_together(loop, clock):
    moments = {4: [], 6: [], 12: []}

    def note(period: int) -> None:
        moments[period].append(round(clock.now - 1000, 3))

    for period in moments:
        clock.now += 0.7  # nobody begins at the same time
        loop.every(period, lambda period=period: note(period))
    while clock.now < 1029:
        clock.now += 0.1
        loop.turn(block=False)
    assert {period: [round(moment) for moment in seen] for period, seen in moments.items()} == {
        4: [4, 8, 12, 16, 20, 24, 28],
        6: [6, 12, 18, 24],
        12: [12, 24],
    }
    assert max(abs(moment - round(moment)) for seen in moments.values() for moment in seen) < 0.15


@pytest.mark.parametrize(("seconds", "due"), [(300, 1300), (296, 1294), (12, 1012), (11.9, 1011.2), (0, 999.3)])
def test_what_is_far_away_goes_with_what_is_periodic(loop, clock, seconds, due):
    """The nearest moment of the grid, so that a machine is woken once for both; what is near keeps its own."""
    clock.now += -0.7
    assert loop.call_later(seconds, lambda: None, grid=6).due == pytest.approx(due, abs=1e-6)


@pytest.mark.parametrize("begun", [0.0, 2.9, 3.1, 5.9, 1e9 + 2.9])
def test_the_first_run_is_about_a_period_away(loop, clock, begun):
    clock.now += begun
    timer = loop.every(6, lambda: None)
    assert 3 <= timer.due - clock.now <= 9


def test_a_suspended_machine_gets_one_run_and_not_a_burst(loop, clock):
    seen = []
    timer = loop.every(6, lambda: seen.append(clock.now))
    clock.now += 3600.5
    loop.turn(block=False)
    loop.turn(block=False)
    assert len(seen) == 1
    assert 0 < timer.due - clock.now <= 6
    clock.now = timer.due
    loop.turn(block=False)
    assert len(seen) == 2


def test_a_period_that_is_a_callable_is_asked_again_after_each_run(loop, clock):
    periods = [10.0, 2.0, 2.0, 2.0]
    seen = []
    loop.every(lambda: periods.pop(0), lambda: seen.append(clock.now - 1000))
    for _ in range(14):
        clock.now += 1
        loop.turn(block=False)
    assert seen == [10, 12, 14]


def test_every_can_be_cancelled_from_its_own_callback(loop, clock):
    seen = []
    timer = loop.every(1, lambda: (seen.append(1), timer.cancel()))
    for _ in range(5):
        clock.now += 1
        loop.turn(block=False)
    assert seen == [1]


@pytest.mark.parametrize("problem", [ValueError("no such thing"), SystemExit(3), RecursionError()])
def test_a_callback_that_raises_is_named_in_the_log_and_the_loop_goes_on(loop, clock, lines, problem):
    seen = []

    def broken() -> None:
        raise problem

    loop.every(1, broken, "the broken duty")
    loop.call_later(1, lambda: seen.append("other"))
    loop.call_soon(broken)
    for _ in range(3):
        clock.now += 1
        loop.turn(block=False)
    assert seen == ["other"]
    assert lines.text.count(f"WARNING MainThread Test the broken duty failed: {type(problem).__name__}") == 3
    assert "in broken" in lines.text  # the traceback, for those who look


def test_call_soon_from_another_thread_wakes_a_waiting_loop(real_loop):
    ident = []

    def other() -> None:
        real_loop.call_soon(lambda: ident.append(threading.get_ident()))
        real_loop.call_soon(lambda: real_loop.stop(7))

    timer = threading.Timer(0.05, other)
    timer.start()
    assert real_loop.run() == 7
    timer.join()  # it has stopped the loop, and may not have ended yet
    assert ident == [threading.get_ident()]


def test_no_call_is_lost_when_many_threads_submit_while_the_loop_turns(real_loop):
    count = [0]

    def bump() -> None:
        count[0] += 1
        if count[0] == 4000:
            real_loop.stop()

    def burst() -> None:
        for _ in range(1000):
            real_loop.call_soon(bump)

    threads = [threading.Thread(target=burst) for _ in range(4)]
    guard = real_loop.call_later(30, lambda: real_loop.stop(1))
    for thread in threads:
        thread.start()
    assert real_loop.run() == 0
    guard.cancel()
    assert count == [4000]


def test_a_call_that_submits_itself_does_not_starve_the_rest(loop, clock):
    seen = []

    def again() -> None:
        seen.append("again")
        loop.call_soon(again)

    loop.call_soon(again)
    loop.call_later(1, lambda: loop.stop())
    clock.now += 1
    assert loop.run() == 0
    assert len(seen) < 3


def test_a_descriptor_is_served_with_its_events_until_unwatched(real_loop):
    read, write = os.pipe()
    got = []
    real_loop.watch(read, select.POLLIN, lambda bits: got.append((bits & select.POLLIN, os.read(read, 10))))
    os.write(write, b"one")
    turn_until(real_loop, lambda: got)
    assert got == [(select.POLLIN, b"one")]
    real_loop.unwatch(read)
    os.write(write, b"two")
    real_loop.turn(block=False)
    assert len(got) == 1
    os.close(read)
    os.close(write)


def test_a_watcher_that_raises_is_paused_and_then_called_again(loop, clock, lines):
    read, write = os.pipe()
    calls = []

    def broken(bits: int) -> None:
        calls.append(bits)
        raise ValueError("cannot read")

    loop.watch(read, select.POLLIN, broken)
    os.write(write, b"x")
    for _ in range(20):
        loop.turn(block=False)
    assert len(calls) == 1
    clock.now += 0.2
    for _ in range(20):
        loop.turn(block=False)
    assert len(calls) == 2
    assert lines.text.count("cannot read") >= 2
    loop.unwatch(read)
    clock.now += 100
    loop.turn(block=False)
    loop.turn(block=False)
    assert len(calls) == 2
    os.close(read)
    os.close(write)


def test_a_descriptor_closed_behind_the_loops_back_is_dropped_and_said(loop, lines):
    read, write = os.pipe()
    loop.watch(read, select.POLLIN, lambda bits: None)
    os.close(read)
    os.close(write)
    loop.turn(block=False)
    loop.turn(block=False)
    assert lines.text.count(f"descriptor {read} was closed while it was watched") == 1


def test_events_of_a_closed_descriptor_do_not_reach_its_successor(loop):
    """Two are ready in one turn; the first callback closes the second and watches a new pipe under its number."""
    pipes = [os.pipe() for _ in range(3)]
    (first, write_first), (second, write_second), (third, _) = pipes
    order, wrong = [], []

    def swap(mine: int, other: int) -> None:
        if order:
            return
        order.append(mine)
        loop.unwatch(other)
        os.dup2(third, other)
        loop.watch(other, select.POLLIN, lambda bits: wrong.append(bits))

    loop.watch(first, select.POLLIN, lambda bits: swap(first, second))
    loop.watch(second, select.POLLIN, lambda bits: swap(second, first))
    os.write(write_first, b"x")
    os.write(write_second, b"x")
    loop.turn(block=False)
    assert order
    assert wrong == []
    for pair in pipes:
        for descriptor in pair:
            os.close(descriptor)


def test_a_signal_wakes_the_loop_and_its_handler_is_given_back(log):
    before = signal.getsignal(signal.SIGUSR1)
    loop = Loop(log)
    try:
        loop.on_signal(signal.SIGUSR1, lambda: loop.stop(5))
        guard = loop.call_later(20, lambda: loop.stop(1))
        threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGUSR1)).start()
        assert loop.run() == 5
        guard.cancel()
    finally:
        loop.close()
        loop.close()
    assert signal.getsignal(signal.SIGUSR1) is before


def spawn(*argv: str) -> int:
    return os.posix_spawn(argv[0], argv, dict(os.environ))


@pytest.mark.parametrize("pidfd", [True, False])
@pytest.mark.parametrize(("line", "code"), [("exit 0", 0), ("exit 41", 41), ("kill -9 $$", -9)])
def test_the_end_of_a_child_is_told_once_with_its_code(real_loop, monkeypatch, pidfd, line, code):
    if not pidfd:
        monkeypatch.delattr(os, "pidfd_open")
        real_loop.reap_on_sigchld()
    codes = []
    pid = spawn("/bin/sh", "-c", line)
    real_loop.on_exit(pid, codes.append)
    turn_until(real_loop, lambda: codes)
    real_loop.turn(block=False)
    assert codes == [code]
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


@pytest.mark.parametrize("pidfd", [True, False])
def test_the_end_of_a_process_that_is_no_child_is_told_without_a_code(real_loop, monkeypatch, pidfd):
    if not pidfd:
        monkeypatch.delattr(os, "pidfd_open")
    read, write = os.pipe()
    line = "sleep 0.3 </dev/null >/dev/null 2>&1 & echo $!"
    actions = [(os.POSIX_SPAWN_DUP2, write, 1)]
    parent = os.posix_spawn("/bin/sh", ["/bin/sh", "-c", line], dict(os.environ), file_actions=actions)
    os.close(write)
    stranger = int(os.read(read, 20))
    os.close(read)
    os.waitpid(parent, 0)
    codes = []
    real_loop.on_exit(stranger, codes.append)
    turn_until(real_loop, lambda: codes)
    assert codes == [None]


def test_a_process_that_is_gone_already_is_told_too(real_loop):
    pid = spawn("/bin/true")
    os.waitpid(pid, 0)
    codes = []
    real_loop.on_exit(pid, codes.append)
    turn_until(real_loop, lambda: codes)
    assert codes == [None]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's host name file is Linux's")
def test_the_host_name_file_can_be_watched_without_spinning(real_loop):
    """POLLPRI alone waits; with POLLIN it would be ready for ever (measured: host name watch)."""
    descriptor = os.open("/proc/sys/kernel/hostname", os.O_RDONLY)
    try:
        calls = []
        real_loop.watch(descriptor, select.POLLPRI, calls.append)
        os.read(descriptor, 100)
        for _ in range(10):
            real_loop.turn(block=False)
        assert calls == []
    finally:
        real_loop.unwatch(descriptor)
        os.close(descriptor)


# Lanes


@pytest.fixture
def lane(real_loop, log):
    made = Lane("work", real_loop, log)
    yield made
    made.close()


def test_tasks_run_in_order_off_the_loops_thread_and_report_on_it(lane, real_loop):
    where, done = [], []
    for number in range(3):
        lane.submit(
            lambda number=number: (where.append(threading.current_thread().name), number)[1],
            name=f"task {number}",
            on_done=lambda result, error: done.append((result, error, threading.get_ident())),
        )
    turn_until(real_loop, lambda: len(done) == 3)
    assert where == ["work"] * 3
    assert done == [(number, None, threading.get_ident()) for number in range(3)]


@pytest.mark.parametrize("problem", [OSError("no space"), SystemExit(1), KeyboardInterrupt()])
def test_a_task_that_raises_leaves_the_lane_serving(lane, real_loop, lines, problem):
    done = []

    def broken() -> None:
        raise problem

    lane.submit(broken, name="the upload", on_done=lambda result, error: done.append(error))
    lane.submit(lambda: "fine", name="next", on_done=lambda result, error: done.append(result))
    turn_until(real_loop, lambda: len(done) == 2)
    assert done == [problem, "fine"]
    assert "WARNING work Test the upload failed: " + type(problem).__name__ in lines.text


def test_a_callback_of_a_task_that_raises_is_contained(lane, real_loop, lines):
    lane.submit(lambda: 1, name="poll", on_done=lambda result, error: 1 // 0)
    turn_until(real_loop, lambda: "after poll failed: ZeroDivisionError" in lines.text)


def test_the_same_key_waits_only_once_but_may_wait_while_it_runs(lane, real_loop):
    gate, begun, runs = threading.Event(), threading.Event(), []

    def work() -> None:
        runs.append(1)
        begun.set()
        gate.wait(20)

    assert lane.submit_once("status", work)
    assert begun.wait(20)
    assert lane.submit_once("status", work)  # something happened since the first one began
    assert not lane.submit_once("status", work)
    assert lane.submit_once("other", lambda: runs.append("other"), on_done=lambda result, error: None)
    assert lane.waiting == 2
    gate.set()
    turn_until(real_loop, lambda: len(runs) == 3 and lane.busy is None)
    assert runs == [1, 1, "other"]


def test_a_task_over_its_deadline_is_reported_once_with_its_stack(log, lines, clock):
    loop = Loop(log, clock)
    lane = Lane("platform", loop, log)
    gate, begun = threading.Event(), threading.Event()

    def a_very_slow_download() -> None:
        begun.set()
        gate.wait(20)

    try:
        lane.submit(a_very_slow_download, name="download", deadline=30)
        assert begun.wait(20)
        end = time.monotonic() + 20
        while not loop._timers:
            assert time.monotonic() < end
        clock.now += 29
        loop.turn(block=False)
        assert lane.busy == ("download", 29.0)
        assert lane.overdue_seconds == 0.0
        assert "deadline" not in lines.text
        for _ in range(3):
            clock.now += 11
            loop.turn(block=False)
        assert lane.overdue_seconds == 32.0
        assert lines.text.count("download in lane platform is over its deadline of 30 s") == 1
        assert "in a_very_slow_download" in lines.text
        gate.set()
        assert lane.close(20)
        assert lane.busy is None
        assert lane.overdue_seconds == 0.0
    finally:
        gate.set()
        lane.close(20)
        loop.close()


def test_a_quick_task_leaves_no_deadline_behind(lane, real_loop, lines):
    done = []
    lane.submit(lambda: None, name="quick", deadline=0.2, on_done=lambda result, error: done.append(1))
    turn_until(real_loop, lambda: done)
    passed = []
    real_loop.call_later(0.3, lambda: passed.append(1))
    turn_until(real_loop, lambda: passed)
    assert "deadline" not in lines.text


def test_a_closed_lane_drops_what_waits_and_takes_nothing(real_loop, log):
    lane = Lane("work", real_loop, log)
    gate, begun, seen = threading.Event(), threading.Event(), []
    lane.submit(lambda: (begun.set(), gate.wait(20)), name="running")
    lane.submit(lambda: seen.append(1), name="waiting")
    assert begun.wait(20)
    assert not lane.close()
    gate.set()
    assert lane.close(20)
    assert not lane.submit(lambda: seen.append(2), name="late")
    assert seen == []
