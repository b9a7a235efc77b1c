"""Status uploads, health and role properties: order of channels, patience, what is sent (wireserver §17.4, §18)."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.unit.platform.memoryworld import Machine, ok, status, unreachable
from waagent.errors import HttpError, InvalidContainer, ProtocolError, ProtocolNotFound
from waagent.platform import imdsdoc
from waagent.platform.models import TelemetryEvent, TelemetryReceipt
from waagent.platform.statusblob import StorageCall


class Direct:
    """Stands for the direct channel."""

    def __init__(self, machine: Machine) -> None:
        self.calls: list[StorageCall] = []
        self.problem: ProtocolError | None = None
        machine.platform.transfers.upload = self.upload  # type: ignore[method-assign]

    def upload(self, call: StorageCall) -> None:
        if self.problem is not None:
            raise self.problem
        self.calls.append(call)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.platform.update_goal_state()
    return made


DOCUMENT: dict[str, Any] = {"version": "1.1", "note": "ä"}


def test_the_host_plugin_first(machine: Machine) -> None:
    direct = Direct(machine)
    assert machine.platform.upload_status(DOCUMENT) is True
    assert direct.calls == []
    assert len(machine.world.paths("PUT")) == 1


@pytest.mark.parametrize("answer", [status(500), status(404), status(429), unreachable()])
def test_then_directly(machine: Machine, answer: Any) -> None:
    direct = Direct(machine)
    machine.world.answer_next("PUT", answer)
    assert machine.platform.upload_status(DOCUMENT) is True
    (call,) = direct.calls
    assert call.url == "https://blob/status?sig=SECRET%2bSIGNATURE%3d"
    assert json.loads(call.body or b"") == DOCUMENT
    assert (call.body or b"").isascii()


@pytest.mark.parametrize("answer", [status(410), status(400, "InvalidContainerConfiguration")])
def test_a_stale_identity_is_refreshed_and_nothing_else_happens(machine: Machine, answer: Any) -> None:
    direct = Direct(machine)
    machine.world.answer_next("PUT", answer)
    machine.world.container = "container-2"
    asked = len(machine.world.paths("goalstate"))
    assert machine.platform.upload_status(DOCUMENT) is False
    assert direct.calls == []
    assert len(machine.world.paths("PUT")) == 1
    assert len(machine.world.paths("goalstate")) == asked + 1
    assert machine.platform.upload_status(DOCUMENT) is True
    assert machine.world.requests[-1][2]["x-ms-containerid"] == "container-2"


def test_both_channels_fail(machine: Machine) -> None:
    direct = Direct(machine)
    direct.problem = HttpError("no way out")
    machine.world.answer_next("PUT", *[status(500)] * 200)
    for _ in range(151):
        with pytest.raises(ProtocolError, match="Failed to upload status blob via either channel") as caught:
            machine.platform.upload_status(DOCUMENT)
        assert "SECRET" not in str(caught.value)
        machine.clock.now += 6
    (event,) = machine.events.named("ReportStatusExtended")
    assert event[2] == "15 min of failed status uploads"
    direct.problem = None
    machine.platform.upload_status(DOCUMENT)
    direct.problem = HttpError("no way out")
    with pytest.raises(ProtocolError):
        machine.platform.upload_status(DOCUMENT)
    assert len(machine.events.named("ReportStatusExtended")) == 1


def test_no_status_blob(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.world.has_status_blob = False
    with pytest.raises(ProtocolNotFound, match="Status upload uri is missing"):
        machine.platform.upload_status(DOCUMENT)
    machine.platform.update_goal_state()
    asked = len(machine.world.paths("extensionsConfig"))
    for _ in range(5):
        with pytest.raises(ProtocolNotFound, match="Status upload uri is missing"):
            machine.platform.upload_status(DOCUMENT)
    assert len(machine.world.paths("extensionsConfig")) == asked + 1, "everything is fetched anew once"
    machine.world.has_status_blob = True
    machine.platform.update_goal_state(force=True)
    assert machine.platform.upload_status(DOCUMENT) is True


def test_a_status_blob_that_appears_with_the_reset(machine: Machine, tmp_path: Path) -> None:
    late = Machine(tmp_path / "late")
    late.world.has_status_blob = False
    late.platform.update_goal_state()
    late.world.has_status_blob = True
    assert late.platform.upload_status(DOCUMENT) is True


def test_the_copy_for_the_history_is_written_once(machine: Machine) -> None:
    folder = Path(machine.paths.lib("history")) / machine.history[0]
    machine.platform.save_status_copy({"a": 1})
    file = folder / "waagent_status.json"
    assert json.loads(file.read_text()) == {"a": 1}
    before = file.stat().st_ino
    machine.platform.save_status_copy({"a": 1, "timestampUTC": "2026-01-01T00:00:00Z"})
    assert file.stat().st_ino == before
    machine.platform.save_status_copy({"a": 2})
    assert json.loads(file.read_text()) == {"a": 2}


def test_a_copy_that_could_not_be_written_is_tried_again(machine: Machine) -> None:
    file = Path(machine.paths.lib("history")) / machine.history[0] / "waagent_status.json"
    file.mkdir()
    machine.platform.save_status_copy({"a": 1})
    file.rmdir()
    machine.platform.save_status_copy({"a": 1})
    assert json.loads(file.read_text()) == {"a": 1}


def test_each_goal_state_of_the_history_has_a_copy(machine: Machine) -> None:
    machine.platform.save_status_copy({"a": 1})
    machine.platform.update_goal_state(force=True)
    machine.platform.save_status_copy({"a": 1})
    newest = Path(machine.paths.lib("history")) / machine.history[-1]
    assert json.loads((newest / "waagent_status.json").read_text()) == {"a": 1}


class TestHealth:
    def test_the_report(self, machine: Machine) -> None:
        machine.platform.report_health("NotReady", "ProvisioningFailed", "a < b")
        method, url, headers, body = machine.world.requests[-1]
        assert (method, url) == ("POST", "http://10.9.8.7:80/machine?comp=health")
        assert headers == {
            "x-ms-agent-name": "WALinuxAgent",
            "x-ms-version": "2012-11-30",
            "Content-Type": "text/xml;charset=utf-8",
        }
        text = (body or b"").decode()
        assert "<GoalStateIncarnation>1</GoalStateIncarnation>" in text
        assert "<InstanceId>role-1._vm</InstanceId>" in text
        assert "<Description>a &lt; b</Description>" in text

    def test_it_reads_the_goal_state_when_nobody_did(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path)
        machine.platform.report_health("Ready")
        asked = [path.rpartition("/")[2] for path in machine.world.paths()]
        assert asked == ["?comp=versions", "?comp=goalstate", "machine?comp=health"]

    def test_it_is_sent_until_it_is_taken(self, machine: Machine) -> None:
        machine.world.answer_next("comp=health", status(500), unreachable(), status(429), status(200))
        machine.platform.report_health("Ready")
        assert machine.clock.slept == [10, 10, 10]

    def test_it_is_sent_also_while_the_wire_server_wants_fewer_requests(self, machine: Machine) -> None:
        machine.world.answer_next("goalstate", status(429))
        with pytest.raises(ProtocolError):
            machine.platform.update_goal_state()
        machine.platform.report_health("Ready")
        assert machine.world.paths("comp=health")

    def test_without_a_goal_state(self, tmp_path: Path) -> None:
        machine = Machine(tmp_path)
        machine.platform.report_provisioning_health("NotReady", "ProvisioningFailed", "why")
        method, url, headers, body = machine.world.requests[-1]
        assert (method, url) == ("POST", "http://10.9.8.7:80/provisioning/health")
        assert headers == {"Content-Type": "application/json", "x-ms-guest-agent-name": "WALinuxAgent"}
        assert json.loads(body or b"")["details"] == {"subStatus": "ProvisioningFailed", "description": "why"}
        assert not machine.world.paths("goalstate")


def test_role_properties(machine: Machine) -> None:
    machine.platform.report_role_properties("AA:BB")
    method, url, _, body = machine.world.requests[-1]
    assert (method, url) == ("POST", "http://10.9.8.7:80/machine?comp=roleProperties")
    assert b'value="AA:BB"' in (body or b"")
    machine.world.answer_next("roleProperties", status(200))
    with pytest.raises(HttpError, match=r"\[Wireserver Failed\] URI http://10.9.8.7:80/machine  \[HTTP Failed\]"):
        machine.platform.report_role_properties("AA:BB")


EVENT = TelemetryEvent("69B669B9-4AF8-4C50-BDC4-6006FA76E975", 1, (("Name", "WALinuxAgent"),))


def test_telemetry_is_one_request_for_one_provider(machine: Machine) -> None:
    other = TelemetryEvent("FFF0196F-EE4C-4EAF-9AA5-776F622DEB4F", 7, ())
    assert machine.platform.telemetry.send([EVENT, EVENT, other]) == TelemetryReceipt(2)
    method, url, headers, body = machine.world.requests[-1]
    assert (method, url) == ("POST", "http://10.9.8.7:80/machine?comp=telemetrydata")
    assert headers["Content-Type"] == "text/xml;charset=utf-8"
    assert (body or b"").count(b"<Event ") == 2


def test_nothing_is_sent_when_nothing_fits(machine: Machine) -> None:
    machine.platform.update_goal_state()
    before = len(machine.world.requests)
    huge = TelemetryEvent(EVENT.provider, 1, (("Message", "x" * 70_000),))
    assert machine.platform.telemetry.send([huge]) == TelemetryReceipt(1, 1)
    assert len(machine.world.requests) == before


def test_telemetry_of_a_stale_container_is_told_from_telemetry_that_is_refused(machine: Machine) -> None:
    machine.world.answer_next("telemetrydata", status(400, "InvalidContainerConfiguration"))
    text = r"\[Wireserver Failed\] URI http://10.9.8.7:80/machine  \[HTTP Failed\] Status Code 400"
    with pytest.raises(InvalidContainer, match=text) as caught:
        machine.platform.telemetry.send([EVENT])
    assert caught.value.status == 400
    assert len(machine.world.paths("telemetrydata")) == 1


def test_requests_without_an_answer_are_counted_by_peer(machine: Machine) -> None:
    machine.platform.update_goal_state()
    machine.platform.telemetry.take_http_errors()
    machine.world.answer_next("telemetrydata", unreachable(), unreachable(), unreachable())
    with pytest.raises(HttpError):
        machine.platform.telemetry.send([EVENT])
    assert machine.platform.telemetry.take_http_errors()["protocol"] >= 1
    assert machine.platform.telemetry.take_http_errors() == {"hostplugin": 0, "protocol": 0, "other": 0}


class TestImds:
    HEALTHY = json.dumps(
        {
            "compute": {"vmId": "id"},
            "network": {"interface": [{"macAddress": "m", "ipv4": {"ipAddress": [{"privateIpAddress": "p"}]}}]},
        }
    )

    @pytest.mark.parametrize(
        ("answers", "verdict", "unhealthy"),
        [
            ([ok(HEALTHY)], imdsdoc.HEALTHY, False),
            ([ok("{}")], imdsdoc.BAD_DOCUMENT, True),
            ([ok("nonsense")], imdsdoc.BAD_DOCUMENT, True),
            ([status(410)], imdsdoc.INTERNAL_ERROR, True),
            ([status(429)], imdsdoc.CLIENT_ERROR, False),
            ([unreachable()] * 6, imdsdoc.CONNECTION_ERROR, False),
            ([status(500)] * 6, imdsdoc.INTERNAL_ERROR, True),
            ([status(503)], imdsdoc.INTERNAL_ERROR, True),
            ([status(206)] * 6, imdsdoc.INTERNAL_ERROR, True),
            ([status(404)], imdsdoc.CLIENT_ERROR, False),
        ],
    )
    def test_the_probe(self, machine: Machine, answers: list[Any], verdict: str, unhealthy: bool) -> None:
        machine.world.answer_next("169.254.169.254", *answers)
        assert machine.platform.check_imds() == verdict
        _, url, headers, _ = machine.world.requests[-1]
        assert url == "http://169.254.169.254:80/metadata/instance?api-version=2018-02-01"
        assert headers == {"Metadata": "true", "User-Agent": "WALinuxAgent/3.0.0.0+health"}
        for _ in range(4):
            machine.clock.now += 60
            machine.world.answer_next("169.254.169.254", *answers)
            machine.platform.check_imds()
        assert bool(machine.events.named("HealthObservation")) is unhealthy

    def test_compute(self, machine: Machine) -> None:
        machine.world.answer_next("instance/compute", ok('{"vmId": "id"}'))
        assert machine.platform.imds_compute() == {"vmId": "id"}
        assert machine.world.requests[-1][2] == {"Metadata": "true"}

    @pytest.mark.parametrize("answers", [[unreachable()] * 6, [status(404)], [ok("no json")], [ok("[]")]])
    def test_its_absence_stops_nothing(self, machine: Machine, answers: list[Any]) -> None:
        machine.world.answer_next("instance/compute", *answers)
        assert machine.platform.imds_compute() is None

    def test_the_newest_form_and_the_older_one(self, machine: Machine) -> None:
        machine.world.answer_next("api-version=2021-08-01&extended=true", status(400))
        machine.world.answer_next("api-version=2019-06-01", ok('{"compute": {}}'))
        assert machine.platform.imds.instance() == {"compute": {}}
        machine.world.answer_next("api-version=2021-08-01", status(404, "nothing"))
        with pytest.raises(HttpError, match=r"IMDS error in /metadata/instance: .*nothing"):
            machine.platform.imds.instance()


def test_on_hold_of_fast_track_needs_no_request(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.platform.fetch_on_hold() is False
    machine.world.serve_vm_settings(639_000_000_000_000_000)
    assert machine.world.vm is not None
    machine.world.vm["onHold"] = True
    machine.platform.update_goal_state()
    seen = len(machine.world.requests)
    assert machine.platform.fetch_on_hold() is True
    assert len(machine.world.requests) == seen


def test_lanes_may_ask_at_once(machine: Machine) -> None:
    """Many threads update, upload and report; the goal state that each sees is a whole one."""
    problems: list[BaseException] = []
    start = threading.Barrier(6)

    def lane(number: int) -> None:
        try:
            start.wait(5)
            for turn in range(40):
                if number == 0:
                    machine.world.incarnation = str(turn)
                if number < 3:
                    machine.platform.update_goal_state(force=number == 1)
                else:
                    machine.platform.upload_status(DOCUMENT)
                state = machine.platform.goal_state
                assert state is not None
                assert state.extensions.id == f"incarnation_{state.incarnation}"
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=lane, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    assert machine.platform.update_goal_state() is False
