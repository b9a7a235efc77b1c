"""What happened, for whoever wants to know: the log now, telemetry when its plugin is there (service §7)."""

from __future__ import annotations

import threading
import time
from collections import deque

import attrs

from waagent.log import Log
from waagent.version import NAME, WIRE_VERSION

TYPE_CHECKING = False  # the resident worker does without the typing module
if TYPE_CHECKING:
    from collections.abc import Callable

    Sink = Callable[["Event"], object]

KEPT = 50
"""Events that a new sink gets of those that were there before it."""


@attrs.frozen(eq=False, repr=False)
class Event:
    """One thing that happened.

    Attributes:
        operation: a word of service §7, such as ``Install`` or ``ReportStatusExtended``.
        name: who it happened to: the product, or a handler.
        success: whether it went well.
        message: for people; no secrets.
        duration_ms: how long it took, in milliseconds.
        version: of the agent or handler.
        time: seconds since the epoch.
    """

    operation: str
    name: str
    success: bool
    message: str
    duration_ms: int
    version: str
    time: float


class Events:
    """Takes events from any thread, logs failures and hands every event to the sinks.

    Args:
        log: gets failures as ``Event: name=…, op=…, message=…, duration=…`` (service §8).
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._sinks: tuple[Sink, ...] = ()
        self._recent: deque[Event] = deque(maxlen=KEPT)

    def subscribe(self, sink: Sink) -> None:
        """Call *sink* with every :class:`Event` from now on, in the thread that adds it; it has to be quick.

        The last events from before are handed to it at once: much happens before plugins are there.
        """
        with self._lock:
            earlier = tuple(self._recent)
            self._sinks = (*self._sinks, sink)
        for event in earlier:
            self._hand(sink, event)

    def add(
        self,
        operation: str,
        *,
        name: str = NAME,
        success: bool = True,
        message: str = "",
        duration_ms: int = 0,
        version: str | None = None,
        logged: bool = False,
    ) -> None:
        """Record that *operation* happened; never raises.

        Args:
            operation, name, success, message, duration_ms, version: see :class:`Event`.
            logged: a failure that has its line in the log already gets no second one.
        """
        if not success and not logged:
            self._log.error(f"Event: name={name}, op={operation}, message={message}, duration={duration_ms}")
        event = Event(operation, name, success, message, duration_ms, version or WIRE_VERSION, time.time())
        with self._lock:
            self._recent.append(event)
            sinks = self._sinks
        for sink in sinks:
            self._hand(sink, event)

    def _hand(self, sink: Sink, event: Event) -> None:
        try:
            sink(event)
        except Exception as problem:
            self._log.periodic(
                3600, "event sink", 2, f"An event could not be handed on: {type(problem).__name__}: {problem}"
            )
