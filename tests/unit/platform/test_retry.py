"""The retry tables: what an answer means, and how a call is tried again (wireserver §3.2, §3.3; rulings 25 to 27)."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

import pytest

from tests.unit.platform.memoryworld import Clock, status, unreachable
from waagent.errors import HttpError, InvalidContainer, ResourceGone, Throttled
from waagent.platform import retry
from waagent.platform.channel import Answer, TooLarge, Unreachable
from waagent.platform.retry import POLICIES


class Call:
    """One call with scripted answers; the last one repeats."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.clock = Clock()
        self.stopping = threading.Event()
        self.sent = 0
        self.answers = answers
        self.after_send: Callable[[], None] = lambda: None

    def send(self) -> Answer:
        answer = self.answers[min(self.sent, len(self.answers) - 1)]
        self.sent += 1
        self.after_send()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def run(self, policy: str, attempts: int | None = None) -> Answer:
        return retry.call(
            POLICIES[policy],
            self.send,
            clock=self.clock,
            sleep=self.clock.sleep,
            stopping=self.stopping,
            attempts=attempts,
        )


@pytest.mark.parametrize("code", [200, 201, 202])
def test_success_is_returned_at_once(code: int) -> None:
    call = Call(status(code, b"body"))
    assert call.run("goal-state-part").body == b"body"
    assert (call.sent, call.clock.slept) == (1, [])


@pytest.mark.parametrize("code", [205, 206, 500, 501, 502, 504, 507])
def test_passing_failures_are_tried_six_times_with_growing_pauses(code: int) -> None:
    call = Call(status(code, b"what the server says"))
    with pytest.raises(HttpError, match=r"what the server says -- 6 attempts made") as caught:
        call.run("goal-state-part")
    assert call.clock.slept == [2, 3, 5, 8, 13]
    assert caught.value.status == code


@pytest.mark.parametrize("kind", ["connection", "timeout", "protocol"])
def test_no_answer_is_tried_again(kind: str) -> None:
    call = Call(unreachable(kind), unreachable(kind), status(200))
    call.run("goal-state-part")
    assert call.clock.slept == [2, 3]


@pytest.mark.parametrize("code", [204, 301, 302, 304, 400, 401, 404, 405, 409, 413, 421])
def test_other_answers_are_final(code: int) -> None:
    call = Call(status(code))
    with pytest.raises(HttpError) as caught:
        call.run("goal-state-part")
    assert (call.sent, caught.value.status) == (1, code)


def test_artifacts_through_the_host_plugin_are_also_tried_again_after_400() -> None:
    call = Call(status(400), status(200))
    call.run("host-artifact")
    assert call.sent == 2
    with pytest.raises(HttpError):
        Call(status(400), status(200)).run("host-package")


@pytest.mark.parametrize("policy", ["host-artifact", "goal-state-part", "host-status"])
def test_a_stale_container_is_told_before_any_retry(policy: str) -> None:
    call = Call(status(400, b"<Code>InvalidContainerConfiguration</Code>"))
    with pytest.raises(InvalidContainer):
        call.run(policy)
    assert call.sent == 1
    call = Call(status(410))
    with pytest.raises(ResourceGone):
        call.run(policy)
    assert call.sent == 1


@pytest.mark.parametrize("code", [403, 429, 503])
def test_throttled_calls_do_not_sleep(code: int) -> None:
    call = Call(status(code, retry_after="17"))
    with pytest.raises(Throttled) as caught:
        call.run("goal-state-part")
    assert (call.sent, call.clock.slept) == (1, [])
    assert caught.value.retry_after == 17


@pytest.mark.parametrize("body", [b"Access denied by rule", b"<h1>403 Forbidden</h1>", b"caller is not authorized"])
def test_a_denial_is_no_throttling_and_its_text_is_told(body: bytes) -> None:
    call = Call(status(403, body))
    with pytest.raises(HttpError, match="403: Reason") as caught:
        call.run("goal-state-part")
    assert not isinstance(caught.value, Throttled)
    assert body.decode() in str(caught.value)
    assert call.sent == 1


def test_a_body_too_large_is_final() -> None:
    call = Call(TooLarge("too large"))
    with pytest.raises(TooLarge):
        call.run("goal-state-part")
    assert call.sent == 1


ROWS = {
    # policy: (attempts, pauses between them)
    "versions": (1, []),
    "goal-state": (1, []),
    "goal-state-part": (6, [2, 3, 5, 8, 13]),
    "role-properties": (1, []),
    "telemetry": (3, [2, 3]),
    "health-service": (1, []),
    "host-versions": (1, []),
    "host-health": (1, []),
    "host-status": (1, []),
    "host-artifact": (6, [2, 3, 5, 8, 13]),
    "host-package": (6, [2, 3, 5, 8, 13]),
    "host-log": (6, [2, 3, 5, 8, 13]),
    "direct": (6, [2, 3, 5, 8, 13]),
    "imds": (6, [2, 3, 5, 8, 13]),
    "health": (30, [10] * 29),
    "provisioning-health": (30, [10] * 29),
}


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_every_row_of_the_table(policy: str) -> None:
    attempts, pauses = ROWS[policy]
    call = Call(status(500))
    with pytest.raises(HttpError):
        call.run(policy)
    assert call.clock.slept == pauses
    assert call.sent == attempts
    assert POLICIES[policy].timeout == (30.0 if policy == "host-log" else 10.0)


def test_the_health_report_ends_after_five_minutes() -> None:
    call = Call(status(500))
    slow = 11.0

    def take_time() -> None:
        call.clock.now += slow

    call.after_send = take_time
    started = call.clock.now
    with pytest.raises(HttpError):
        call.run("health")
    assert call.clock.now - started <= 300 + slow
    assert call.sent == 15, "the last one starts 294 s after the first"


def test_the_health_report_waits_when_it_is_throttled() -> None:
    call = Call(status(429, retry_after="25"), status(503), status(200))
    call.run("health")
    assert call.clock.slept == [25, 10]


def test_the_health_report_stops_early_without_a_network() -> None:
    call = Call(Unreachable("Network is unreachable", "connection", errno.ENETUNREACH))
    with pytest.raises(Unreachable):
        call.run("health")
    assert call.sent == 1


def test_role_properties_need_202() -> None:
    with pytest.raises(HttpError):
        Call(status(200)).run("role-properties")
    assert Call(status(202)).run("role-properties").status == 202


def test_stopping_ends_a_call_between_two_tries() -> None:
    call = Call(status(500))
    call.after_send = call.stopping.set
    with pytest.raises(HttpError):
        call.run("goal-state-part")
    assert (call.sent, call.clock.slept) == (1, [])


def test_stopping_while_it_sleeps_ends_a_call() -> None:
    call = Call(status(500))

    def sleep(seconds: float) -> None:
        call.stopping.set()

    with pytest.raises(HttpError):
        retry.call(POLICIES["imds"], call.send, clock=call.clock, sleep=sleep, stopping=call.stopping)
    assert call.sent == 1


def test_an_endpoint_that_is_out_is_tried_once() -> None:
    call = Call(unreachable())
    with pytest.raises(Unreachable):
        call.run("goal-state-part", attempts=1)
    assert call.sent == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("30", 30.0),
        (" 30 ", 30.0),
        ("999999999999", retry.RETRY_AFTER_LIMIT),
        ("-1", None),
        ("soon", None),
        ("1.5", None),
        ("", None),
        ("٣", None),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 60.0),
        ("Thu, 01 Jan 1970 00:00:10 GMT", 0.0),
        ("Thu, 99 Xxx 1970 00:00:10 GMT", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    assert retry.retry_after({"retry-after": text}, now=40.0) == seconds


def test_the_error_text_is_ascii_and_holds_no_secret() -> None:
    text = retry.error_text(500, "Größe", "späť https://blob/x?sv=1&sig=SECRET end".encode())
    assert text == "[HTTP Failed] [500: Gre] sp https://blob/x?<redacted> end"
    assert len(retry.error_text(500, "", b"x" * 100_000)) < 1200
