"""Hand events to the platform: as few requests as will do, no faster than it takes them, and none lost on the way.

A file is deleted when the platform has everything that is in it. What was refused for good is lost and counted; what
was not taken stays where it is.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from waagent import HttpError, InvalidContainer, ResourceGone, TelemetryEvent, Throttled

if TYPE_CHECKING:
    from waagent import Log, TelemetryReceipt
    from waagent_telemetry.common import Common

CALLS, WINDOW = 14, 15.0
"""Requests in so many seconds; the service takes about one more (wireserver §23)."""
REFUSED_IN_A_ROW = 5
"""Events that the platform refuses one by one, after which it is taken to refuse them all for now."""
REASONS = 5
"""Reasons of losses that are reported; the others are counted."""


class Telemetry(Protocol):
    """What takes the events (``agent.platform.telemetry``)."""

    def send(self, events: Sequence[TelemetryEvent]) -> TelemetryReceipt:
        """Send one request with the first of *events*."""
        ...


class Source:
    """A file with events.

    Attributes:
        path: where it lies.
        left: how many of its events the platform does not have yet.
    """

    __slots__ = ("_remove", "left", "path")

    def __init__(self, path: str, left: int, remove: Callable[[], object] | None = None) -> None:
        self.path = path
        self.left = left
        self._remove = remove

    def settle(self) -> None:
        """Take note that one more event needs no sending; the file goes with the last."""
        self.left -= 1
        if self.left > 0:
            return
        if self._remove is not None:
            self._remove()
            return
        with contextlib.suppress(OSError):
            os.unlink(self.path)


class Item:
    """An event to send, and where it came from."""

    __slots__ = ("event", "source")

    def __init__(self, event: TelemetryEvent, source: Source) -> None:
        self.event = event
        self.source = source


class Sending:
    """Sends events; works in one lane, its counts may be read from any.

    Args:
        telemetry: the platform's.
        common: completes events.
        log: gets what is lost, sparsely.
        stopping: ends waits.
        clock: monotonic seconds.
        wait: waits for so many seconds, less when *stopping* is set.

    Attributes:
        sent: events that the platform took.
        lost: events that it will never take, by reason.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        common: Common,
        log: Log,
        stopping: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self.sent = 0
        self.lost: Counter[str] = Counter()
        self._telemetry = telemetry
        self._common = common
        self._log = log
        self._stopping = stopping
        self._clock = clock
        self._wait = wait or stopping.wait
        self._calls: deque[float] = deque(maxlen=CALLS)
        self._refused = 0

    def send(self, items: Sequence[Item]) -> None:
        """Send all of *items*, and delete the files whose last event this was.

        Raises:
            ProtocolError: the rest was not taken and stays; :class:`~waagent.Throttled` says for how long.
        """
        if not items:
            return
        self._common.refresh()
        for provider in dict.fromkeys(item.event.provider for item in items):
            self._send_to_one([item for item in items if item.event.provider == provider])

    def _send_to_one(self, items: list[Item]) -> None:
        size = len(items)
        while items and not self._stopping.is_set():
            self._pace()
            offered = [self._common.complete(item.event) for item in items[:size]]
            try:
                receipt = self._telemetry.send(offered)
            except HttpError as problem:
                if not _is_refusal(problem):
                    raise
                if size > 1:
                    # One event may spoil the others: the culprit is found by halves.
                    size = min(size, len(items)) // 2 or 1
                    continue
                self._refuse(items.pop(0), problem)
                continue
            self._refused = 0
            if receipt.oversize:
                self.lost["too large"] += receipt.oversize
                self._log.periodic(1800, "event size", 2, "An event is too large to be sent; it is dropped")
            self.sent += receipt.done - receipt.oversize
            for item in items[: receipt.done]:
                item.source.settle()
            del items[: receipt.done]
            size *= 2

    def _refuse(self, item: Item, problem: HttpError) -> None:
        self._refused += 1
        if self._refused > REFUSED_IN_A_ROW:
            raise problem
        reason = f"refused with {problem.status}"
        self.lost[reason] += 1
        self._log.periodic(1800, "event refused", 2, f"The platform refuses an event, which is dropped: {problem}")
        item.source.settle()

    def _pace(self) -> None:
        now = self._clock()
        if len(self._calls) == CALLS and now - self._calls[0] < WINDOW:
            self._wait(self._calls[0] + WINDOW - now)
        self._calls.append(self._clock())


def _is_refusal(problem: HttpError) -> bool:
    """Whether the platform will never take what was sent, however often it is."""
    if isinstance(problem, (Throttled, ResourceGone, InvalidContainer)) or problem.status is None:
        return False
    return 400 <= problem.status < 500 and problem.status not in (401, 403, 404, 408)


def summary(counts: Iterable[tuple[str, int]]) -> str:
    """Return counts by reason in one line, the most frequent first; at most :data:`REASONS` of them are named."""
    ordered = sorted(counts, key=lambda pair: (-pair[1], pair[0]))
    named = [f"{reason}: {count}" for reason, count in ordered[:REASONS]]
    rest = sum(count for _, count in ordered[REASONS:])
    return ", ".join([*named, f"others: {rest}"] if rest else named)
