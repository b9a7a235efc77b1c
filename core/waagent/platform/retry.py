"""How each call to the platform is tried again: the tables of wireserver §3.2, §3.3 as data, and the loop over them.

Three rulings change the tables. A throttled call does not sleep: it fails with :class:`~waagent.errors.Throttled` and
its endpoint is left alone for a while (25, :mod:`waagent.platform.endpoint`). A call that comes again by itself every
period is tried once, so an outage costs one request per endpoint and period and its end is seen at once (26). The
health report has provisioning §11's numbers (27).
"""

from __future__ import annotations

import errno
import re
import threading
import time
from collections.abc import Callable, Mapping

import attrs

from waagent.errors import HttpError, InvalidContainer, ResourceGone, Throttled
from waagent.platform.channel import Answer, TooLarge, Unreachable
from waagent.redaction import redact

FIBONACCI = (2, 3, 5, 8, 13, 21, 34, 55, 89)
"""Factors of the base delay before the second, third, … try."""

SUCCESS = frozenset((200, 201, 202))
RETRIED = frozenset((205, 206, 403, 429, 500, 501, 502, 503, 504, 507))
THROTTLING = frozenset((403, 429, 503))

RETRY_AFTER_LIMIT = 600.0
"""Seconds; a server that asks for more is asked again after this long, or the machine would look dead."""
SHOWN_BODY = 1024

_DENIED = re.compile(rb"denied|forbidden|not allowed|(?:not |un)authori[sz]ed|authori[sz]ationfailed", re.IGNORECASE)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_HTTP_DATE = re.compile(r"\w{3}, (\d{1,2}) (\w{3}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT\Z", re.ASCII)


@attrs.frozen(eq=False, repr=False)
class Policy:
    """One row of wireserver §3.3.

    Attributes:
        attempts: tries in one call.
        delay: seconds before another try, multiplied by :data:`FIBONACCI` when *growing*.
        growing: whether the pauses grow.
        timeout: seconds for connecting and for each read.
        total: seconds after which no further try starts, ``None`` for no limit.
        retried: status codes that are tried again.
        success: status codes that are an answer.
        waits: a throttled try is repeated inside the call, after ``Retry-After`` when that is longer than the pause:
            only for a report that nobody would send again.
        apart: throttling of this call says nothing of other calls to the endpoint, and the other way round.
        least_pause: seconds without this call after it was throttled, at least.
    """

    attempts: int = 6
    delay: float = 1.0
    growing: bool = True
    timeout: float = 10.0
    total: float | None = None
    retried: frozenset[int] = RETRIED
    success: frozenset[int] = SUCCESS
    waits: bool = False
    apart: bool = False
    least_pause: float = 0.0

    def pause(self, tries: int) -> float:
        """Return the seconds to wait after *tries* failed tries."""
        if not self.growing:
            return self.delay
        return self.delay * FIBONACCI[min(tries, len(FIBONACCI)) - 1]


_ONCE = Policy(attempts=1)

POLICIES: Mapping[str, Policy] = {
    "versions": _ONCE,  # asked again by the detection loop
    "goal-state": _ONCE,  # asked again every period
    "goal-state-part": Policy(),
    "health": Policy(attempts=30, delay=10.0, growing=False, total=300.0, waits=True),
    "provisioning-health": Policy(attempts=30, delay=10.0, growing=False, total=300.0, waits=True),
    "role-properties": Policy(attempts=1, success=frozenset((202,))),  # best effort (provisioning §8.2)
    "telemetry": Policy(attempts=3, apart=True, least_pause=8.0),  # the service counts these calls by themselves
    "health-service": _ONCE,  # only a hint (DIFF-5)
    "host-versions": _ONCE,  # asked again by the next call that needs the host plugin
    "host-health": _ONCE,
    "host-status": _ONCE,  # the direct channel is next, and another upload soon
    "host-artifact": Policy(retried=RETRIED | {400}),
    "host-package": Policy(),
    "host-log": Policy(timeout=30.0),
    "direct": Policy(),
    "imds": Policy(),
}
"""Retry policy by kind of call. vmSettings has none: its answers are read by a state machine (wireserver §14.3)."""


def is_denied(status: int, body: bytes) -> bool:
    """Whether a 403 says that a rule forbids the request; any other 403 is throttling (wireserver §1, §3.2)."""
    return status == 403 and bool(_DENIED.search(body[:SHOWN_BODY]))


def is_throttled(status: int, body: bytes) -> bool:
    """Whether an answer asks for fewer requests."""
    return status in THROTTLING and not is_denied(status, body)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Return the seconds that ``Retry-After`` asks for, at most :data:`RETRY_AFTER_LIMIT`; ``None`` when it does not.

    Args:
        headers: names in lower case.
        now: seconds since 1970, for the form that names a date.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal():
        return min(float(text[:6]), RETRY_AFTER_LIMIT)
    match = _HTTP_DATE.match(text)
    if match is None or match.group(2).lower() not in _MONTHS:
        return None
    import calendar

    day, month, year, hour, minute, second = match.groups()
    fields = (int(year), _MONTHS.index(month.lower()) + 1, int(day), int(hour), int(minute), int(second))
    try:
        moment = calendar.timegm(fields)
    except ValueError:
        return None
    return min(max(0.0, moment - (time.time() if now is None else now)), RETRY_AFTER_LIMIT)


def error_text(status: int, reason: str, body: bytes) -> str:
    """Return ``[HTTP Failed] [<status>: <reason>] <body>``: ASCII, without secrets, the body cut to its start."""
    said = body[:SHOWN_BODY].decode("ascii", "ignore").strip()
    return redact(f"[HTTP Failed] [{status}: {reason.encode('ascii', 'ignore').decode()}] {said}").rstrip()


def failure(status: int, reason: str, headers: Mapping[str, str], body: bytes, policy: Policy) -> HttpError | None:
    """Return the error that an answer means, ``None`` for success (wireserver §3.2, in its order but for DIFF-3)."""
    if status in policy.success:
        return None
    text = error_text(status, reason, body)
    if status == 410:
        return ResourceGone(text, status)
    # Before the retry decision: the cure is another goal state, not another try (DIFF-3).
    if status == 400 and b"InvalidContainerConfiguration" in body:
        return InvalidContainer(text, status)
    if is_throttled(status, body):
        return Throttled(text, status, retry_after(headers))
    return HttpError(text, status)


def is_retried(problem: HttpError, policy: Policy) -> bool:
    """Whether another try inside the call may help."""
    if isinstance(problem, (ResourceGone, InvalidContainer, TooLarge)):
        return False
    if isinstance(problem, Throttled):
        return policy.waits
    if isinstance(problem, Unreachable):
        return True
    # A denial will not change within the call, whatever the table says of 403.
    return problem.status in policy.retried and problem.status != 403


def call(
    policy: Policy,
    send: Callable[[], Answer],
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], object],
    stopping: threading.Event,
    attempts: int | None = None,
) -> Answer:
    """Send until there is a success, an answer that is final, or no try left.

    Args:
        policy: the row of the table.
        send: one try.
        clock: monotonic seconds.
        sleep: waits, and returns early when *stopping* is set.
        stopping: the process ends: no further try.
        attempts: instead of the policy's, for an endpoint that is known to be out.

    Raises:
        HttpError: or one of its kinds; the message ends with the number of tries when there were several.
    """
    allowed = policy.attempts if attempts is None else min(attempts, policy.attempts)
    started = clock()
    tries = 0
    problem: HttpError | None = None
    try:
        while True:
            tries += 1
            try:
                answer = send()
                problem = failure(answer.status, answer.reason, answer.headers, answer.body, policy)
                if problem is None:
                    return answer
            except HttpError as raised:
                problem = raised
            pause = policy.pause(tries)
            if isinstance(problem, Throttled) and problem.retry_after is not None:
                pause = max(pause, problem.retry_after)
            late = policy.total is not None and clock() - started + pause > policy.total
            no_way_out = policy.waits and isinstance(problem, Unreachable) and problem.errno == errno.ENETUNREACH
            if tries >= allowed or late or no_way_out or stopping.is_set() or not is_retried(problem, policy):
                raise _counted(problem, tries)
            sleep(pause)
            if stopping.is_set():
                raise _counted(problem, tries)
    finally:
        problem = None  # an error whose traceback names the frame that names it would wait for the garbage collector


def _counted(problem: HttpError, tries: int) -> HttpError:
    if tries > 1:
        problem.args = (f"{problem} -- {tries} attempts made",)
    return problem
