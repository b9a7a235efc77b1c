"""When events are collected and sent: soon after they happen, seldom enough, and with patience in an outage."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from waagent import ProtocolError, StateError, Throttled
from waagent_telemetry import eventfile, handlerevents
from waagent_telemetry.common import Common
from waagent_telemetry.handlerevents import Dropped, Unfinished
from waagent_telemetry.queue import OWN, Queue
from waagent_telemetry.sending import Item, Sending, Source, summary

if TYPE_CHECKING:
    from waagent import Agent, Event, TelemetryEvent

LANE = "telemetry"
GATHER = 5.0
"""Seconds from an event to the request, for what else may happen (wireserver §19.2)."""
QUIET = 60.0
"""Seconds between two rounds of sending while little happens."""
MANY = 30
"""Events that do not wait for that."""
AGAIN = (60.0, 120.0, 300.0, 900.0)
"""Seconds until the next try after so many failures in a row."""
THROTTLED = 8.0
"""Seconds without a request after the platform asked for fewer, at least (wireserver §3.3)."""
TRIES = 3
"""Looks at a file that cannot be read, a second apart: its writer may not be done."""
ROUND = 256 << 10
"""Characters of events that are in memory at once, roughly."""


class Collector:
    """Collects events of the agent and of handlers, and sends them from a lane of its own.

    Args:
        agent: the worker's agent.
        queue: the agent's own events, and handlers' of old.
        sending: hands them to the platform.
        clock: monotonic seconds.
        wait: waits for so many seconds, less when the agent stops.
    """

    def __init__(
        self,
        agent: Agent,
        queue: Queue,
        sending: Sending,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self.unread: Counter[str] = Counter()
        """Events and files that were never sent, by reason."""
        self.problem = ""
        """Why the last round failed; empty when it did not."""
        self._agent = agent
        self._queue = queue
        self._sending = sending
        self._clock = clock
        self._wait = wait or agent.stopping.wait
        self._lock = threading.Lock()
        self._due = float("inf")
        self._fresh = 0
        self._ended = float("-inf")
        self._not_before = float("-inf")
        self._failures = 0
        self._sweep = False
        self._told: Counter[str] = Counter()

    # -- from any thread -------------------------------------------------------------------------------------------

    def add(self, event: Event) -> None:
        """Keep an event of the agent and have it sent before long; the sink of the agent's events."""
        content = eventfile.from_event(event, self._agent.version)
        if content is None:
            self.unread["too large"] += 1
            self._agent.log.periodic(1800, "event size", 2, f"An event {event.operation} is too large; it is dropped")
            return
        if self._queue.put(content):
            with self._lock:
                self._fresh += 1
            self._plan()

    def look(self) -> None:
        """See to it that event files are sent that nobody announced: those of handlers, and what was left over."""
        if self._queue.names():
            self._plan()

    def sweep(self) -> None:
        """Collect the events of all handlers."""
        self._sweep = True
        self._agent.lane(LANE).submit_once(LANE, self.work, name="telemetry")

    def _plan(self) -> None:
        """Have the lane work when it is time; nothing happens when that is planned already."""
        with self._lock:
            now = self._clock()
            pause = GATHER if self._fresh >= MANY else QUIET
            due = max(now + GATHER, self._ended + pause, self._not_before)
            if due >= self._due - 0.5:
                return
            self._due = due
        self._agent.loop.call_later(due - now, self._fire, LANE)

    def _fire(self) -> None:
        self._agent.lane(LANE).submit_once(LANE, self.work, name="telemetry")

    # -- in the lane -----------------------------------------------------------------------------------------------

    def work(self) -> None:
        """Send what waits."""
        with self._lock:
            self._due = float("inf")
        sweep, self._sweep = self._sweep, False
        if not self._can_send():
            if sweep:
                self._keep_small()
            return
        with self._lock:
            self._fresh = 0
            self._ended = self._clock()
        try:
            self._send_queue()
            if sweep:
                self._send_of_handlers()
            self._failures, self.problem = 0, ""
            self._ended = self._clock()
        except ProtocolError as problem:
            self._failed(problem)
            self._ended = float("-inf")  # the pause of a failure is the one that counts
            if sweep:
                self._keep_small()
        if self._queue.count:
            self._plan()

    def _can_send(self) -> bool:
        platform = self._agent.platform
        if platform is None or platform.endpoint is None or platform.goal_state is None:
            return False  # where to send, and for whom, is not known before the first goal state
        return self._clock() >= self._not_before and not self._agent.stopping.is_set()

    def _failed(self, problem: ProtocolError) -> None:
        if isinstance(problem, Throttled):
            pause = max(THROTTLED, problem.retry_after or 0.0)
        else:
            pause = AGAIN[min(self._failures, len(AGAIN) - 1)]
            self._failures += 1
        self.problem = str(problem)
        with self._lock:
            self._not_before = self._clock() + pause
        self._agent.log.periodic(
            6 * 3600, "telemetry", 1, f"Telemetry is not taken, it is tried again in {pause:.0f} s: {problem}"
        )

    # -- the agent's own events, and handlers' of old ---------------------------------------------------------------

    def _send_queue(self) -> None:
        items: list[Item] = []
        size = 0
        later: list[str] = []
        for number in range(TRIES):
            names = self._queue.names() if number == 0 else later
            later = []
            for name in names:
                if self._agent.stopping.is_set():
                    return
                event = self._from_file(name, last=number == TRIES - 1, later=later)
                if event is None:
                    continue
                items.append(Item(event, Source(name, 1, lambda name=name: self._queue.remove(name))))  # type: ignore[misc]
                size += _size(event)
                if size > ROUND:
                    self._sending.send(items)
                    items, size = [], 0
            self._sending.send(items)
            items, size = [], 0
            if not later or self._agent.stopping.is_set():
                return
            self._wait(1.0)

    def _from_file(self, name: str, *, last: bool, later: list[str]) -> TelemetryEvent | None:
        platform = self._agent.platform
        assert platform is not None
        try:
            data, changed = self._queue.read(name)
            return eventfile.parse(
                data,
                changed,
                own=name.endswith(OWN),
                parse_xml=platform.telemetry.parse_legacy_event,
                version=self._agent.version,
            )
        except FileNotFoundError:
            return None  # it made room for a newer one
        except StateError as problem:
            reason = str(problem)
        except (OSError, ValueError, ProtocolError) as problem:
            if not last:
                later.append(name)
                return None
            reason = str(problem)
        self.unread["event file"] += 1
        self._agent.log.periodic(1800, "event file", 2, f"Event file {name} cannot be read and is dropped: {reason}")
        self._queue.remove(name)
        return None

    # -- events of handlers -----------------------------------------------------------------------------------------

    def _directories(self) -> list[tuple[str, str]]:
        return handlerevents.directories(self._agent.paths.extension_log_dir)

    def _keep_small(self) -> None:
        """Bound what waits in the directories of handlers while nothing can be sent."""
        for _, directory in self._directories():
            dropped = handlerevents.trim(directory)
            if dropped:
                self.unread[handlerevents.TOO_MANY] += dropped

    def discard(self) -> None:
        """Delete everything that would be sent: nobody wants it, and it must not fill the disk."""
        self._queue.clear()
        for _, directory in self._directories():
            for names in handlerevents.split(directory):
                handlerevents.delete(directory, names)

    def _send_of_handlers(self) -> None:
        sweeps = [_Sweep(handler, directory) for handler, directory in self._directories()]
        items: list[Item] = []
        try:
            for number in range(TRIES):
                for sweep in sweeps:
                    items += sweep.look(last=number == TRIES - 1)
                    if sum(_size(item.event) for item in items) > ROUND:
                        self._sending.send(items)
                        items = []
                self._sending.send(items)
                items = []
                if not any(sweep.later for sweep in sweeps) or self._agent.stopping.is_set():
                    return
                self._wait(1.0)
        finally:
            for sweep in sweeps:
                self._tell(sweep)

    def _tell(self, sweep: _Sweep) -> None:
        if not sweep.dropped:
            return
        self.unread.update(sweep.dropped)
        message = f"Dropped events for Extension: {sweep.handler}; {summary(sweep.dropped.items())}"
        self._agent.log.warning(message)
        self._agent.events.add("ExtensionTelemetryEventProcessing", success=False, message=message, logged=True)

    # -- what is told of it -----------------------------------------------------------------------------------------

    def report_errors(self) -> None:
        """Make events of what was lost since the last time, and of requests without an answer (wireserver §19.6)."""
        agent = self._agent
        platform = agent.platform
        if platform is not None:
            errors = platform.telemetry.take_http_errors()
            if any(errors.values()):
                agent.events.add("HttpErrors", message=";".join(f"{name}:{count}" for name, count in errors.items()))
        for operation, counts in (("ReportEventErrors", self._sending.lost), ("CollectEventErrors", self.unread)):
            self._report(operation, counts)
        dropped = self._queue.dropped + self._queue.failed - self._told["told"]
        if dropped:
            self._told["told"] += dropped
            agent.events.add("CollectEventErrors", success=False, message=f"queue: {dropped}", logged=True)

    def _report(self, operation: str, counts: Counter[str]) -> None:
        told = {reason: self._told[operation + reason] for reason in counts}
        fresh = {reason: count - told[reason] for reason, count in list(counts.items()) if count > told[reason]}
        if fresh:
            self._told.update({operation + reason: count for reason, count in fresh.items()})
            self._agent.events.add(operation, success=False, message=summary(fresh.items()), logged=True)

    def details(self) -> dict[str, Any]:
        """Return how it goes, for the public status."""
        return {
            "waiting": self._queue.count,
            "sent": self._sending.sent,
            "dropped": self._queue.dropped + self._queue.failed,
            "lost": dict(self._sending.lost),
            "unread": dict(self.unread),
            "problem": self.problem,
        }


class _Sweep:
    """One collection from one handler.

    Attributes:
        dropped: how many events or files were dropped, by reason.
        later: files that may not be finished yet.
    """

    def __init__(self, handler: str, directory: str) -> None:
        self.handler = handler
        self.dropped: Counter[str] = Counter()
        self.later: list[str] = []
        self._directory = directory
        self._room = handlerevents.PER_SWEEP
        self._names, others = handlerevents.split(directory)
        handlerevents.delete(directory, others)

    def look(self, *, last: bool) -> list[Item]:
        """Return the events of the files that can be read, newest first; delete those that hold none."""
        names, self._names = self._names, []
        if not names:
            names, self.later = self.later, []
        items: list[Item] = []
        for name in names:
            items += self._of_file(name, last)
        return items

    def _of_file(self, name: str, last: bool) -> list[Item]:
        path = os.path.join(self._directory, name)
        if self._room <= 0:
            self.dropped[handlerevents.TOO_MANY] += 1
            handlerevents.delete(self._directory, [name])
            return []
        try:
            found = handlerevents.read(path)
        except Dropped as problem:
            self.dropped[str(problem)] += 1
            found = []
        except (Unfinished, OSError) as problem:
            if not last and not isinstance(problem, FileNotFoundError):
                self.later.append(name)
                return []
            self.dropped[handlerevents.UNREADABLE] += 1
            found = []
        events = []
        for number, one in enumerate(found):
            if self._room <= 0:
                self.dropped[handlerevents.TOO_MANY] += len(found) - number
                break
            try:
                events.append(handlerevents.convert(self.handler, one))
                self._room -= 1
            except Dropped as problem:
                self.dropped[str(problem)] += 1
        if not events:
            handlerevents.delete(self._directory, [name])
        source = Source(path, len(events))
        return [Item(event, source) for event in events]


def _size(event: TelemetryEvent) -> int:
    return sum(len(name) + len(str(value)) + 30 for name, value in event.parameters) + 1000


def make(agent: Agent) -> Collector:
    """Return the collector of a worker."""
    platform = agent.platform
    assert platform is not None
    queue = Queue(agent.paths.lib("events"), agent.log)
    queue.prepare()
    sending = Sending(platform.telemetry, Common(agent), agent.log, agent.stopping)
    return Collector(agent, queue, sending)
