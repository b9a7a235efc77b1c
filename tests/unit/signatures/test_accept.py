"""The mark on a package, what the package says it is, and what is told about unsigned ones (extensions §16)."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from waagent import ExtensionsGoalState, GoalState, Handler

GOOD = {"publisher": "Contoso.Tools", "type": "Sample", "version": "1.4.2"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    base = tmp_path / "unpacked"
    base.mkdir()
    return base


def manifest(directory: Path, info: Any) -> None:
    document = [{"handlerManifest": {}, "signingInfo": info}]
    (directory / "HandlerManifest.json").write_text(json.dumps(document))


@pytest.mark.parametrize("info", [GOOD, {key: value.upper() for key, value in GOOD.items()}, {**GOOD, "more": 1}])
def test_a_verified_package_that_is_what_it_says_gets_the_mark(
    machine: Any, signed: str, directory: Path, info: Any
) -> None:
    manifest(directory, info)
    machine.verify(signed)
    assert machine.accept(directory) is None
    mark = directory / "package_validated"
    assert mark.read_bytes() == b""
    assert stat.S_IMODE(mark.stat().st_mode) == 0o644
    assert machine.seen[-1][:2] == ("PackageSigningInfoResult", True)


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (None, "has no signingInfo"),
        ([], "has no signingInfo"),
        ({}, "signingInfo has no publisher"),
        ({**GOOD, "type": None}, "signingInfo has no type"),
        ({**GOOD, "version": {}}, "signingInfo has no version"),
        ({**GOOD, "publisher": "Contoso"}, "signingInfo says publisher 'Contoso', the goal state 'Contoso.Tools'"),
        ({**GOOD, "type": "Other"}, "signingInfo says type 'Other'"),
        ({**GOOD, "version": "1.4.3"}, "signingInfo says version '1.4.3'"),
    ],
)
def test_the_signature_of_another_package_gives_no_mark(
    machine: Any, signed: str, directory: Path, info: Any, said: str
) -> None:
    manifest(directory, info)
    machine.verify(signed)
    assert machine.accept(directory) is None
    assert not (directory / "package_validated").exists()
    assert machine.seen[-1][:2] == ("PackageSigningInfoResult", False)
    assert said in machine.lines[-1]
    assert machine.lines[-1].startswith("WARNING")


def test_wrong_signing_information_is_a_refusal_when_the_configuration_says_so(
    machine: Any, signed: str, directory: Path
) -> None:
    machine.restart("Debug.IgnoreExtSignatureValidationErrors=n\n")
    manifest(directory, {**GOOD, "type": "Other"})
    machine.verify(signed)
    veto = machine.accept(directory)
    assert veto.code == 1009
    assert "signingInfo says type 'Other'" in veto.reason


@pytest.mark.parametrize("content", [None, "", "[]", "{}", "[" * 100_000])
def test_a_manifest_that_cannot_be_read_gives_no_mark(
    machine: Any, signed: str, directory: Path, content: str | None
) -> None:
    if content is not None:
        (directory / "HandlerManifest.json").write_text(content)
    machine.verify(signed)
    assert machine.accept(directory) is None
    assert not (directory / "package_validated").exists()


def test_what_was_not_verified_gets_no_mark(machine: Any, signed: str, directory: Path) -> None:
    manifest(directory, GOOD)
    assert machine.accept(directory) is None
    machine.verify(signed)
    machine.verify("")  # another location had it without a signature
    assert machine.accept(directory) is None
    machine.verify(signed)
    good = machine.package.read_bytes()
    machine.package.write_bytes(b"something else")
    machine.verify(signed)
    assert machine.accept(directory) is None
    assert not (directory / "package_validated").exists()
    machine.package.write_bytes(good)
    machine.verify(signed)
    machine.accept(directory)
    os.unlink(directory / "package_validated")
    machine.accept(directory)
    assert not (directory / "package_validated").exists(), "one verification is good for one package"


def goal_state(*handlers: Handler, channel: str = "WireServer") -> GoalState:
    extensions = ExtensionsGoalState("incarnation_1", channel, "Fabric", "1", handlers=handlers)
    return GoalState("1", "container", "instance", "config", extensions)


UNSIGNED = Handler("A.B", "1.0")
SIGNED = Handler("C.D", "1.0", signature="MIIB")
GOING = Handler("E.F", "1.0", "uninstall")


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (goal_state(UNSIGNED, SIGNED, GOING), ["A.B-1.0"]),
        (goal_state(UNSIGNED), ["A.B-1.0"]),
        (goal_state(SIGNED, GOING), []),
        (goal_state(), []),
        # An old host plugin does not pass signatures on: then nothing is known.
        (goal_state(UNSIGNED, channel="HostGAPlugin"), []),
        (goal_state(UNSIGNED, SIGNED, channel="HostGAPlugin"), ["A.B-1.0"]),
    ],
)
def test_unsigned_packages_are_told_of_once_per_goal_state(machine: Any, state: GoalState, told: list[str]) -> None:
    machine.plugin.on_goal_state(machine, state)
    assert [seen[:2] for seen in machine.seen] == [("ExtensionSigned", False)] * len(told)
    assert machine.lines == [f"INFO Packages without a signature in incarnation_1: {name}" for name in told]


def test_nothing_is_told_when_it_is_switched_off(machine: Any) -> None:
    machine.restart("Debug.EnableExtSignatureValidation=n\n")
    machine.plugin.on_goal_state(machine, goal_state(UNSIGNED))
    assert (machine.seen, machine.lines) == ([], [])


def test_doctor_tells_what_is_missing(machine: Any) -> None:
    assert {check.result for check in machine.plugin.check_health(machine)} == {"ok"}
    (machine.root / "etc" / "stamps.pem").unlink()
    machine.restart("OS.OpensslPath=/nonexistent/openssl\n")
    found = {check.id: check.result for check in machine.plugin.check_health(machine)}
    assert found == {"signatures.openssl": "warning", "signatures.anchor": "ok", "signatures.timestamps": "warning"}
    machine.restart("Debug.EnableExtSignatureValidation=n\n")
    assert [check.result for check in machine.plugin.check_health(machine)] == ["ok"]
