"""A disk that does not answer keeps nobody from working (resourcedisk §10)."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from waagent import Plan
from waagent.agent import BOOT, Agent, make_agent
from waagent.service import boot


class Host:
    """Plugins with one plan for the disk, whose probe hangs, and one for the background."""

    def __init__(self) -> None:
        self.hooks = self
        self.go = threading.Event()
        self.did: list[str] = []

    def on_boot(self, agent: Agent) -> list[tuple[str, Plan]]:
        return [
            ("acme", Plan("disk", self.hangs, lambda facts: [], phase="disk")),
            ("acme", Plan("swap", self.follows, lambda facts: [], phase="background")),
        ]

    def hangs(self) -> dict[str, Any]:
        assert self.go.wait(60)
        self.did.append("disk")
        return {}

    def follows(self) -> dict[str, Any]:
        self.did.append("swap")
        return {}

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: []


def test_a_disk_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot, "DISK_LIMIT", 0.1)
    agent, host = make_agent(BOOT, str(tmp_path), plugins=False), Host()
    agent._plugins = host  # type: ignore[assignment]
    lines: list[str] = []
    agent.log.also = lambda level, text: lines.append(text)
    read, write = os.pipe()
    stage = threading.Thread(target=boot.BootStage(agent, write).run, daemon=True)
    stage.start()
    assert os.read(read, 1), "the stage never said that its work is done"
    os.close(read)
    assert host.did == []
    assert any("has not ended after" in text for text in lines)
    host.go.set()
    stage.join(30)
    assert host.did == ["disk", "swap"], "swap follows the disk, however late"
