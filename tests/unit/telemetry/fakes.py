"""A platform that takes events, and an agent without processes, threads or waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from waagent import GoalState, HostingEnvironment, NoAnswer, Paths, TelemetryEvent, TelemetryReceipt
from waagent.events import Events
from waagent.log import Log, Sinks
from waagent.platform import telemetrydoc
from waagent_telemetry.collector import Collector
from waagent_telemetry.common import Common
from waagent_telemetry.queue import Queue
from waagent_telemetry.sending import Sending

PROVIDER = "69B669B9-4AF8-4C50-BDC4-6006FA76E975"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


class FakeTelemetry:
    """Takes events as the service does, unless told otherwise."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.requests: list[list[TelemetryEvent]] = []
        self.at: list[float] = []
        self.answers: list[Exception | None] = []
        self.refuses: Callable[[TelemetryEvent], bool] = lambda event: False
        self.refusal: Exception = RuntimeError()
        self.errors = {"hostplugin": 0, "protocol": 0, "other": 0}

    def send(self, events: list[TelemetryEvent]) -> TelemetryReceipt:
        body, done, oversize = telemetrydoc.build_request(events)
        if body:
            self.at.append(self.clock.now)
            offered = [
                event for event in events[:done] if len(telemetrydoc.encode(event).encode()) < telemetrydoc.LIMIT
            ]
            self.requests.append(offered)
            problem = self.answers.pop(0) if self.answers else None
            if problem is None and any(self.refuses(event) for event in offered):
                problem = self.refusal
            if problem is not None:
                self.requests.pop()
                raise problem
        return TelemetryReceipt(done, oversize)

    def parse_legacy_event(self, data: bytes) -> TelemetryEvent:
        return telemetrydoc.parse_legacy_event(data)

    def image_origin(self, compute: Any) -> int:
        return 2

    def take_http_errors(self) -> dict[str, int]:
        found, self.errors = self.errors, dict.fromkeys(self.errors, 0)
        return found

    @property
    def messages(self) -> list[str]:
        return [str(dict(event.parameters).get("Message")) for request in self.requests for event in request]


class FakePlatform:
    def __init__(self, clock: Clock) -> None:
        self.telemetry = FakeTelemetry(clock)
        self.endpoint: str | None = "10.9.8.7:80"
        self.goal_state: GoalState | None = GoalState(
            "1",
            "c-1",
            "r-1",
            "cfg",
            extensions=None,
            hosting=HostingEnvironment("_vm", "_role", "tenant"),  # type: ignore[arg-type]
        )
        self.compute: dict[str, Any] | None = {
            "location": "westeurope", "subscriptionId": "s", "resourceGroupName": "rg", "vmId": "id"
        }  # fmt: skip
        self.asked = 0

    def imds_compute(self) -> dict[str, Any] | None:
        self.asked += 1
        return self.compute


class FakeDistro:
    facts = SimpleNamespace(legacy_id="acmeos", version="1", codename="anvil")

    def read_machine(self) -> dict[str, Any]:
        raise NoAnswer("nobody knows")


class FakeAgent:
    """What the plugin sees of the worker; timers and lanes only take note."""

    version = "3.0.0.0"

    def __init__(self, root: Path) -> None:
        self.clock = Clock()
        self.paths = Paths(str(root))
        self.lines: list[str] = []
        self.log = Log(Sinks(), "Test")
        self.log.also = lambda level, text: self.lines.append(text)
        self.events = Events(self.log)
        self.stopping = threading.Event()
        self.platform: Any = FakePlatform(self.clock)
        self.distro = FakeDistro()
        self.loop = self
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.queued: list[str] = []

    def call_later(self, seconds: float, fn: Callable[[], object], name: str = "") -> None:
        self.timers.append((self.clock.now + seconds, fn))

    def lane(self, name: str) -> Any:
        return SimpleNamespace(submit_once=lambda key, fn, name="": self.queued.append(key))


class Bench:
    """The parts of the plugin, put together."""

    def __init__(self, root: Path) -> None:
        self.agent = FakeAgent(root)
        self.clock = self.agent.clock
        self.telemetry: FakeTelemetry = self.agent.platform.telemetry
        self.queue = Queue(self.agent.paths.lib("events"), self.agent.log)
        self.common = Common(self.agent, self.clock)  # type: ignore[arg-type]
        self.sending = Sending(
            self.telemetry, self.common, self.agent.log, self.agent.stopping, self.clock, self.clock.wait
        )
        self.collector = Collector(self.agent, self.queue, self.sending, self.clock, self.clock.wait)  # type: ignore[arg-type]
        self.agent.events.subscribe(self.collector.add)

    @property
    def directory(self) -> Path:
        return Path(self.queue.directory)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir()) if self.directory.exists() else []

    def handler(self, name: str = "Contoso.Tool") -> Path:
        path = Path(self.agent.paths.extension_log_dir) / name / "events"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def sweep(self) -> None:
        self.collector.sweep()
        self.collector.work()
