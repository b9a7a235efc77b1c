"""A platform that asks for less gets less; what is cut short is fetched again; a killed worker finds its command."""

from __future__ import annotations

import time

import pytest

from tests.fabric.acceptance import tools
from waagent_fabric import Fault, HandlerSpec, SettingsSpec, read_calls, sample_package

pytestmark = [pytest.mark.fabric, pytest.mark.slow]

NAME = "Contoso.Sample"
PERIOD = 6.0


def wanted(number: int = 0, **public) -> list[HandlerSpec]:
    return [HandlerSpec(NAME, "1.0.0", settings=[SettingsSpec(public or {"a": 1}, sequence_number=number)])]


def test_a_platform_that_throttles_for_half_a_minute_gets_ten_requests_at_most(
    fabric, agent_root, running_agent
) -> None:
    seconds, retry_after = 30.0, 8
    period = f"{PERIOD:g}"
    running_agent(
        agent_root, fabric, conf={"Extensions.GoalStatePeriod": period, "Extensions.InitialGoalStatePeriod": period}
    )
    fabric.wait_for_request("wireserver", "comp=goalstate", count=3)
    began = time.time()
    # One server says when it wants to be asked again, the others do not.
    fabric.inject(Fault("status", server="wireserver", statuses=(429, 503), times=1000, retry_after=retry_after))
    fabric.inject(Fault("status", statuses=(503, 429), times=1000))
    incarnation = int(fabric.publish(()).partition("_")[2])
    while time.time() < began + seconds:
        with fabric.platform.changed:
            fabric.platform.changed.wait(max(0.01, began + seconds - time.time()))
    fabric.clear_faults()
    cleared = time.time()
    refused = [record for record in fabric.requests if record.status in (429, 503)]
    assert len(refused) >= 2, "nothing was throttled"
    assert len(refused) <= 10, [f"{record.server} {record.path}" for record in refused]
    asked = [record.time for record in fabric.requests if record.server == "wireserver" and record.time >= began]
    assert min(tools.gaps(asked)) >= retry_after - 0.1, "Retry-After was not obeyed"

    tools.wait_for(lambda: tools.seen_at(fabric, incarnation), "the goal state of that time is fetched")
    tools.wait_for(lambda: tools.upload_moments(fabric)[-1] > cleared, "a status after the throttling")
    assert tools.upload_moments(fabric)[-1] - cleared < retry_after + 2 * PERIOD
    assert fabric.violations == []


def test_a_package_that_was_cut_short_is_fetched_again(fabric, agent_root, running_agent) -> None:
    # Long enough for the cut to fall into the zip's middle, whichever location and channel it comes from.
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0", extra={"data.bin": bytes(range(256)) * 4096}))
    fault = fabric.inject(Fault("truncate", path="__1.0.0.zip", times=1))
    fabric.publish(wanted())
    running_agent(agent_root, fabric)
    fabric.wait_for_extension(NAME, timeout=60)
    assert fault.hits == 1
    assert [call.operation for call in read_calls(agent_root, NAME)] == ["install", "enable"]
    assert [path for path in tools.files_below(agent_root) if path.name.endswith((".zip", ".partial"))] == []


def test_a_command_under_way_is_taken_up_by_the_next_worker(fabric, agent_root, running_agent) -> None:
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0"))
    fabric.publish(wanted(sleep=20))
    agent = running_agent(agent_root, fabric)

    def enabling():
        return [call for call in read_calls(agent_root, NAME) if call.operation == "enable"]

    call = tools.wait_for(enabling, "the enable command")[0]
    enable_began = time.time()
    tools.wait_for(lambda: time.time() > enable_began + 3, "three seconds of it")
    killed = time.time()
    agent.kill_worker(wait=False)
    tools.wait_for(lambda: tools.upload_moments(fabric)[-1] > killed + 0.5, "a status of the next worker")
    pause = next(moment for moment in tools.upload_moments(fabric) if moment > killed) - killed
    assert pause < 8.0, f"the platform waited {pause:.1f} s for the next status"
    assert tools.word_of(fabric.status, NAME) == "transitioning"

    fabric.wait_for_extension(NAME, timeout=40)
    assert [(found.pid, found.exit_code) for found in enabling()] == [(call.pid, 0)], "one run, the one from before"
    assert "was taken up" in agent.log()
