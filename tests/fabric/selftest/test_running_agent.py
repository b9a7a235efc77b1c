"""The runner of agents, on a stand-in that has the shape of the real one: a supervisor, a worker, a stray handler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from waagent_fabric.agentprocess import RunningAgent, descendants, write_conf

pytestmark = pytest.mark.fabric

STAND_IN = """
import os, signal, subprocess, sys, time
root, word = sys.argv[1], sys.argv[2]
def log(text):
    os.makedirs(root + "/var/log", exist_ok=True)
    with open(root + "/var/log/waagent.log", "a") as file:
        file.write(text + chr(10))
if word == "-daemon":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
    print("console", os.environ.get("EXTRA"), flush=True)
    # A handler in a session of its own, as real ones are: it must not survive the test.
    subprocess.Popen(["sleep", "600"], cwd=root, start_new_session=True)
    while True:
        worker = subprocess.Popen([sys.executable, __file__, root, "-run-exthandlers"])
        log(f"worker {worker.pid}")
        worker.wait()
elif word == "-run-exthandlers":
    time.sleep(600)
elif word == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    log("ready")
    time.sleep(600)
"""


@pytest.fixture
def stand_in(tmp_path, agent_root):
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    agents = []

    def make(word="-daemon", **options):
        agent = RunningAgent(agent_root, **options)
        agent.command = [sys.executable, str(script), str(agent_root), word]
        agents.append(agent)
        return agent.start()

    yield make
    for agent in agents:
        agent.stop(timeout=1)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def sleepers(root):
    found = []
    for pid in os.listdir("/proc"):
        try:
            if pid.isdigit() and os.readlink(f"/proc/{pid}/cwd") == os.path.realpath(root):
                found.append(int(pid))
        except OSError:
            continue
    return found


def test_roles_log_and_end(stand_in, agent_root):
    agent = stand_in(environment={"EXTRA": "given"})
    assert agent.running
    agent.wait_for_log("worker ")
    pids = agent.wait_until(lambda: agent.pids() if len(agent.pids()) == 2 else None, 10)
    assert pids["supervisor"] == agent.process.pid
    assert pids["worker"] == agent.worker
    assert agent.boot is None
    assert pids["worker"] in descendants(pids["supervisor"])
    agent.wait_until(lambda: "console given" in agent.console(), 10)
    assert len(sleepers(agent_root)) == 3, "supervisor, worker, handler"
    assert agent.stop() == 5
    assert not agent.running
    assert agent.pids() == {}
    assert sleepers(agent_root) == []


def test_a_killed_worker_is_waited_for(stand_in):
    agent = stand_in()
    agent.wait_until(lambda: agent.worker, 10)
    old = agent.kill_worker()
    assert agent.worker not in (None, old)
    assert not alive(old)
    assert str(agent.worker) in agent.wait_for_log("worker ", count=2)


def test_kill_takes_supervisor_and_worker(stand_in):
    agent = stand_in()
    worker = agent.wait_until(lambda: agent.worker, 10)
    supervisor = agent.process.pid
    agent.kill()
    assert not alive(supervisor)
    assert not alive(worker)
    agent.start()
    assert agent.process.pid != supervisor


def test_an_agent_that_ignores_the_request_is_ended(stand_in):
    agent = stand_in("stubborn")
    agent.wait_for_log("ready")
    assert agent.stop(timeout=0.2) == -9


def test_waiting_shows_the_log(stand_in):
    agent = stand_in()
    agent.wait_for_log("worker ")
    with pytest.raises(TimeoutError, match=r"(?s)'nonsense' in the log.*worker "):
        agent.wait_for_log("nonsense", 0.1)


def test_wait_exit(stand_in):
    agent = stand_in("unknown-word")
    assert agent.wait_exit(10) == 0


def test_starting_twice_is_refused(stand_in):
    agent = stand_in()
    with pytest.raises(RuntimeError, match="runs already"):
        agent.start()


def test_configuration_leads_to_the_fabric(tmp_path, fabric):
    path = write_conf(tmp_path, fabric, {"Logs.Verbose": "n", "Extensions.GoalStatePeriod": "2"})
    lines = Path(path).read_text().splitlines()
    assert f"Platform.HostPlugin={fabric.host_plugin}" in lines
    assert lines.index("Logs.Verbose=n") > lines.index("Logs.Verbose=y"), "later lines win"


def test_an_existing_configuration_is_kept_unless_more_is_given(agent_root, fabric):
    path = agent_root / "etc/waagent.conf"
    path.write_text("Mine=y\n")
    RunningAgent(agent_root, fabric)
    assert path.read_text() == "Mine=y\n"
    RunningAgent(agent_root, fabric, conf="Extra=y\n")
    assert path.read_text().endswith("Extra=y\n")


def test_the_command_line_of_the_real_agent(agent_root, fabric, running_agent):
    agent = running_agent(agent_root, fabric, start=False)
    assert agent.command == [sys.executable, "-m", "waagent", "--root", str(agent_root), "-daemon"]


def test_the_fixtures_clean_up_behind_a_failing_test(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "def test_it(agent_root, fabric, running_agent):\n"
        "    import sys\n"
        "    agent = running_agent(agent_root, fabric, start=False)\n"
        "    agent.command = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "    agent.start()\n"
        "    print('PID', agent.process.pid, 'AT', fabric.wireserver)\n"
        "    assert False\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", tmp_path / "temp", tmp_path],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert "1 failed" in ran.stdout, ran.stdout + ran.stderr
    pid = int(ran.stdout.partition("PID ")[2].split()[0])
    assert not os.path.exists(f"/proc/{pid}")


def test_the_real_agent_is_steered_and_watched(agent_root, fabric, running_agent):
    agent = running_agent(agent_root, fabric)
    fabric.wait_for_status(timeout=60)
    pids = agent.pids()
    assert {"supervisor", "worker"} <= set(pids)
    assert agent.kill_worker(timeout=60) == pids["worker"]
    assert agent.pids()["supervisor"] == pids["supervisor"]
    before = len(fabric.statuses)
    fabric.wait_for(lambda: len(fabric.statuses) > before, 60, "a status of the new worker")
    assert agent.stop() == 0
    assert sleepers(agent_root) == []
    assert [str(violation) for violation in fabric.violations] == []


def test_strangers_at_work_in_the_root_are_left_alone(stand_in, agent_root):
    with subprocess.Popen(["sleep", "600"], cwd=agent_root) as stranger:
        try:
            agent = stand_in()
            agent.wait_for_log("worker ")
            agent.stop()
            assert sleepers(agent_root) == [stranger.pid]
        finally:
            stranger.kill()
