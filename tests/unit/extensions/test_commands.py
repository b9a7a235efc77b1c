"""Commands as real processes: output, time limits, and every way in which the agent may die beside one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from waagent import Log
from waagent.log import Sinks
from waagent_extensions import commands, output, watch
from waagent_extensions.commands import Order, Result, Runner, Running

VICTIM = Path(__file__).with_name("command_victim.py")


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(str(tmp_path / "run" / "commands"), Log(Sinks()), "boot")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "handler").mkdir()
    return tmp_path / "handler"


def order(work: Path, line: str, timeout: float = 30.0, name: str = "one") -> Order:
    return Order(name, "A", "1.0", None, "enable", line, str(work), timeout)


def environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"]}


def run(runner: Runner, what: Order) -> Result:
    result = runner.run(what, environment())
    assert result is not None
    return result


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            return stream.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


@pytest.fixture
def cleanup() -> Iterator[list[int]]:
    pids: list[int] = []
    yield pids
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def test_exit_code_both_streams_directory_and_environment(runner: Runner, work: Path) -> None:
    line = 'pwd; echo "$GREETING"; echo wrong >&2; umask; exit 3'
    result = runner.run(order(work, line), {**environment(), "GREETING": "hello"})
    assert result is not None
    assert (result.code, result.ok, result.timed_out, result.lost) == (3, False, False, False)
    assert result.out.head == f"{work}\nhello\n0022\n"
    assert result.err.head == "wrong\n"


def test_a_command_leads_a_session_of_its_own_and_reads_nothing(runner: Runner, work: Path) -> None:
    result = run(runner, order(work, "read x; ps -o sid= -p $$ 2>/dev/null || cut -d' ' -f6 /proc/$$/stat"))
    assert int(result.out.head) != os.getsid(0)


def test_what_python_ignores_is_not_ignored_in_the_command(runner: Runner, work: Path) -> None:
    result = run(runner, order(work, "grep SigIgn /proc/self/status"))
    assert int(result.out.head.split()[1], 16) & (1 << (signal.SIGPIPE - 1)) == 0


def test_a_missing_file_is_127_and_says_so(runner: Runner, work: Path) -> None:
    result = run(runner, order(work, f"{work}/bin/nothing install"))
    assert result.code == 127
    assert "not found" in result.err.head


def test_a_child_that_stays_and_holds_the_output_open_does_not_hold_up_the_agent(
    runner: Runner, work: Path, cleanup: list[int]
) -> None:
    began = time.monotonic()
    result = run(runner, order(work, "sleep 60 & echo $! >child; echo started"))
    cleanup.append(int((work / "child").read_text()))
    assert result.code == 0
    assert result.out.head == "started\n"
    assert time.monotonic() - began < 20
    assert alive(cleanup[0])
    # Its output would have no name any more: the directory stays as long as it writes there.
    runner.release("one")
    assert os.path.isdir(runner.path("one"))
    assert runner.known() == []
    os.kill(cleanup[0], signal.SIGKILL)
    eventually(lambda: runner.sweep() is None and not os.path.exists(runner.path("one")))


def test_out_of_time_the_group_dies_and_a_session_of_its_own_lives(
    runner: Runner, work: Path, cleanup: list[int]
) -> None:
    line = "setsid sh -c 'echo $$ >detached; exec sleep 60' & sleep 61 & echo $! >member; echo begun; wait"
    result = run(runner, order(work, line, timeout=1.0))
    assert (result.code, result.timed_out, result.lost) == (None, True, False)
    assert result.out.head == "begun\n"
    detached, member = int((work / "detached").read_text()), int((work / "member").read_text())
    cleanup += [detached, member]
    eventually(lambda: not alive(member))
    assert alive(detached)


def test_a_command_that_ends_as_its_time_ends_counts_by_its_exit_code(runner: Runner, work: Path) -> None:
    result = run(runner, order(work, "trap '' TERM; exit 5", timeout=0.0))
    assert result.code == 5 or result.timed_out
    assert not result.lost


def test_signals_to_the_wrapper_do_not_lose_the_exit_code(runner: Runner, work: Path) -> None:
    def stop_it(running: Running) -> None:
        assert running.pid is not None
        eventually(lambda: os.path.exists(os.path.join(running.directory, "pid")))
        os.kill(running.pid, signal.SIGTERM)

    result = runner.run(order(work, "sleep 0.3; exit 4"), environment(), progress=stop_it)
    assert result is not None
    assert result.code == 4


def test_the_agent_may_leave_and_another_one_takes_the_command_up(runner: Runner, work: Path) -> None:
    wake = watch.Wake()
    what = order(work, "while [ ! -e go ]; do sleep 0.02; done; echo once >>ran; exit 6")
    assert runner.run(what, environment(), wake=wake, leave=lambda: True, progress=lambda _: wake.set()) is None
    assert runner.state("one") == commands.RUNNING
    later = Runner(os.path.dirname(runner.path("one")), Log(Sinks()), "boot")
    assert [known.id for known in later.known()] == ["one"]
    threading.Timer(0.2, lambda: (work / "go").touch()).start()
    result = run(later, what)
    assert (result.code, result.adopted) == (6, True)
    assert (work / "ran").read_text() == "once\n"


def test_without_pidfds_the_lock_tells_the_end(runner: Runner, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_pidfd", lambda pid: -1)
    result = run(runner, order(work, "sleep 0.2; exit 9"))
    assert result.code == 9


def test_without_posix_spawn_setsid_the_command_runs_all_the_same(
    runner: Runner, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **more: object) -> int:
        raise NotImplementedError

    monkeypatch.setattr(os, "posix_spawn", refuse)
    result = run(runner, order(work, "cut -d' ' -f6 /proc/$$/stat; exit 8"))
    assert result.code == 8
    assert int(result.out.head) != os.getsid(0)


def test_a_deadline_goes_on_across_agents(runner: Runner, work: Path) -> None:
    wake = watch.Wake()
    what = order(work, "sleep 60", timeout=1.0)
    began = time.monotonic()
    assert runner.run(what, environment(), wake=wake, leave=lambda: True, progress=lambda _: wake.set()) is None
    later = Runner(os.path.dirname(runner.path("one")), Log(Sinks()), "boot")
    result = run(later, what)
    assert result.timed_out
    assert time.monotonic() - began < 20


def wrapper_pid(runner: Runner) -> int:
    path = os.path.join(runner.path("one"), "pid")
    eventually(lambda: os.path.exists(path) and bool(Path(path).read_text().strip()))
    return int(Path(path).read_text())


def test_a_lost_wrapper_is_waited_for_by_the_members_of_its_session_and_never_run_again(
    runner: Runner, work: Path
) -> None:
    wake = watch.Wake()
    what = order(work, "echo once >>ran; while [ ! -e go ]; do sleep 0.02; done")
    assert runner.run(what, environment(), wake=wake, leave=lambda: True, progress=lambda _: wake.set()) is None
    eventually(lambda: (work / "ran").exists())
    pid = wrapper_pid(runner)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert runner.state("one") == commands.LOST
    threading.Timer(0.3, lambda: (work / "go").touch()).start()
    result = run(runner, what)
    assert result.lost
    assert (work / "go").exists(), "it was waited for"
    assert (work / "ran").read_text() == "once\n"


def test_what_an_earlier_boot_left_is_forgotten(runner: Runner, work: Path) -> None:
    run(runner, order(work, "exit 1"))
    after_boot = Runner(os.path.dirname(runner.path("one")), Log(Sinks()), "another boot")
    assert after_boot.known() == []
    assert not os.path.exists(runner.path("one"))


def test_a_command_that_never_started_is_only_run_when_asked(runner: Runner, work: Path) -> None:
    found = runner.run(order(work, "touch ran"), environment(), start=False)
    assert found is not None
    assert found.lost
    assert not (work / "ran").exists()


def test_a_launcher_that_fails_is_left_out(runner: Runner, work: Path) -> None:
    what = order(work, "echo ran >>ran; exit 2")
    result = runner.run(what, environment(), prefix=("/bin/sh", "-c", "echo no scope >&2; exit 1", "launcher"))
    assert result is not None
    assert result.code == 2
    assert (work / "ran").read_text() == "ran\n"


def test_a_launcher_that_is_not_there_is_left_out(runner: Runner, work: Path) -> None:
    result = runner.run(order(work, "echo fine"), environment(), prefix=("/nonexistent/systemd-run", "--scope"))
    assert result is not None
    assert result.ok
    assert result.launch_problem == "No such file or directory"


def test_a_launcher_that_passes_the_wrapper_on_is_used(runner: Runner, work: Path) -> None:
    what = order(work, "echo $MARK; exit 2")
    result = runner.run(what, environment(), prefix=("env", "MARK=scope"))
    assert result is not None
    assert (result.code, result.out.head) == (2, "scope\n")


def test_a_launcher_that_goes_away_at_once_does_not_end_the_wait(runner: Runner, work: Path) -> None:
    what = order(work, "sleep 0.4; exit 2")
    result = runner.run(what, environment(), prefix=("/bin/sh", "-c", '"$@" & sleep 0.1', "launcher"))
    assert result is not None
    assert result.code == 2


def test_a_flood_of_output_is_kept_small_with_its_beginning_and_its_end(runner: Runner, work: Path) -> None:
    looks: list[float] = []

    def look(running: Running) -> None:
        looks.append(time.monotonic())
        (work / f"look{len(looks) - 1}").touch()

    # Each flood but the last is looked at before the next one comes.
    flood = "head -c 3000000 /dev/zero | tr '\\0' x; while [ ! -e look$i ]; do sleep 0.02; done"
    line = f"echo first; for i in 1 2 3; do {flood}; done; echo; echo last"
    result = runner.run(order(work, line), environment(), progress=look)
    assert result is not None
    assert result.out.head.startswith("first\n")
    assert result.out.tail.endswith("last\n")
    assert os.stat(os.path.join(runner.path("one"), "out")).st_size < output.LIMIT
    # Who has written too much is looked at again before long.
    assert looks[3] - looks[1] < 4


def test_the_last_line_shows_what_goes_on_without_secrets(runner: Runner, work: Path) -> None:
    seen: list[str] = []
    what = order(work, "echo one; echo 'get https://x.example/a?sig=SECRET now'; sleep 1.5")
    runner.run(what, environment(), progress=lambda running: seen.append(running.last_line))
    assert seen[-1] == "get https://x.example/a?<redacted> now"


@pytest.mark.slow
def test_300_commands_under_random_kills_each_run_exactly_once(tmp_path: Path) -> None:
    count, kills = 300, 0
    marks, results = tmp_path / "marks", tmp_path / "results"
    marks.mkdir()
    results.touch()
    chance = random.Random(7)
    argv = [sys.executable, str(VICTIM), str(tmp_path / "commands"), str(results), str(count), str(marks)]
    deadline = time.monotonic() + 110
    while True:
        assert time.monotonic() < deadline, results.read_text()
        begun = len(results.read_text().splitlines())
        victim = subprocess.Popen(argv)
        # It gets to work first; then it dies somewhere in its next few commands.
        while victim.poll() is None and len(results.read_text().splitlines()) == begun:
            time.sleep(0.002)
        try:
            code = victim.wait(chance.uniform(0.0, 0.012))
        except subprocess.TimeoutExpired:
            victim.kill()
            victim.wait()
            kills += 1
            continue
        assert code == 0
        break
    assert kills > 60
    assert [(marks / str(number)).read_text() for number in range(count)] == ["ran\n"] * count
    found = dict(line.split() for line in results.read_text().splitlines())
    assert found == {f"command-{number}": str(number % 7) for number in range(count)}


# --- What people see of the output ------------------------------------------------------------------------------------


def test_short_output_is_shown_whole() -> None:
    shown = output.layout(output.Captured("out\n"), output.Captured("err\n"))
    assert shown == "[stdout]\nout\n\n\n[stderr]\nerr\n"


@pytest.mark.parametrize(("out", "err"), [(10_000, 0), (0, 10_000), (10_000, 10_000), (1000, 10_000), (1600, 1600)])
def test_long_output_keeps_its_beginning_and_its_end_within_the_total(tmp_path: Path, out: int, err: int) -> None:
    streams = []
    for name, length in (("out", out), ("err", err)):
        path = tmp_path / name
        path.write_text(f"<{name}" + "x" * max(length - 10, 0) + f"{name}>" if length else "")
        streams.append(output.read(str(path)))
    shown = output.layout(*streams)
    assert len(shown) <= output.TOTAL
    assert len(shown) > output.TOTAL - 200
    for name, length in (("out", out), ("err", err)):
        if length:
            assert f"<{name}" in shown
            assert f"{name}>" in shown


def test_bytes_that_are_no_text_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes("grün ".encode() + b"\xff\xfe end")
    assert output.read(str(tmp_path / "out")).head == "grün \\xff\\xfe end"


def test_a_file_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert output.read(str(tmp_path / "none")) == output.NOTHING
