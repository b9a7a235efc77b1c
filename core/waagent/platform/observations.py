"""What the agent tells the HealthService about the host's services (wireserver §14.2, §18.3)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from waagent.platform.healthdoc import MAX_OBSERVATIONS, Observation, build_host_health

HEARTBEAT = "GuestAgentPluginHeartbeat"
STATUS = "GuestAgentPluginStatus"
VERSIONS = "GuestAgentPluginVersions"
ARTIFACT = "GuestAgentPluginArtifact"
IMDS = "InstanceMetadataHeartbeat"

REPORT_PERIOD = 60.0
"""Seconds between two reports of one signal."""
HOST_PLUGIN_PATIENCE = 300.0
"""Seconds of failures before a signal of the host plugin is reported as unhealthy."""
IMDS_PATIENCE = 180.0


class EventSink(Protocol):
    """Where events go (:class:`waagent.events.Events`)."""

    def add(
        self,
        operation: str,
        *,
        name: str = ...,
        success: bool = ...,
        message: str = ...,
        duration_ms: int = ...,
        version: str | None = ...,
        logged: bool = ...,
    ) -> object:
        """Take one event."""


class Signal:
    """One signal: its bit turns false only after failures have lasted for the whole patience without a success.

    Args:
        name: of the observation.
        patience: seconds.
        period: seconds between two reports; 0 reports every result.
        clock: monotonic seconds.
    """

    def __init__(self, name: str, patience: float, period: float, clock: Callable[[], float]) -> None:
        self.name = name
        self._patience = patience
        self._period = period
        self._clock = clock
        self._failing_since: float | None = None
        self._reported = float("-inf")

    def note(self, ok: bool, description: str = "") -> Observation | None:
        """Take one result; return the observation to report, ``None`` when one was reported just now."""
        now = self._clock()
        if ok:
            self._failing_since = None
        elif self._failing_since is None:
            self._failing_since = now
        if now - self._reported < self._period:
            return None
        self._reported = now
        healthy = self._failing_since is None or now - self._failing_since < self._patience
        return Observation(self.name, healthy, "" if ok else description)

    def failing_seconds(self) -> float:
        """Return how long failures have lasted; 0 after a success."""
        return 0.0 if self._failing_since is None else self._clock() - self._failing_since


def counts_as_healthy(status: int | None) -> bool:
    """Whether an answer shows a living host plugin: 502 is a failure behind it; no answer is no life (DIFF-15)."""
    return status is not None and (status < 500 or status == 502)


class Observations:
    """The queue towards the HealthService, at most ten; emptied by each attempt to send it, successful or not."""

    def __init__(self, events: EventSink | None, clock: Callable[[], float]) -> None:
        self._events = events
        self._lock = threading.Lock()
        self._queue: list[Observation] = []
        self._unhealthy: set[str] = set()
        self._signals = {
            ARTIFACT: Signal(ARTIFACT, HOST_PLUGIN_PATIENCE, REPORT_PERIOD, clock),
            STATUS: Signal(STATUS, HOST_PLUGIN_PATIENCE, REPORT_PERIOD, clock),
            HEARTBEAT: Signal(HEARTBEAT, HOST_PLUGIN_PATIENCE, 0.0, clock),
            VERSIONS: Signal(VERSIONS, 0.0, 0.0, clock),
            IMDS: Signal(IMDS, IMDS_PATIENCE, 0.0, clock),
        }

    def note(self, name: str, ok: bool, description: str = "") -> None:
        """Take one result of a signal; queue the observation that is due, and make an event of an unhealthy one."""
        with self._lock:
            observation = self._signals[name].note(ok, description)
            if observation is None:
                return
            self._queue = [*self._queue, observation][-MAX_OBSERVATIONS:]
            # The log hears of it once, when it begins: an outage of hours is hundreds of observations.
            told = name in self._unhealthy
            (self._unhealthy.discard if observation.healthy else self._unhealthy.add)(name)
        if not observation.healthy and self._events is not None:
            self._events.add("HealthObservation", success=False, message=f"{name}: {description}", logged=told)

    def failing_seconds(self, name: str) -> float:
        """Return how long a signal has failed without a success."""
        with self._lock:
            return self._signals[name].failing_seconds()

    def take(self) -> bytes | None:
        """Return the document to send and forget what is in it; ``None`` when there is nothing."""
        with self._lock:
            queue, self._queue = self._queue, []
        return build_host_health(queue) if queue else None
