from __future__ import annotations

import pytest

from waagent.errors import ProtocolError, Throttled
from waagent.platform.models import GoalState
from waagent.service.goalstates import GoalStates

from .conftest import Probe, goal_state


class Duty:
    def __init__(self, probe: Probe) -> None:
        self.acted: list[GoalState] = []
        self.polled: list[bool] = []
        self.duty = GoalStates(probe.agent, self.acted.append, self.polled.append)

    @property
    def ids(self) -> list[str]:
        return [one.extensions.id for one in self.acted]


@pytest.fixture
def duty(probe: Probe) -> Duty:
    probe.platform.next = goal_state(1)
    return Duty(probe)


def poll(probe: Probe, duty: Duty, **options: bool) -> None:
    duty.duty.poll(**options)
    probe.settle()


def test_the_period_follows_the_configuration(probe: Probe) -> None:
    marker = probe.root / "var/lib/waagent/initial_goal_state"
    marker.parent.mkdir(parents=True)
    probe.build("Extensions.GoalStatePeriod=6\nExtensions.InitialGoalStatePeriod=2\n")
    assert Duty(probe).duty.period() == 2
    marker.touch()
    assert Duty(probe).duty.period() == 6
    probe.build("Extensions.GoalStatePeriod=9\n")
    marker.unlink()
    assert Duty(probe).duty.period() == 9
    probe.build("Extensions.Enabled=n\n")
    assert Duty(probe).duty.period() == 300


def test_one_poll_per_period_through_an_outage(probe: Probe, duty: Duty) -> None:
    """No growth: the first poll after the platform's return is at most one period late."""
    probe.platform.failing = ProtocolError("nobody answers")
    duty.duty.start()
    probe.settle()
    for _ in range(100):
        probe.clock.now += 6
        probe.loop.wake()
        probe.loop.turn(block=False)
        probe.settle()
    assert len(probe.platform.polls) == 101
    assert duty.duty.failures == 101
    probe.platform.failing = None
    probe.clock.now += 6
    probe.loop.turn(block=False)
    probe.settle()
    assert duty.duty.failures == 0
    assert duty.polled[-1]
    assert duty.duty.failed_polls == 101
    assert "Goal State Period: 6 sec." in probe.log
    # The client tells of failures; this duty adds nothing, and neither does the lane.
    assert "nobody answers" not in probe.log


def test_whoever_waits_for_the_end_of_a_poll_sees_what_came_of_it(probe: Probe) -> None:
    """And a poll that finds all as it was does not even wake the loop."""
    probe.platform.next = goal_state(1)
    ends: list[int] = []
    turns: list[bool] = []
    duty = GoalStates(probe.agent, lambda _: None, turns.append, lambda: ends.append(duty.failures))
    duty.act_from_now()
    for problem in (None, None, ProtocolError("out"), ProtocolError("out"), None, None):
        probe.platform.failing = problem
        duty.poll()
        probe.settle()
    assert ends == [0, 0, 1, 2, 0, 0]
    assert turns == [True, False, False, True]
    assert duty.last_success is not None
    probe.platform.next = goal_state(2)
    duty.poll()
    probe.settle()
    assert turns[4:] == [True]


def test_a_fault_of_our_own_is_told_once_an_hour(probe: Probe, duty: Duty) -> None:
    probe.platform.failing = RuntimeError("a bug")
    for _ in range(5):
        poll(probe, duty)
    assert probe.log.count("RuntimeError: a bug") == 1


def test_goal_states_are_handed_on_once_and_after_the_start(probe: Probe, duty: Duty) -> None:
    poll(probe, duty)
    assert duty.ids == []
    duty.duty.act_from_now()
    assert duty.ids == []  # it may lack what was held back during boot
    poll(probe, duty)
    assert duty.ids == ["incarnation_1"]
    poll(probe, duty)
    probe.platform.next = goal_state(2)
    poll(probe, duty)
    poll(probe, duty)
    assert duty.ids == ["incarnation_1", "incarnation_2"]


def test_a_new_incarnation_with_the_same_extensions_is_no_news(probe: Probe, duty: Duty) -> None:
    """A rotated tenant certificate changes the incarnation, not the work (wireserver §15.2)."""
    duty.duty.act_from_now()
    probe.platform.next = goal_state(1, id="etag_7")
    poll(probe, duty)
    probe.platform.next = goal_state(2, id="etag_7")
    poll(probe, duty)
    assert duty.ids == ["etag_7"]


def test_an_outdated_goal_state_is_not_acted_on(probe: Probe, duty: Duty) -> None:
    duty.duty.act_from_now()
    probe.platform.next = goal_state(3, outdated=True)
    poll(probe, duty)
    assert duty.ids == []
    probe.platform.next = goal_state(4)
    poll(probe, duty)
    assert duty.ids == ["incarnation_4"]


def test_a_forced_poll_stays_forced_until_it_works(probe: Probe, duty: Duty) -> None:
    probe.platform.failing = Throttled("later", 429, 5.0)
    poll(probe, duty, force=True)
    probe.platform.failing = None
    poll(probe, duty)
    poll(probe, duty)
    assert probe.platform.polls == [True, True, False]


def test_stop_ends_the_polls(probe: Probe, duty: Duty) -> None:
    duty.duty.start()
    probe.settle()
    duty.duty.stop()
    probe.clock.now += 60
    probe.loop.turn(block=False)
    probe.settle()
    assert len(probe.platform.polls) == 1


def test_the_history_is_tidied_once_per_goal_state_and_some_time_after_it(probe: Probe, duty: Duty) -> None:
    duty.duty.act_from_now()
    poll(probe, duty)
    probe.settle()
    assert (duty.ids, probe.platform.tidied) == (["incarnation_1"], 0)
    for _ in range(3):
        probe.clock.now += 11
        probe.loop.turn(block=False)
        probe.settle()
    assert probe.platform.tidied == 1
