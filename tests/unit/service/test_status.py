from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest

from waagent import hookimpl
from waagent.errors import ProtocolError
from waagent.platform.models import GoalStateReport, HandlerReport, StatusReport
from waagent.service.goalstates import GoalStates
from waagent.service.publicstatus import PublicStatus
from waagent.service.status import StatusDuty

from .conftest import Probe, goal_state


class Reporter:
    """A plugin whose part of the status the test sets."""

    def __init__(self) -> None:
        self.part: StatusReport | None = StatusReport()

    @hookimpl
    def report_status(self, agent: Any) -> StatusReport | None:
        return self.part


class Duty:
    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.reporter = Reporter()
        probe.use(reporter=self.reporter)
        probe.platform.goal_state = goal_state(1)
        goal_states = GoalStates(probe.agent, lambda _: None, lambda _: None)
        self.public = PublicStatus(probe.agent, goal_states)
        self.duty = StatusDuty(probe.agent, goal_states, self.public)

    def at(self, seconds: float) -> int:
        """Report *seconds* after the beginning and return how many uploads there were by then."""
        self.probe.clock.now = 1000.0 + seconds
        self.duty.report_once()
        return len(self.probe.platform.uploads)

    def copy(self) -> dict[str, Any]:
        with open(self.public.path, encoding="utf-8") as stream:
            return json.load(stream)  # type: ignore[no-any-return]


@pytest.fixture
def duty(probe: Probe) -> Duty:
    return Duty(probe)


def test_without_a_change_status_goes_out_every_thirty_seconds(duty: Duty) -> None:
    assert [duty.at(second) for second in range(0, 67, 6)] == [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3]


@pytest.mark.parametrize("year", [-366 * 86400.0, 366 * 86400.0])
def test_a_clock_that_jumps_changes_no_rhythm(
    probe: Probe, duty: Duty, monkeypatch: pytest.MonkeyPatch, year: float
) -> None:
    """The wall clock is for people; periods are the monotonic clock's (service §22 no. 7)."""
    real, jumps = time.time, [0]

    def jumping() -> float:
        jumps[0] += 1
        return real() + (year if jumps[0] % 2 else 0.0)

    monkeypatch.setattr(time, "time", jumping)
    assert [duty.at(second) for second in range(0, 67, 6)] == [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3]
    probe.platform.upload_failing = ProtocolError("no")
    for second in range(72, 3600, 6):
        duty.at(second)
    assert probe.log.count("Error reporting the status") == 3
    assert jumps[0] > 10


def test_ticks_that_come_a_little_early_change_nothing(duty: Duty) -> None:
    assert [duty.at(second) for second in (0, 5.999, 12.001, 18.0, 23.99, 29.995, 36.0, 59.98)] == [
        1, 1, 1, 1, 1, 2, 2, 3,
    ]  # fmt: skip


def test_zero_uploads_every_period(probe: Probe) -> None:
    probe.build("Status.MaxInterval=0\n")
    duty = Duty(probe)
    assert [duty.at(second) for second in (0, 6, 12)] == [1, 2, 3]


def test_a_change_goes_out_at_once_and_moments_are_no_change(duty: Duty) -> None:
    def handler(status: str) -> StatusReport:
        return StatusReport(handlers=(HandlerReport("A.B", "1.0", status),))

    duty.reporter.part = handler("Installing")
    assert duty.at(0) == 1
    duty.reporter.part = handler("Ready")
    assert duty.at(1) == 2
    duty.reporter.part = handler("Ready")
    assert duty.at(7) == 2


def test_every_period_while_a_plugin_says_that_work_runs(duty: Duty) -> None:
    duty.reporter.part = StatusReport(busy=True)
    assert [duty.at(second) for second in (0, 6, 12)] == [1, 2, 3]
    duty.reporter.part = StatusReport()
    assert duty.at(18) == 3


def test_a_failed_upload_is_tried_again_every_period_and_told_sparsely(probe: Probe, duty: Duty) -> None:
    probe.platform.upload_failing = ProtocolError("Failed to upload status blob via either channel")
    for second in range(0, 3600, 6):
        duty.at(second)
    assert probe.log.count("Error reporting the status") == 3
    assert duty.copy()["report"]["outcome"] == "failed"
    assert duty.copy()["report"]["failures"] == 600
    probe.platform.upload_failing = None
    assert duty.at(3606) == 1
    assert "works again after 600 failures" in probe.log
    assert duty.copy()["report"]["outcome"] == "uploaded"


def test_an_upload_that_the_host_did_not_take_is_made_again(probe: Probe, duty: Duty) -> None:
    """The host plugin said 410: the client refreshed the machine's name, nothing was uploaded."""
    probe.platform.taken = False
    assert duty.at(0) == 0
    probe.platform.taken = True
    assert duty.at(6) == 1


def test_the_document_names_the_machine_and_joins_the_parts(probe: Probe, duty: Duty) -> None:
    duty.reporter.part = StatusReport(
        goal_state=GoalStateReport("1", "Success", 0, "done", "2026-01-01T00:00:00Z"), features=("Extra",)
    )
    duty.duty.problems.append("something is odd")
    duty.at(0)
    document = probe.platform.uploads[0]
    assert document["guestOSInfo"]["computerName"] == os.uname().nodename
    assert "something is odd" in document["aggregateStatus"]["guestAgentStatus"]["formattedMessage"]["message"]
    keys = [feature["Key"] for feature in document["supportedFeatures"]]
    assert "FastTrack" in keys
    assert "Extra" in keys
    assert probe.platform.copies == [document]


def test_a_plugin_that_raises_costs_only_its_own_part(probe: Probe, duty: Duty) -> None:
    class Broken:
        @hookimpl
        def report_status(self, agent: Any) -> StatusReport:
            raise ValueError("no idea")

    probe.use(broken=Broken(), reporter=duty.reporter)
    duty.reporter.part = StatusReport(handlers=(HandlerReport("A.B", "1.0", "Ready"),))
    duty.at(0)
    duty.at(6)
    document = probe.platform.uploads[-1]["aggregateStatus"]
    assert [item["handlerName"] for item in document["handlerAggregateStatus"]] == ["A.B"]
    assert "plugin broken" in document["guestAgentStatus"]["formattedMessage"]["message"]


def test_nothing_is_uploaded_before_the_first_goal_state(probe: Probe, duty: Duty) -> None:
    probe.platform.goal_state = None
    assert duty.at(0) == 0
    assert duty.copy()["goal_state"] is None
    assert duty.copy()["report"]["outcome"] == "none yet"


def test_the_public_copy_is_for_everybody_and_holds_no_secret(probe: Probe, duty: Duty) -> None:
    url = "https://acct.blob.core.windows.net/c/b?sv=1&sig=CANARY"
    duty.reporter.part = StatusReport(details={"seen": url, "count": 3})
    duty.duty.problems.append(f"cannot reach {url}")
    duty.at(0)
    with open(duty.public.path, encoding="utf-8") as stream:
        text = stream.read()
    assert "CANARY" not in text
    copy = json.loads(text)
    assert os.stat(duty.public.path).st_mode & 0o777 == 0o644
    assert os.stat(os.path.dirname(duty.public.path)).st_mode & 0o777 == 0o755
    assert copy["details"]["reporter"]["count"] == 3
    assert copy["version"] == probe.agent.version
    assert copy["goal_state"]["id"] == "incarnation_1"
    assert [plugin["name"] for plugin in copy["plugins"]] == ["reporter"]
    assert copy["moments"]["last_successful_report"]


def test_details_that_are_no_json_do_not_stop_the_status(duty: Duty) -> None:
    duty.reporter.part = StatusReport(details={"odd": object()})
    assert duty.at(0) == 1
    assert "object" in duty.copy()["details"]["reporter"]["odd"]


@pytest.mark.parametrize("kind", ["directory", "symlink", "garbage"])
def test_something_in_the_place_of_the_public_copy(probe: Probe, duty: Duty, kind: str) -> None:
    path = probe.root / "run/waagent/status.json"
    path.parent.mkdir(parents=True)
    victim = probe.root / "victim"
    victim.write_text("precious")
    if kind == "directory":
        path.mkdir()
    elif kind == "symlink":
        path.symlink_to(victim)
    else:
        path.write_bytes(b"\xff" * 10)
    duty.at(0)
    assert duty.copy()["schema"] == 1
    assert victim.read_text() == "precious"


def test_bans_are_in_the_public_copy(probe: Probe, duty: Duty) -> None:
    from waagent.service.versions import Bans, Candidate

    agents = probe.root / "var/lib/waagent/agents"
    place = agents / "3.9.0.0"
    place.mkdir(parents=True)
    Bans(str(agents)).add(Candidate("3.9.0.0", str(place)), "ended 3 times", __import__("time").time())
    duty.at(0)
    (ban,) = duty.copy()["bans"]
    assert ban["version"] == "3.9.0.0"
    assert ban["file"] == str(agents / "3.9.0.0.ban.json")


def test_what_a_third_party_changes_in_what_it_handed_out_is_seen(probe: Probe, duty: Duty) -> None:
    problems = ["one"]
    details = {"seen": 1}
    duty.reporter.part = StatusReport(problems=problems, details=details)  # type: ignore[arg-type]
    assert duty.at(0) == 1
    problems.append("two")
    details["seen"] = 2
    assert duty.at(6) == 2
    assert probe.platform.uploads[-1]["aggregateStatus"]["guestAgentStatus"]["formattedMessage"]["message"].endswith(
        "one; two"
    )
    assert duty.copy()["details"]["reporter"] == {"seen": 2}


def test_an_idle_machine_collects_after_its_poll_and_waits_for_none_that_hangs(probe: Probe, duty: Duty) -> None:
    copies: list[float] = []
    write = duty.public.write

    def noting(*arguments: Any, **more: Any) -> None:
        copies.append(probe.clock.now - 1000)
        write(*arguments, **more)

    duty.public.write = noting  # type: ignore[method-assign]
    duty.duty.start()
    probe.settle()

    def second(seconds: float, poll: bool) -> None:
        probe.clock.now = 1000 + seconds
        probe.loop.turn(block=False)
        probe.settle()
        if poll:
            duty.duty.after_poll()
            probe.settle()

    second(6, poll=True)
    assert copies == [0, 6]  # and not twice
    for seconds in (12, 18, 24):
        second(seconds, poll=False)
    assert copies == [0, 6, 18, 24]
    second(26, poll=True)
    duty.reporter.part = StatusReport(busy=True)
    second(30, poll=True)
    assert copies == [0, 6, 18, 24, 26, 30]
    second(36, poll=False)
    second(42, poll=True)
    assert copies == [0, 6, 18, 24, 26, 30, 36, 42]


def test_requests_are_answered_at_once_and_thinned_out_when_they_stream(probe: Probe, duty: Duty) -> None:
    duty.duty.start()
    probe.settle()
    began = probe.clock.now
    moments = []
    seen = 0

    class Counting:
        @hookimpl
        def report_status(self, agent: Any) -> StatusReport:
            nonlocal seen
            seen += 1
            return StatusReport(problems=(str(seen),))

    probe.use(counting=Counting())
    probe.clock.now += 0.15
    for _ in range(300):
        before = seen
        duty.duty.request()
        probe.loop.turn(block=False)
        probe.settle()
        if seen != before:
            moments.append(round(probe.clock.now - began, 2))
        probe.clock.now += 0.05
    assert moments[0] == 0.15
    gaps = [b - a for a, b in zip(moments, moments[1:])]
    assert max(gaps) <= 2.1
    assert len(moments) <= 14  # of 300 requests in 15 s, the two ticks within them included


def test_a_request_right_after_a_poll_does_not_wait_for_it(probe: Probe, duty: Duty) -> None:
    """The collection after the poll that brought news is not an answer to whoever works on them."""
    duty.duty.start()
    probe.settle()
    probe.clock.now += 6
    probe.loop.turn(block=False)
    duty.duty.after_poll()
    probe.settle()
    before = len(probe.platform.uploads)
    duty.reporter.part = StatusReport(problems=("new",))
    probe.clock.now += 0.01
    duty.duty.request()
    probe.settle()
    assert len(probe.platform.uploads) == before + 1


def test_disabled_is_said_in_the_public_copy(probe: Probe, duty: Duty) -> None:
    duty.duty.write_disabled("the owner said so")
    probe.settle()
    assert duty.copy()["disabled"] == "the owner said so"
    assert probe.platform.uploads == []


@pytest.mark.parametrize("details", [{1: "a", "b": 2}, "circle", {"deep": "deep"}])
def test_details_that_are_no_json_cost_only_themselves(probe: Probe, duty: Duty, details: Any) -> None:
    if details == "circle":
        details = {}
        details["again"] = details
    elif details == {"deep": "deep"}:
        for _ in range(100_000):
            details = {"deep": details}

    class Other:
        @hookimpl
        def report_status(self, agent: Any) -> StatusReport:
            return StatusReport(details={"all": "well"})

    duty.reporter.part = StatusReport(details=details)
    probe.use(reporter=duty.reporter, other=Other())
    assert duty.at(0) == 1
    shown = duty.copy()["details"]
    assert shown["other"] == {"all": "well"}
    assert "cannot be shown" in shown["reporter"]
