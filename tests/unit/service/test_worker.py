"""Parts of the worker that a real process shows only after minutes, or after a suspend."""

from __future__ import annotations

import os
import threading

import pytest

from waagent.service import hangs
from waagent.service import worker as worker_module
from waagent.service.start import Options
from waagent.service.worker import Worker

from .conftest import Probe


class Ended(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def worker(probe: Probe, monkeypatch: pytest.MonkeyPatch) -> Worker:
    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(worker_module, "Loop", lambda log: probe.loop)
    monkeypatch.setattr(os, "_exit", end)
    return Worker(probe.agent, Options())


@pytest.mark.parametrize("lane", ["platform", "status"])
def test_a_lane_stuck_for_five_minutes_ends_the_worker_with_its_stacks(probe: Probe, worker: Worker, lane: str) -> None:
    release = threading.Event()

    def stuck_in_here() -> None:
        release.wait(60)

    probe.agent.lane(lane).submit(stuck_in_here, name="the poll", deadline=120.0)
    probe.turn_until(lambda: probe.agent.lane(lane).busy, "the task runs")
    try:
        probe.clock.now += 120 + 299
        hangs.look_at_lanes(probe.agent)
        probe.clock.now += 2
        with pytest.raises(Ended) as ended:
            hangs.look_at_lanes(probe.agent)
    finally:
        release.set()
    assert ended.value.args[0] != 0
    assert f"Lane {lane} is stuck in the poll" in probe.log
    assert "stuck_in_here" in probe.log


def test_other_lanes_may_take_their_time(probe: Probe, worker: Worker) -> None:
    release = threading.Event()
    probe.agent.lane("extensions").submit(lambda: release.wait(60), name="long work", deadline=1.0)
    probe.turn_until(lambda: probe.agent.lane("extensions").busy, "the task runs")
    probe.clock.now += 10_000
    hangs.look_at_lanes(probe.agent)
    assert probe.agent.lane("extensions").busy
    assert "stuck" not in probe.log
    release.set()


def test_a_resume_fetches_everything_anew(probe: Probe, worker: Worker) -> None:
    probe.use()
    worker._begin_duties()
    worker._started = worker._boot_over = True
    worker._resumed(3600.0)
    probe.settle()
    assert probe.platform.polls == [True]
    assert "The machine was suspended for 3600 s" in probe.log


def test_a_worker_that_died_of_an_error_is_told_of_by_the_next(probe: Probe, worker: Worker) -> None:
    path = probe.root / "var/lib/waagent/current_version"
    path.parent.mkdir(parents=True)
    path.write_text("[WALinuxAgent-3.0.0.0] [no more memory]\n")
    seen = []
    probe.agent.events.subscribe(lambda event: seen.append((event.operation, event.success)))
    worker._report_unclean_end()
    assert "Agent did not terminate cleanly: [WALinuxAgent-3.0.0.0] [no more memory]" in probe.log
    assert ("Restart", False) in seen
    assert not path.exists()


def test_state_that_the_disk_refused_is_offered_again(probe: Probe, worker: Worker) -> None:
    place = probe.root / "var/lib/waagent"
    place.mkdir(parents=True)
    (place / "state").write_text("in the way")
    probe.agent.state.save("seen", 1)
    (place / "state").unlink()
    worker._retry_state()
    probe.settle()
    assert (place / "state/seen.json").exists()
