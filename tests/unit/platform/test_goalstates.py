"""The update of the goal state over both channels, against a platform in memory (wireserver §15, §25)."""

from __future__ import annotations

import gc
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from tests.unit.platform.memoryworld import TICKS, Machine, status, unreachable
from waagent.errors import (
    CryptError,
    ExtensionsConfigError,
    HttpError,
    ProtocolError,
    ProtocolNotFound,
    ResourceGone,
    Throttled,
    VmSettingsParseError,
)
from waagent.platform.models import MINIMUM_TIMESTAMP, CertificateInfo

LATER = TICKS + 10_000_000 * 60
EARLIER = TICKS - 10_000_000 * 60
THUMBPRINT = "A" * 40


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def adopted(machine: Machine) -> str:
    assert machine.platform.goal_state is not None
    return machine.platform.goal_state.extensions.id


def test_the_first_goal_state(machine: Machine) -> None:
    machine.world.certificates = (CertificateInfo(THUMBPRINT, True),)
    assert machine.platform.goal_state is None
    assert machine.platform.update_goal_state() is True
    state = machine.platform.goal_state
    assert state is not None
    assert (state.incarnation, state.container_id, state.role_instance_id) == ("1", "container-1", "role-1._vm")
    assert state.deployment_id == "deployment-1"
    assert state.certificates == machine.world.certificates
    assert [handler.name for handler in state.extensions.handlers] == ["A.Handler"]
    assert Path(machine.paths.lib("SharedConfig.xml")).read_text() == "<SharedConfig/>"
    assert Path(machine.paths.lib("GoalState.1.xml")).exists()
    assert os.stat(machine.paths.lib("Certificates.xml")).st_mode & 0o777 == 0o400
    assert Path(machine.paths.lib("WireServerEndpoint")).read_text() == "10.9.8.7"
    assert Path(machine.paths.lib("Protocol")).read_text() == "WireProtocol"
    for text in (
        "Wire server endpoint:10.9.8.7",
        "Wire protocol version:2012-11-30",
        "Fetched a new incarnation for the WireServer goal state [incarnation 1]",
        "Fetching full goal state from the WireServer [incarnation 1]",
        "Fetch goal state from WireServer completed",
    ):
        assert len(machine.sinks.having(text)) == 1, text


def test_the_parts_are_fetched_in_the_platforms_order(machine: Machine) -> None:
    machine.world.remote_access = True
    machine.platform.update_goal_state()
    asked = [
        next(word for word in ("versions", "goalstate", "vmSettings", "extensionsConfig", "hostingEnvironmentConfig",
                               "sharedConfig", "certificates", "remote") if word in path)
        for path in machine.world.paths("GET")
    ]  # fmt: skip
    assert asked == ["versions", "goalstate", "vmSettings", "extensionsConfig", "hostingEnvironmentConfig",
                     "sharedConfig", "certificates", "remote"]  # fmt: skip
    certificates = next(headers for _, url, headers, _ in machine.world.requests if "comp=certificates" in url)
    assert certificates["x-ms-guest-agent-public-x509-cert"] == "CERTIFICATE"
    assert certificates["x-ms-cipher-name"] == "AES128_CBC"


def test_nothing_new_costs_two_requests_and_no_file(machine: Machine) -> None:
    machine.world.serve_vm_settings(EARLIER)
    machine.platform.update_goal_state()
    seen, history = len(machine.world.requests), machine.history
    assert machine.platform.update_goal_state() is False
    assert [path.rpartition("/")[2] for path in machine.world.paths()[seen:]] == ["?comp=goalstate", "vmSettings"]
    assert machine.world.requests[-1][2]["If-None-Match"] == machine.world.etag
    assert machine.history == history


def test_a_new_incarnation_replaces_everything(machine: Machine) -> None:
    machine.platform.update_goal_state()
    machine.world.incarnation = "0"
    machine.world.extensions_ticks = LATER
    assert machine.platform.update_goal_state() is True
    assert adopted(machine) == "incarnation_0"


def test_a_new_container_under_the_same_incarnation_counts_as_new(machine: Machine) -> None:
    machine.platform.update_goal_state()
    machine.world.container = "container-2"
    machine.world.serve_vm_settings(EARLIER)
    machine.clock.now += 7 * 3600
    assert machine.platform.update_goal_state() is True
    assert machine.platform.goal_state is not None
    assert machine.platform.goal_state.container_id == "container-2"
    machine.platform.update_goal_state()
    assert machine.world.requests[-1][2]["x-ms-containerid"] == "container-2"


@pytest.mark.parametrize(
    ("fabric_changes", "vm_ticks", "source", "expected"),
    [
        (False, None, "FastTrack", "incarnation_1"),
        (False, LATER, "FastTrack", "etag_2"),
        (False, TICKS, "FastTrack", "etag_2"),
        (False, EARLIER, "FastTrack", "incarnation_1"),
        (False, LATER, "Fabric", "incarnation_1"),
        (True, None, "FastTrack", "incarnation_2"),
        (True, LATER, "Fabric", "incarnation_2"),
        (True, LATER, "FastTrack", "etag_2"),
        (True, EARLIER, "FastTrack", "incarnation_2"),
        (True, TICKS, "FastTrack", "incarnation_2"),
    ],
)
def test_arbitration_end_to_end(
    machine: Machine, fabric_changes: bool, vm_ticks: int | None, source: str, expected: str
) -> None:
    machine.platform.update_goal_state()
    machine.clock.now += 7 * 3600
    if fabric_changes:
        machine.world.incarnation = "2"
    if vm_ticks is not None:
        machine.world.serve_vm_settings(vm_ticks, source=source)
    machine.platform.update_goal_state()
    assert adopted(machine) == expected
    assert machine.platform.goal_state is not None
    assert machine.platform.goal_state.incarnation == ("2" if fabric_changes else "1")


def test_a_certificate_rotation_changes_the_certificates_and_not_the_id(machine: Machine) -> None:
    machine.world.serve_vm_settings(LATER)
    machine.platform.update_goal_state()
    machine.world.incarnation = "2"
    machine.world.certificates = (CertificateInfo(THUMBPRINT, True),)
    assert machine.platform.update_goal_state() is True
    state = machine.platform.goal_state
    assert state is not None
    assert (adopted(machine), state.incarnation, state.certificates) == ("etag_2", "2", machine.world.certificates)


def test_fast_track_is_remembered_and_forgotten(machine: Machine) -> None:
    machine.world.serve_vm_settings(LATER)
    machine.platform.update_goal_state()
    assert machine.platform.supports_fast_track
    saved = json.loads(Path(machine.paths.lib("fast_track.json")).read_text())
    assert machine.platform.goal_state is not None
    assert saved == {"timestamp": machine.platform.goal_state.extensions.created}
    machine.world.serve_vm_settings(LATER, source="Fabric")
    machine.platform.update_goal_state()
    assert not Path(machine.paths.lib("fast_track.json")).exists()


def test_fast_track_can_be_switched_off(tmp_path: Path) -> None:
    machine = Machine(tmp_path, Debug__EnableFastTrack="n")
    machine.world.serve_vm_settings(LATER)
    machine.platform.update_goal_state()
    assert adopted(machine) == "incarnation_1"
    assert not machine.world.paths("vmSettings")
    assert not machine.platform.supports_fast_track


def test_fast_track_switched_off_after_use_makes_an_older_fabric_goal_state_outdated(tmp_path: Path) -> None:
    state = tmp_path / "var/lib/waagent"
    state.mkdir(parents=True)
    (state / "fast_track.json").write_text('{"timestamp": "2099-01-01T00:00:00.000000Z"}')
    machine = Machine(tmp_path, Debug__EnableFastTrack="n")
    machine.platform.update_goal_state()
    assert machine.platform.goal_state is not None
    assert machine.platform.goal_state.extensions.outdated
    machine.platform.upload_status({})
    assert not Path(machine.paths.lib("fast_track.json")).exists()
    machine.world.incarnation = "2"
    machine.platform.update_goal_state()
    assert not machine.platform.goal_state.extensions.outdated


def test_a_host_without_vm_settings_is_asked_again_after_six_hours(machine: Machine) -> None:
    machine.platform.update_goal_state()
    for _ in range(10):
        machine.platform.update_goal_state()
    assert len(machine.world.paths("vmSettings")) == 1
    machine.clock.now += 6 * 3600
    machine.world.serve_vm_settings(LATER)
    machine.platform.update_goal_state()
    assert adopted(machine) == "etag_2"


@pytest.mark.parametrize(("fabric", "outdated"), [(TICKS, True), (LATER + 10_000_000, False)])
@pytest.mark.parametrize("how", ["404", "old version"])
def test_support_for_vm_settings_stops(machine: Machine, fabric: int, outdated: bool, how: str) -> None:
    machine.world.serve_vm_settings(LATER)
    machine.platform.update_goal_state()
    machine.world.extensions_ticks = fabric
    if how == "404":
        machine.world.vm = None
    else:
        assert machine.world.vm is not None
        machine.world.vm["hostGAPluginVersion"] = "1.0.8.132"
        machine.world.etag = "new"
    machine.platform.update_goal_state()
    state = machine.platform.goal_state
    assert state is not None
    assert (state.extensions.id, state.extensions.outdated) == ("incarnation_1", outdated)
    assert not machine.platform.supports_fast_track
    machine.platform.upload_status({})
    assert Path(machine.paths.lib("fast_track.json")).exists() is not outdated
    assert machine.platform.update_goal_state() is False


def test_support_stops_while_the_fabric_cannot_be_read(machine: Machine) -> None:
    machine.world.serve_vm_settings(LATER)
    machine.platform.update_goal_state()
    machine.world.vm = None
    machine.world.answer_next("extensionsConfig", status(404))
    with pytest.raises(ProtocolError):
        machine.platform.update_goal_state()
    assert adopted(machine) == "etag_2"
    machine.platform.update_goal_state()
    assert adopted(machine) == "incarnation_1"


class TestConsistency:
    """wireserver §15.3: the certificates have to have what a new fast-track goal state names."""

    def test_in_sync(self, machine: Machine) -> None:
        machine.world.certificates = (CertificateInfo(THUMBPRINT, True),)
        machine.world.serve_vm_settings(LATER, thumbprint=THUMBPRINT)
        machine.platform.update_goal_state()
        assert not machine.clock.slept
        assert len(machine.world.paths("goalstate")) == 1

    def test_in_sync_at_the_second_try(self, machine: Machine) -> None:
        machine.platform.update_goal_state()
        machine.clock.now += 7 * 3600
        machine.world.serve_vm_settings(LATER, thumbprint=THUMBPRINT)
        machine.world.certificates = (CertificateInfo(THUMBPRINT, True),)
        machine.platform.update_goal_state()
        assert machine.platform.goal_state is not None
        assert machine.platform.goal_state.certificates == machine.world.certificates
        assert not machine.clock.slept
        assert len(machine.sinks.having("out of sync with the tenant cert")) == 1
        assert len(machine.sinks.having("now in sync")) == 1

    def test_in_sync_at_the_third_try(self, machine: Machine) -> None:
        machine.platform.update_goal_state()
        machine.clock.now += 7 * 3600
        machine.world.serve_vm_settings(LATER, thumbprint=THUMBPRINT)

        def fabric_catches_up(what: str) -> None:
            if machine.clock.slept:
                machine.world.certificates = (CertificateInfo(THUMBPRINT, True),)

        machine.world.on_request = fabric_catches_up
        machine.platform.update_goal_state()
        assert machine.platform.goal_state is not None
        assert machine.platform.goal_state.certificates == machine.world.certificates
        assert machine.clock.slept == [6]
        assert len(machine.sinks.having("now in sync")) == 1

    def test_never_in_sync(self, machine: Machine) -> None:
        machine.world.serve_vm_settings(LATER, thumbprint=THUMBPRINT)
        assert machine.platform.update_goal_state() is True
        assert adopted(machine) == "etag_2"
        assert len(machine.world.paths("goalstate")) == 3
        assert machine.sinks.having("Will continue, but extensions with protected settings may fail")
        assert machine.platform.update_goal_state() is False
        assert len(machine.world.paths("goalstate")) == 4

    def test_a_refresh_that_fails_is_one_of_the_tries(self, machine: Machine) -> None:
        machine.platform.update_goal_state()
        machine.clock.now += 7 * 3600
        machine.world.serve_vm_settings(LATER, thumbprint=THUMBPRINT)
        machine.world.certificates = (CertificateInfo(THUMBPRINT, True),)
        failed: list[str] = []

        def fail_the_refresh(what: str) -> None:
            if "goalstate" in what and machine.world.vm and len(machine.world.paths("goalstate")) == 3 and not failed:
                failed.append(what)
                raise unreachable()

        machine.world.on_request = fail_the_refresh
        machine.platform.update_goal_state()
        assert failed
        assert machine.platform.goal_state is not None
        assert machine.platform.goal_state.certificates == machine.world.certificates


def test_missing_certificate_files_of_a_fast_track_goal_state_are_downloaded_again(machine: Machine) -> None:
    machine.world.certificates = (CertificateInfo(THUMBPRINT, True),)
    machine.world.serve_vm_settings(LATER)
    machine.platform.update_goal_state()
    os.unlink(machine.paths.lib(f"{THUMBPRINT}.crt"))
    machine.world.serve_vm_settings(LATER + 10)
    machine.platform.update_goal_state()
    assert Path(machine.paths.lib(f"{THUMBPRINT}.crt")).exists()
    assert len(machine.opened) == 2


class TestWithoutHostPlugin:
    """It is away for long while the WireServer answers (service §16): the fabric's goal state has to do."""

    def away(self, machine: Machine, times: int = 60) -> None:
        machine.world.answer_next("vmSettings", *[unreachable()] * times)
        began = machine.clock.now
        while machine.clock.now - began < 300:
            with pytest.raises(HttpError):
                machine.platform.update_goal_state()
            machine.clock.now += 6

    def test_a_new_machine_gets_its_first_goal_state(self, machine: Machine) -> None:
        self.away(machine)
        assert machine.platform.update_goal_state() is True
        assert adopted(machine) == "incarnation_1"
        assert machine.platform.goal_state is not None
        assert not machine.platform.goal_state.extensions.outdated
        assert len(machine.sinks.having("Going on without the host plugin")) == 1
        machine.world.incarnation = "2"
        machine.platform.update_goal_state()
        assert adopted(machine) == "incarnation_2"

    def test_it_comes_back_with_something_newer(self, machine: Machine) -> None:
        machine.world.serve_vm_settings(LATER)
        self.away(machine, 51)
        machine.platform.update_goal_state()
        assert adopted(machine) == "incarnation_1"
        machine.platform.update_goal_state()
        assert adopted(machine) == "etag_2"

    def test_what_fast_track_said_last_stays_while_nothing_newer_comes(self, machine: Machine) -> None:
        machine.world.serve_vm_settings(LATER)
        machine.platform.update_goal_state()
        self.away(machine)
        machine.world.incarnation = "2"
        assert machine.platform.update_goal_state() is True
        assert machine.platform.goal_state is not None
        assert (adopted(machine), machine.platform.goal_state.incarnation) == ("etag_2", "2")

    def test_after_a_restart_nothing_older_than_the_last_fast_track_is_executed(
        self, machine: Machine, tmp_path: Path
    ) -> None:
        machine.world.serve_vm_settings(LATER)
        machine.platform.update_goal_state()
        again = Machine(tmp_path, machine.world)
        self.away(again, 51)
        again.platform.update_goal_state()
        state = again.platform.goal_state
        assert state is not None
        assert (state.extensions.id, state.extensions.outdated) == ("incarnation_1", True)
        again.platform.upload_status({})
        assert Path(again.paths.lib("fast_track.json")).exists(), "it is needed until the host plugin is back"
        # It says that the fabric's goal state is the one that counts: no longer outdated.
        again.world.serve_vm_settings(LATER, source="Fabric")
        assert again.platform.update_goal_state() is True
        state = again.platform.goal_state
        assert state is not None
        assert (state.extensions.id, state.extensions.outdated) == ("incarnation_1", False)

    def test_it_comes_back_without_vm_settings(self, machine: Machine, tmp_path: Path) -> None:
        machine.world.serve_vm_settings(LATER)
        machine.platform.update_goal_state()
        again = Machine(tmp_path, machine.world)
        self.away(again, 51)
        again.platform.update_goal_state()
        again.world.vm = None
        for _ in range(3):
            again.platform.update_goal_state()
            assert again.platform.goal_state is not None
            assert again.platform.goal_state.extensions.outdated, (
                "support stopped: the older goal state is not executed"
            )

    def test_a_return_that_the_fabric_spoils_is_not_forgotten(self, machine: Machine, tmp_path: Path) -> None:
        machine.world.serve_vm_settings(LATER)
        machine.platform.update_goal_state()
        again = Machine(tmp_path, machine.world)
        self.away(again, 51)
        again.platform.update_goal_state()
        again.world.serve_vm_settings(LATER, source="Fabric")
        again.world.answer_next("extensionsConfig", status(404))
        with pytest.raises(ProtocolError):
            again.platform.update_goal_state()
        again.platform.update_goal_state()
        assert again.platform.goal_state is not None
        assert not again.platform.goal_state.extensions.outdated

    def test_answers_that_say_something_else_do_not_count(self, machine: Machine) -> None:
        machine.world.serve_vm_settings(LATER)
        machine.platform.update_goal_state()
        machine.world.incarnation = "2"
        machine.world.answer_next("vmSettings", *[status(410)] * 400)
        for _ in range(100):
            with pytest.raises(ResourceGone):
                machine.platform.update_goal_state()
            machine.clock.now += 6
        assert adopted(machine) == "etag_2"


class TestBadInput:
    """The rows of wireserver §25 that concern the goal state."""

    def test_versions_without_ours(self, machine: Machine) -> None:
        other = "<Versions><Supported><Version>2099-01-01</Version></Supported></Versions>"
        machine.world.answer_next("comp=versions", status(200, other))
        with pytest.raises(ProtocolNotFound, match="2012-11-30 was not advised by Fabric"):
            machine.platform.detect()
        assert machine.platform.endpoint is None
        assert machine.platform.detect() == "10.9.8.7:80"

    def test_many_detection_attempts(self, machine: Machine) -> None:
        machine.world.down = True
        with pytest.raises(ProtocolNotFound, match="No protocol found"):
            machine.platform.detect(attempts=360)
        assert len(machine.world.requests) == 360
        assert machine.clock.slept == [10] * 359

    def test_no_role_instance(self, machine: Machine) -> None:
        empty = "<GoalState><Incarnation>7</Incarnation><Container/></GoalState>"
        machine.world.answer_next("goalstate", *[status(200, empty)] * 6)
        with pytest.raises(ProtocolError, match=r"Fetched goal state without a RoleInstance \[incarnation 7\]"):
            machine.platform.update_goal_state()
        assert machine.clock.slept == [0.5] * 5
        machine.world.answer_next("goalstate", *[status(200, empty)] * 5)
        machine.platform.update_goal_state()
        assert adopted(machine) == "incarnation_1"

    def test_no_extensions_config_and_no_certificates(self, machine: Machine) -> None:
        machine.world.names_extensions = machine.world.names_certificates = False
        machine.platform.update_goal_state()
        state = machine.platform.goal_state
        assert state is not None
        assert (state.extensions.id, state.extensions.handlers, state.certificates) == ("incarnation_1", (), ())
        assert state.extensions.created == MINIMUM_TIMESTAMP
        assert state.extensions.status_blob is None

    @pytest.mark.parametrize("part", ["hostingEnvironmentConfig", "sharedConfig", "extensionsConfig", "comp=remote"])
    def test_a_part_that_cannot_be_had(self, machine: Machine, part: str) -> None:
        machine.world.remote_access = True
        machine.platform.update_goal_state()
        before = machine.platform.goal_state
        machine.world.incarnation = "2"
        machine.world.answer_next(part, status(404))
        with pytest.raises(ProtocolError):
            machine.platform.update_goal_state()
        assert machine.platform.goal_state is before
        assert any(name.endswith("__2") for name in machine.history), "the history keeps what was had"
        machine.platform.update_goal_state()
        assert adopted(machine) == "incarnation_2"

    @pytest.mark.parametrize("part", ["hostingEnvironmentConfig", "sharedConfig", "comp=remote"])
    def test_a_part_that_is_no_document(self, machine: Machine, part: str) -> None:
        machine.world.remote_access = True
        machine.world.answer_next(part, status(200, "<html>maintenance</html"))
        with pytest.raises(ProtocolError):
            machine.platform.update_goal_state()
        assert machine.platform.goal_state is None

    def test_malformed_extensions_config(self, machine: Machine) -> None:
        machine.world.answer_next("extensionsConfig", status(200, "<Extensions><Plugins></Extensions>"))
        with pytest.raises(ExtensionsConfigError):
            machine.platform.update_goal_state()

    def test_certificates_that_cannot_be_opened(self, machine: Machine) -> None:
        machine.unopenable = CryptError("no key opens this")
        machine.platform.update_goal_state()
        assert machine.platform.goal_state is not None
        assert machine.platform.goal_state.certificates == ()
        ciphers = [headers["x-ms-cipher-name"] for _, url, headers, _ in machine.world.requests if "certif" in url]
        assert ciphers == ["AES128_CBC", "DES_EDE3_CBC"]
        assert len(machine.events.named("GoalStateCertificates")) == 1
        machine.platform.update_goal_state()
        assert len(machine.opened) == 2, "what cannot be opened is not asked for every period"

    def test_certificates_that_this_machine_could_not_open_are_asked_for_again(self, machine: Machine) -> None:
        machine.world.certificates = (CertificateInfo(THUMBPRINT, True),)
        machine.unopenable = CryptError("no space left on device", passing=True)
        machine.platform.update_goal_state()
        machine.unopenable = None
        assert machine.platform.update_goal_state() is False
        machine.clock.now += 60
        assert machine.platform.update_goal_state() is True
        assert machine.platform.goal_state is not None
        assert machine.platform.goal_state.certificates == machine.world.certificates

    def test_certificates_that_cannot_be_had_are_asked_for_again(self, machine: Machine) -> None:
        machine.world.certificates = (CertificateInfo(THUMBPRINT, True),)
        machine.world.answer_next("certificates", *[status(404)] * 6)
        for _ in range(21):
            machine.platform.update_goal_state()
            assert machine.platform.goal_state is not None
            assert machine.platform.goal_state.certificates == ()
            machine.clock.now += 6
        assert len(machine.world.paths("certificates")) == 6, "once a minute, with both ciphers"
        machine.clock.now += 60
        assert machine.platform.update_goal_state() is True
        state = machine.platform.goal_state
        assert state is not None
        assert state.certificates == machine.world.certificates
        assert len(machine.events.named("GoalStateCertificates")) == 1

    def test_certificates_of_an_unknown_format(self, machine: Machine) -> None:
        machine.world.answer_next(
            "certificates", status(200, "<CertificateFile><Format>Other</Format><Data>AA</Data></CertificateFile>")
        )
        machine.platform.update_goal_state()
        assert machine.opened == []
        assert machine.platform.update_goal_state() is False

    def test_one_bad_handler_spoils_no_other(self, machine: Machine) -> None:
        bad = machine.world.extensions_config().replace(
            "</Plugins><", '<Plugin name="B.Bad" version="1.0" state=""/></Plugins><', 1
        )
        machine.world.answer_next("extensionsConfig", status(200, bad))
        machine.platform.update_goal_state()
        assert machine.platform.goal_state is not None
        good, invalid = machine.platform.goal_state.extensions.handlers
        assert good.invalid_reason is None
        assert invalid.invalid_reason

    @pytest.mark.parametrize("body", ["no json", '{"extensionGoalStates": 3}', '{"statusUploadBlob": {}}'])
    def test_vm_settings_that_break_a_rule(self, machine: Machine, body: str) -> None:
        machine.platform.update_goal_state()
        machine.clock.now += 7 * 3600
        if body.startswith("{"):
            body = json.dumps({"hostGAPluginVersion": "1.0.8.175", **json.loads(body)})
        for _ in range(3):
            machine.world.answer_next("vmSettings", status(200, body, etag="bad"))
            with pytest.raises(VmSettingsParseError, match=r"Error parsing vmSettings \[HGAP: .* Etag:bad\]"):
                machine.platform.update_goal_state()
        assert len([name for name in machine.history if name.endswith("__1-bad")]) == 1
        machine.world.serve_vm_settings(LATER)
        machine.platform.update_goal_state()
        assert adopted(machine) == "etag_2"

    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            (status(500), "500: Reason"),
            (status(502), r"\[Internal error in HostGAPlugin\]"),
            (status(400), "400: Reason"),
            (status(204), "204: Reason"),
            (unreachable("timeout"), "refused"),
            (unreachable(), "refused"),
            (status(200, "{}"), "does not include an Etag header"),
        ],
    )
    def test_vm_settings_that_fail(self, machine: Machine, answer: object, text: str) -> None:
        machine.platform.update_goal_state()
        machine.clock.now += 7 * 3600
        assert isinstance(answer, Exception) or hasattr(answer, "status")
        machine.world.answer_next("vmSettings", answer)  # type: ignore[arg-type]
        with pytest.raises(HttpError, match=r"GET vmSettings \[correlation ID: .* eTag: None\]: .*" + text):
            machine.platform.update_goal_state()
        assert adopted(machine) == "incarnation_1"
        machine.platform.update_goal_state()

    @pytest.mark.parametrize("answer", [status(410), status(400, "InvalidContainerConfiguration")])
    def test_a_stale_container_is_refreshed_once(self, machine: Machine, answer: object) -> None:
        machine.world.serve_vm_settings(LATER)

        def move(what: str) -> None:
            machine.world.container = "container-2"

        machine.world.on_request = lambda what: move(what) if "vmSettings" in what else None
        machine.world.answer_next("vmSettings", answer)  # type: ignore[arg-type]
        machine.platform.update_goal_state()
        containers = [headers["x-ms-containerid"] for _, url, headers, _ in machine.world.requests if "vmSet" in url]
        assert containers == ["container-1", "container-2"]

    def test_gone_twice_in_a_row(self, machine: Machine) -> None:
        machine.world.serve_vm_settings(LATER)
        machine.world.answer_next("vmSettings", status(410), status(410))
        with pytest.raises(ResourceGone):
            machine.platform.update_goal_state()
        assert len(machine.world.paths("vmSettings")) == 2

    def test_the_wire_server_says_gone(self, machine: Machine) -> None:
        machine.world.answer_next("goalstate", status(410))
        with pytest.raises(ResourceGone):
            machine.platform.update_goal_state()

    def test_throttled_vm_settings_leave_the_host_plugin_alone(self, machine: Machine) -> None:
        machine.world.answer_next("vmSettings", status(429, retry_after="20"))
        with pytest.raises(Throttled):
            machine.platform.update_goal_state()
        machine.clock.now += 6
        with pytest.raises(Throttled):
            machine.platform.update_goal_state()
        assert len(machine.world.paths("vmSettings")) == 1
        machine.clock.now += 14
        machine.platform.update_goal_state()
        assert adopted(machine) == "incarnation_1"


def test_an_update_that_fails_for_long_writes_one_history_directory(machine: Machine) -> None:
    machine.world.answer_next("sharedConfig", *[status(404)] * 200)
    for _ in range(200):
        with pytest.raises(ProtocolError):
            machine.platform.update_goal_state()
    assert len(machine.history) == 1
    machine.platform.update_goal_state()
    assert len(machine.history) == 1


def test_no_secret_is_written_or_logged(machine: Machine) -> None:
    machine.world.certificates = (CertificateInfo(THUMBPRINT, True),)
    machine.world.extensions_thumbprint = THUMBPRINT
    machine.platform.update_goal_state()
    machine.world.serve_vm_settings(LATER, thumbprint=THUMBPRINT)
    machine.clock.now += 7 * 3600
    machine.platform.update_goal_state()
    machine.world.incarnation = "2"
    machine.world.extensions_ticks = LATER + 10_000_000
    machine.platform.update_goal_state()
    machine.world.answer_next(
        "vmSettings", status(200, json.dumps({**(machine.world.vm or {}), "gaFamilies": 1}), etag="x")
    )
    with pytest.raises(VmSettingsParseError):
        machine.platform.update_goal_state()
    written = machine.everything_written()
    assert "ExtensionsConfig" not in written or "***REDACTED***" in written
    assert len(machine.history) == 4
    assert "SECRET" not in written
    assert "PROTECTED" not in written
    assert "UFJPVEVDVEVE" not in written


def test_prefetch_writes_nothing_and_saves_a_request(machine: Machine) -> None:
    assert machine.platform.prefetch().incarnation == "1"
    assert not Path(machine.paths.lib_dir).exists()
    machine.platform.update_goal_state()
    assert len(machine.world.paths("goalstate")) == 1
    assert Path(machine.paths.lib("WireServerEndpoint")).exists()


def test_an_old_prefetch_is_not_used(machine: Machine) -> None:
    machine.platform.prefetch()
    machine.clock.now += 7
    machine.world.incarnation = "2"
    machine.platform.update_goal_state()
    assert adopted(machine) == "incarnation_2"


class TestOutage:
    """1000 polls without a platform: bounded log, flat memory, the first success at once (wireserver §15.6)."""

    def poll(self, machine: Machine, times: int) -> int:
        failed = 0
        for _ in range(times):
            try:
                machine.platform.update_goal_state()
            except ProtocolError:
                failed += 1
            machine.clock.now += 6
        return failed

    @pytest.mark.parametrize("before_first", [True, False])
    def test_nobody_answers(self, tmp_path: Path, before_first: bool) -> None:
        machine = Machine(tmp_path)
        if not before_first:
            machine.platform.update_goal_state()
        machine.world.down = True
        before = len(machine.world.requests)
        tracemalloc.start()
        assert self.poll(machine, 500) == 500
        assert len(machine.world.requests) - before == 500, "one request per period"
        del machine.world.requests[:]
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
        assert self.poll(machine, 500) == 500
        del machine.world.requests[:]
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - held
        tracemalloc.stop()
        assert grown < 8 * 1024
        assert not machine.clock.slept, "no call waits"
        errors = [line for level, line in machine.sinks.lines if level >= 2]
        assert len(errors) <= 3
        assert len(machine.events.named("FetchGoalState")) == 3
        machine.world.down = False
        assert machine.platform.update_goal_state() is before_first
        assert machine.sinks.having("Fetching the goal state recovered from previous errors. Fetched incarnation_1")

    def test_a_long_outage_says_so_every_six_hours(self, machine: Machine) -> None:
        machine.world.down = True
        self.poll(machine, 24 * 600)
        assert len(machine.sinks.having("Fetching the goal state is still failing")) == 3

    @pytest.mark.parametrize("answer", ["429", "503", "garbage", "parts"])
    def test_a_platform_that_answers_badly(self, machine: Machine, answer: str) -> None:
        where, bad = {
            "429": ("goalstate", status(429)),
            "503": ("goalstate", status(503)),
            "garbage": ("goalstate", status(200, b"\x00\xff garbage")),
            "parts": ("extensionsConfig", status(500)),
        }[answer]
        machine.world.answer_next(where, *[bad] * 20_000)
        self.poll(machine, 1000)
        assert machine.platform.goal_state is None
        assert len(machine.sinks.lines) < 40
        assert len(machine.events.seen) < 40
        assert len(machine.history) <= 1
        machine.world.overrides.clear()
        machine.clock.now += 12
        assert machine.platform.update_goal_state() is True


def test_certificates_are_held_back_while_another_process_owns_the_directory(machine: Machine) -> None:
    """During a long boot status flows and the secrets' directory stays as it is (ruling 19b)."""
    machine.world.certificates = (CertificateInfo(THUMBPRINT, True),)
    machine.platform.hold_certificates = True
    machine.platform.update_goal_state()
    assert machine.platform.update_goal_state() is False
    assert machine.platform.goal_state is not None
    assert machine.platform.goal_state.certificates == ()
    assert not Path(machine.paths.lib("Certificates.xml")).exists()
    machine.platform.hold_certificates = False
    assert machine.platform.update_goal_state() is True
    state = machine.platform.goal_state
    assert state is not None
    assert state.certificates == machine.world.certificates
    assert machine.platform.update_goal_state() is False
