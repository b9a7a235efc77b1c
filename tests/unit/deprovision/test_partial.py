"""The clean-up on a disk that is in another machine now (cli §5.3, provisioning §18.5)."""

from __future__ import annotations

import json

import pytest

from tests.unit.deprovision.image import GOES, STAYS, Image
from waagent_deprovision import partial, plugin

OLD, NEW = "544CDFD0-CB4E-4B4A-9954-5BDF3ED5C3B8", "11111111-2222-3333-4444-555555555555"
STATE = (
    "HostingEnvironmentConfig.xml", "Incarnation", "partition", "Protocol", "SharedConfig.xml", "WireServerEndpoint",
    "published_hostname", "fast_track.json", "initial_goal_state", "waagent_rsm_update", "waagent_initial_update",
    "Extensions.3.xml", "ExtensionsConfig.12.xml", "GoalState.1.xml",
)  # fmt: skip
KEY = ("TransportPrivate.pem", "TransportCert.pem", "transport-key.json")


@pytest.fixture
def clone(image: Image) -> Image:
    for name in (*STATE, *KEY):
        image.write(image.paths.lib(name)[len(str(image.root)) :], "x")
    image.write("/var/lib/waagent/transport-key.json", json.dumps({"schema": 1, "vmId": OLD.lower()}))
    return image


def test_what_belongs_to_the_other_machine_goes_and_the_rest_stays(clone: Image) -> None:
    before = clone.tree()
    result = clone.executor.run(plugin.on_vm_identity_change(clone, OLD, NEW))
    assert result.ok
    after = clone.tree()
    lib = "/var/lib/waagent"
    expected = {f"{lib}/{name}" for name in (*STATE, *KEY)} | {"/var/lib/waagent/waagent-network-setup.py"}
    expected |= {path for path in GOES if "/dhc" in path or "lease" in path or path.startswith("/etc/systemd/")}
    gone = {path for path in before if path not in after and before[path] != "directory"}
    assert gone == expected & set(before)
    assert {path: after.get(path) for path in STAYS} == {path: before[path] for path in STAYS}
    for path in ("/etc/ssh/ssh_host_rsa_key", "/etc/resolv.conf", f"{lib}/provisioned", f"{lib}/ovf-env.xml"):
        assert path in after, "no users, no keys, no names: only what the platform said"
    assert not clone.distro.asked("delete_user")


def test_what_extensions_executed_is_forgotten_whether_or_not_their_plugin_is_on(clone: Image) -> None:
    """cli §5.3: else the other machine's sequence numbers would keep this one's settings from being executed."""
    lib = "/var/lib/waagent"
    goes = ("status/3.status", "status/a.3.status", "config/3.settings", "config/HandlerStatus", "mrseq")
    stays = ("config/HandlerState", "HandlerEnvironment.json", "status/heartbeat", "bin/3.settings")
    for handler in ("Acme.Ext-1.0", "Acme.Multi-Config-2.1.3"):
        for name in (*goes, *stays):
            clone.write(f"{lib}/{handler}/{name}", "x")
    others = (f"{lib}/WALinuxAgent-2.9.1/config/0.settings", f"{lib}/WALinuxAgent-2.9.1/HandlerEnvironment.json",
              f"{lib}/stranger-1.2/mrseq", f"{lib}/cache/mrseq", "/srv/elsewhere/0.settings")  # fmt: skip
    for path in others:
        clone.write(path, "x")
    clone.write(f"{lib}/Acme.Link-1.0/HandlerEnvironment.json", "x")
    (clone.root / "var/lib/waagent/Acme.Link-1.0/config").symlink_to(clone.root / "srv/elsewhere")
    (clone.root / "var/lib/waagent/Acme.Other-1.0").symlink_to("stranger-1.2")
    assert clone.executor.run(plugin.on_vm_identity_change(clone, OLD, NEW)).ok
    for handler in ("Acme.Ext-1.0", "Acme.Multi-Config-2.1.3"):
        assert [name for name in goes if clone.there(f"{lib}/{handler}/{name}")] == []
        assert [name for name in stays if not clone.there(f"{lib}/{handler}/{name}")] == []
    assert [path for path in others if not clone.there(path)] == []


def test_done_is_done(clone: Image) -> None:
    clone.executor.run(plugin.on_vm_identity_change(clone, OLD, NEW))
    assert clone.names(plugin.on_vm_identity_change(clone, OLD, NEW)) == []


@pytest.mark.parametrize(
    ("owner", "stays"),
    [(NEW, True), (NEW.lower(), True), ("11111111-2222-3333-4444-555555555555", True), ("", True), (OLD, False)],
)
def test_the_transport_key_of_this_machine_stays(clone: Image, owner: str, stays: bool) -> None:
    clone.write("/var/lib/waagent/transport-key.json", json.dumps({"schema": 1, "vmId": owner}))
    clone.executor.run(plugin.on_vm_identity_change(clone, OLD, NEW))
    assert [clone.there(f"/var/lib/waagent/{name}") for name in KEY] == [stays] * 3


def test_an_id_with_swapped_bytes_is_the_same_machine() -> None:
    assert not partial.is_of_another("D0DF4C54-4ECB-4A4B-9954-5BDF3ED5C3B8", OLD)
    assert partial.is_of_another(NEW, OLD)
    assert not partial.is_of_another("no guid", "no guid")


def test_a_failure_keeps_nothing_else_from_going(clone: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(agent: object) -> None:
        raise OSError("read-only")

    monkeypatch.setattr(partial.leftovers, "delete_leases", refuse)
    result = clone.executor.run(plugin.on_vm_identity_change(clone, OLD, NEW))
    assert [step.name for step in result.steps if not step.ok] == ["leases"]
    assert not clone.there("/var/lib/waagent/GoalState.1.xml")
