"""What the policy does to extensions: the vetoes and words of extensions §15.2-§15.4, and what is left behind."""

from __future__ import annotations

import argparse
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from waagent import HealthCheck
from waagent_policy import command

NAME = "Contoso.Tools.Sample"


# ---- Whether there is a policy ---------------------------------------------------------------------------------------


def test_without_a_file_nothing_is_refused(machine: Any) -> None:
    base = machine.directory(NAME, "1.0", supportsPolicy=True)
    assert machine.ask(NAME) is None
    assert machine.ask(NAME, "uninstall") is None
    assert machine.accept(base, NAME, "1.0") is None
    assert machine.command(base, NAME, "1.0") is None
    assert not (base / "config" / "waagent_runtime_policy.json").exists()
    assert machine.plugin.report_status(machine) is None


def test_policies_can_be_switched_off(machine: Any) -> None:
    machine.file.write_text("no policy at all")
    assert machine.ask(NAME) is not None
    machine.configure("Debug.EnableExtensionPolicy=n\n")
    assert machine.ask(NAME) is None


def test_the_file_may_lie_elsewhere(machine: Any) -> None:
    machine.configure("Policy.PolicyFilePath=/opt/policy.json\n")
    (machine.root / "opt").mkdir()
    (machine.root / "opt" / "policy.json").write_text("{")
    veto = machine.ask(NAME)
    assert f"('{machine.root}/opt/policy.json')" in veto.reason


# ---- §15.2 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("operation", "code"), [("enable", 1009), ("uninstall", 1010), ("disable", 1010)])
def test_an_invalid_policy_refuses_everything(machine: Any, operation: str, code: int) -> None:
    machine.policy(version=None)
    veto = machine.ask(NAME, operation)
    assert veto.code == code
    assert veto.reason == (
        f"Extension will not be processed: [InvalidPolicyError] Customer-provided policy file ('{machine.file}') is "
        "invalid, please correct the following error: attribute 'policyVersion' is missing"
    )


def test_what_is_not_on_the_list_is_not_run(machine: Any) -> None:
    machine.policy(allowListedExtensionsOnly=True, extensions={"Contoso.Other": {}})
    veto = machine.ask(NAME)
    assert veto.code == 1009
    assert veto.reason == (
        f"Extension will not be processed: failed to run extension '{NAME}' because it is not specified as an allowed "
        f"extension. To run, add the extension to the list of allowed extensions in the policy file "
        f"('{machine.file}')."
    )


@pytest.mark.parametrize("operation", ["uninstall", "disable"])
def test_what_is_not_on_the_list_is_not_removed_either(machine: Any, operation: str) -> None:
    machine.policy(allowListedExtensionsOnly=True)
    veto = machine.ask(NAME, operation)
    assert veto.code == 1010
    assert veto.reason == (
        f"Extension will not be processed: failed to uninstall extension '{NAME}' because it is not specified as an "
        f"allowed extension. To uninstall, add the extension to the list of allowed extensions in the policy file "
        f"('{machine.file}')."
    )


def test_names_differ_in_case(machine: Any) -> None:
    machine.policy(allowListedExtensionsOnly=True, extensions={NAME.upper(): {}})
    assert machine.ask(NAME.lower()) is None
    assert machine.ask(NAME + "s") is not None


@pytest.mark.parametrize("make", ["directory", "fifo", "unreadable"])
def test_a_file_that_cannot_be_read_refuses_everything(machine: Any, make: str, monkeypatch: Any) -> None:
    if make == "directory":
        machine.file.mkdir()
    elif make == "fifo":
        os.mkfifo(machine.file)
    else:
        machine.policy()
        opened = os.open

        def refuse(path: Any, *arguments: Any, **more: Any) -> int:
            if str(path) == str(machine.file):
                raise PermissionError(13, "Permission denied")
            return opened(path, *arguments, **more)

        monkeypatch.setattr(os, "open", refuse)
    veto = machine.ask(NAME)
    assert "please correct the following error: the file cannot be " in veto.reason


def test_a_corrected_file_counts_at_once_and_a_removed_one_no_more(machine: Any) -> None:
    machine.policy(version="9")
    assert machine.ask(NAME) is not None
    machine.policy()
    assert machine.ask(NAME) is None
    machine.policy(allowListedExtensionsOnly=True)
    assert machine.ask(NAME) is not None
    machine.file.unlink()
    assert machine.ask(NAME) is None


def test_an_unchanged_file_is_read_once_per_goal_state(machine: Any, monkeypatch: Any) -> None:
    reads = []
    from waagent_policy import source

    real = source.read
    monkeypatch.setattr(source, "read", lambda path: reads.append(path) or real(path))
    machine.policy()
    for _ in range(2):
        machine.plugin.before_extensions(machine)
        for _ in range(5):
            assert machine.ask(NAME) is None
    assert len(reads) == 2


def test_each_goal_state_keeps_the_policy_that_it_was_judged_by(machine: Any) -> None:
    machine.policy(allowListedExtensionsOnly=True)
    machine.history.begin("1")
    machine.plugin.before_extensions(machine)
    first = machine.file.read_bytes()
    machine.file.write_text("{")
    machine.history.begin("2")
    machine.plugin.before_extensions(machine)
    kept = sorted(Path(machine.history.directory).glob("*/waagent_policy.json"))
    assert [path.read_bytes() for path in kept] == [first, b"{"]
    assert [line.split(" ", 1)[0] for line in machine.lines] == ["INFO", "ERROR"]


def test_an_invalid_policy_is_in_the_agents_status(machine: Any) -> None:
    machine.policy()
    report = machine.plugin.report_status(machine)
    assert report.problems == ()
    assert report.details == {"file": str(machine.file), "valid": True}
    machine.policy(version="2")
    report = machine.plugin.report_status(machine)
    assert report.problems[0].startswith("The extension policy is invalid: attribute 'policyVersion' is '2'")
    assert report.details["valid"] is False


# ---- §15.3 Signatures ------------------------------------------------------------------------------------------------


def test_an_unsigned_package_is_refused_before_it_is_fetched(machine: Any) -> None:
    machine.policy(signatureRequired=True)
    veto = machine.ask(NAME)
    assert veto.code == 1009
    assert "signed packages are required and its package has no signature" in veto.reason
    assert machine.ask(NAME, signature="MIIB") is None
    assert machine.ask(NAME, "uninstall") is None, "nothing is installed, so nothing would run"


def test_a_package_without_the_mark_is_refused_and_one_with_it_is_not(machine: Any) -> None:
    machine.policy(extensions={NAME: {"signatureRequired": True}})
    base = machine.directory(NAME, "1.0", "NotInstalled")
    veto = machine.accept(base, NAME, "1.0", "MIIB")
    assert veto.code == 1009
    assert "the signature of its package could not be verified" in veto.reason
    assert "its package has no signature" in machine.accept(base, NAME, "1.0").reason
    (base / "package_validated").mkdir()
    assert machine.accept(base, NAME, "1.0", "MIIB") is not None, "a directory is no mark"
    (base / "package_validated").rmdir()
    (base / "package_validated").touch()
    assert machine.accept(base, NAME, "1.0", "MIIB") is None


@pytest.mark.parametrize(("operation", "code"), [("enable", 1009), ("uninstall", 1010), ("disable", 1010)])
@pytest.mark.parametrize("state", ["Installed", "Enabled"])
def test_what_is_installed_without_the_mark_is_left_alone(machine: Any, operation: str, code: int, state: str) -> None:
    machine.policy(signatureRequired=True)
    base = machine.directory(NAME, "1.0", state)
    for version in ("1.0", "2.0"):
        veto = machine.ask(NAME, operation, version, signature="MIIB")
        assert veto.code == code
        assert "the signature of its installed version 1.0 was not verified" in veto.reason
    (base / "package_validated").touch()
    assert machine.ask(NAME, operation, signature="MIIB") is None
    assert machine.ask(NAME, operation) is None, "the goal state of an older host has no signatures"


@pytest.mark.parametrize("state", [None, "NotInstalled", "FailedUpgrade", "garbage"])
def test_what_is_not_installed_does_not_count(machine: Any, state: str | None) -> None:
    machine.policy(signatureRequired=True)
    machine.directory(NAME, "1.0", state)
    machine.directory(NAME + "-er", "1.0")
    machine.directory(NAME + ".More", "1.0")
    assert machine.ask(NAME, signature="MIIB") is None


def test_an_extension_may_be_exempt(machine: Any) -> None:
    machine.policy(signatureRequired=True, extensions={NAME.lower(): {"signatureRequired": False}})
    assert machine.ask(NAME) is None
    assert machine.accept(machine.directory(NAME, "1.0"), NAME, "1.0") is None


# ---- §15.4 Runtime policy --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("supports", [True, "true", "True"])
def test_the_runtime_policy_is_written_before_each_enable(machine: Any, supports: Any) -> None:
    base = machine.directory(NAME, "1.0", supportsPolicy=supports)
    path = base / "config" / "waagent_runtime_policy.json"
    machine.policy(extensions={NAME: {"runtimePolicy": {"requireSigning": True}}})
    assert machine.command(base, NAME, "1.0", "install") is None
    assert not path.exists()
    assert machine.command(base, NAME.upper(), "1.0") is None
    assert path.read_text() == '{"requireSigning": true}'
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    machine.policy()
    assert machine.command(base, NAME, "1.0") is None
    assert path.read_text() == "{}"
    machine.file.unlink()
    assert machine.command(base, NAME, "1.0") is None
    assert not path.exists(), "a policy that is gone binds nobody"


@pytest.mark.parametrize("manifest", [{}, {"supportsPolicy": False}, {"supportsPolicy": "no"}, {"supportsPolicy": 1}])
def test_a_handler_that_does_not_know_runtime_policies_is_refused(machine: Any, manifest: dict[str, Any]) -> None:
    base = machine.directory(NAME, "1.0", **manifest)
    machine.policy(extensions={NAME: {"runtimePolicy": {}}})
    for veto in (machine.command(base, NAME, "1.0"), machine.accept(base, NAME, "1.0"), machine.ask(NAME)):
        assert veto.code == 1009
        assert "its version 1.0 does not support runtime policies" in veto.reason
    assert machine.ask(NAME, version="2.0") is None, "the version that comes may support them"
    assert machine.ask(NAME, "uninstall") is None
    machine.policy(extensions={NAME: {"runtimePolicy": None}})
    assert machine.command(base, NAME, "1.0") is None
    assert not (base / "config" / "waagent_runtime_policy.json").exists()


def test_a_policy_that_becomes_invalid_stops_the_next_enable(machine: Any) -> None:
    base = machine.directory(NAME, "1.0", supportsPolicy=True)
    machine.file.write_text("{")
    assert "[InvalidPolicyError]" in machine.command(base, NAME, "1.0").reason
    assert "[InvalidPolicyError]" in machine.accept(base, NAME, "1.0").reason
    assert machine.command(base, NAME, "1.0", "uninstall") is None


def test_a_runtime_policy_that_cannot_be_written_fails_the_extension(machine: Any, monkeypatch: Any) -> None:
    base = machine.directory(NAME, "1.0", supportsPolicy=True)
    machine.policy()
    (base / "config" / "waagent_runtime_policy.json").mkdir()
    assert "cannot be written" in machine.command(base, NAME, "1.0").reason


@pytest.mark.parametrize("content", ["", "{}", "[]", "[1]", '[{"handlerManifest": 1}]', "[" * 100_000, None])
def test_a_manifest_that_cannot_be_read_supports_nothing(machine: Any, content: str | None) -> None:
    base = machine.directory(NAME, "1.0")
    manifest = base / "HandlerManifest.json"
    manifest.unlink() if content is None else manifest.write_text(content)
    machine.policy(extensions={NAME: {"runtimePolicy": {}}})
    assert machine.command(base, NAME, "1.0") is not None


# ---- For people ------------------------------------------------------------------------------------------------------


def check(machine: Any, file: Path | None = None) -> int:
    return command.run(machine, argparse.Namespace(file=None if file is None else str(file)))


def test_the_check_command(machine: Any, capsys: Any) -> None:
    assert check(machine) == 0
    assert "there is no such file" in capsys.readouterr().out
    assert check(machine, machine.root / "none") == 1
    machine.policy(allowListedExtensionsOnly=True, signatureRequired=True, extensions={NAME: {"runtimePolicy": {}}})
    assert check(machine) == 0
    out = capsys.readouterr().out
    assert "extensions allowed: only those listed here" in out
    assert f"  {NAME}: has a runtime policy" in out
    other = machine.root / "other.json"
    other.write_text('{"policyVersion": 1}')
    assert check(machine, other) == 1
    assert f"{other}: invalid: attribute 'policyVersion' must be a string" in capsys.readouterr().out
    machine.configure("Debug.EnableExtensionPolicy=n\n")
    assert check(machine) == 0
    assert "switched off" in capsys.readouterr().out


def health(machine: Any) -> HealthCheck:
    found: HealthCheck = machine.plugin.check_health(machine)
    return found


def test_doctor_tells_whether_the_policy_can_be_used(machine: Any) -> None:
    assert health(machine).result == "ok"
    machine.policy()
    machine.file.chmod(0o644)
    assert health(machine).result == "ok"
    machine.file.chmod(0o664)
    assert health(machine).result == "warning"
    machine.file.write_text("")
    failed = health(machine)
    assert (failed.id, failed.result) == ("policy.file", "failed")
    assert "the file is empty" in failed.detail


def test_the_log_collector_takes_the_policy_along(machine: Any) -> None:
    assert machine.plugin.declare_log_files(machine).value == str(machine.file)
    machine.configure("Debug.EnableExtensionPolicy=n\n")
    assert machine.plugin.declare_log_files(machine) is None
