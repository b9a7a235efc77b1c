"""Goal states on a machine with real packages and real commands (extensions §10-§13, §23)."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import stat
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from tests.unit.extensions.fakes import Bench, multi, package, wanted
from waagent import Launch, NoAnswer, Veto
from waagent_extensions import engine as engine_module
from waagent_extensions import outcomes, throttling
from waagent_extensions.work import Work

NAME = "Contoso.Tools.Sample"


def settle(bench: Bench, *handlers: object) -> None:
    """Bring the machine to a goal state and take for granted how."""
    bench.apply(*handlers)  # type: ignore[arg-type]


# --- Fresh install ---------------------------------------------------------------------------------------------------


def test_a_fresh_install_runs_install_then_enable_and_is_reported_ready(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    assert bench.apply(wanted(NAME, "1.4.2", sequence=3)) == ["install 1.4.2", "enable 1.4.2"]
    assert bench.status() == {NAME: ("Ready", 0, "success", 0)}
    assert bench.message(NAME) == "Plugin enabled"
    assert bench.state(NAME, "1.4.2") == "Enabled"
    assert bench.variables("enable 1.4.2") == {
        "VERSION": "",
        "ConfigSequenceNumber": "3",
        "ConfigExtensionName": "",
        "AZURE_GUEST_AGENT_UPDATING_FROM_VERSION": "",
        "AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE": "NOT_RUN",
        "AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE": "",
        "AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODES_MULTIPLE_EXTENSIONS": "",
    }
    report = bench.reporter.build().goal_state
    assert report is not None
    assert (report.status, report.code, report.message) == ("Success", 0, "GoalState executed successfully")


def test_files_and_modes_after_an_install(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    settle(bench, wanted(NAME, "1.4.2", sequence=3))
    base = bench.handler_dir(NAME, "1.4.2")
    found = {
        str(path.relative_to(base)): stat.S_IMODE(path.stat().st_mode)
        for path in (
            base,
            base / "config",
            base / "status",
            base / "config" / "3.settings",
            base / "HandlerEnvironment.json",
        )
    }
    assert found == {
        ".": 0o755,
        "config": 0o700,
        "status": 0o700,
        "config/3.settings": 0o600,
        "HandlerEnvironment.json": 0o644,
    }
    assert json.loads((base / "config" / "3.settings").read_text())["runtimeSettings"][0]["handlerSettings"] == {
        "publicSettings": {"k": "v"},
        "protectedSettings": None,
        "protectedSettingsCertThumbprint": None,
    }
    assert not list(Path(bench.agent.paths.lib_dir).glob("*.zip"))
    log = Path(bench.agent.paths.extension_log_dir) / NAME / "CommandExecution.log"
    assert "Launch command:" in log.read_text()


def test_the_log_tells_the_story_in_the_words_that_operators_look_for(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    settle(bench, wanted(NAME, "1.4.2"))
    lines = bench.log()
    places = []
    for text in (
        "ProcessExtensionsGoalState started [incarnation_1 channel: WireServer source: Fabric",
        f"[{NAME}-1.4.2] Expected handler state: enabled",
        f"[{NAME}-1.4.2] Decide which version to use",
        f"[{NAME}-1.4.2] Use version: 1.4.2",
        f"[{NAME}-1.4.2] Current handler state is: NotInstalled",
        f"[{NAME}-1.4.2] Download extension package",
        f"[{NAME}-1.4.2] Unpack extension package",
        f"INFO Event: name={NAME}, op=Download, message=Download succeeded",
        f"[{NAME}-1.4.2] Initialize extension directory",
        f"[{NAME}-1.4.2] Update settings file: 0.settings",
        f"[{NAME}-1.4.2] Install extension.",
        f"[{NAME}-1.4.2] Launch command:bin/run install",
        f"[{NAME}-1.4.2] Enable extension.",
        f"INFO Event: name={NAME}, op=Enable, message=Launch command succeeded: bin/run enable",
        "ProcessExtensionsGoalState completed [incarnation_1 ",
    ):
        assert text in lines, text
        places.append(
            lines.rindex(text) if text.startswith("ProcessExtensionsGoalState completed") else lines.index(text)
        )
    assert places == sorted(places)


def test_the_same_goal_state_runs_nothing_and_a_restart_runs_enable_only(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    goal = bench.goal(wanted(NAME, "1.4.2"))
    assert bench.process(goal) == ["install 1.4.2", "enable 1.4.2"]
    assert bench.process(goal) == []
    bench.restart()
    assert bench.process(goal) == ["enable 1.4.2"]
    bench.boot()
    assert bench.process(goal) == ["enable 1.4.2"]


def test_a_prefix_picks_the_highest_version_and_without_one_the_platform_is_told(bench: Bench) -> None:
    for version in ("1.4.2", "1.4.10", "1.5.0"):
        bench.publish(NAME, version)
    assert bench.apply(wanted(NAME, "1.4")) == ["install 1.4.10", "enable 1.4.10"]
    assert bench.apply(wanted("Contoso.Absent", "2.0")) == []
    assert bench.status()["Contoso.Absent"] == ("NotReady", -1, "error", -1)
    assert "Unable to find version 2.0 in manifest for extension Contoso.Absent" in bench.message("Contoso.Absent")


def test_without_settings_there_is_an_empty_settings_file_and_no_extension_status(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    settle(bench, wanted(NAME, "1.4.2", sequence=None))
    assert (bench.handler_dir(NAME, "1.4.2") / "config" / "0.settings").read_bytes() == b""
    assert bench.status() == {NAME: ("Ready", 0, None, None)}


def test_until_the_handler_writes_a_status_it_is_transitioning(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2", {"enable": ":"})
    settle(bench, wanted(NAME, "1.4.2"))
    assert bench.status() == {NAME: ("Ready", 0, "transitioning", 0)}


# --- Failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failing", "code", "state", "later"),
    [
        ("install", 1007, "NotInstalled", ["install 1.4.2"]),
        ("enable", 1009, "Installed", ["enable 1.4.2"]),
    ],
)
def test_a_failed_command_is_reported_with_its_code_and_its_output(
    bench: Bench, failing: str, code: int, state: str, later: list[str]
) -> None:
    bench.publish(NAME, "1.4.2", {failing: "echo to out; echo to err >&2; exit 42"})
    settle(bench, wanted(NAME, "1.4.2", sequence=7))
    assert bench.status() == {NAME: ("NotReady", code, "error", code)}
    base = bench.handler_dir(NAME, "1.4.2")
    assert bench.message(NAME) == (
        f"[ExtensionOperationError] Non-zero exit code: 42, {base}/bin/run {failing}\n"
        "[stdout]\nto out\n\n\n[stderr]\nto err\n"
    )
    assert bench.state(NAME, "1.4.2") == state
    assert (failing.capitalize(), NAME, False) in [event[:3] for event in bench.agent.seen]
    # Nothing more happens in this goal state; the next one begins where it has to.
    assert bench.apply(wanted(NAME, "1.4.2", sequence=8)) == later


def test_a_failed_enable_of_what_was_enabled_leaves_it_so(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2", {"enable": "[ $ConfigSequenceNumber = 0 ] && succeed || exit 3"})
    settle(bench, wanted(NAME, "1.4.2", sequence=0))
    settle(bench, wanted(NAME, "1.4.2", sequence=1))
    assert bench.status() == {NAME: ("NotReady", 1009, "error", 1009)}
    assert bench.state(NAME, "1.4.2") == "Enabled"


def test_the_extension_that_says_why_it_failed_is_believed(bench: Bench) -> None:
    said = '[{"status":{"status":"error","code":17,"formattedMessage":{"lang":"en-US","message":"no disk"}}}]'
    bench.publish(NAME, "1.4.2", {"enable": f"echo '{said}' >status/0.status; exit 1"})
    settle(bench, wanted(NAME, "1.4.2"))
    assert bench.status() == {NAME: ("NotReady", 1009, "error", 17)}


def test_out_of_time_is_1011(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(outcomes.TIMEOUTS, "enable", 0.5)
    bench.publish(NAME, "1.4.2", {"enable": "echo begun; sleep 60"})
    settle(bench, wanted(NAME, "1.4.2"))
    assert bench.status() == {NAME: ("NotReady", 1011, "error", 1011)}
    assert re.match(
        r"\[ExtensionOperationError\] Timeout\(0\): .*bin/run enable\n\[stdout\]\nbegun\n", bench.message(NAME)
    )


def test_out_of_time_under_a_quota_says_how_long_it_was_held_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(outcomes.TIMEOUTS, "enable", 0.5)
    monkeypatch.setattr(throttling, "seconds_held_back", lambda pid: 0.4 if pid else None)
    bench.publish(NAME, "1.4.2", {"enable": "sleep 60"})
    settle(bench, wanted(NAME, "1.4.2"))
    assert bench.message(NAME).startswith("[ExtensionOperationError] Timeout(0);CPUThrottledTime(0secs): ")


def test_a_hint_names_missing_interpreters(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    bench.publish(NAME, "1.4.2", {"enable": "exit 127"})
    settle(bench, wanted(NAME, "1.4.2"))
    assert "HINT: no python or python3 command was found in PATH" in bench.message(NAME)


def test_a_manifest_without_the_command_fails_the_operation(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2", enableCommand=None)
    settle(bench, wanted(NAME, "1.4.2"))
    assert bench.status() == {NAME: ("NotReady", -1, "error", -1)}
    assert "enableCommand" in bench.message(NAME)


def test_an_unsafe_package_touches_nothing_and_is_reported(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "RETRY_AFTER", ())
    bench.platform.packages[NAME] = {"1.4.2": b"this is no zip"}
    settle(bench, wanted(NAME, "1.4.2"))
    assert bench.status() == {NAME: ("NotReady", 1005, "error", 1005)}
    assert not list(Path(bench.agent.paths.lib_dir).glob("*.zip"))


def test_an_invalid_handler_is_reported_and_the_others_run(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    bad = wanted("Contoso.Bad", "1.0")
    ran = bench.apply(
        type(bad)(bad.name, bad.version, invalid_reason="Multiple RuntimeSettings found."),
        wanted("../../etc", "1.0"),
        wanted(NAME, "1.4.2"),
    )
    assert ran == ["install 1.4.2", "enable 1.4.2"]
    status = bench.status()
    assert status["Contoso.Bad"][:2] == ("NotReady", -1)
    assert status["../../etc"][:2] == ("NotReady", -1)
    assert "Ran into config errors: Multiple RuntimeSettings found." in bench.message("Contoso.Bad")
    assert "Please retry again as another operation with updated settings" in bench.message("Contoso.Bad")


def test_a_package_that_comes_broken_is_fetched_again_within_the_goal_state(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "RETRY_AFTER", (0.05, 0.05, 0.05))
    bench.publish(NAME, "1.4.2")
    bench.platform.broken_downloads = 2
    assert bench.apply(wanted(NAME, "1.4.2")) == ["install 1.4.2", "enable 1.4.2"]
    assert len(bench.platform.downloads) == 3
    assert bench.status() == {NAME: ("Ready", 0, "success", 0)}


def test_after_three_more_tries_a_download_has_failed_and_others_did_not_wait(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "RETRY_AFTER", (0.2, 0.01, 0.01))
    bench.publish(NAME, "1.4.2")
    bench.publish("Contoso.Other", "1.0")
    bench.platform.broken_downloads = 100
    bench.platform.sound = {"Contoso.Other"}
    assert bench.apply(wanted(NAME, "1.4.2"), wanted("Contoso.Other", "1.0")) == ["install 1.0", "enable 1.0"]
    assert bench.platform.downloads.count(f"{NAME} 1.4.2") == 4
    assert bench.platform.downloads[1] == "Contoso.Other 1.0", "it did not wait for the retries"
    assert bench.status()[NAME] == ("NotReady", 1005, "error", 1005)


def test_while_a_download_is_tried_again_the_platform_hears_no_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "RETRY_AFTER", (60.0,))
    bench.platform.unreachable = True
    bench.engine.offer(bench.goal(wanted(NAME, "1.4.2", sequence=2)))
    thread = threading.Thread(target=bench.engine.work)
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while NAME not in bench.site.view.outcomes:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert bench.status()[NAME][2:] == ("transitioning", 0)
        assert bench.reporter.build().busy
    finally:
        bench.engine.stop()
        thread.join(10)
    assert not thread.is_alive(), "it leaves at once"


# --- Update (extensions §10.4) ---------------------------------------------------------------------------------------


def upgrade(
    bench: Bench,
    old: dict[str, str],
    new: dict[str, str],
    versions: tuple[str, str] = ("1.0", "2.0"),
    **manifest: object,
) -> list[str]:
    bench.publish(NAME, versions[0], old)
    settle(bench, wanted(NAME, versions[0], sequence=1))
    bench.publish(NAME, versions[1], new, **manifest)
    return bench.apply(wanted(NAME, versions[1], sequence=2))


def test_an_upgrade_runs_the_commands_of_both_versions_in_order(bench: Bench) -> None:
    bench.publish(NAME, "1.0")
    settle(bench, wanted(NAME, "1.0", sequence=1))
    old = bench.handler_dir(NAME, "1.0")
    (old / "mrseq").write_text("1")
    bench.publish(NAME, "2.0")
    assert bench.apply(wanted(NAME, "2.0", sequence=2)) == [
        "disable 1.0",
        "update 2.0",
        "uninstall 1.0",
        "install 2.0",
        "enable 2.0",
    ]
    assert bench.status() == {NAME: ("Ready", 0, "success", 0)}
    assert not old.exists()
    new = bench.handler_dir(NAME, "2.0")
    assert (new / "mrseq").read_text() == "1"
    assert (new / "status" / "1.status").exists()
    update = bench.variables("update 2.0")
    assert update["VERSION"] == "2.0"
    assert update["AZURE_GUEST_AGENT_UPDATING_FROM_VERSION"] == "1.0"
    assert update["AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE"] == "0"
    assert bench.variables("install 2.0")["AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE"] == "0"
    assert bench.variables("enable 2.0")["AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE"] == "0"
    # Commands of the old version get the new number (§10.4).
    assert bench.variables("disable 1.0")["ConfigSequenceNumber"] == "2"


def test_a_downgrade_runs_the_old_update_command(bench: Bench) -> None:
    assert upgrade(bench, {}, {}, ("2.0", "1.0")) == [
        "disable 2.0",
        "update 2.0",
        "uninstall 2.0",
        "install 1.0",
        "enable 1.0",
    ]
    update = bench.variables("update 2.0")
    assert (update["VERSION"], update["AZURE_GUEST_AGENT_UPDATING_FROM_VERSION"]) == ("1.0", "2.0")


def test_an_update_without_install_leaves_it_out(bench: Bench) -> None:
    ran = upgrade(bench, {}, {}, updateMode="UpdateWithoutInstall")
    assert ran == ["disable 1.0", "update 2.0", "uninstall 1.0", "enable 2.0"]
    assert bench.state(NAME, "2.0") == "Enabled"


@pytest.mark.parametrize(
    ("failing", "keeps_going", "commands", "code", "old_state", "new_state"),
    [
        ("disable", False, ["disable 1.0"], 1008, "Enabled", "NotInstalled"),
        ("update", False, ["disable 1.0", "update 2.0"], 1008, "Installed", "FailedUpgrade"),
        ("uninstall", False, ["disable 1.0", "update 2.0", "uninstall 1.0"], 1008, "Installed", "NotInstalled"),
        (
            "install",
            False,
            ["disable 1.0", "update 2.0", "uninstall 1.0", "install 2.0"],
            1007,
            None,
            "NotInstalled",
        ),
        (
            "enable",
            False,
            ["disable 1.0", "update 2.0", "uninstall 1.0", "install 2.0", "enable 2.0"],
            1009,
            None,
            "Installed",
        ),
        (
            "disable",
            True,
            ["disable 1.0", "update 2.0", "uninstall 1.0", "install 2.0", "enable 2.0"],
            0,
            None,
            "Enabled",
        ),
        ("update", True, ["disable 1.0", "update 2.0"], 1008, "Installed", "FailedUpgrade"),
        (
            "uninstall",
            True,
            ["disable 1.0", "update 2.0", "uninstall 1.0", "install 2.0", "enable 2.0"],
            0,
            None,
            "Enabled",
        ),
        (
            "install",
            True,
            ["disable 1.0", "update 2.0", "uninstall 1.0", "install 2.0"],
            1007,
            None,
            "NotInstalled",
        ),
        (
            "enable",
            True,
            ["disable 1.0", "update 2.0", "uninstall 1.0", "install 2.0", "enable 2.0"],
            1009,
            None,
            "Installed",
        ),
    ],
)
def test_every_command_of_an_update_failing(
    bench: Bench,
    failing: str,
    keeps_going: bool,
    commands: list[str],
    code: int,
    old_state: str | None,
    new_state: str,
) -> None:
    old = {failing: "exit 7"} if failing in ("disable", "uninstall") else {}
    new = {failing: "exit 7"} if failing in ("update", "install", "enable") else {}
    assert upgrade(bench, old, new, continueOnUpdateFailure=keeps_going) == commands
    status, reported, extension, _ = bench.status()[NAME]
    assert (status, reported) == (("NotReady", code) if code else ("Ready", 0))
    assert extension == ("error" if code else "success")
    assert bench.state(NAME, "1.0") == old_state
    assert bench.state(NAME, "2.0") == new_state
    if failing in ("disable", "uninstall") and not keeps_going:
        assert bench.message(NAME).endswith("; ContinueOnUpdate: False")
    if failing == "disable" and keeps_going:
        assert bench.variables("update 2.0")["AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE"] == "7"
    if failing == "uninstall" and keeps_going:
        assert bench.variables("install 2.0")["AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE"] == "7"


def test_after_a_failed_upgrade_the_next_goal_state_tries_the_whole_sequence(bench: Bench) -> None:
    upgrade(bench, {}, {"update": "exit 1"})
    bench.publish(NAME, "2.0")
    # The old version is disabled already, so that is left out and said so to the update command.
    assert bench.apply(wanted(NAME, "2.0", sequence=3)) == ["update 2.0", "uninstall 1.0", "install 2.0", "enable 2.0"]
    assert bench.variables("update 2.0")["AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE"] == "NOT_RUN"
    assert bench.state(NAME, "1.0") is None
    assert bench.status() == {NAME: ("Ready", 0, "success", 0)}


def test_a_failed_downgrade_marks_the_old_version_and_the_next_goal_state_gets_rid_of_it(bench: Bench) -> None:
    assert upgrade(bench, {"update": "exit 1"}, {}, ("2.0", "1.0")) == ["disable 2.0", "update 2.0"]
    assert bench.state(NAME, "2.0") == "FailedUpgrade"
    assert bench.apply(wanted(NAME, "1.0", sequence=3)) == ["install 1.0", "enable 1.0"]
    assert bench.state(NAME, "2.0") is None


# --- Removal (extensions §10.3) --------------------------------------------------------------------------------------


def test_uninstall_disables_uninstalls_removes_and_is_no_longer_reported(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    settle(bench, wanted(NAME, "1.4.2"))
    assert bench.apply(wanted(NAME, "1.4.2", "uninstall")) == ["disable 1.4.2", "uninstall 1.4.2"]
    assert not bench.handler_dir(NAME, "1.4.2").exists()
    assert (Path(bench.agent.paths.extension_log_dir) / NAME).is_dir()
    assert bench.status() == {}
    assert f"Remove extension handler directory: {bench.handler_dir(NAME, '1.4.2')}" in bench.log()


def test_a_version_that_left_the_repository_and_an_unreachable_one_are_still_removed(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    settle(bench, wanted(NAME, "1.4.2"))
    del bench.platform.packages[NAME]
    bench.platform.unreachable = True
    assert bench.apply(wanted(NAME, "9.9", "uninstall")) == ["disable 1.4.2", "uninstall 1.4.2"]


def test_a_failed_disable_keeps_the_handler_until_it_failed_three_times(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2", {"disable": "exit 1"})
    settle(bench, wanted(NAME, "1.4.2"))
    for _ in range(3):
        assert bench.apply(wanted(NAME, "1.4.2", "uninstall")) == ["disable 1.4.2"]
        assert bench.status()[NAME][:2] == ("NotReady", 1010)
    assert bench.apply(wanted(NAME, "1.4.2", "uninstall")) == ["disable 1.4.2", "uninstall 1.4.2"]
    assert bench.status() == {}


def test_a_failed_uninstall_is_logged_and_passed_over(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2", {"uninstall": "exit 5"})
    settle(bench, wanted(NAME, "1.4.2"))
    settle(bench, wanted(NAME, "1.4.2", "uninstall"))
    assert bench.status() == {}
    assert ("UnInstall", NAME, False) in [event[:3] for event in bench.agent.seen]


def test_a_broken_package_can_be_removed(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    settle(bench, wanted(NAME, "1.4.2"))
    (bench.handler_dir(NAME, "1.4.2") / "HandlerManifest.json").unlink()
    assert bench.apply(wanted(NAME, "1.4.2", "uninstall")) == []
    assert not bench.handler_dir(NAME, "1.4.2").exists()


def test_disabled_disables_and_keeps_the_handler(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    settle(bench, wanted(NAME, "1.4.2"))
    assert bench.apply(wanted(NAME, "1.4.2", "disabled")) == ["disable 1.4.2"]
    assert bench.state(NAME, "1.4.2") == "Installed"
    assert bench.status()[NAME][:2] == ("NotReady", 0)
    assert bench.message(NAME) == "Plugin disabled"
    assert bench.apply(wanted(NAME, "1.4.2", "disabled")) == []


def test_what_the_goal_state_no_longer_names_goes_without_a_command_and_strangers_stay(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    settle(bench, wanted(NAME, "1.4.2"))
    lib = Path(bench.agent.paths.lib_dir)
    (lib / "someones-data-1.2").mkdir()
    (lib / "custom-script").mkdir()
    (lib / "Contoso.Old__1.0.zip").touch()
    assert bench.apply() == []
    left = sorted(path.name for path in lib.iterdir())
    assert "someones-data-1.2" in left
    assert "custom-script" in left
    assert not [name for name in left if name.startswith("Contoso")]


# --- Order (extensions §11.5) ----------------------------------------------------------------------------------------


def test_removals_run_before_installs_and_levels_in_order(bench: Bench) -> None:
    bench.publish("A", "1.0")
    bench.publish("B", "2.0")
    bench.publish("C", "3.0")
    settle(bench, wanted("C", "3.0"))
    ran = bench.apply(wanted("A", "1.0", level=1), wanted("B", "2.0"), wanted("C", "3.0", "uninstall"))
    assert ran == ["disable 3.0", "uninstall 3.0", "install 2.0", "enable 2.0", "install 1.0", "enable 1.0"]


def test_what_depends_on_a_failed_extension_is_skipped_and_says_so(bench: Bench) -> None:
    bench.publish("A", "1.0", {"enable": "exit 1"})
    bench.publish("B", "2.0")
    assert bench.apply(wanted("A", "1.0"), wanted("B", "2.0", level=1, sequence=4)) == ["install 1.0", "enable 1.0"]
    assert bench.status()["B"] == ("NotReady", -1, "error", -1)
    assert "Dependent Extension A" in bench.message("B")


def test_what_depends_on_an_extension_waits_until_its_detached_work_succeeds(bench: Bench, tmp_path: Path) -> None:
    go = tmp_path / "go"
    worker = f"(while [ ! -e {go} ]; do sleep 0.05; done; succeed) >/dev/null 2>&1 &"
    bench.publish("A", "1.0", {"enable": worker})
    bench.publish("B", "2.0")
    threading.Timer(0.5, go.touch).start()
    began = time.monotonic()
    assert bench.apply(wanted("A", "1.0"), wanted("B", "2.0", level=1))[-1] == "enable 2.0"
    assert time.monotonic() - began > 0.4
    assert bench.status()["A"][2] == "success"


# --- Multi-config (extensions §10.5, §10.6) --------------------------------------------------------------------------


def test_several_extensions_of_one_handler_have_each_their_own_fate(bench: Bench) -> None:
    bench.publish(
        NAME, "1.0", {"enable": "[ $ConfigExtensionName = jobB ] && exit 9; succeed"}, supportsMultipleExtensions=True
    )
    ran = bench.apply(multi(NAME, "1.0", ("jobA", 0, "enabled"), ("jobB", 4, "enabled"), ("jobC", 1, "disabled")))
    assert ran == ["install 1.0", "enable 1.0", "enable 1.0"]
    status = bench.status()
    assert status[f"{NAME}.jobA"] == ("Ready", 0, "success", 0)
    assert status[f"{NAME}.jobB"] == ("Ready", 0, "error", 1009)
    assert f"{NAME}.jobC" not in status
    assert (bench.handler_dir(NAME, "1.0") / "config" / "jobA.HandlerState").read_text() == "enabled"
    assert bench.variables("enable 1.0")["ConfigExtensionName"] == "jobB"


def test_the_last_disabled_extension_leaves_the_handler_installed(bench: Bench) -> None:
    bench.publish(NAME, "1.0", supportsMultipleExtensions=True)
    settle(bench, multi(NAME, "1.0", ("jobA", 0, "enabled"), ("jobB", 0, "enabled")))
    assert bench.apply(multi(NAME, "1.0", ("jobA", 0, "enabled"), ("jobB", 1, "disabled"))) == [
        "disable 1.0",
        "enable 1.0",
    ]
    assert bench.state(NAME, "1.0") == "Enabled"
    config = bench.handler_dir(NAME, "1.0") / "config"
    assert not list(config.glob("jobB.*"))
    assert bench.apply(multi(NAME, "1.0", ("jobA", 1, "disabled"), ("jobB", 1, "disabled"))) == ["disable 1.0"]
    assert bench.state(NAME, "1.0") == "Installed"
    assert bench.status()[NAME][:2] == ("NotReady", 0)


def test_an_update_tells_how_each_extension_was_disabled(bench: Bench) -> None:
    bench.publish(
        NAME, "1.0", {"disable": "[ $ConfigExtensionName = jobB ] && exit 4; :"}, supportsMultipleExtensions=True
    )
    settle(bench, multi(NAME, "1.0", ("jobA", 0, "enabled"), ("jobB", 0, "enabled")))
    bench.publish(NAME, "2.0", supportsMultipleExtensions=True, continueOnUpdateFailure=True)
    ran = bench.apply(multi(NAME, "2.0", ("jobA", 1, "enabled"), ("jobB", 1, "enabled"), ("jobC", 0, "enabled")))
    assert ran == [
        "disable 1.0",
        "disable 1.0",
        "update 2.0",
        "uninstall 1.0",
        "install 2.0",
        "enable 2.0",
        "enable 2.0",
        "enable 2.0",
    ]
    codes = json.loads(bench.variables("update 2.0")["AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODES_MULTIPLE_EXTENSIONS"])
    assert codes == [
        {"extensionName": "jobA", "exitCode": "0"},
        {"extensionName": "jobB", "exitCode": "4"},
        {"extensionName": "jobC", "exitCode": "NOT_RUN"},
    ]


def test_a_handler_that_takes_one_extension_only_is_refused_several(bench: Bench) -> None:
    bench.publish(NAME, "1.0")
    assert bench.apply(multi(NAME, "1.0", ("jobA", 0, "enabled"))) == []
    status, code, extension, _ = bench.status()[f"{NAME}.jobA"]
    assert (status, code, extension) == ("NotReady", -1, "error")
    assert "does not support MultiConfig but CRP expects it" in bench.message(NAME)


def test_uninstalling_a_multi_config_handler_disables_each_enabled_extension(bench: Bench) -> None:
    bench.publish(NAME, "1.0", supportsMultipleExtensions=True)
    settle(bench, multi(NAME, "1.0", ("jobA", 0, "enabled"), ("jobB", 0, "enabled")))
    gone = multi(NAME, "1.0", ("jobA", 0, "enabled"), ("jobB", 0, "enabled"), state="uninstall")
    assert bench.apply(gone) == ["disable 1.0", "disable 1.0", "uninstall 1.0"]
    assert bench.status() == {}


# --- Goal states that are not executed -------------------------------------------------------------------------------


def test_unknown_features_fail_the_goal_state_and_report_what_is_on_disk(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    settle(bench, wanted(NAME, "1.4.2", sequence=5))
    assert bench.apply(wanted(NAME, "1.4.2", sequence=6), required_features=("TimeTravel",)) == []
    report = bench.reporter.build()
    assert report.goal_state is not None
    assert (report.goal_state.status, report.goal_state.code) == ("Failed", 2001)
    assert "TimeTravel" in report.goal_state.message
    assert [event[0] for event in bench.agent.seen if not event[2]] == ["GoalStateUnsupportedFeatures"]
    assert [(item.name, item.extension.sequence_number if item.extension else None) for item in report.handlers] == [
        (NAME, 5)
    ]


def test_on_hold_nothing_is_executed_unless_over_provisioning_is_off(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    assert bench.apply(wanted(NAME, "1.4.2"), on_hold=True) == []
    assert "Extension handling is on hold" in bench.log()
    bench.agent.config.values["EnableOverProvisioning"] = False
    assert bench.apply(wanted(NAME, "1.4.2"), on_hold=True) == ["install 1.4.2", "enable 1.4.2"]


@pytest.mark.parametrize("held", [True, False])
def test_a_profile_document_says_whether_extensions_are_on_hold(bench: Bench, held: bool) -> None:
    bench.publish(NAME, "1.4.2")
    bench.platform.on_hold = held
    ran = bench.apply(wanted(NAME, "1.4.2"), artifacts_profile_uri="http://x/profile?sig=1")
    assert ran == ([] if held else ["install 1.4.2", "enable 1.4.2"])


def test_an_outdated_goal_state_is_only_reported(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    assert bench.apply(wanted(NAME, "1.4.2"), outdated=True) == []


@pytest.mark.parametrize(("state", "code", "extension"), [("enabled", 1009, "error"), ("uninstall", 1010, None)])
def test_with_extensions_switched_off_the_platform_hears_it_at_once(
    bench: Bench, state: str, code: int, extension: str | None
) -> None:
    bench.publish(NAME, "1.4.2")
    bench.agent.config.values["Extensions.Enabled"] = False
    assert bench.apply(wanted(NAME, "1.4.2", state, sequence=9)) == []
    status = bench.status()[NAME]
    assert status[:2] == ("NotReady", code)
    if extension is not None:
        assert status[2:] == (extension, code)
    assert bench.message(NAME) == (
        f"Extension '{NAME}' will not be processed since extension processing is disabled. To enable extension "
        "processing, set Extensions.Enabled=y in '/etc/waagent.conf'"
    )
    assert not bench.platform.downloads


def test_with_extensions_switched_off_nothing_is_cleaned_up(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    settle(bench, wanted(NAME, "1.4.2"))
    bench.agent.config.values["Extensions.Enabled"] = False
    settle(bench)
    assert bench.handler_dir(NAME, "1.4.2").exists()


def test_a_vetoed_handler_keeps_running_and_its_status_is_overwritten(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    bench.publish("B", "1.0")
    settle(bench, wanted(NAME, "1.4.2", sequence=1))
    bench.agent.hooks.vetoes[NAME] = Veto("Extension will not be processed: it is not on the list")
    assert bench.apply(wanted(NAME, "1.4.2", sequence=1), wanted("B", "1.0", level=1)) == []
    assert bench.status()[NAME] == ("NotReady", 1009, "error", 1009)
    assert bench.status()["B"][2] == "error"
    assert bench.state(NAME, "1.4.2") == "Enabled"


def test_a_refused_package_is_not_unpacked(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    bench.agent.hooks.package_veto = Veto("the signature does not match", 1009)
    assert bench.apply(wanted(NAME, "1.4.2")) == []
    assert bench.status()[NAME][:2] == ("NotReady", 1009)
    assert not (bench.handler_dir(NAME, "1.4.2") / "bin").exists()
    assert not list(Path(bench.agent.paths.lib_dir).glob("*.zip"))


@pytest.mark.parametrize("hook", ["verify_package", "accept_package"])
def test_a_plugin_that_cannot_say_whether_a_package_is_good_refuses_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    def fail(*arguments: object) -> None:
        raise NoAnswer(f"{hook}: no plugin answered; acme: KeyError")

    monkeypatch.setattr(bench.agent.hooks, hook, fail)
    bench.publish(NAME, "1.4.2")
    assert bench.apply(wanted(NAME, "1.4.2")) == []
    assert bench.status()[NAME] == ("NotReady", 1009, "error", 1009)
    assert "acme: KeyError" in bench.message(NAME)
    assert not (bench.handler_dir(NAME, "1.4.2") / "bin").exists()


def test_a_package_refused_after_unpacking_leaves_nothing_and_runs_nothing(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    settle(bench, wanted(NAME, "1.4.2", sequence=1))
    bench.publish(NAME, "1.5.0")
    bench.agent.hooks.unpacked_veto = Veto("it is not signed")
    assert bench.apply(wanted(NAME, "1.5.0", sequence=2)) == []
    package, files = bench.agent.hooks.unpacked[-1]
    assert (package.handler_name, package.version) == (NAME, "1.5.0")
    assert "HandlerManifest.json" in files
    assert bench.status()[NAME] == ("NotReady", 1009, "error", 1009)
    assert bench.message(NAME) == "it is not signed"
    assert not (bench.handler_dir(NAME, "1.5.0") / "bin").exists()
    assert not list(Path(bench.agent.paths.lib_dir).glob("*.zip"))
    assert bench.state(NAME, "1.4.2") == "Enabled", "what ran before runs on"
    bench.agent.hooks.unpacked_veto = None
    assert bench.apply(wanted(NAME, "1.5.0", sequence=2))[-1] == "enable 1.5.0"


def test_a_package_cannot_bring_its_own_mark_of_validation(bench: Bench) -> None:
    data = io.BytesIO(package("1.4.2", bench.trace_file))
    with zipfile.ZipFile(data, "a") as archive:
        archive.writestr("package_validated", "")
    bench.platform.packages[NAME] = {"1.4.2": data.getvalue()}
    assert bench.apply(wanted(NAME, "1.4.2")) == ["install 1.4.2", "enable 1.4.2"]
    assert "package_validated" not in bench.agent.hooks.unpacked[0][1]
    assert not (bench.handler_dir(NAME, "1.4.2") / "package_validated").exists()


def test_a_refused_command_is_not_run_and_counts_as_failed(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    bench.agent.hooks.command_vetoes["enable"] = Veto("not today")
    assert bench.apply(wanted(NAME, "1.4.2")) == ["install 1.4.2"]
    assert bench.agent.hooks.commands == ["install", "enable"]
    assert bench.status()[NAME] == ("NotReady", 1009, "error", 1009)
    assert bench.message(NAME) == "not today"
    bench.agent.hooks.command_vetoes.clear()
    assert bench.apply(wanted(NAME, "1.4.2")) == ["enable 1.4.2"]


def test_a_plugin_that_cannot_say_whether_a_command_may_run_refuses_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(agent: object, command: object) -> None:
        raise NoAnswer("allow_command: no plugin answered; acme: KeyError")

    monkeypatch.setattr(bench.agent.hooks, "allow_command", fail)
    bench.publish(NAME, "1.4.2")
    assert bench.apply(wanted(NAME, "1.4.2")) == []
    assert bench.status()[NAME][:2] == ("NotReady", 1007)
    assert "acme: KeyError" in bench.message(NAME)


def test_a_launcher_is_put_before_every_command(bench: Bench, tmp_path: Path) -> None:
    launcher = tmp_path / "launcher"
    launcher.write_text(f'#!/bin/sh\necho launched >>{tmp_path}/launches\nexec "$@"\n')
    launcher.chmod(0o755)
    bench.agent.hooks.launcher = Launch((str(launcher),), None)
    bench.publish(NAME, "1.4.2")
    assert bench.apply(wanted(NAME, "1.4.2")) == ["install 1.4.2", "enable 1.4.2"]
    assert (tmp_path / "launches").read_text() == "launched\n" * 2


def test_plugins_hear_of_every_command_and_of_what_the_handler_asks_for(bench: Bench) -> None:
    limits = {"cpuQuotaPercentage": 40, "services": [{"name": "sampled.service", "cpuQuotaPercentage": 20}]}
    bench.publish(NAME, "1.4.2", {"enable": "exit 7"}, limits=limits)
    bench.apply(wanted(NAME, "1.4.2"))
    ended = [(command.operation, result.ok, result.exit_code) for command, result in bench.agent.hooks.ended]
    assert ended == [("install", True, 0), ("enable", False, 7)]
    assert [command.resource_limits for command in bench.agent.hooks.launched] == [limits, limits]


def test_plugins_are_told_that_their_launcher_did_not_work(bench: Bench) -> None:
    bench.agent.hooks.launcher = Launch(("/nonexistent/launcher",), "x.scope")
    bench.publish(NAME, "1.4.2")
    assert bench.apply(wanted(NAME, "1.4.2")) == ["install 1.4.2", "enable 1.4.2"]
    assert [result.launch_problem for _, result in bench.agent.hooks.ended] == ["No such file or directory"] * 2
    assert bench.status()[NAME][:3] == ("Ready", 0, "success")


def test_an_agent_that_stops_while_a_plugin_waits_does_not_start_the_command(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    bench.agent.hooks.on_before_command = lambda command: bench.agent.stopping.set()
    assert bench.apply(wanted(NAME, "1.4.2")) == []
    assert bench.agent.hooks.commands == []  # whoever prepares something is not asked in vain
    bench.restart()
    bench.number -= 1
    assert bench.apply(wanted(NAME, "1.4.2")) == ["install 1.4.2", "enable 1.4.2"]


# --- Power cuts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "runs"),
    [
        (None, ["enable 1.4.2"]),
        ("empty", ["install 1.4.2", "enable 1.4.2"]),
        ("gone", ["install 1.4.2", "enable 1.4.2"]),
        ("garbled", ["install 1.4.2", "enable 1.4.2"]),
        ("changed by the handler", ["enable 1.4.2"]),
        ("note", ["install 1.4.2", "enable 1.4.2"]),
    ],
)
def test_a_package_that_a_power_cut_damaged_is_installed_anew(
    bench: Bench, tmp_path: Path, harm: str | None, runs: list[str]
) -> None:
    bench.publish(NAME, "1.4.2", {"enable": f"[ -e {tmp_path}/go ] || sleep 60; succeed"})
    bench.engine.offer(bench.goal(wanted(NAME, "1.4.2")))
    thread = start(bench)
    until(lambda: bench.trace() and bench.trace()[-1].startswith("enable"), "enable runs")
    bench.engine.stop()
    thread.join(10)
    for pid in [int(p.read_text()) for p in Path(bench.agent.paths.run_dir).glob("commands/*/pid")]:
        os.killpg(os.getpgid(pid), signal.SIGKILL)
    victim = bench.handler_dir(NAME, "1.4.2") / "bin" / "run"
    before, content = victim.stat(), victim.read_bytes()
    if harm == "empty":
        victim.write_bytes(b"")
    elif harm == "gone":
        victim.unlink()
    elif harm == "garbled":
        victim.write_bytes(bytes(len(content)))
        os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif harm == "changed by the handler":
        victim.write_bytes(content + b"# mine\n")
    elif harm == "note":
        (note,) = Path(bench.agent.paths.lib_dir).glob(".*.unpacked")
        note.write_bytes(b"")
    (tmp_path / "go").touch()
    bench.boot()
    assert bench.apply(wanted(NAME, "1.4.2")) == runs
    assert bench.status() == {NAME: ("Ready", 0, "success", 0)}
    assert ("were damaged when the machine stopped" in bench.log()) is (len(runs) == 2)
    assert not list(Path(bench.agent.paths.lib_dir).glob(".*")), "once it is synced nothing needs to be checked"


# --- Reporting while things run, leaving, coming back ----------------------------------------------------------------


def start(bench: Bench) -> threading.Thread:
    thread = threading.Thread(target=bench.engine.work, daemon=True)
    thread.start()
    return thread


def until(condition: object, what: str) -> None:
    deadline = time.monotonic() + 15
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def waiting_command(tmp_path: Path, then: str = "succeed") -> str:
    return f"echo working hard; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; {then}"


def test_the_status_tells_which_command_runs_since_when_and_what_it_said_last(bench: Bench, tmp_path: Path) -> None:
    bench.publish(NAME, "1.4.2", {"install": waiting_command(tmp_path, ":")})
    bench.engine.offer(bench.goal(wanted(NAME, "1.4.2", sequence=2)))
    thread = start(bench)
    until(lambda: NAME in bench.status() and "working hard" in bench.message(NAME), "the last line is shown")
    status = bench.status()[NAME]
    assert status == ("Installing", 0, "transitioning", 0)
    assert re.match(r"Running install since \S+Z, at most until \S+Z; last output: working hard", bench.message(NAME))
    report = bench.reporter.build()
    assert report.busy
    assert report.details is not None
    assert report.details["running"]["operation"] == "install"
    assert "working hard" not in json.dumps(report.details), "the public copy holds no output"
    (tmp_path / "go").touch()
    thread.join(20)
    assert bench.status()[NAME] == ("Ready", 0, "success", 0)
    assert not bench.reporter.build().busy


def test_stopped_in_a_command_the_agent_leaves_at_once_and_the_next_one_goes_on(bench: Bench, tmp_path: Path) -> None:
    bench.publish(NAME, "1.4.2", {"enable": waiting_command(tmp_path)})
    goal = bench.goal(wanted(NAME, "1.4.2"))
    bench.engine.offer(goal)
    thread = start(bench)
    until(lambda: bench.trace() and bench.trace()[-1].startswith("enable"), "enable runs")
    began = time.monotonic()
    bench.engine.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert time.monotonic() - began < 3
    bench.restart()
    threading.Timer(0.3, lambda: (tmp_path / "go").touch()).start()
    assert bench.process(goal) == [], "nothing runs twice"
    assert bench.status()[NAME] == ("Ready", 0, "success", 0)
    assert [line.split("|")[0] for line in bench.trace()] == ["install 1.4.2", "enable 1.4.2"]


def test_a_command_of_a_superseded_goal_state_is_waited_for_by_the_next_process(bench: Bench, tmp_path: Path) -> None:
    bench.publish(NAME, "1.4.2", {"install": waiting_command(tmp_path, ":")})
    bench.engine.offer(bench.goal(wanted(NAME, "1.4.2")))
    thread = start(bench)
    until(lambda: bench.trace(), "install runs")
    bench.engine.stop()
    thread.join(10)
    bench.restart()
    threading.Timer(0.3, lambda: (tmp_path / "go").touch()).start()
    # The install is not run again: that it succeeded is on record.
    assert bench.apply(wanted(NAME, "1.4.2", sequence=1)) == ["enable 1.4.2"]


@pytest.mark.parametrize("on_record", [False, True])
def test_what_was_uninstalled_for_a_superseded_update_is_installed_again_when_it_is_wanted_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_record: bool
) -> None:
    bench.publish(NAME, "1.0", {"uninstall": waiting_command(tmp_path, ":")})
    settle(bench, wanted(NAME, "1.0"))
    bench.publish(NAME, "2.0")
    bench.engine.offer(bench.goal(wanted(NAME, "2.0", sequence=1)))
    thread = start(bench)
    until(lambda: bench.trace()[-1].startswith("uninstall"), "uninstall runs")
    if on_record:
        # Its end is on record, and the process is gone before the directory is.
        monkeypatch.setattr(Work, "_remove_old", lambda *_: bench.engine.stop() or sys.exit())
        (tmp_path / "go").touch()
    else:
        bench.engine.stop()
    thread.join(10)
    monkeypatch.undo()
    bench.restart()
    (tmp_path / "go").touch()
    assert bench.apply(wanted(NAME, "1.0", sequence=2)) == ["install 1.0", "enable 1.0"]
    assert bench.status() == {NAME: ("Ready", 0, "success", 0)}
    assert bench.state(NAME, "2.0") is None


def test_a_newer_goal_state_takes_the_place_of_what_has_not_begun(bench: Bench, tmp_path: Path) -> None:
    bench.publish("A", "1.0", {"install": waiting_command(tmp_path, ":")})
    bench.publish("B", "2.0")
    bench.publish("C", "3.0")
    bench.engine.offer(bench.goal(wanted("A", "1.0"), wanted("B", "2.0")))
    thread = start(bench)
    until(lambda: bench.trace(), "install runs")
    bench.engine.offer(bench.goal(wanted("A", "1.0"), wanted("C", "3.0")))
    assert "incarnation_2 takes the place of incarnation_1: install of A, which runs since " in bench.log()
    (tmp_path / "go").touch()
    thread.join(20)
    # The install runs to its end; that A is enabled is the newer goal state's affair, and B is in it no more.
    assert [line.split("|")[0] for line in bench.trace()] == ["install 1.0", "enable 1.0", "install 3.0", "enable 3.0"]
    log = bench.log()
    assert "Not begun, as there is a newer goal state: run enable of A 1.0" in log
    assert "incarnation_1 ends here, because incarnation_2 is newer; planned anew: A, B" in log


@pytest.mark.parametrize("what", ["manifest", "package"])
def test_a_newer_goal_state_does_not_wait_for_a_hopeless_download(bench: Bench, what: str) -> None:
    bench.publish("A", "1.0")
    bench.publish("B", "2.0")
    bench.platform.hopeless = {"A": what}
    bench.engine.offer(bench.goal(wanted("A", "1.0")))
    thread = start(bench)
    until(lambda: bench.platform.downloads == [f"A {what}"], "the download has begun")
    began = time.monotonic()
    bench.platform.hopeless.clear()
    bench.engine.offer(bench.goal(wanted("A", "1.0", sequence=1), wanted("B", "2.0")))
    thread.join(20)
    assert time.monotonic() - began < 10
    assert [line.split("|")[0] for line in bench.trace()] == ["install 1.0", "enable 1.0", "install 2.0", "enable 2.0"]
    assert bench.status() == dict.fromkeys("AB", ("Ready", 0, "success", 0))
    log = bench.log()
    assert "incarnation_2 takes the place of incarnation_1: no command runs; what has not begun is planned anew" in log
    assert f"[A-1.0] Given up, as there is a newer goal state: Failed to download artifacts: the {what} was" in log
    assert "incarnation_1 ends here, because incarnation_2 is newer; planned anew: A" in log
    assert "ERROR" not in log


def test_a_newer_goal_state_does_not_wait_for_the_next_try_of_a_download(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "RETRY_AFTER", (120.0,))
    bench.publish("A", "1.0")
    bench.platform.unreachable = True
    bench.engine.offer(bench.goal(wanted("A", "1.0")))
    thread = start(bench)
    until(lambda: "A" in bench.site.view.outcomes, "the first try has failed")
    bench.platform.unreachable = False
    bench.engine.offer(bench.goal(wanted("A", "1.0", sequence=1)))
    thread.join(20)
    assert bench.status() == {"A": ("Ready", 0, "success", 0)}
    assert "incarnation_1 ends here, because incarnation_2 is newer; planned anew: A" in bench.log()


def test_a_newer_goal_state_does_not_tear_an_update_in_two(bench: Bench, tmp_path: Path) -> None:
    bench.publish("A", "1.0")
    settle(bench, wanted("A", "1.0"))
    bench.publish("A", "2.0", {"update": waiting_command(tmp_path, ":")})
    bench.engine.offer(bench.goal(wanted("A", "2.0", sequence=1)))
    thread = start(bench)
    until(lambda: bench.trace()[-1].startswith("update"), "update runs")
    bench.engine.offer(bench.goal(wanted("A", "2.0", sequence=2)))
    (tmp_path / "go").touch()
    thread.join(20)
    ran = [line.split("|")[0] for line in bench.trace()][2:]
    assert ran == ["disable 1.0", "update 2.0", "uninstall 1.0", "install 2.0", "enable 2.0"]
    assert bench.variables("enable 2.0")["ConfigSequenceNumber"] == "2"


def test_a_newer_goal_state_that_keeps_the_old_version_stops_an_update_before_its_update_command(
    bench: Bench, tmp_path: Path
) -> None:
    bench.publish("A", "1.0", {"disable": waiting_command(tmp_path, ":")})
    settle(bench, wanted("A", "1.0"))
    bench.publish("A", "2.0")
    bench.engine.offer(bench.goal(wanted("A", "2.0", sequence=1)))
    thread = start(bench)
    until(lambda: bench.trace()[-1].startswith("disable"), "disable runs")
    bench.engine.offer(bench.goal(wanted("A", "1.0", sequence=2)))
    (tmp_path / "go").touch()
    thread.join(20)
    assert [line.split("|")[0] for line in bench.trace()][2:] == ["disable 1.0", "enable 1.0"]
    assert bench.status() == {"A": ("Ready", 0, "success", 0)}
    assert bench.state("A", "2.0") is None


def test_an_unchanged_failure_of_the_goal_state_before_is_not_reported_for_the_new_one(
    bench: Bench, tmp_path: Path
) -> None:
    bench.publish("A", "1.0", {"install": waiting_command(tmp_path, ":")})
    bench.publish("B", "2.0", {"enable": "[ $ConfigSequenceNumber = 1 ] && exit 1; succeed"})
    settle(bench, wanted("B", "2.0", sequence=1))
    assert bench.status()["B"] == ("NotReady", 1009, "error", 1009)
    bench.engine.offer(bench.goal(wanted("A", "1.0"), wanted("B", "2.0", sequence=2)))
    thread = start(bench)
    until(lambda: any(line.startswith("install 1.0") for line in bench.trace()), "install runs")
    assert bench.status()["B"] == ("NotReady", 0, "transitioning", 0)
    (tmp_path / "go").touch()
    thread.join(20)
    assert bench.status()["B"] == ("Ready", 0, "success", 0)


def test_a_converged_goal_state_is_told_once_and_marked(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    goal = bench.goal(wanted(NAME, "1.4.2"))
    bench.process(goal)
    for _ in range(2):
        bench.convergence.look(goal, bench.reporter.build().handlers, True)
    text = f"[('{NAME}', 'success')]"
    assert bench.log().count(f"Extension status: {text}") == 1
    told = f"All extensions in the goal state have reached a terminal state: {text}"
    assert bench.log().count(told) == 1
    assert NAME in (Path(bench.agent.paths.lib_dir) / "initial_goal_state").read_text()
    assert bench.changes == [(NAME, None, "success")]


def test_twenty_quick_handlers_are_quick(bench: Bench) -> None:
    for number in range(20):
        bench.publish(f"Contoso.Quick{number}", "1.0")
    before = os.times()
    began = time.monotonic()
    ran = bench.apply(*(wanted(f"Contoso.Quick{number}", "1.0") for number in range(20)))
    after = os.times()
    assert len(ran) == 40
    assert time.monotonic() - began < 10
    own = after.user + after.system - before.user - before.system
    children = after.children_user + after.children_system - before.children_user - before.children_system
    assert (own + children) / 20 < 0.16, f"{own / 20 * 1000:.0f} ms and {children / 20 * 1000:.0f} ms of children each"
