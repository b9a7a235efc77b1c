"""Waits through the whole agent: status flows meanwhile, says what is waited for, and a stop does not wait."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from waagent_fabric import Fabric, HandlerSpec, SettingsSpec, read_calls, sample_package

pytestmark = pytest.mark.fabric
NAME = "Contoso.Sample"
HOLD = """
import fcntl, sys
lock = open(sys.argv[1], "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _extension(fabric: Fabric) -> None:
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0"))
    fabric.publish([HandlerSpec(NAME, "1.0.0", "enabled", (SettingsSpec(public={}, sequence_number=0),))])


def operations(root: Path) -> list[str]:
    return [call.operation for call in read_calls(root, NAME)]


def agent_message(document: dict[str, Any]) -> str:
    return str(document["aggregateStatus"]["guestAgentStatus"]["formattedMessage"]["message"])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def uploads_since(fabric: Fabric, moment: float) -> int:
    return len([status for status in fabric.statuses if status.time > moment])


def test_the_package_manager_is_waited_for(fabric: Fabric, agent_root: Path, running_agent: Any) -> None:
    lock = agent_root / "var/lib/dpkg/lock-frontend"
    lock.parent.mkdir(parents=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        conf = {"Extensions.WaitForPackageLock": "60", "Status.MaxInterval": "1"}
        running_agent(agent_root, fabric, conf=conf)
        wanted = "install of Contoso.Sample waits for the package manager"
        fabric.wait_for_status(lambda document: wanted in agent_message(document), 30.0)
        since = time.time()
        fabric.wait_for(lambda: uploads_since(fabric, since) >= 3, 20.0, "status all the while")
        assert operations(agent_root) == []
    finally:
        holder.communicate("")
    fabric.wait_for_extension(NAME)
    fabric.wait_for_status(lambda document: "package manager" not in agent_message(document), 10.0)
    assert operations(agent_root) == ["install", "enable"]


def test_cloud_init_is_waited_for_again_after_a_stop(fabric: Fabric, agent_root: Path, running_agent: Any) -> None:
    program = agent_root / "usr/bin/cloud-init"
    program.parent.mkdir(parents=True)
    program.write_text(
        f'#!/bin/sh\necho $$ "$@" >>{agent_root}/calls\n'
        f"while [ ! -e {agent_root}/go ]; do sleep 0.05; done\necho 'status: done'\n"
    )
    program.chmod(0o755)
    agent = running_agent(agent_root, fabric, conf={"Extensions.WaitForCloudInit": "y", "Status.MaxInterval": "1"})
    fabric.wait_for_status(lambda document: "wait for cloud-init" in agent_message(document), 30.0)
    since = time.time()
    fabric.wait_for(lambda: uploads_since(fabric, since) >= 3, 20.0, "status all the while")
    began = time.monotonic()
    agent.process.terminate()
    assert agent.wait_exit() == 0
    assert time.monotonic() - began < 10
    assert not is_alive(int((agent_root / "calls").read_text().split()[0])), "nothing is left behind"
    agent.stop()
    assert operations(agent_root) == []
    agent.start()
    agent.wait_until(lambda: (agent_root / "calls").read_text().count("status --wait") == 2, 30.0, "the second wait")
    (agent_root / "go").touch()
    fabric.wait_for_extension(NAME)
    assert agent.log().count("Waiting for cloud-init to complete...") == 2, "once in each process"
    assert agent.log().count("cloud-init completed") == 1
    assert operations(agent_root) == ["install", "enable"]
