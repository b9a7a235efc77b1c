"""The owner's policy through the whole agent: a platform over HTTP, real packages, real commands (extensions §15)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.signatures.authority import DAY, Authority, as_text, sign
from waagent_fabric import Fabric, HandlerSpec, SettingsSpec, build_zip, read_calls, sample_package

pytestmark = pytest.mark.fabric
A, B, C = "Contoso.Tools.Sample", "Contoso.Tools.Other", "Contoso.Tools.Third"


def spec(name: str, version: str = "1.0.0", sequence: int = 0, state: str = "enabled", **more: Any) -> HandlerSpec:
    signature = more.pop("signature", "")
    settings = (SettingsSpec(public={}, sequence_number=sequence, **more),)
    return HandlerSpec(name, version, state, settings, signature=signature)


def write(root: Path, **policies: Any) -> Path:
    path = root / "etc" / "waagent_policy.json"
    path.write_text(json.dumps({"policyVersion": "0.1.0", "extensionPolicies": policies}))
    return path


def items(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["handlerName"]: item for item in document["aggregateStatus"]["handlerAggregateStatus"]}


def said(item: dict[str, Any]) -> tuple[str, int, str, str | None, int | None, str | None]:
    """Return what is reported of a handler and of its extension: status, code, message of each."""
    status = item.get("runtimeSettingsStatus", {}).get("settingsStatus", {}).get("status", {})
    message = status.get("formattedMessage", {}).get("message")
    return (
        item["status"], item["code"], item["formattedMessage"]["message"],
        status.get("status"), status.get("code"), message,
    )  # fmt: skip


def settled(fabric: Fabric, **words: str) -> dict[str, dict[str, Any]]:
    """Wait until each handler's extension has the status in *words* (by A, B, C), and return the items."""
    wanted = {{"a": A, "b": B, "c": C}[key]: word for key, word in words.items()}

    def there(document: dict[str, Any]) -> bool:
        found = items(document)
        return all(name in found and said(found[name])[3] == word for name, word in wanted.items())

    return items(fabric.wait_for_status(there, 40.0))


def publish(fabric: Fabric, *names: str, **package: Any) -> None:
    for name in names:
        fabric.add_package(name, "1.0.0", sample_package(name, "1.0.0", **package))


def operations(root: Path, name: str) -> list[str]:
    return [f"{call.operation} {call.version}" for call in read_calls(root, name)]


def test_an_invalid_policy_blocks_every_extension_with_the_documented_words(
    fabric: Fabric, agent_root: Path, running_agent: Any
) -> None:
    publish(fabric, A, B)
    path = agent_root / "etc" / "waagent_policy.json"
    path.write_text('{"policyVersion": "0.1.0", "extensionPolicies": {"signatureRequired": "yes"}}')
    fabric.publish([spec(A), spec(B, level=1)])
    agent = running_agent(agent_root, fabric)
    found = settled(fabric, a="error", b="error")
    text = (
        f"Extension will not be processed: [InvalidPolicyError] Customer-provided policy file ('{path}') is invalid, "
        "please correct the following error: attribute 'extensionPolicies.signatureRequired' must be true or false, "
        "but is a string"
    )
    assert said(found[A]) == ("NotReady", 1009, text, "error", 1009, text)
    assert found[B]["code"] == -1, "it depends on the other one"
    assert not operations(agent_root, A)
    assert not operations(agent_root, B)
    kept = list((agent_root / "var/lib/waagent/history").glob("*/waagent_policy.json"))
    assert [file.read_bytes() for file in kept] == [path.read_bytes()]
    assert "please correct" in agent.wait_for_log("op=ExtensionPolicy")

    write(agent_root)
    fabric.publish([spec(A, sequence=1), spec(B, sequence=1, level=1)])
    agent.wait_until(lambda: operations(agent_root, B), 40.0, "the corrected policy counts")
    settled(fabric, a="success", b="success")


def test_only_what_is_on_the_list_runs_and_its_dependants_are_skipped(
    fabric: Fabric, agent_root: Path, running_agent: Any
) -> None:
    publish(fabric, A, B, C)
    path = write(agent_root, allowListedExtensionsOnly=True, extensions={A.upper(): {}, C: {}})
    fabric.publish([spec(A), spec(B), spec(C, level=1, depends_on=(B,))])
    running_agent(agent_root, fabric)
    found = settled(fabric, a="success", b="error", c="error")
    text = (
        f"Extension will not be processed: failed to run extension '{B}' because it is not specified as an allowed "
        f"extension. To run, add the extension to the list of allowed extensions in the policy file ('{path}')."
    )
    assert said(found[B]) == ("NotReady", 1009, text, "error", 1009, text)
    assert found[B]["runtimeSettingsStatus"]["sequenceNumber"] == 0
    assert said(found[C])[0:2] == ("NotReady", -1)
    assert f"Dependent Extension {B}" in said(found[C])[2]
    assert operations(agent_root, A) == ["install 1.0.0", "enable 1.0.0"]
    assert not operations(agent_root, B)
    assert not operations(agent_root, C)
    assert not list((agent_root / "var/lib/waagent").glob(f"{B}*/bin"))


def test_what_runs_already_keeps_running_and_cannot_be_removed(
    fabric: Fabric, agent_root: Path, running_agent: Any
) -> None:
    publish(fabric, A, heartbeat="ready", heartbeat_seconds=30)
    fabric.publish([spec(A, sequence=3)])
    agent = running_agent(agent_root, fabric)
    settled(fabric, a="success")
    path = write(agent_root, allowListedExtensionsOnly=True)

    fabric.publish([spec(A, sequence=4)])
    found = settled(fabric, a="error")[A]
    assert found["runtimeSettingsStatus"]["sequenceNumber"] == 4
    message = said(found)[2]
    assert "failed to run extension" in message
    assert said(found)[0] == "NotReady"
    assert message.endswith("('" + str(path) + "'). alive"), "the heartbeat is only appended"

    before = len(fabric.statuses)
    fabric.publish([spec(A, sequence=4, state="uninstall")])
    refused = fabric.wait_for_status(lambda document: items(document).get(A, {}).get("code") == 1010, 40.0)
    assert len(fabric.statuses) > before
    assert (
        f"failed to uninstall extension '{A}' because it is not specified as an allowed extension. To uninstall, add"
        in said(items(refused)[A])[2]
    )
    assert operations(agent_root, A) == ["install 1.0.0", "enable 1.0.0"]
    assert (agent_root / "var/lib/waagent" / f"{A}-1.0.0" / "bin").is_dir()

    path.unlink()
    fabric.publish([spec(A, sequence=4, state="uninstall")])
    agent.wait_until(lambda: operations(agent_root, A)[2:] == ["disable 1.0.0", "uninstall 1.0.0"], 40.0, "removed")


def test_the_runtime_policy_reaches_those_that_know_of_it(fabric: Fabric, agent_root: Path, running_agent: Any) -> None:
    copy = 'cp "$config/waagent_runtime_policy.json" "$logs/seen.json"'
    publish(fabric, A, enable=copy, manifest={"supportsPolicy": True})
    publish(fabric, B)
    runtime = {"allowedScripts": ["a", "b"], "requireSigning": True}
    write(agent_root, extensions={A.lower(): {"runtimePolicy": runtime}, B: {"runtimePolicy": {}}})
    fabric.publish([spec(A), spec(B)])
    running_agent(agent_root, fabric)
    found = settled(fabric, a="success", b="error")
    seen = agent_root / "var/log/azure" / A / "seen.json"
    assert json.loads(seen.read_text()) == runtime
    assert said(found[B])[:2] == ("NotReady", 1009)
    assert "does not support runtime policies" in said(found[B])[2]
    assert not operations(agent_root, B)

    write(agent_root)
    fabric.publish([spec(A, sequence=1), spec(B, sequence=1)])
    settled(fabric, a="success", b="success")
    assert json.loads(seen.read_text()) == {}


@pytest.fixture
def authority(tmp_path: Path, agent_root: Path) -> Authority:
    """Whom the agent trusts for packages."""
    made = Authority(tmp_path / "authority", "Packages of our own")
    (agent_root / "etc" / "anchor.pem").write_bytes(made.root.read_bytes())
    with (agent_root / "etc" / "waagent.conf").open("a") as conf:
        conf.write("Signatures.TrustAnchor=/etc/anchor.pem\n")
    return made


def signed_package(fabric: Fabric, authority: Authority, tmp_path: Path, name: str, version: str, **info: str) -> str:
    """Serve a signed package; return its signature."""
    publisher, _, kind = name.rpartition(".")
    names = {"publisher": publisher, "type": kind, "version": version, **info}
    data = build_zip(sample_package(name, version, manifest={"signingInfo": names}))
    file = tmp_path / f"{name}-{version}"
    file.write_bytes(data)
    fabric.add_package(name, version, data)
    now = time.time()
    leaf = authority.leaf(f"{name}-{version}", "code", now - DAY, now + DAY)
    return as_text(sign(file, leaf))


def test_where_signatures_are_required_only_verified_packages_run(
    fabric: Fabric, agent_root: Path, running_agent: Any, authority: Authority, tmp_path: Path
) -> None:
    good = signed_package(fabric, authority, tmp_path, A, "1.0.0")
    other = signed_package(fabric, authority, tmp_path, C, "1.0.0", type="Sample")
    publish(fabric, B)
    write(agent_root, signatureRequired=True)
    fabric.publish([spec(A, signature=good), spec(B), spec(C, signature=other)])
    running_agent(agent_root, fabric)
    found = settled(fabric, a="success", b="error", c="error")
    lib = agent_root / "var/lib/waagent"
    assert (lib / f"{A}-1.0.0" / "package_validated").read_bytes() == b""
    assert operations(agent_root, A) == ["install 1.0.0", "enable 1.0.0"]
    assert said(found[B])[:2] == ("NotReady", 1009)
    assert "its package has no signature" in said(found[B])[2]
    assert "the signature of its package could not be verified" in said(found[C])[2]
    assert not operations(agent_root, B)
    assert not operations(agent_root, C)
    assert not list(lib.glob("*.zip"))
    assert not list(lib.glob("*_signature.pem"))
    assert not (lib / f"{C}-1.0.0" / "bin").exists()

    # An update that is not what was signed leaves the installed version as it is.
    fabric.add_package(A, "1.1.0", sample_package(A, "1.1.0"))
    fabric.publish([spec(A, "1.1.0", 1, signature=good)])
    refused = settled(fabric, a="error")[A]
    assert said(refused)[:2] == ("NotReady", 1009)
    assert operations(agent_root, A) == ["install 1.0.0", "enable 1.0.0"]
    assert (lib / f"{A}-1.0.0" / "config" / "HandlerState").read_text() == "Enabled"
    assert not (lib / f"{A}-1.1.0" / "bin").exists()


def test_without_a_policy_a_bad_signature_is_reported_and_lets_pass(
    fabric: Fabric, agent_root: Path, running_agent: Any, authority: Authority, tmp_path: Path
) -> None:
    signature = signed_package(fabric, authority, tmp_path, A, "1.0.0")
    publish(fabric, A)  # another package in its place
    fabric.publish([spec(A, signature=signature)])
    agent = running_agent(agent_root, fabric)
    settled(fabric, a="success")
    line = agent.wait_for_log("This failure can be safely ignored; will continue processing the package.")
    assert " WARNING " in line
    assert not (agent_root / "var/lib/waagent" / f"{A}-1.0.0" / "package_validated").exists()
