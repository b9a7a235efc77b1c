"""One idle minute at the usual period: few requests, kept connections, no processes, a quiet log (architecture §12)."""

from __future__ import annotations

import os
import time

import pytest

from tests.fabric.acceptance import tools
from waagent_fabric import HandlerSpec, SettingsSpec, sample_package
from waagent_fabric.agentprocess import descendants

pytestmark = [pytest.mark.fabric, pytest.mark.slow]

MINUTE = 60.0
NAME = "Contoso.Sample"


def cpu_seconds(pid: int) -> float:
    fields = stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def faults_of_children(pid: int) -> int:
    """Return the page faults of all children that ever ended: a process cannot run without some."""
    return int(stat(pid)[8])


def stat(pid: int) -> list[str]:
    with open(f"/proc/{pid}/stat", encoding="ascii") as stream:
        return stream.read().rpartition(")")[2].split()


@pytest.mark.timeout(180)
def test_an_idle_minute(fabric, agent_root, running_agent) -> None:
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0"))
    fabric.publish([HandlerSpec(NAME, "1.0.0", settings=[SettingsSpec({"a": 1})])])
    agent = running_agent(
        agent_root, fabric, conf={"Extensions.GoalStatePeriod": "6", "Extensions.InitialGoalStatePeriod": "6"}
    )
    fabric.wait_for_extension(NAME, timeout=30)
    processes = agent.pids()
    assert sorted(processes) == ["supervisor", "worker"]

    def alone() -> bool:
        return descendants(processes["supervisor"]) == [processes["worker"]]

    tools.wait_for(alone, "helpers leave when they have had nothing to do for some seconds")

    began = time.time()
    log = len(agent.log())
    known = {(record.server, record.peer) for record in fabric.requests}
    faults = {pid: faults_of_children(pid) for pid in processes.values()}
    cpu = sum(cpu_seconds(pid) for pid in processes.values())
    tools.wait_for(lambda: time.time() >= began + MINUTE, "a minute", MINUTE + 5)

    requests = [record for record in fabric.requests if began <= record.time < began + MINUTE]
    assert len(requests) <= 27, [f"{record.server} {record.method} {record.path}" for record in requests]
    assert len(requests) >= 20, "it does not poll"
    for what in ("/health", "/HealthService", "/metadata/instance?"):
        times = sum(what == record.path or record.path.startswith(what) for record in requests)
        assert 1 <= times <= 2, f"{what}: {times} times; once a minute is the duty"
    fresh = {(record.server, record.peer) for record in requests} - known
    assert len(fresh) <= 1, fresh
    assert agent.pids() == processes
    assert alone(), "a process was started"
    assert {pid: faults_of_children(pid) for pid in processes.values()} == faults, "a process was started and ended"
    lines = agent.log()[log:].splitlines()
    assert len(lines) <= 3, lines
    share = (sum(cpu_seconds(pid) for pid in processes.values()) - cpu) / MINUTE
    assert share < 0.01, f"{share:.2%} of a core"
    memory = sum(tools.resident_kib(pid) for pid in processes.values()) / 1024
    assert memory < 45, f"{memory:.1f} MiB resident"
    assert fabric.violations == []
