"""What an endpoint remembers: throttling (ruling 25) and outages (ruling 26)."""

from __future__ import annotations

import pytest

from tests.unit.platform.memoryworld import Clock, World, ok, status, unreachable
from waagent.errors import HttpError, Throttled
from waagent.platform.channel import Answer
from waagent.platform.endpoint import Endpoint


class Asked:
    def __init__(self, *answers: Answer | Exception) -> None:
        self.clock = Clock()
        self.world = World()
        self.world.answer_next("GET", *answers)
        self.endpoint = Endpoint(
            "WireServer",
            "host:80",
            self.world,  # type: ignore[arg-type]
            period=lambda: 6.0,
            clock=self.clock,
            sleep=self.clock.sleep,
        )

    def get(self, kind: str = "goal-state") -> Answer:
        return self.endpoint.call(kind, "GET", self.endpoint.url("/x"))


def test_a_throttled_endpoint_is_left_alone_for_a_period_then_two() -> None:
    asked = Asked(status(429), status(503), status(429), ok(), status(429))
    sent_at = []
    for _ in range(10):
        before = len(asked.world.requests)
        try:
            asked.get()
        except Throttled:
            pass
        if len(asked.world.requests) > before:
            sent_at.append(asked.clock.now - 1000)
        if len(asked.world.requests) == 5:
            break
        asked.clock.now += 6
    assert sent_at == [0, 6, 18, 30, 36]
    assert asked.endpoint.wait_left() == pytest.approx(6, abs=0.5)


def test_a_poll_that_comes_a_little_early_is_not_put_off_for_another_period() -> None:
    asked = Asked(status(503), ok())
    with pytest.raises(Throttled):
        asked.get()
    asked.clock.now += 5.99
    assert asked.get().status == 200


def test_retry_after_is_obeyed() -> None:
    asked = Asked(status(503, retry_after="60"), ok())
    with pytest.raises(Throttled):
        asked.get()
    asked.clock.now += 59
    with pytest.raises(Throttled, match="WireServer asked for fewer requests") as caught:
        asked.get()
    assert caught.value.retry_after == pytest.approx(1.0)
    assert len(asked.world.requests) == 1
    asked.clock.now += 1
    assert asked.get().status == 200


def test_throttled_telemetry_holds_up_telemetry_alone() -> None:
    asked = Asked(status(429), ok(), ok(), status(429, retry_after="40"))
    with pytest.raises(Throttled) as caught:
        asked.get("telemetry")
    assert caught.value.retry_after == pytest.approx(8.0)
    assert asked.get().status == 200
    asked.clock.now += 7.9
    with pytest.raises(Throttled):
        asked.get("telemetry")
    assert len(asked.world.requests) == 2
    asked.clock.now += 0.2
    assert asked.get("telemetry").status == 200
    with pytest.raises(Throttled) as caught:
        asked.get("telemetry")
    assert caught.value.retry_after == pytest.approx(40.0)


def test_telemetry_leaves_a_throttled_endpoint_alone_like_everybody() -> None:
    asked = Asked(status(503, retry_after="60"))
    with pytest.raises(Throttled):
        asked.get()
    with pytest.raises(Throttled):
        asked.get("telemetry")
    assert len(asked.world.requests) == 1


def test_thirty_seconds_of_throttling_cost_few_requests() -> None:
    asked = Asked(*[status(503) for _ in range(100)])
    for _ in range(5):
        with pytest.raises(Throttled):
            asked.get()
        asked.clock.now += 6
    assert len(asked.world.requests) <= 4


def test_an_endpoint_that_is_out_gets_one_request_per_call_until_it_answers() -> None:
    asked = Asked(*[unreachable() for _ in range(7)], status(404), status(500), ok())
    with pytest.raises(HttpError, match="6 attempts made"):
        asked.get("goal-state-part")
    assert asked.endpoint.is_out
    slept = len(asked.clock.slept)
    with pytest.raises(HttpError):
        asked.get("goal-state-part")
    assert (len(asked.world.requests), len(asked.clock.slept)) == (7, slept)
    with pytest.raises(HttpError):
        asked.get("goal-state-part")
    assert not asked.endpoint.is_out
    asked.get("goal-state-part")
    assert len(asked.world.requests) == 10, "an endpoint that answers is tried again as its table says"


def test_missing_answers_are_counted_once() -> None:
    asked = Asked(unreachable(), unreachable("timeout"), status(500))
    for _ in range(3):
        with pytest.raises(HttpError):
            asked.get()
    assert asked.endpoint.take_connection_errors() == 2
    assert asked.endpoint.take_connection_errors() == 0


def test_the_guest_proxy_agent_is_noticed() -> None:
    asked = Asked(ok(), ok(**{"x-ms-azure-host-authorization": "value"}))
    asked.get()
    assert not asked.endpoint.saw_proxy_agent
    asked.get()
    assert asked.endpoint.saw_proxy_agent
