from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from waagent.agent import WORKER, Agent, make_agent
from waagent.errors import ProtocolError
from waagent.loop import Loop
from waagent.platform.models import ExtensionsGoalState, GoalState, StatusReport
from waagent.plugins import PluginHost


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakePlatform:
    """The client's surface that the worker's duties use."""

    def __init__(self) -> None:
        self.goal_state: GoalState | None = None
        self.next: GoalState | None = None
        self.failing: Exception | None = None
        self.upload_failing: Exception | None = None
        self.taken = True
        self.uploads: list[dict[str, Any]] = []
        self.copies: list[dict[str, Any]] = []
        self.polls: list[bool] = []
        self.supports_fast_track = True
        self.hold_certificates = False
        self.tidied = 0

    def prefetch(self) -> None:
        if self.failing:
            raise self.failing

    def update_goal_state(self, force: bool = False) -> bool:
        self.polls.append(force)
        if self.failing:
            raise self.failing
        changed = self.next is not self.goal_state
        self.goal_state = self.next
        return changed

    def upload_status(self, document: dict[str, Any]) -> bool:
        if self.upload_failing:
            raise self.upload_failing
        if self.taken:
            self.uploads.append(document)
        return self.taken

    def tidy(self) -> None:
        self.tidied += 1

    def save_status_copy(self, document: dict[str, Any]) -> None:
        self.copies.append(document)


def goal_state(number: int = 1, **changes: Any) -> GoalState:
    extensions = ExtensionsGoalState(
        **{
            "id": f"incarnation_{number}",
            "channel": "WireServer",
            "source": "Fabric",
            "sequence": str(number),
            **changes,
        }
    )
    return GoalState(str(number), "container", "instance", "deployment.config", extensions)


class Probe:
    """A worker's agent under a scratch root with a clock, a platform and plugins of the test's own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = Clock()
        self.platform = FakePlatform()
        self.agent: Agent
        self.loop: Loop
        self.build("")

    def build(self, conf: str) -> Probe:
        self.root.joinpath("etc").mkdir(parents=True, exist_ok=True)
        self.root.joinpath("etc/waagent.conf").write_text(conf)
        self.agent = make_agent(WORKER, str(self.root))
        self.agent.log.sinks.stream = None
        self.loop = Loop(self.agent.log, self.clock)
        self.agent.use_loop(self.loop)
        self.agent.platform = self.platform  # type: ignore[assignment]
        return self

    def use(self, **plugins: object) -> PluginHost:
        """Give the agent *plugins* and nothing else."""
        host = PluginHost(self.agent.log, self.agent.config, self.agent.paths)
        for name, plugin in plugins.items():
            host.add(name, plugin)
        self.agent.use_plugins(host)
        return host

    @property
    def log(self) -> str:
        path = self.root / "var/log/waagent.log"
        return path.read_text() if path.exists() else ""

    def turn_until(self, condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
        """Run the loop until *condition* holds; real time passes for the lanes, the loop's clock stands still."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{self.log}"
            self.loop.turn(block=False)
            time.sleep(0.001)

    def settle(self) -> None:
        """Run the loop until every lane is idle and nothing is queued."""

        def idle() -> bool:
            busy = [lane for lane in self.agent.lanes.values() if lane.busy or lane.waiting]
            return not busy and not self.loop._soon

        self.loop.turn(block=False)
        self.turn_until(idle, "all lanes idle")
        self.loop.turn(block=False)


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    (tmp_path / "var/log").mkdir(parents=True)
    return Probe(tmp_path)


__all__ = ["FakePlatform", "Probe", "ProtocolError", "StatusReport", "goal_state"]
