"""The host plugin: initialisation, health signals, log upload, vmSettings bookkeeping (wireserver §14)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.platform.memoryworld import TICKS, Clock, Events, Machine, ok, status, unreachable
from waagent.errors import HttpError, ProtocolError, Throttled
from waagent.platform import observations
from waagent.platform.channel import Answer
from waagent.platform.observations import Observations
from waagent.platform.statusblob import StorageCall


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.platform.update_goal_state()
    del made.world.requests[:]
    return made


def observed(machine: Machine) -> list[dict[str, object]]:
    """The observations that the HealthService got."""
    found: list[dict[str, object]] = []
    for method, url, headers, body in machine.world.requests:
        if url.endswith("/HealthService"):
            assert (method, headers["Content-Type"]) == ("POST", "application/json")
            found.extend(json.loads(body or b"")["Observations"])
    return found


def test_it_is_asked_for_its_versions_once(machine: Machine) -> None:
    for _ in range(3):
        machine.platform.upload_status({})
    assert len(machine.world.paths("/versions")) == 1


@pytest.mark.parametrize("answer", ["[]", '["2014-01-01"]', '{"a": 1}'])
def test_another_version_is_not_available_and_asked_again(machine: Machine, answer: str) -> None:
    machine.world.answer_next("/versions", ok(answer))
    with pytest.raises(ProtocolError, match="channel is not available"):
        machine.platform.host.ensure_initialised()
    machine.platform.host.ensure_initialised()
    assert len(machine.world.paths("/versions")) == 2


@pytest.mark.parametrize(
    ("answer", "healthy"),
    [
        (ok('["2015-09-01"]'), True),
        (status(404), True),
        (status(502), True),
        (status(500), False),
        (status(503), False),
        (unreachable(), False),
    ],
)
def test_the_outcome_of_versions_is_reported(machine: Machine, answer: object, healthy: bool) -> None:
    machine.world.answer_next("/versions", answer)  # type: ignore[arg-type]
    machine.platform.report_host_health()
    reported = {item["ObservationName"]: item["IsHealthy"] for item in observed(machine)}
    assert reported["GuestAgentPluginVersions"] is healthy


class TestHeartbeat:
    def test_healthy(self, machine: Machine) -> None:
        machine.platform.report_host_health()
        assert observed(machine)[-1] == {
            "ObservationName": "GuestAgentPluginHeartbeat",
            "IsHealthy": True,
            "Description": "",
            "Value": "",
        }

    def test_unhealthy_after_five_minutes(self, machine: Machine) -> None:
        machine.platform.report_host_health()
        machine.world.answer_next("/health", *[status(500)] * 8)
        bits = []
        for _ in range(9):
            machine.clock.now += 60
            del machine.world.requests[:]
            machine.platform.report_host_health()
            bits.append(observed(machine)[-1]["IsHealthy"])
        assert bits == [True] * 5 + [False] * 3 + [True]
        assert [message for _, _, message in machine.events.named("HostPluginHeartbeatExtended")] == [
            "5 min since successful heartbeat",
            "6 min since successful heartbeat",
            "7 min since successful heartbeat",
        ]
        assert len(machine.events.named("HealthObservation")) == 3

    def test_a_throttled_host_plugin_lives(self, machine: Machine) -> None:
        machine.platform.host.ensure_initialised()
        machine.world.answer_next("/health", *[status(429)] * 20)
        for _ in range(10):
            machine.clock.now += 60
            machine.platform.report_host_health()
        assert not machine.events.named("HostPluginHeartbeatExtended")

    def test_it_never_raises_and_the_queue_is_not_kept(self, machine: Machine) -> None:
        machine.world.down = True
        machine.platform.report_host_health()
        machine.world.down = False
        del machine.world.requests[:]
        machine.platform.report_host_health()
        assert len(observed(machine)) == 3

    def test_all_that_was_observed_goes_in_one_request(self, machine: Machine) -> None:
        machine.platform.upload_status({})
        del machine.world.requests[:]
        machine.platform.report_host_health()
        assert [url.partition("?")[0].rpartition("/")[2] for _, url, _, _ in machine.world.requests] == [
            "instance",
            "health",
            "HealthService",
        ]
        reported = {item["ObservationName"]: item["IsHealthy"] for item in observed(machine)}
        assert reported == {
            "GuestAgentPluginVersions": True,
            "GuestAgentPluginStatus": True,
            "GuestAgentPluginHeartbeat": True,
            "InstanceMetadataHeartbeat": True,
        }


class TestSignals:
    def test_status_results_are_reported_once_a_minute(self, machine: Machine) -> None:
        for _ in range(30):
            machine.platform.upload_status({})
            machine.clock.now += 6
        machine.platform.report_host_health()
        names = [item["ObservationName"] for item in observed(machine)]
        assert names.count("GuestAgentPluginStatus") == 3

    @pytest.mark.parametrize(
        ("problem", "unhealthy"),
        [
            (HttpError("x", 500), True),
            (HttpError("x", 502), False),
            (HttpError("x", 404), False),
            (Throttled("x", 503), True),
            (Throttled("our own pause"), False),
            (unreachable(), True),
        ],
    )
    def test_what_counts_as_unhealthy(self, machine: Machine, problem: HttpError, unhealthy: bool) -> None:
        for _ in range(7):
            machine.platform.host.note(observations.ARTIFACT, problem)
            machine.clock.now += 60
        assert bool(machine.events.named("HealthObservation")) is unhealthy

    def test_at_most_ten_are_kept(self) -> None:
        clock, events = Clock(), Events()
        queue = Observations(events, clock)
        for number in range(25):
            queue.note(observations.VERSIONS, False, f"number {number}")
        document = queue.take()
        assert document is not None
        kept = json.loads(document)["Observations"]
        assert [item["Description"] for item in kept] == [f"number {number}" for number in range(15, 25)]
        assert queue.take() is None


class TestErrorsOfVmSettings:
    def test_three_events_an_hour_and_a_summary(self, machine: Machine) -> None:
        machine.clock.now += 7 * 3600
        answers: list[Answer | Exception] = [
            status(500),
            status(400),
            unreachable("timeout"),
            unreachable(),
            status(500),
        ]
        machine.world.answer_next("vmSettings", *answers)
        for _ in answers:
            with pytest.raises(ProtocolError):
                machine.platform.update_goal_state()
        assert len(machine.events.named("VmSettings")) == 3
        machine.clock.now += 3600
        machine.platform.update_goal_state()
        summary = json.loads(machine.events.named("VmSettingsSummary")[-1][2])
        assert summary == {
            "requests": 5,
            "errors": 5,
            "serverErrors": 2,
            "clientErrors": 1,
            "timeouts": 1,
            "failedRequests": 1,
        }
        assert machine.sinks.having("VmSettingsSummary")

    def test_an_hour_without_errors_is_not_logged(self, machine: Machine) -> None:
        machine.world.serve_vm_settings(TICKS)
        machine.clock.now += 7 * 3600
        for _ in range(3):
            machine.platform.update_goal_state()
            machine.clock.now += 1800
        assert machine.events.named("VmSettingsSummary")[-1][1] is True
        assert not machine.sinks.having("VmSettingsSummary")


class TestFastTrackFile:
    @pytest.mark.parametrize("content", ["", "nonsense", "[]", '{"timestamp": 3}', '{"timestamp": "yesterday"}'])
    def test_an_unreadable_time_counts_as_now(self, tmp_path: Path, content: str) -> None:
        state = tmp_path / "var/lib/waagent"
        state.mkdir(parents=True)
        (state / "fast_track.json").write_text(content)
        machine = Machine(tmp_path)
        assert machine.platform.supports_fast_track
        machine.platform.update_goal_state()
        assert machine.platform.goal_state is not None
        assert machine.platform.goal_state.extensions.outdated, "vmSettings answered 404: support stopped"
        assert [line for level, line in machine.sinks.lines if level == 2 and "fast_track" in line]


def test_logs_are_uploaded(machine: Machine) -> None:
    machine.platform.upload_logs(b"PK zip")
    method, url, headers, body = machine.world.requests[-1]
    assert (method, url.rpartition("/")[2], body) == ("PUT", "vmAgentLog", b"PK zip")
    assert headers["x-ms-containerid"] == "container-1"
    assert headers["x-ms-vmagentlog-deploymentid"] == "deployment-1"
    assert (headers["x-ms-client-name"], headers["x-ms-client-version"]) == ("WALinuxAgent", "3.0.0.0")
    assert len(headers["x-ms-client-correlationid"]) == 36
    machine.world.answer_next("vmAgentLog", status(404, "no"))
    with pytest.raises(HttpError, match=r"HostGAPlugin: Upload VM logs failed: .*404"):
        machine.platform.upload_logs(b"PK zip")


def test_the_status_request_body_is_the_platforms(machine: Machine) -> None:
    call = StorageCall("https://blob/s?sig=X", (("x-ms-blob-type", "BlockBlob"), ("Content-Length", "2")), b"{}")
    machine.platform.host.put_status(call)
    method, url, headers, body = machine.world.requests[-1]
    assert (method, url.rpartition(":")[2]) == ("PUT", "32526/status")
    assert headers == {
        "x-ms-version": "2015-09-01",
        "Content-type": "application/json",
        "x-ms-containerid": "container-1",
        "x-ms-host-config-name": "deployment-1.rest",
    }
    assert json.loads(body or b"") == {
        "content": "e30=",
        "headers": [
            {"headerName": "x-ms-blob-type", "headerValue": "BlockBlob"},
            {"headerName": "Content-Length", "headerValue": "2"},
        ],
        "requestUri": "https://blob/s?sig=X",
    }


def test_behind_the_guest_proxy_agent_a_large_status_does_not_go_through_the_host(machine: Machine) -> None:
    large = StorageCall("https://blob/s?sig=X", (), b"x" * 100_000)
    machine.platform.host.put_status(large)
    machine.world.answer_next("PUT", ok(**{"x-ms-azure-host-authorization": "v"}))
    machine.platform.host.put_status(large)
    with pytest.raises(ProtocolError, match="guest proxy agent"):
        machine.platform.host.put_status(large)
    machine.platform.host.put_status(StorageCall("https://blob/s?sig=X", (), b"x" * 1000))
