from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from waagent import hookimpl
from waagent.loop import Loop
from waagent.records import Option, Periodic
from waagent.service import boot_problems, disabled, keyhelper, notices
from waagent.service.duties import Duties
from waagent.service.heartbeat import Heartbeat, watch_boot
from waagent.service.resume import ResumeWatch, slept_clock
from waagent.service.troubles import Troubles

from .conftest import Probe


class Pipe:
    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)

    def read(self) -> bytes:
        try:
            return os.read(self.reader, 4096)
        except BlockingIOError:
            return b""


def test_the_heartbeat_beats_by_its_period_and_shows_status(probe: Probe) -> None:
    pipe, broken = Pipe(), []
    heart = Heartbeat(probe.loop, pipe.writer, lambda: broken.append(1))
    heart.start()
    assert pipe.read() == b".\n"
    probe.clock.now += 10
    probe.loop.turn(block=False)
    heart.say("wörking\non it")
    heart.say("wörking\non it")
    heart.hand_over()
    assert pipe.read() == b".\n=w?rking on it\n+\n"
    assert broken == []


def test_a_broken_pipe_is_noticed_without_writing(probe: Probe) -> None:
    pipe, broken = Pipe(), []
    Heartbeat(probe.loop, pipe.writer, lambda: broken.append(1)).start()
    probe.loop.turn(block=False)
    assert broken == []
    os.close(pipe.reader)
    probe.loop.turn(block=False)
    assert broken == [1]
    probe.clock.now += 100
    probe.loop.turn(block=False)
    assert broken == [1]


def test_a_full_pipe_blocks_nobody(probe: Probe) -> None:
    pipe = Pipe()
    heart = Heartbeat(probe.loop, pipe.writer, lambda: pytest.fail("it is not broken"))
    heart.start()
    for number in range(40000):
        heart.say(f"line {number}")
    heart.beat()


def test_boot_is_over_at_the_end_of_the_pipe_never_for_bytes(probe: Probe) -> None:
    pipe, over = Pipe(), []
    watch_boot(probe.loop, pipe.reader, lambda: over.append(1))
    os.write(pipe.writer, b"d")
    probe.loop.turn(block=False)
    assert over == []
    os.close(pipe.writer)
    probe.loop.turn(block=False)
    assert over == [1]


def test_without_a_pipe_boot_is_over(probe: Probe) -> None:
    over: list[int] = []
    watch_boot(probe.loop, None, lambda: over.append(1))
    probe.loop.turn(block=False)
    assert over == [1]


def test_three_lines_then_one_in_six_hours(probe: Probe) -> None:
    troubles = Troubles(probe.agent.log, "Error doing it", "Doing it is still failing", probe.clock)
    told = 0
    for _ in range(6 * 600 + 3):  # six hours of one failure each six seconds
        told += troubles.failed("no")
        probe.clock.now += 6
    assert told == 4
    assert probe.log.count("Error doing it: no") == 3
    assert probe.log.count("Doing it is still failing: no") == 1
    assert troubles.succeeded() == 6 * 600 + 3
    assert troubles.succeeded() == 0


def test_a_marker_disables_the_agent(probe: Probe) -> None:
    assert disabled.reason(probe.agent) is None
    marker = probe.root / "var/lib/waagent/disable_agent"
    marker.parent.mkdir(parents=True)
    marker.touch()
    reason = disabled.reason(probe.agent)
    assert reason is not None
    assert str(marker) in reason
    assert "allowExtensionOperations" in reason


@pytest.mark.parametrize(
    ("text", "off"),
    [
        ("<wa:ProvisionGuestAgent>false</wa:ProvisionGuestAgent>", True),
        ("<ns1:ProvisionGuestAgent> FALSE </ns1:ProvisionGuestAgent>", True),
        ('<ProvisionGuestAgent xmlns="x">False</ProvisionGuestAgent>', True),
        ("<wa:ProvisionGuestAgent>true</wa:ProvisionGuestAgent>", False),
        ("<wa:ProvisionGuestAgent>junk</wa:ProvisionGuestAgent>", False),
        ("<wa:ProvisionGuestAgent/>", False),
        ("no xml at all", False),
        ("", False),
    ],
)
def test_the_provisioning_document_can_disable_the_agent(probe: Probe, text: str, off: bool) -> None:
    place = probe.root / "var/lib/waagent"
    place.mkdir(parents=True)
    (place / "ovf-env.xml").write_text(f"<Environment>{text}</Environment>")
    assert (disabled.reason(probe.agent) is not None) is off
    assert (place / "disable_agent").exists() is off


def test_an_owner_can_enable_the_agent_again_by_removing_the_marker(probe: Probe) -> None:
    place = probe.root / "var/lib/waagent"
    place.mkdir(parents=True)
    (place / "ovf-env.xml").write_text("<ProvisionGuestAgent>false</ProvisionGuestAgent>")
    assert disabled.reason(probe.agent)
    (place / "disable_agent").unlink()
    assert disabled.reason(probe.agent) is None
    (place / "ovf-env.xml").write_text("<ProvisionGuestAgent>false</ProvisionGuestAgent><!-- a new one -->")
    os.utime(place / "ovf-env.xml", ns=(1, 1))
    assert disabled.reason(probe.agent)


def test_a_suspend_is_seen_once() -> None:
    slept, seen = [0.0], []
    watch = ResumeWatch(seen.append, lambda: slept[0])
    for total in (0.001, 9.0, 3600.0, 3600.0, 3609.0, 3700.0):
        slept[0] = total
        watch.look()
    assert seen == [3591.0, 91.0]


@pytest.mark.skipif(not hasattr(__import__("time"), "CLOCK_BOOTTIME"), reason="this system counts no suspends")
def test_the_clock_of_suspends_stands_still_while_awake() -> None:
    clock = slept_clock()
    assert clock is not None
    assert abs(clock() - clock()) < 0.1


def test_settings_worth_knowing_are_reported_between_stars(probe: Probe) -> None:
    assert notices.configuration_changes(probe.agent) == []
    probe.build(
        "Extensions.GoalStatePeriod=2\nExtensions.Enabled=n\nAutoUpdate.Enabled=y\n"
        "AutoUpdate.UpdateToLatestVersion=n\nAutoupdate.Frequency=60\nDebug.EnableFastTrack=n\n"
    )
    seen: list[str] = []
    probe.agent.events.subscribe(lambda event: seen.append(event.operation))
    notices.report_configuration(probe.agent)
    path = probe.root / "etc/waagent.conf"
    for text in (
        f"Extensions.GoalStatePeriod is 2; usual is 6 ({path}:1)",
        f"Extensions.Enabled is off ({path}:2)",
        f"AutoUpdate.UpdateToLatestVersion is off ({path}:4)",
        "AutoUpdate.UpdateToLatestVersion is off and AutoUpdate.Enabled is on: the first one counts",
        f"Autoupdate.Frequency is 60; usual is 3600 ({path}:5)",
        f"Debug.EnableFastTrack is off ({path}:6)",
    ):
        assert f"******** {text} ********" in probe.log
    assert set(seen) == {"ConfigurationChange"}


def test_another_lib_dir_is_reported(probe: Probe) -> None:
    probe.build("Lib.Dir=/srv/agent\n")
    assert notices.configuration_changes(probe.agent) == [
        f"Lib.Dir is {probe.root}/srv/agent; usual is /var/lib/waagent"
    ]


def test_the_half_hourly_line(probe: Probe) -> None:
    report = notices.HalfHourly(probe.agent)
    report.report(0)
    report.report(7)
    assert (
        "[HEARTBEAT] Agent WALinuxAgent-3.0.0.0 is running as the goal state agent [DEBUG HeartbeatCounter: 0;"
        in probe.log
    )
    assert "HeartbeatCounter: 1;" in probe.log
    assert "UpdateGSErrors: 7;" in probe.log


class Ticking:
    """A plugin with duties."""

    def __init__(self, period: float | str) -> None:
        self.period = period
        self.runs = 0

    @hookimpl
    def declare_options(self) -> list[Option]:
        return [Option("Ticking.Every", "int", 24, "seconds")]

    @hookimpl
    def declare_periodic(self, agent: Any) -> list[Periodic]:
        return [Periodic("tick", self.period, self.tick)]

    def tick(self, agent: Any) -> None:
        self.runs += 1


@pytest.mark.parametrize(
    ("period", "seconds"), [(5, 5.0), ("Ticking.Every", 24.0), ("Nobody.Knows", 300.0), (0, 300.0)]
)
def test_duties_run_again_one_period_after_they_returned(probe: Probe, period: float | str, seconds: float) -> None:
    plugin = Ticking(period)
    probe.use(ticking=plugin)
    Duties(probe.agent).start(probe.agent.hooks.declare_periodic(probe.agent))
    for expected, wait in ((0, 0.0), (1, 0.3), (1, seconds - 0.5), (2, 0.6), (3, seconds + 0.1)):
        probe.clock.now += wait
        probe.loop.turn(block=False)
        probe.settle()
        assert plugin.runs == expected


def test_duties_end_with_the_worker(probe: Probe) -> None:
    plugin = Ticking(5)
    probe.use(ticking=plugin)
    Duties(probe.agent).start(probe.agent.hooks.declare_periodic(probe.agent))
    probe.agent.stopping.set()
    probe.clock.now += 10
    probe.loop.turn(block=False)
    probe.settle()
    assert plugin.runs == 0


def test_boot_problems(probe: Probe) -> None:
    assert boot_problems.read(probe.agent) == []
    path = probe.root / "run/waagent/boot.json"
    path.parent.mkdir(parents=True)
    path.write_text(
        '{"schema":1,"plans":[{"plan":"a","plugin":"p","ok":true,"error":""},'
        '{"plan":"b","plugin":"q","ok":false,"error":"no disk"}]}'
    )
    assert boot_problems.read(probe.agent) == ["boot: b of plugin q: no disk"]
    path.write_text("{")
    (line,) = boot_problems.read(probe.agent)
    assert str(path) in line


def test_the_machines_identity(tmp_path: Path) -> None:
    path = tmp_path / "product_uuid"
    assert keyhelper.vm_id(str(path)) is None
    path.write_text("0ad97372-00c8-43d9-8361-0213fbbee4a2\n")
    assert keyhelper.vm_id(str(path)) == "0AD97372-00C8-43D9-8361-0213FBBEE4A2"


def test_events_reach_sinks_and_failures_the_log(probe: Probe) -> None:
    seen = []

    def broken(event: object) -> None:
        raise ValueError("sink")

    probe.agent.events.subscribe(broken)
    probe.agent.events.subscribe(seen.append)
    probe.agent.events.add("Install", name="A.B", success=False, message="no room", duration_ms=12, version="1.0")
    probe.agent.events.add("Enable", message="fine")
    assert [(event.operation, event.name, event.success, event.version) for event in seen] == [
        ("Install", "A.B", False, "1.0"),
        ("Enable", "WALinuxAgent", True, "3.0.0.0"),
    ]
    assert "ERROR" in probe.log
    assert "Event: name=A.B, op=Install, message=no room, duration=12" in probe.log
    assert "fine" not in probe.log


def test_a_light_agent_has_no_lanes(tmp_path: Path) -> None:
    from waagent.agent import make_agent

    agent = make_agent("cli", str(tmp_path), plugins=False)
    with pytest.raises(RuntimeError, match="no lanes in role cli"):
        agent.lane("x")
    with pytest.raises(RuntimeError, match="not loaded"):
        agent.hooks  # noqa: B018
    done: list[int] = []
    agent.call_soon(lambda: done.append(1))
    agent.request_status()
    assert done == [1]
    assert not (tmp_path / "var").exists()
    assert isinstance(Loop(agent.log), Loop)
