"""What is reported when something is missing, refused, full or old (extensions §8, §13, §24)."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.extensions.fakes import Bench, multi, wanted
from tests.unit.extensions.test_engine import settle, start, until, waiting_command
from waagent import ExtensionReport, Handler, HandlerReport, ProtocolError, Veto
from waagent_extensions import order, outcomes, records, settings
from waagent_extensions import package as package_module
from waagent_extensions import report as report_module

NAME = "Contoso.Tools.Sample"
THUMBPRINT = "0123456789abcdef0123456789abcdef01234567"
SECRET: dict[str, Any] = {"protected": "c2VjcmV0", "thumbprint": THUMBPRINT}


def items(bench: Bench, name: str = NAME) -> list[HandlerReport]:
    return [item for item in bench.reporter.build().handlers if item.name == name]


def extension(bench: Bench, name: str = NAME) -> ExtensionReport:
    found = items(bench, name)[0].extension
    assert found is not None
    return found


# --- Certificates (extensions §21, §24) ------------------------------------------------------------------------------


def place_certificates(bench: Bench) -> None:
    for suffix in ("crt", "prv"):
        Path(bench.agent.paths.lib_dir, f"{THUMBPRINT.upper()}.{suffix}").touch()


def test_a_certificate_that_is_there_is_not_asked_for(bench: Bench) -> None:
    bench.publish(NAME, "1.0")
    place_certificates(bench)
    assert bench.apply(wanted(NAME, "1.0", **SECRET)) == ["install 1.0", "enable 1.0"]
    assert bench.platform.forced == 0


def test_a_missing_certificate_is_fetched_again_before_the_handler_needs_it(bench: Bench) -> None:
    bench.publish(NAME, "1.0")
    bench.platform.on_forced = lambda: place_certificates(bench)
    assert bench.apply(wanted(NAME, "1.0", **SECRET)) == ["install 1.0", "enable 1.0"]
    assert bench.platform.forced == 1


def test_a_certificate_that_cannot_be_had_fails_the_extension_in_words(bench: Bench) -> None:
    bench.publish(NAME, "1.0")
    settle(bench, wanted(NAME, "1.0", sequence=1))
    bench.publish(NAME, "2.0")
    bench.publish("Contoso.Other", "1.0")

    def unreachable() -> None:
        raise ProtocolError("the platform does not answer")

    bench.platform.on_forced = unreachable
    ran = bench.apply(wanted(NAME, "2.0", sequence=2, **SECRET), wanted("Contoso.Other", "1.0", **SECRET))
    assert ran == [], "what runs is not taken down for what could not be enabled"
    assert bench.state(NAME, "1.0") == "Enabled"
    assert bench.platform.forced == 1, "asked once, however many extensions need it"
    found = extension(bench)
    assert (found.status, found.code, found.sequence_number) == ("error", 1009, 2)
    assert found.message is not None
    assert f"{THUMBPRINT.upper()}.crt" in found.message
    assert f"{THUMBPRINT.upper()}.prv missing" in found.message
    assert items(bench)[0].status == "NotReady"
    assert extension(bench, "Contoso.Other").status == "error"
    # The next goal state asks again.
    bench.platform.on_forced = lambda: place_certificates(bench)
    assert bench.apply(wanted(NAME, "2.0", sequence=3, **SECRET))[-1] == "enable 2.0"


def test_of_several_extensions_only_the_one_without_certificate_fails(bench: Bench) -> None:
    bench.publish(NAME, "1.0", supportsMultipleExtensions=True)
    goal = multi(NAME, "1.0", ("jobA", 0, "enabled"), ("jobB", 0, "enabled"))
    (first, second) = goal.extensions
    protected = type(first)(first.name, 0, protected="c2VjcmV0", thumbprint=THUMBPRINT)
    handler = type(goal)(NAME, "1.0", "enabled", multi_config=True, extensions=(second, protected))
    assert bench.apply(handler) == ["install 1.0", "enable 1.0"]
    assert bench.status() == {f"{NAME}.jobB": ("Ready", 0, "success", 0), f"{NAME}.jobA": ("Ready", 0, "error", 1009)}


# --- Every failure has an extension that says why --------------------------------------------------------------------


def test_an_invalid_handler_gets_an_error_for_each_of_its_extensions(bench: Bench) -> None:
    good = multi(NAME, "1.0", ("jobA", 3, "enabled"), ("jobB", 7, "enabled"))
    bad = Handler(
        NAME, "1.0", multi_config=True, extensions=good.extensions, invalid_reason="Two nodes of settings were found."
    )
    settle(bench, bad)
    found = [item.extension for item in items(bench)]
    assert [(one.name, one.sequence_number, one.status) for one in found if one] == [
        ("jobA", 3, "error"),
        ("jobB", 7, "error"),
    ]
    assert all("Two nodes of settings were found." in (one.message or "") for one in found if one)


def test_an_old_success_under_the_same_number_does_not_hide_a_failure(bench: Bench) -> None:
    bench.publish(NAME, "1.0", {"enable": "if [ -e again ]; then echo broken >&2; exit 9; fi; : >again; succeed"})
    settle(bench, wanted(NAME, "1.0", sequence=4))
    assert extension(bench).status == "success"
    settle(bench, wanted(NAME, "1.0", sequence=4))
    found = extension(bench)
    assert (found.status, found.code, found.operation) == ("error", 1009, "Enable")
    assert found.message is not None
    assert "Non-zero exit code: 9" in found.message
    assert "broken" in found.message


def test_an_old_error_is_not_taken_for_the_cause_of_a_new_one(bench: Bench) -> None:
    said = '[{"status":{"status":"error","code":17,"formattedMessage":{"lang":"en-US","message":"no disk"}}}]'
    bench.publish(
        NAME, "1.0", {"enable": f"if [ -e again ]; then exit 9; fi; : >again; echo '{said}' >status/4.status"}
    )
    settle(bench, wanted(NAME, "1.0", sequence=4))
    path = bench.handler_dir(NAME, "1.0") / "status" / "4.status"
    os.utime(path, (time.time() - 60, time.time() - 60))
    assert extension(bench).code == 17
    settle(bench, wanted(NAME, "1.0", sequence=4))
    assert extension(bench).code == 1009


def test_a_disk_that_takes_no_record_does_not_hide_a_failure(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.publish(NAME, "1.0")

    def full(*arguments: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for module, name in ((records, "write_atomic"), (settings, "write_atomic")):
        monkeypatch.setattr(module, name, full)
    assert bench.apply(wanted(NAME, "1.0", sequence=6)) == []
    (item,) = items(bench)
    assert item.status == "NotReady"
    assert "No space left on device" in (item.message or "")
    found = extension(bench)
    assert (found.status, found.sequence_number) == ("error", 6)
    assert "No space left on device" in (found.message or "")
    monkeypatch.undo()
    assert bench.apply(wanted(NAME, "1.0", sequence=7)) == ["install 1.0", "enable 1.0"]


def test_a_package_that_cannot_be_initialized_does_not_stay(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(package_module, "write_handler_environment", full)
    bench.publish(NAME, "1.0")
    assert bench.apply(wanted(NAME, "1.0")) == []
    assert bench.status() == {NAME: ("NotReady", -1, "error", -1)}
    assert "No space left on device" in bench.message(NAME)
    assert not (bench.handler_dir(NAME, "1.0") / "bin").exists()
    monkeypatch.undo()
    assert bench.apply(wanted(NAME, "1.0")) == ["install 1.0", "enable 1.0"]


def test_a_fault_of_the_agent_costs_one_handler_one_goal_state(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.publish(NAME, "1.0")
    bench.publish("Contoso.Other", "1.0")
    write = settings.write

    def broken(handler: object, *arguments: object) -> str:
        if getattr(handler, "name", "") == NAME:
            raise ZeroDivisionError("a bug")
        return write(handler, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(settings, "write", broken)
    for _ in range(3):
        ran = bench.apply(wanted(NAME, "1.0"), wanted("Contoso.Other", "1.0"))
        assert ran[-1] == "enable 1.0"
        assert extension(bench).status == "error"
        assert "ZeroDivisionError: a bug" in (extension(bench).message or "")
        assert extension(bench, "Contoso.Other").status == "success"
    monkeypatch.undo()
    assert bench.apply(wanted(NAME, "1.0"), wanted("Contoso.Other", "1.0"))[0] == "install 1.0"


def test_a_runtime_directory_that_takes_no_record_does_not_stop_the_work(bench: Bench) -> None:
    bench.publish(NAME, "1.0")
    record = Path(bench.agent.paths.run("extensions.jsonl"))
    record.mkdir(parents=True)
    assert bench.apply(wanted(NAME, "1.0")) == ["install 1.0", "enable 1.0"]
    assert bench.status()[NAME] == ("Ready", 0, "success", 0)
    record.rmdir()
    assert bench.apply(wanted(NAME, "1.0", sequence=1)) == ["enable 1.0"]
    assert '"ended"' in record.read_text()


def test_a_fault_in_choosing_a_version_costs_one_handler_one_goal_state(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.publish(NAME, "1.0")
    bench.publish("Contoso.Other", "1.0")
    fetch = bench.platform.fetch_manifest

    def broken(handler: Any, *, stop: Any) -> Any:
        if handler.name == NAME:
            raise KeyError("a bug")
        return fetch(handler, stop=stop)

    with monkeypatch.context() as patched:
        patched.setattr(bench.platform, "fetch_manifest", broken)
        assert bench.apply(wanted(NAME, "1.0"), wanted("Contoso.Other", "1.0")) == ["install 1.0", "enable 1.0"]
    assert extension(bench).message == "Processing the extension failed: KeyError('a bug')"
    assert extension(bench, "Contoso.Other").status == "success"
    assert bench.apply(wanted(NAME, "1.0"), wanted("Contoso.Other", "1.0"))[0] == "install 1.0"


def test_a_chain_of_dependants_names_what_failed_first(bench: Bench) -> None:
    bench.publish("A", "1.0", {"enable": "exit 3"})
    settle(bench, *(wanted(name, "1.0", level=level) for level, name in enumerate("ABCDE")))
    last = extension(bench, "E")
    assert last.status == "error"
    assert last.message is not None
    assert "Dependent Extension A failed" in last.message
    assert len(last.message) < 500


# --- While something runs --------------------------------------------------------------------------------------------


def test_a_handler_that_was_ready_says_what_runs_when_it_is_enabled_again(bench: Bench, tmp_path: Path) -> None:
    bench.publish(NAME, "1.0", {"enable": f"[ -e {tmp_path}/go ] || echo once; " + waiting_command(tmp_path)})
    (tmp_path / "go").touch()
    settle(bench, wanted(NAME, "1.0"))
    (tmp_path / "go").unlink()
    bench.engine.offer(bench.goal(wanted(NAME, "1.0")))
    thread = start(bench)
    until(lambda: "last output: working hard" in bench.message(NAME), "the last line is shown")
    assert items(bench)[0].status == "Ready"
    assert bench.message(NAME).startswith("Plugin enabled. Running enable since ")
    (tmp_path / "go").touch()
    thread.join(20)
    assert bench.message(NAME) == "Plugin enabled"


def test_the_time_limit_for_dependants_goes_on_across_agents(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.publish("A", "1.0", {"enable": ":"})
    bench.publish("B", "1.0")
    goal = bench.goal(wanted("A", "1.0"), wanted("B", "1.0", level=1))
    bench.engine.offer(goal)
    thread = start(bench)
    until(lambda: "B" in bench.site.view.waiting, "B waits")
    bench.engine.stop()
    thread.join(10)
    ledger = Path(bench.agent.paths.run("extensions.jsonl"))
    head, _, rest = ledger.read_text().partition("\n")
    begun = json.loads(head)
    begun["began"] -= order.DEPENDENCY_DEADLINE
    ledger.write_text(json.dumps(begun) + "\n" + rest)
    bench.restart()
    assert bench.process(goal) == []
    assert "did not reach a terminal state within 90 minutes" in (extension(bench, "B").message or "")


# --- Status files (extensions §8) ------------------------------------------------------------------------------------


def test_a_bad_status_file_is_told_of_once_however_often_it_changes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.publish(NAME, "1.0", {"enable": "echo '{}' >status/0.status"})
    settle(bench, wanted(NAME, "1.0"))
    path = bench.handler_dir(NAME, "1.0") / "status" / "0.status"
    clock = [0.0]
    monkeypatch.setattr(bench.engine.reader, "_clock", lambda: clock[0])

    def look() -> None:
        for _ in range(6):
            clock[0] += 2.5
            bench.status()

    for moment in range(1, 4):
        os.utime(path, (moment, moment))
        look()
    assert bench.status()[NAME][2:] == ("error", 1012)
    text = f"Could not get a valid status from the extension {NAME}. The status file is no JSON array."
    assert bench.log().count(text) == 1
    told = [event for event in bench.agent.seen if event[0] == "StatusProcessing"]
    assert [(name, success) for _, name, success, _ in told] == [(NAME, False)]


def test_a_status_that_is_cut_is_told_of_and_still_reported(bench: Bench) -> None:
    big = json.dumps([{"status": {"status": "success", "formattedMessage": {"lang": "en", "message": "x" * 200_000}}}])
    bench.publish(NAME, "1.0", {"enable": ":"})
    settle(bench, wanted(NAME, "1.0"))
    path = bench.handler_dir(NAME, "1.0") / "status" / "0.status"
    path.write_text(big)
    assert bench.status()[NAME][2] == "success"
    assert len(extension(bench).message or "") == 1024 + len(" ... [TRUNCATED]")
    assert "holds 200" in bench.log()


def test_a_handler_that_ended_and_said_nothing_is_told_of(bench: Bench) -> None:
    # VMAccess after a reboot in the middle: it has noted the number as done, leaves, and writes no status.
    bench.publish(NAME, "1.0", {"enable": ":"})
    settle(bench, wanted(NAME, "1.0"))
    found = extension(bench)
    assert (found.status, found.code) == ("transitioning", 0)
    assert "its enable command has ended without an error and without writing a status file" in (found.message or "")


def test_a_status_from_before_the_machine_started_is_marked_as_such(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = '[{"status":{"status":"transitioning","formattedMessage":{"lang":"en-US","message":"rebooting"}}}]'
    bench.publish(NAME, "1.0", {"enable": f"echo '{said}' >status/0.status"})
    settle(bench, wanted(NAME, "1.0"))
    assert extension(bench).message == "rebooting"
    path = bench.handler_dir(NAME, "1.0") / "status" / "0.status"
    os.utime(path, (time.time() - 5000, time.time() - 5000))
    monkeypatch.setattr(report_module, "_booted", lambda: time.time() - 1000)
    bench.reporter = report_module.Reporter(bench.site, bench.engine.reader)
    assert (extension(bench).message or "").startswith("rebooting [this status is from ")
    assert "before the machine started at" in (extension(bench).message or "")


def test_a_number_lower_than_the_handlers_own_note_is_worth_a_warning(bench: Bench) -> None:
    bench.publish(NAME, "1.0", {"enable": "echo $ConfigSequenceNumber >mrseq; succeed"})
    settle(bench, wanted(NAME, "1.0", sequence=5))
    settle(bench, wanted(NAME, "1.0", sequence=6))
    assert "mrseq" not in bench.log()
    settle(bench, wanted(NAME, "1.0", sequence=2))
    assert "it executed number 6; the goal state's number is lower (2)" in bench.log()


def test_what_a_refused_handler_beats_is_added_to_the_refusal(bench: Bench) -> None:
    beat = '[{"heartbeat":{"status":"ready","code":"0","formattedMessage":{"lang":"en-US","message":"alive"}}}]'
    bench.publish(NAME, "1.0", {"enable": f"echo '{beat}' >heartbeat.log; succeed"}, reportHeartbeat=True)
    settle(bench, wanted(NAME, "1.0"))
    assert (items(bench)[0].status, bench.message(NAME)) == ("Ready", "alive")
    bench.agent.hooks.vetoes[NAME] = Veto("it is not on the list")
    settle(bench, wanted(NAME, "1.0", sequence=1))
    assert (items(bench)[0].status, bench.message(NAME)) == ("NotReady", "it is not on the list alive")
    assert (extension(bench).status, extension(bench).sequence_number) == ("error", 1)


# --- What is not ours ------------------------------------------------------------------------------------------------


def test_clean_up_takes_what_the_agent_made_and_nothing_else(bench: Bench, tmp_path: Path) -> None:
    bench.publish(NAME, "1.0")
    settle(bench, wanted(NAME, "1.0"))
    lib = Path(bench.agent.paths.lib_dir)
    for name in ("tool-1.2", "tool-1.3/config", "custom-script", "Contoso.Notes-2.0"):
        (lib / name).mkdir(parents=True)
    (lib / "tool-1.3/config/HandlerState").write_text("my own idea of a state")
    (lib / "Contoso.Notes-2.0/HandlerEnvironment.json").write_text('{"not": "ours"}')
    (lib / "backup-1.2.zip").write_bytes(b"somebody's data")
    (lib / "update.tag").write_text("left by a handler")
    (lib / f"{NAME}__0.9.zip").write_bytes(b"cut short")
    (lib / "Contoso.Old-0.8.zip").write_bytes(bench.platform.packages[NAME]["1.0"])
    settle(bench)
    assert {entry.name for entry in lib.iterdir()} - {"state", "journal"} == {
        "tool-1.2",
        "tool-1.3",
        "custom-script",
        "Contoso.Notes-2.0",
        "backup-1.2.zip",
        "update.tag",
    }


def test_what_the_keep_list_names_stays(bench: Bench) -> None:
    for name in (NAME, "Contoso.Other"):
        bench.publish(name, "1.0")
    settle(bench, wanted(NAME, "1.0"), wanted("Contoso.Other", "1.0"))
    bench.agent.config.texts["Extensions.KeepDirectories"] = "Fabrikam.*, Contoso.Tools.*"
    settle(bench)
    assert bench.handler_dir(NAME, "1.0").exists()
    assert not bench.handler_dir("Contoso.Other", "1.0").exists()


def test_a_file_system_without_execution_is_named_before_anything_is_fetched(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"tmpfs / tmpfs rw 0 0\n/dev/sda1 {tmp_path} ext4 rw,noexec 0 0\n")
    forbids = outcomes.no_exec_mount
    monkeypatch.setattr(outcomes, "no_exec_mount", lambda path: forbids(path, str(mounts)))
    bench.publish(NAME, "1.0", {"install": "exit 126"})
    settle(bench, wanted(NAME, "1.0"))
    log = bench.log()
    assert log.index("mounted with the noexec flag") < log.index("Download extension package")
    assert f"WARNING: {tmp_path} is mounted with the noexec flag" in bench.message(NAME)
    assert ("NoExec", False) in [(event[0], event[2]) for event in bench.agent.seen]


def test_secrets_in_what_a_command_says_are_taken_out(bench: Bench) -> None:
    url = "https://a.blob.example/c/b?sv=2020&sig=c2VjcmV0"
    bench.publish(NAME, "1.0", {"enable": f"echo '{url}' >&2; exit 1"})
    settle(bench, wanted(NAME, "1.0"))
    assert "c2VjcmV0" not in bench.log()
    assert "c2VjcmV0" not in str(bench.reporter.build())
    assert "a.blob.example" in bench.message(NAME)
