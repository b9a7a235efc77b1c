"""One endpoint's recent past: is it out, did it ask for a pause (rulings 25, 26); and every request to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from waagent.errors import Throttled
from waagent.platform import retry
from waagent.platform.channel import BODY_LIMIT, Answer, Channels, Unreachable
from waagent.platform.retry import POLICIES

_EARLY = 0.05
"""The share of a period by which a poll may come early: timers are never exact, and a poll that comes a millisecond
before the pause is over would make it a period longer. What ``Retry-After`` says is never cut."""


class Endpoint:
    """The requests to one host of the platform; shared by all lanes.

    A throttled endpoint gets no request before ``Retry-After`` has passed, and at least one period (two when it
    throttles again): calls fail at once with :class:`~waagent.errors.Throttled`. An endpoint whose last request got no
    answer, or one of an ailing server, is asked once per call, whatever the call's table says. Calls that the service
    counts apart (telemetry) have a pause of their own.

    Args:
        name: for messages (``WireServer``, ``HostGAPlugin``, ``IMDS``).
        address: ``host:port``.
        channels: the connections.
        period: the seconds between polls.
        clock, sleep, stopping: see :func:`waagent.platform.retry.call`.
    """

    def __init__(
        self,
        name: str,
        address: str,
        channels: Channels,
        *,
        period: Callable[[], float] = lambda: 6.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        stopping: threading.Event | None = None,
    ) -> None:
        self.name = name
        self.address = address
        self.stopping = stopping or threading.Event()
        self.clock = clock
        self.sleep = sleep or self.stopping.wait
        self.is_out = False
        self.saw_proxy_agent = False
        """Whether an answer came through the guest proxy agent (msp.md §B7), which refuses bodies over 100 KiB."""
        self._channels = channels
        self._period = period
        self._lock = threading.Lock()
        self._missing = 0
        self._closed_until: dict[str, float] = {}
        self._throttled_in_a_row: dict[str, int] = {}

    def url(self, path: str) -> str:
        """Return the URL of *path* on this endpoint."""
        return f"http://{self.address}{path}"

    def wait_left(self, apart: str = "") -> float:
        """Return the seconds until the endpoint may be asked again; 0 when it may.

        Args:
            apart: the kind of call, when it is one that is counted apart.
        """
        with self._lock:
            return max(0.0, self._closed_until.get(apart, float("-inf")) - self.clock())

    def throttled(self, seconds: float | None, apart: str = "", least: float = 0.0) -> float:
        """Leave the endpoint alone for *seconds*, at least one period, two when it throttles again; return how long.

        Args:
            seconds: what ``Retry-After`` says, ``None`` when it does not.
            apart: see :meth:`wait_left`: only calls of this kind are held back.
            least: seconds to wait in any case.
        """
        with self._lock:
            in_a_row = self._throttled_in_a_row[apart] = self._throttled_in_a_row.get(apart, 0) + 1
            own = self._period() * (min(in_a_row, 2) - _EARLY)
            pause = max(seconds or 0.0, own, least)
            self._closed_until[apart] = max(self._closed_until.get(apart, float("-inf")), self.clock() + pause)
            return pause

    def check(self, apart: str = "") -> None:
        """Raise :class:`~waagent.errors.Throttled` while the endpoint is to be left alone (see :meth:`wait_left`)."""
        left = self.wait_left(apart)
        if left > 0:
            raise Throttled(f"{self.name} asked for fewer requests; next try in {left:.0f} s", retry_after=left)

    def call(
        self,
        kind: str,
        method: str,
        url: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
        *,
        limit: int = BODY_LIMIT,
        heed: bool = True,
    ) -> Answer:
        """Send a request as the policy *kind* says and return its successful answer.

        Args:
            kind: a key of :data:`waagent.platform.retry.POLICIES`.
            method, url, headers, body, limit: see :meth:`waagent.platform.channel.Channel.exchange`.
            heed: ``False`` sends even while the endpoint is to be left alone: for reports that the platform waits for.

        Raises:
            HttpError: or one of its kinds.
        """
        policy = POLICIES[kind]
        apart = kind if policy.apart else ""
        if heed:
            self.check()
        if heed and apart:
            self.check(apart)
        given = tuple(headers)

        def send() -> Answer:
            return self.send(method, url, given, body, timeout=policy.timeout, limit=limit)

        try:
            answer = retry.call(
                policy,
                send,
                clock=self.clock,
                sleep=self.sleep,
                stopping=self.stopping,
                attempts=1 if self.is_out and not policy.waits else None,
            )
        except Throttled as problem:
            pause = self.throttled(problem.retry_after, apart, policy.least_pause)
            if policy.apart:
                problem.retry_after = pause
            raise
        self.answered(apart)
        return answer

    def send(
        self,
        method: str,
        url: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
        *,
        timeout: float = 10.0,
        limit: int = BODY_LIMIT,
    ) -> Answer:
        """Send one request, once, and return its answer whatever the status.

        Raises:
            HttpError: no complete answer came.
        """
        try:
            answer = self._channels.request(method, url, headers, body, timeout=timeout, limit=limit)
        except Unreachable:
            self.is_out = True
            self.count_missing()
            raise
        self.is_out = answer.status >= 500
        if "x-ms-azure-host-authorization" in answer.headers:
            self.saw_proxy_agent = True
        return answer

    def answered(self, apart: str = "") -> None:
        """Note an answer that was not throttled: the next pause starts from one period again."""
        with self._lock:
            self._throttled_in_a_row.pop(apart, None)

    def count_missing(self) -> None:
        """Count a request that got no answer; :meth:`send` does so by itself."""
        with self._lock:
            self._missing += 1

    def take_connection_errors(self) -> int:
        """Return how often no answer came since the last call of this (wireserver §19.6)."""
        with self._lock:
            count, self._missing = self._missing, 0
        return count
