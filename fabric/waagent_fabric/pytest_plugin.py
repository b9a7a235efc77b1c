"""The fixtures that test suites of plugins and distributions get: ``fabric``, ``agent_root``, ``running_agent``.

Everything is imported inside the fixtures: this module is loaded by every run of pytest wherever the package is
installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import os
    import pathlib

    from waagent_fabric.agentprocess import RunningAgent
    from waagent_fabric.api import Fabric


@pytest.fixture
def fabric() -> Iterator[Fabric]:
    """An embedded platform on loopback with a goal state without extensions."""
    from waagent_fabric.api import Fabric

    with Fabric() as running:
        yield running


@pytest.fixture
def agent_root(tmp_path: pathlib.Path, fabric: Fabric) -> pathlib.Path:
    """A scratch root for an agent, with an ``etc/waagent.conf`` that leads to ``fabric``."""
    from waagent_fabric.agentprocess import write_conf

    root = tmp_path / "root"
    root.mkdir()
    write_conf(root, fabric)
    return root


class AgentStarter:
    """Starts agents, and ends them all when the test is over."""

    def __init__(self) -> None:
        self._agents: list[RunningAgent] = []

    def __call__(
        self, root: str | os.PathLike[str], fabric: Fabric | None = None, *, start: bool = True, **options: Any
    ) -> RunningAgent:
        """Make a :class:`waagent_fabric.agentprocess.RunningAgent` with *options* and start it."""
        from waagent_fabric.agentprocess import RunningAgent

        agent = RunningAgent(root, fabric, **options)
        self._agents.append(agent)
        return agent.start() if start else agent

    def stop_all(self) -> None:
        """End every agent."""
        while self._agents:
            self._agents.pop().stop()


@pytest.fixture
def running_agent() -> Iterator[AgentStarter]:
    """A starter of real agents: ``agent = running_agent(agent_root, fabric)``; they end with the test."""
    starter = AgentStarter()
    try:
        yield starter
    finally:
        starter.stop_all()
