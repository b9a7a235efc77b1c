"""A platform that is away for long: few lines, flat memory, and a status as soon as it is back (service §16, §22)."""

from __future__ import annotations

import contextlib
import gc
import time
import tracemalloc

import pytest

from tests.fabric.acceptance import tools
from waagent.agent import WORKER, make_agent
from waagent.errors import ProtocolError
from waagent.platform.channel import Channels
from waagent.platform.client import Platform
from waagent.platform.statusblob import build_status
from waagent_fabric import Fault, HandlerSpec, SettingsSpec, sample_package, write_conf

pytestmark = [pytest.mark.fabric, pytest.mark.slow]

NAME = "Contoso.Sample"
PERIOD = 6.0
POLLS = 1000


class Clock:
    """Monotonic seconds that pass when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> bool:
        self.now += seconds
        return False


def test_a_thousand_polls_without_a_platform(fabric, agent_root) -> None:
    clock = Clock()
    write_conf(agent_root, fabric, {"Extensions.GoalStatePeriod": f"{PERIOD:g}"})
    agent_root.joinpath("var/log").mkdir(parents=True)
    agent = make_agent(WORKER, str(agent_root))
    channels = Channels("WALinuxAgent/3.0.0.0", clock)
    platform = Platform(
        agent.config, agent.paths, agent.log, agent.events, version=agent.version, clock=clock, sleep=clock.sleep,
        channels=channels,
    )  # fmt: skip
    platform.hold_certificates = True  # their helper is not what this is about

    def poll() -> tuple[bool, bool]:
        """Do what the worker does in a period; return whether a goal state came and whether a status went."""
        fetched = uploaded = False
        before = clock.now
        with contextlib.suppress(ProtocolError):
            platform.update_goal_state()
            fetched = True
        if platform.goal_state is not None:
            document = build_status([], computer_name="vm", os_name="linux", os_version="1", features=(), problems=())
            with contextlib.suppress(ProtocolError):
                uploaded = platform.upload_status(document) is not False
        assert clock.now - before < PERIOD, "a poll waits longer than a period while nobody answers"
        clock.now = before + PERIOD
        return fetched, uploaded

    def look_at_host() -> None:
        """Do what another lane does every minute."""
        before = clock.now
        platform.report_host_health()
        clock.now = before

    def polls_without_an_answer(count: int) -> None:
        for number in range(count):
            assert poll() == (False, False)
            if number % 10 == 0:
                look_at_host()

    assert poll() == (True, True)
    look_at_host()
    lines_before = len(read(agent.paths.log_file).splitlines())
    fabric.inject(Fault("outage"))
    with tracing():
        polls_without_an_answer(100)
        gc.collect()  # also empties the interpreter's own free lists, which fill up to a limit and stay
        early = traced()
        polls_without_an_answer(POLLS - 100)
        gc.collect()
        late = traced()
    assert late - early < 64 * 1024, f"memory grew by {late - early} bytes in {POLLS - 100} polls"
    lines = read(agent.paths.log_file).splitlines()[lines_before:]
    assert len(lines) <= 12, lines
    assert any("Error fetching the goal state" in line for line in lines)

    fabric.clear_faults()
    incarnation = fabric.publish()
    attempts = [poll() for _ in range(2)]
    assert any(uploaded for _, uploaded in attempts), "no status within two periods"
    assert attempts[-1] == (True, True)
    assert platform.goal_state is not None
    assert platform.goal_state.extensions.id == incarnation
    assert any("recovered from previous errors" in line for line in read(agent.paths.log_file).splitlines())
    assert fabric.violations == []
    channels.close()


def traced() -> int:
    gc.collect()  # what merely waits to be collected is no growth
    return tracemalloc.get_traced_memory()[0]


@contextlib.contextmanager
def tracing():
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def read(path: str) -> str:
    with open(path, encoding="ascii") as stream:
        return stream.read()


def test_an_agent_that_lives_through_twenty_seconds_without_a_platform(fabric, agent_root, running_agent) -> None:
    period, seconds = 1.0, 20.0
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0"))
    fabric.publish([HandlerSpec(NAME, "1.0.0", settings=[SettingsSpec({"a": 1})])])
    agent = running_agent(agent_root, fabric)
    fabric.wait_for_extension(NAME)
    processes = agent.pids()
    log = len(agent.log())
    memory = tools.resident_kib(processes["worker"])

    fabric.inject(Fault("outage"))
    cut = time.time()
    tools.wait_for(lambda: time.time() > cut + seconds, "the outage", seconds + 5)
    fabric.clear_faults()
    returned = time.time()
    tools.wait_for(lambda: tools.upload_moments(fabric)[-1] > returned, "a status after the outage")
    first = next(moment for moment in tools.upload_moments(fabric) if moment > returned)
    assert first - returned <= 2 * period + 0.5, f"the first status came {first - returned:.1f} s after the return"
    agent.wait_for_log("recovered from previous errors")

    lines = agent.log()[log:].splitlines()
    assert len(lines) <= 16, lines
    assert agent.pids() == processes, "a process was replaced"
    grown = tools.resident_kib(processes["worker"]) - memory
    assert grown < 2048, f"the worker grew by {grown} KiB"
    assert tools.word_of(fabric.status, NAME) == "success"
    assert fabric.violations == []
