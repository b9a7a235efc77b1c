"""A full disk under state and log: the agent lives, reports, and recovers (service §16, §22 check 5)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from waagent_fabric.agentprocess import RunningAgent
from waagent_fabric.api import Fabric

pytestmark = pytest.mark.system


@pytest.fixture
def small_disk(agent_root: Path) -> Iterator[Path]:
    place = agent_root / "var"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "waagent-test", str(place)], check=False)
    if made.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def fill(place: Path) -> Path:
    ballast = place / "ballast"
    with open(ballast, "wb", buffering=0) as stream:
        for size in (65536, 4096, 512, 1):
            while True:
                try:
                    if stream.write(b"x" * size) < size:
                        break
                except OSError:
                    break
    return ballast


def test_a_full_disk_from_the_start(
    agent_root: Path, fabric: Fabric, running_agent: Callable[..., RunningAgent], small_disk: Path
) -> None:
    ballast = fill(small_disk)
    agent = running_agent(agent_root, fabric)
    agent.wait_until(lambda: fabric.statuses, 20, "a status although nothing can be written")
    os.unlink(ballast)
    fabric.publish(handlers=[])
    agent.wait_until(lambda: "incarnation_2" in agent.log(), 20, "log lines again")
    assert agent.running


def test_a_disk_that_fills_up(
    agent_root: Path, fabric: Fabric, running_agent: Callable[..., RunningAgent], small_disk: Path
) -> None:
    agent = running_agent(agent_root, fabric)
    agent.wait_until(lambda: fabric.statuses, 20, "a status")
    ballast = fill(small_disk)
    worker = agent.kill_worker()
    count = len(fabric.statuses)
    agent.wait_until(lambda: len(fabric.statuses) > count, 20, "a status of a worker that started on a full disk")
    assert agent.worker != worker
    os.unlink(ballast)
    fabric.publish(handlers=[])
    agent.wait_until(lambda: "incarnation_2" in agent.log(), 20, "the log can be written again")
