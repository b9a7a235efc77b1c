"""What the platform hears, whatever it answers (provisioning §11, §15; ruling 27)."""

from __future__ import annotations

import pytest

from tests.unit.provisioning.bench import Bench
from waagent import ProtocolError
from waagent_provisioning.reporter import Reporter


class Time:
    def __init__(self) -> None:
        self.now = 0.0
        self.stopping = False

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> bool:
        self.now += seconds
        return self.stopping


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def reporter(bench: Bench, time: Time) -> Reporter:
    return Reporter(bench.agent, time.clock, time.sleep)


def test_what_is_owed_is_said_once(bench: Bench, reporter: Reporter) -> None:
    reporter.owed.owe("Ready")
    reporter.settle()
    reporter.settle()
    assert bench.listener.said == [("Ready", "", "")]
    assert reporter.owed.report is None


def test_the_first_word_comes_before_the_last(bench: Bench, reporter: Reporter) -> None:
    reporter.begin()
    reporter.owed.owe("NotReady", "ProvisioningFailed", "why")
    reporter.settle()
    assert bench.listener.said == [("NotReady", "Provisioning", "Starting"), ("NotReady", "ProvisioningFailed", "why")]


def test_a_refused_report_is_tried_again(bench: Bench, reporter: Reporter, time: Time) -> None:
    bench.listener.refusing = ["one", "two", "three"]
    reporter.owed.owe("Ready")
    reporter.settle()
    assert bench.listener.said == [("Ready", "", "")]
    assert time.now == 3.0


def test_what_is_not_accepted_stays_owed_for_the_worker(bench: Bench, reporter: Reporter, time: Time) -> None:
    bench.listener.endpoint = None
    bench.listener.unreadable = True
    reporter.owed.owe("Ready")
    with pytest.raises(ProtocolError):
        reporter.settle()
    assert 280 <= time.now <= 300
    assert reporter.owed.report == {"state": "Ready", "substatus": "", "description": ""}
    bench.listener.unreadable = False
    Reporter(bench.start()).settle()
    assert bench.listener.said == [("Ready", "", "")]


def test_without_a_goal_state_the_report_goes_the_way_that_needs_none(
    bench: Bench, reporter: Reporter, time: Time
) -> None:
    bench.listener.unreadable = True
    reporter.owed.owe("NotReady", "ProvisioningFailed", "why")
    reporter.settle()
    assert bench.listener.without_goal_state == [("NotReady", "ProvisioningFailed", "why")]
    assert time.now == pytest.approx(60, abs=10)
    assert reporter.owed.report is None


def test_a_stop_of_the_service_ends_the_tries(bench: Bench, reporter: Reporter, time: Time) -> None:
    bench.listener.refusing = ["no"] * 1000
    time.stopping = True
    reporter.owed.owe("Ready")
    with pytest.raises(ProtocolError):
        reporter.settle()
    assert time.now == 1.0
    assert reporter.owed.report is not None
