"""Renaming a machine under a running agent, in a namespace of its own (measured.md §1, provisioning §29 item 10)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fabric.upkeep.sandbox import Sandbox
from waagent_fabric import RunningAgent

pytestmark = [
    pytest.mark.fabric,
    pytest.mark.skipif(
        os.geteuid() != 0 or not os.path.exists("/proc/self/ns/uts"), reason="namespaces of host names need root"
    ),
]


@pytest.fixture
def python(tmp_path: Path) -> str:
    """Return an interpreter that runs in a namespace of its own, where the machine is called web1."""
    if subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False).returncode:
        pytest.skip("unshare does not work here")
    script = tmp_path / "python-elsewhere"
    inner = f'hostname web1 2>/dev/null || printf web1 >/proc/sys/kernel/hostname; exec {sys.executable} "$@"'
    script.write_text(f"#!/bin/sh\nexec unshare --uts /bin/sh -c '{inner}' sh \"$@\"\n")
    script.chmod(0o755)
    return str(script)


def rename(agent: RunningAgent, name: str) -> None:
    assert agent.process is not None
    inner = f"printf {name} >/proc/sys/kernel/hostname"
    subprocess.run(["nsenter", f"--uts=/proc/{agent.process.pid}/ns/uts", "/bin/sh", "-c", inner], check=True)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def published(sandbox: Sandbox) -> list[str]:
    return [line["hostname"] for line in sandbox.operations("publish_hostname")]


def test_the_kernel_tells_and_the_name_is_published(sandbox: Sandbox, python: str) -> None:
    own = os.uname().nodename
    sandbox.configure(Provisioning__MonitorHostName="y", Provisioning__MonitorHostNamePeriod="3600")
    agent = sandbox.boot(python=python)
    agent.wait_until(lambda: sandbox.read("var/lib/waagent/published_hostname") == "web1", 30, "the baseline")
    begun = time.monotonic()
    rename(agent, "flap")
    rename(agent, "web2")
    agent.wait_for_log("EnvMonitor: Detected hostname change: web1 -> web2", 25)
    took = time.monotonic() - begun
    assert 4.5 < took < 20, "stable for five seconds, and long before the next look"
    agent.wait_until(lambda: sandbox.read("var/lib/waagent/published_hostname") == "web2", 20, "the new name")
    assert published(sandbox) == ["web2"]
    assert sandbox.read("etc/hostname") == "web2\n"
    worker = agent.worker
    assert worker is not None
    before = cpu_seconds(worker)
    deadline = time.monotonic() + 3
    agent.wait_until(lambda: time.monotonic() > deadline, 10)
    assert cpu_seconds(worker) - before < 0.6, "the watched file must not make the loop spin"
    assert os.uname().nodename == own


def test_a_name_given_while_the_agent_was_down(sandbox: Sandbox, python: str) -> None:
    sandbox.configure(Provisioning__MonitorHostName="y")
    sandbox.write("var/lib/waagent/published_hostname", "before")
    agent = sandbox.boot(python=python)
    agent.wait_for_log("EnvMonitor: Detected hostname change: before -> web1", 30)
    agent.wait_until(lambda: published(sandbox) == ["web1"], 20, "the publication")


def test_switched_off_it_does_nothing(sandbox: Sandbox, python: str) -> None:
    sandbox.write("var/lib/waagent/published_hostname", "before")
    agent = sandbox.boot(python=python)
    agent.wait_until(lambda: sandbox.fabric.statuses, 30, "a status")
    sandbox.fabric.publish([])
    agent.wait_until(lambda: len(sandbox.fabric.statuses) > 1, 30, "two statuses")
    assert not published(sandbox)
    assert sandbox.read("var/lib/waagent/published_hostname") == "before"


def test_a_name_nobody_can_publish_costs_neither_status_nor_worker(sandbox: Sandbox, python: str) -> None:
    sandbox.configure(Provisioning__MonitorHostName="y", Plugins__Disabled="sandbox")
    agent = sandbox.boot(python=python)
    agent.wait_until(lambda: sandbox.read("var/lib/waagent/published_hostname") == "web1", 30, "the baseline")
    worker = agent.worker
    rename(agent, "web2")
    agent.wait_for_log("is not done under the root", 30)
    seen = len(sandbox.fabric.statuses)
    sandbox.fabric.publish([])
    agent.wait_until(lambda: len(sandbox.fabric.statuses) > seen, 30, "another status")
    assert agent.worker == worker
    assert sandbox.read("var/lib/waagent/published_hostname") == "web1"
