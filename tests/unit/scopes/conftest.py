"""Fixtures of the scopes plugin's tests."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.scopes.fakesystemd import FakeSystemd, environment
from waagent import CommandResult, HandlerCommand, Paths, commands
from waagent.log import Log, Sinks
from waagent.state import State
from waagent_extensions.commands import Order, Result, Runner
from waagent_scopes.plugin import ScopesPlugin

LIMITS = {"cpuQuotaPercentage": 40, "services": [{"name": "sampled.service", "cpuQuotaPercentage": 20}]}


class Machine:
    """A scratch root with a systemd, and an agent that runs handlers' commands as the engine does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.systemd = FakeSystemd(root)
        self.work = root / "handler"
        self.work.mkdir()
        self.paths = Paths(str(root))
        self.values: dict[str, Any] = {
            "Extensions.Launcher": "scope",
            "CGroups.EnforceLimits": True,
            "CGroups.Excluded": "customscript,runcommand",
            "Debug.AgentCpuQuota": 50,
            "Debug.AgentCpuThrottledTimeThreshold": 120,
            "Debug.CgroupDisableOnProcessCheckFailure": True,
            "Debug.CgroupDisableOnQuotaCheckFailure": True,
        }
        value = self.values.__getitem__
        self.config = SimpleNamespace(
            boolean=value, text=value, integer=value, origin=lambda name: "/etc/waagent.conf:1"
        )
        self.lines: list[str] = []
        self.log = Log(Sinks(), "Test")
        self.log.also = lambda level, text: self.lines.append(text)
        self.events = self
        self.seen: list[tuple[str, bool]] = []
        self.stopping = threading.Event()
        self.state = State(str(root / "var/lib/waagent/state"))
        self.runner = Runner(str(root / "run/commands"), self.log, "boot")
        self.plugin = ScopesPlugin()
        self.number = 0

    def restart(self) -> None:
        """Start another agent process."""
        self.plugin = ScopesPlugin()
        self.plugin.on_start(self)  # type: ignore[arg-type]

    def run(self, argv: tuple[str, ...], **options: Any) -> Any:
        return commands.run(argv, **options)

    def add(self, operation: str, *, success: bool = True, **more: Any) -> None:
        self.seen.append((operation, success))

    def command(
        self, line: str = "true", operation: str = "enable", name: str = "Contoso.Tool", limits: Any = None
    ) -> HandlerCommand:
        self.number += 1
        identity = f"c{self.number}"
        return HandlerCommand(
            name, "1.0", None, operation, line, str(self.work), environment(), 30.0, self.runner.path(identity),
            limits if limits is not None else {},
        )  # fmt: skip

    def handle(self, line: str = "true", operation: str = "enable", timeout: float = 30.0, **more: Any) -> Result:
        """Run a handler's command as the engine does: launch, run, after."""
        command = self.command(line, operation, **more)
        launch = self.plugin.launch(self, command)  # type: ignore[arg-type]
        identity = os.path.basename(command.run_dir)
        order = Order(identity, command.handler_name, "1.0", None, operation, line, command.cwd, timeout)
        result = self.runner.run(order, command.environment, prefix=launch.prefix if launch is not None else ())
        assert result is not None
        ended = CommandResult(result.ok, result.code, result.timed_out, result.launch_problem)
        self.plugin.after_handler_command(self, command, ended)  # type: ignore[arg-type]
        return result

    @property
    def details(self) -> dict[str, Any]:
        report = self.plugin.report_status(self)  # type: ignore[arg-type]
        assert report is not None
        json.dumps(report.details)
        return dict(report.details or {})

    def having(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine with a systemd that works."""
    return Machine(tmp_path)
