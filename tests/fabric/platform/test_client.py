"""The client against the embedded platform over real HTTP, with real certificates (wireserver §25 row by row)."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.platform.memoryworld import Events, Lines
from waagent.conffile import read_chain
from waagent.config import Config
from waagent.errors import (
    ExtensionDownloadError,
    ExtensionsConfigError,
    HttpError,
    ProtocolError,
    ProtocolNotFound,
    ResourceGone,
    Throttled,
    VmSettingsParseError,
)
from waagent.log import Log
from waagent.paths import Paths
from waagent.platform import certificates
from waagent.platform.client import Platform
from waagent.platform.models import Handler
from waagent.platform.statusblob import build_status
from waagent_fabric.agentprocess import write_conf
from waagent_fabric.api import Fabric
from waagent_fabric.faults import Fault
from waagent_fabric.packages import build_zip
from waagent_fabric.records import HandlerSpec, RemoteUserSpec, SettingsSpec

pytestmark = pytest.mark.fabric


@pytest.fixture(scope="session")
def transport_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transport key pair that all tests use: making one takes a while."""
    root = tmp_path_factory.mktemp("transport")
    paths = Paths(str(root))
    os.makedirs(paths.lib_dir, 0o700)
    assert certificates.transport_key(paths)
    return Path(paths.lib_dir)


class Machine:
    """A client on the fabric."""

    def __init__(self, root: Path, fabric: Fabric, extra: str = "", environment: dict[str, str] | None = None) -> None:
        write_conf(root, fabric, extra)
        self.paths = Paths(str(root))
        self.sinks = Lines()
        self.events = Events()
        self.stopping = threading.Event()
        self.slept: list[float] = []
        self.ahead = 0.0
        """Seconds by which the client's clock is ahead."""
        self.client = Platform(
            Config(read_chain(str(root))),
            self.paths,
            Log(self.sinks, "ExtHandler"),
            self.events,
            clock=lambda: time.monotonic() + self.ahead,
            sleep=self.slept.append,
            stopping=self.stopping,
            environment=environment or {},
        )

    @property
    def goal_state_id(self) -> str:
        assert self.client.goal_state is not None
        return self.client.goal_state.extensions.id

    def status(self, **values: Any) -> dict[str, Any]:
        return build_status((), computer_name="vm", os_name="debian", os_version="12", **values)


@pytest.fixture
def machine(tmp_path: Path, fabric: Fabric, transport_pair: Path) -> Iterator[Machine]:
    made = Machine(tmp_path / "root", fabric)
    os.makedirs(made.paths.lib_dir, 0o700)
    for name in ("TransportCert.pem", "TransportPrivate.pem"):
        shutil.copy(transport_pair / name, made.paths.lib(name))
    yield made
    made.client.wire.endpoint._channels.close()


SAMPLE = HandlerSpec("Sample.Handler", "1.0.0", settings=[SettingsSpec({"a": 1}, {"secret": "PRECIOUS"}, 3)])


def the_handler(machine: Machine) -> Handler:
    assert machine.client.goal_state is not None
    return machine.client.goal_state.extensions.handlers[0]


@pytest.mark.parametrize("channel", ["fabric", "fasttrack"])
def test_everything_once_without_breaking_a_rule_of_the_platform(
    machine: Machine, fabric: Fabric, tmp_path: Path, channel: str
) -> None:
    fabric.add_package("Sample.Handler", "1.0.0", {"bin/run.sh": "echo"}, manifest_command="bin/run.sh")
    fabric.publish([SAMPLE], channel=channel, users=[RemoteUserSpec("jit")] if channel == "fabric" else None)
    client = machine.client
    client.prefetch()
    assert client.update_goal_state() is True
    state = client.goal_state
    assert state is not None
    handler = the_handler(machine)
    (settings,) = handler.extensions
    assert settings.public == {"a": 1}
    assert settings.thumbprint in {item.thumbprint for item in state.certificates if item.has_private_key}
    assert Path(machine.paths.lib(f"{settings.thumbprint}.crt")).exists()
    assert os.stat(machine.paths.lib(f"{settings.thumbprint}.prv")).st_mode & 0o077 == 0
    if channel == "fabric":
        assert state.remote_access is not None
        assert [user.name for user in state.remote_access.users] == ["jit"]
    manifest = client.fetch_manifest(handler)
    assert client.fetch_manifest(handler) is manifest
    target = tmp_path / "package.zip"
    client.download_package(handler, manifest.versions[0], manifest, str(target))
    assert target.read_bytes().startswith(b"PK")
    assert not Path(f"{target}.partial").exists()
    assert client.upload_status(machine.status()) is True
    assert fabric.statuses[-1].document["guestOSInfo"]["computerName"] == "vm"
    client.save_status_copy(machine.status())
    client.report_health("NotReady", "Provisioning", "Starting")
    client.report_health("Ready")
    assert [report.state for report in fabric.health_reports] == ["NotReady", "Ready"]
    client.report_role_properties("AA:BB")
    client.report_provisioning_health("Ready")
    assert client.check_imds() == "healthy"
    client.report_host_health()
    compute = client.imds_compute()
    assert compute is not None
    assert compute["vmId"] == fabric.platform.vm.vm_id
    client.upload_logs(build_zip({"waagent.log": "line"}))
    assert client.update_goal_state() is False
    assert fabric.violations == []
    secrets = ["PRECIOUS", "sig=%2b", "sig=%2B"]
    kept = [path for path in Path(machine.paths.lib("history")).rglob("*") if path.is_file()]
    assert "Sample.Handler.manifest.xml" in [path.name for path in kept]
    for path in kept:
        assert not [word for word in secrets if word in path.read_text("latin-1")], path
    assert not [line for _, line in machine.sinks.lines for word in secrets if word in line]


def test_an_idle_minute_costs_two_requests_a_poll_on_two_connections(machine: Machine, fabric: Fabric) -> None:
    machine.client.update_goal_state()
    fabric.clear_records()
    for _ in range(10):
        assert machine.client.update_goal_state() is False
    assert [request.status for request in fabric.requests] == [200, 304] * 10
    assert fabric.connections == 2


class TestGoalStateRows:
    def test_versions_without_ours(self, machine: Machine, fabric: Fabric) -> None:
        body = "<Versions><Supported><Version>2099-01-01</Version></Supported></Versions>"
        fabric.inject(Fault("replace", server="wireserver", path="comp=versions", body=body, times=1))
        with pytest.raises(ProtocolNotFound):
            machine.client.update_goal_state()
        assert machine.client.update_goal_state() is True

    def test_without_a_role_instance(self, machine: Machine, fabric: Fabric) -> None:
        fabric.publish(role_instance=False)
        with pytest.raises(ProtocolError, match="without a RoleInstance"):
            machine.client.update_goal_state()
        assert machine.slept == [0.5] * 5
        assert len([request for request in fabric.requests if "goalstate" in request.path]) == 6

    def test_without_extensions_config_and_certificates(self, machine: Machine, fabric: Fabric) -> None:
        fabric.publish(parts=("hostingEnvironmentConfig", "sharedConfig"))
        machine.client.update_goal_state()
        state = machine.client.goal_state
        assert state is not None
        assert (state.extensions.handlers, state.certificates) == ((), ())

    @pytest.mark.parametrize("part", ["hostingEnvironmentConfig", "sharedConfig", "extensionsConfig"])
    @pytest.mark.parametrize("kind", ["reset", "status", "garbage", "truncate"])
    def test_a_part_that_cannot_be_had(self, machine: Machine, fabric: Fabric, part: str, kind: str) -> None:
        machine.client.update_goal_state()
        before = machine.client.goal_state
        fabric.publish([SAMPLE])
        fabric.inject(Fault(kind, server="wireserver", path=part, statuses=404))
        with pytest.raises(ProtocolError):
            machine.client.update_goal_state()
        assert machine.client.goal_state is before
        assert machine.client.upload_status(machine.status()) is True, "status is still sent"
        fabric.clear_faults()
        assert machine.client.update_goal_state() is True

    @pytest.mark.parametrize("kind", ["status", "garbage", "truncate", "reset"])
    def test_certificates_that_cannot_be_had(self, machine: Machine, fabric: Fabric, kind: str) -> None:
        fabric.publish([SAMPLE])
        fabric.inject(Fault(kind, server="wireserver", path="comp=certificates", statuses=404))
        assert machine.client.update_goal_state() is True
        assert machine.client.goal_state is not None
        assert machine.client.goal_state.certificates == ()
        assert len(machine.events.named("GoalStateCertificates")) == 1
        fabric.clear_faults()
        if kind != "garbage":
            machine.ahead += 60
            assert machine.client.update_goal_state() is True
            assert machine.client.goal_state.certificates

    def test_one_cipher_that_cannot_be_opened(self, machine: Machine, fabric: Fabric) -> None:
        fabric.certificate_options.broken_ciphers = ["AES128_CBC"]
        fabric.publish([SAMPLE])
        machine.client.update_goal_state()
        assert machine.client.goal_state is not None
        assert machine.client.goal_state.certificates

    def test_both_ciphers_cannot_be_opened(self, machine: Machine, fabric: Fabric) -> None:
        fabric.certificate_options.broken_ciphers = ["AES128_CBC", "DES_EDE3_CBC"]
        fabric.publish([SAMPLE])
        machine.client.update_goal_state()
        assert machine.client.goal_state is not None
        assert machine.client.goal_state.certificates == ()
        assert machine.goal_state_id == "incarnation_2"

    def test_malformed_extensions_config(self, machine: Machine, fabric: Fabric) -> None:
        fabric.inject(Fault("replace", path="extensionsConfig", body="<Extensions><a></Extensions>", times=1))
        with pytest.raises(ExtensionsConfigError):
            machine.client.update_goal_state()

    @pytest.mark.parametrize("kind", ["oversize", "garbage", "truncate", "reset", "status"])
    def test_a_goal_state_that_cannot_be_read(self, machine: Machine, fabric: Fabric, kind: str) -> None:
        # The first reset hits a kept connection and is sent once more without anybody noticing.
        times = 2 if kind == "reset" else 1
        fabric.inject(Fault(kind, server="wireserver", path="goalstate", statuses=(500,), times=times))
        with pytest.raises(ProtocolError):
            machine.client.update_goal_state()
        assert machine.client.update_goal_state() is True

    def test_an_incarnation_that_goes_back(self, machine: Machine, fabric: Fabric) -> None:
        fabric.publish([SAMPLE], incarnation=9)
        machine.client.update_goal_state()
        fabric.publish([SAMPLE], incarnation=1)
        machine.client.update_goal_state()
        assert machine.goal_state_id == "incarnation_1"

    def test_a_machine_that_moved_without_a_new_incarnation(self, machine: Machine, fabric: Fabric) -> None:
        machine.client.update_goal_state()
        before = machine.client.goal_state
        fabric.reallocate()
        assert machine.client.upload_status(machine.status()) in (True, False)
        assert machine.client.update_goal_state() is True
        assert machine.client.goal_state is not None
        assert before is not None
        assert machine.client.goal_state.container_id != before.container_id
        assert machine.client.upload_status(machine.status()) is True


class TestVmSettingsRows:
    @pytest.mark.parametrize("body", ["not json", '{"hostGAPluginVersion": "1.0.8.175", "extensionGoalStates": 1}'])
    def test_a_rule_is_broken(self, machine: Machine, fabric: Fabric, body: str) -> None:
        machine.client.update_goal_state()
        fabric.publish([SAMPLE], channel="fasttrack")
        fabric.inject(Fault("replace", server="hostplugin", path="vmSettings", body=body))
        with pytest.raises((VmSettingsParseError, HttpError)):
            machine.client.update_goal_state()
        assert machine.goal_state_id == "incarnation_1"
        fabric.clear_faults()
        machine.client.update_goal_state()
        assert machine.goal_state_id.startswith("etag_")

    @pytest.mark.parametrize("kind", ["status", "reset", "truncate"])
    def test_no_answer_fails_the_update_of_this_period(self, machine: Machine, fabric: Fabric, kind: str) -> None:
        machine.client.update_goal_state()
        fabric.publish([SAMPLE], channel="fasttrack")
        fabric.inject(Fault(kind, server="hostplugin", path="vmSettings", statuses=500, times=1))
        if kind == "reset":
            # The first reset hits a kept connection and is sent once more without anybody noticing.
            fabric.inject(Fault(kind, server="hostplugin", path="vmSettings", times=1))
        with pytest.raises(HttpError):
            machine.client.update_goal_state()
        machine.client.update_goal_state()
        assert machine.goal_state_id.startswith("etag_")

    def test_gone_twice_in_a_row(self, machine: Machine, fabric: Fabric) -> None:
        fabric.inject(Fault("status", server="hostplugin", path="vmSettings", statuses=410, times=2))
        with pytest.raises(ResourceGone):
            machine.client.update_goal_state()
        assert machine.client.update_goal_state() is True

    def test_not_found(self, machine: Machine, fabric: Fabric) -> None:
        fabric.inject(Fault("status", server="hostplugin", path="vmSettings", statuses=404))
        machine.client.update_goal_state()
        machine.client.update_goal_state()
        asked = [request for request in fabric.requests if request.path == "/vmSettings"]
        assert len(asked) == 1
        assert not machine.client.supports_fast_track

    def test_throttled(self, machine: Machine, fabric: Fabric) -> None:
        machine.client.update_goal_state()
        fabric.clear_records()
        fabric.inject(Fault("status", statuses=429, retry_after=30))
        for _ in range(20):
            with pytest.raises(Throttled):
                machine.client.update_goal_state()
        assert len(fabric.requests) == 1
        assert machine.slept == []


class TestArtifactRows:
    def test_unknown_status_blob_type_and_page_blob(self, machine: Machine, fabric: Fabric) -> None:
        for kind in ("Unheard", "PageBlob"):
            fabric.publish([SAMPLE], status_blob=kind)
            machine.client.update_goal_state()
            assert machine.client.upload_status(machine.status(problems=["x" * 2000])) is True
            fabric.inject(Fault("status", server="hostplugin", path="/status", statuses=500))
            assert machine.client.upload_status(machine.status(problems=["y" * 2000])) is True
            fabric.clear_faults()
        found = [(record.channel, record.blob_type) for record in fabric.statuses]
        assert {channel for channel, _ in found} == {"hostplugin", "direct"}
        assert found[-1][1] == "PageBlob"
        assert {violation.text for violation in fabric.violations} == {
            "the status blob is to be a Unheard, not a BlockBlob"
        }

    @pytest.mark.parametrize("on_hold", [True, False])
    def test_on_hold(self, machine: Machine, fabric: Fabric, on_hold: bool) -> None:
        fabric.publish([SAMPLE], on_hold=on_hold)
        machine.client.update_goal_state()
        assert machine.client.fetch_on_hold() is on_hold

    @pytest.mark.parametrize("kind", ["garbage", "status"])
    def test_an_on_hold_blob_that_cannot_be_read(self, machine: Machine, fabric: Fabric, kind: str) -> None:
        fabric.publish([SAMPLE], on_hold=True)
        machine.client.update_goal_state()
        fabric.inject(Fault(kind, server="blobs", statuses=404))
        fabric.inject(Fault(kind, server="hostplugin", path="Artifact", statuses=404))
        assert machine.client.fetch_on_hold() is False

    def test_a_manifest_that_cannot_be_had_anywhere(self, machine: Machine, fabric: Fabric) -> None:
        fabric.add_package("Sample.Handler", "1.0.0", {"x": "y"}, manifest_command="x")
        fabric.publish([SAMPLE])
        machine.client.update_goal_state()
        fabric.inject(Fault("status", server="blobs", statuses=404))
        fabric.inject(Fault("status", server="hostplugin", path="Artifact", statuses=404))
        with pytest.raises(ExtensionDownloadError, match="Failed to retrieve extension manifest") as caught:
            machine.client.fetch_manifest(the_handler(machine))
        assert caught.value.code == 1001
        fabric.clear_faults()
        assert machine.client.fetch_manifest(the_handler(machine)).versions

    def test_without_a_way_out(self, machine: Machine, fabric: Fabric, tmp_path: Path) -> None:
        """The host plugin fetches what the machine cannot: manifest, package and status."""
        fabric.add_package("Sample.Handler", "1.0.0", {"x": "y" * 100_000}, manifest_command="x")
        fabric.publish([SAMPLE])
        blocked = Machine(tmp_path / "blocked", fabric, environment={"http_proxy": "http://127.0.0.1:9"})
        shutil.copytree(machine.paths.lib_dir, blocked.paths.lib_dir)
        blocked.client.update_goal_state()
        handler = the_handler(blocked)
        manifest = blocked.client.fetch_manifest(handler)
        blocked.client.download_package(handler, manifest.versions[0], manifest, str(tmp_path / "p.zip"))
        assert blocked.client.upload_status(machine.status()) is True
        assert (tmp_path / "p.zip").stat().st_size > 0
        assert blocked.client.transfers.channel == "HostGAPlugin"
        blocked.client.wire.endpoint._channels.close()

    def test_an_artifact_request_that_finds_a_stale_container(self, machine: Machine, fabric: Fabric) -> None:
        fabric.add_package("Sample.Handler", "1.0.0", {"x": "y"}, manifest_command="x")
        fabric.publish([SAMPLE])
        machine.client.update_goal_state()
        fabric.inject(Fault("status", server="blobs", statuses=404, times=2))
        fabric.inject(Fault("status", server="hostplugin", path="Artifact", statuses=410, times=1))
        assert machine.client.fetch_manifest(the_handler(machine)).versions


def test_a_tenant_certificate_that_lags_behind(machine: Machine, fabric: Fabric) -> None:
    """After a resume from hibernation fast track knows the new certificate before the adopted goal state does."""
    fabric.publish([SAMPLE])
    machine.client.update_goal_state()
    fabric.rotate_tenant_certificate()
    fabric.publish([SAMPLE], channel="fasttrack")
    machine.client.update_goal_state()
    state = machine.client.goal_state
    assert state is not None
    assert state.extensions.id.startswith("etag_")
    (settings,) = state.extensions.handlers[0].extensions
    assert settings.thumbprint in {item.thumbprint for item in state.certificates}
    assert machine.sinks.having("out of sync with the tenant cert")


def test_an_outage_and_the_first_success(machine: Machine, fabric: Fabric) -> None:
    machine.client.update_goal_state()
    machine.client.upload_status(machine.status())
    fabric.inject(Fault("outage"))
    for _ in range(20):
        with pytest.raises(ProtocolError):
            machine.client.update_goal_state()
        with pytest.raises(ProtocolError):
            machine.client.upload_status(machine.status())
    assert machine.slept == []
    fabric.clear_faults()
    fabric.clear_records()
    machine.client.update_goal_state()
    assert machine.client.upload_status(machine.status()) is True
    assert len(fabric.statuses) == 1
    errors = [line for level, line in machine.sinks.lines if level >= 2]
    assert len(errors) <= 3


def test_the_saved_status_is_the_last_one(machine: Machine) -> None:
    machine.client.update_goal_state()
    machine.client.save_status_copy(machine.status(timestamp="2026-01-01T00:00:00Z"))
    (file,) = Path(machine.paths.lib("history")).glob("*/waagent_status.json")
    assert json.loads(file.read_text())["timestampUTC"] == "2026-01-01T00:00:00Z"
