"""Rows of the specification's tables that need a machine under them: error codes, limits, odd states (§4, §10-§13)."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

from tests.unit.extensions.fakes import Bench, multi, package, wanted
from waagent_extensions import engine as engine_module
from waagent_extensions import order, outcomes, throttling
from waagent_extensions.commands import Order, Result
from waagent_extensions.output import Captured

NAME = "Contoso.Tools.Sample"


def zipped(**files: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", "."), content)
    return data.getvalue()


# --- Packages (extensions §4) ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (None, 1001, "Failed to download artifacts: "),
        (zipped(readme_txt=b""), 1002, "HandlerManifest.json not found"),
        (zipped(HandlerManifest_json=b"{"), 1003, "HandlerManifest.json is malformed: not JSON"),
        (zipped(HandlerManifest_json=b"[]"), 1003, "HandlerManifest.json is malformed: an array"),
        (zipped(HandlerManifest_json=b"[{}]"), 1003, "handlerManifest is missing"),
        (b"", 1005, "cannot be expanded"),
        (zipped(**{"/../x": b""}), 1005, "is not allowed"),
    ],
    ids=["nothing", "no manifest", "no JSON", "an array", "nothing in it", "no archive", "a way out"],
)
def test_what_is_wrong_with_a_package_has_a_code_and_words(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, data: bytes | None, code: int, says: str
) -> None:
    monkeypatch.setattr(engine_module, "RETRY_AFTER", ())
    bench.platform.packages[NAME] = {"1.4.2": data or b""}
    bench.platform.unreachable = data is None
    assert bench.apply(wanted(NAME, "1.4.2", sequence=5)) == []
    assert bench.status() == {NAME: ("NotReady", code, "error", code)}
    assert says in bench.message(NAME)
    assert bench.state(NAME, "1.4.2") == "NotInstalled"
    assert ("Download", NAME, False) in [event[:3] for event in bench.agent.seen]
    assert not list(Path(bench.agent.paths.lib_dir).glob("*.zip*"))
    # Everything is done again for the next goal state.
    bench.platform.unreachable = False
    bench.publish(NAME, "1.4.2")
    assert bench.apply(wanted(NAME, "1.4.2", sequence=6)) == ["install 1.4.2", "enable 1.4.2"]


def test_a_package_that_an_earlier_agent_left_is_used_and_a_broken_one_is_fetched_again(bench: Bench) -> None:
    lib = Path(bench.agent.paths.lib_dir)
    bench.publish(NAME, "1.4.2")
    bench.publish("B", "1.0")
    (lib / f"{NAME}__1.4.2.zip").write_bytes(package("1.4.2", bench.trace_file))
    (lib / "B__1.0.zip").write_bytes(b"cut short")
    ran = bench.apply(wanted(NAME, "1.4.2"), wanted("B", "1.0"))
    assert ran == ["install 1.4.2", "enable 1.4.2", "install 1.0", "enable 1.0"]
    assert bench.platform.downloads == ["B 1.0"]
    assert not list(lib.glob("*.zip*"))


def test_another_version_than_the_requested_one_is_an_event(bench: Bench) -> None:
    bench.publish(NAME, "1.4.2")
    bench.apply(wanted(NAME, "1.4"))
    assert "RequestedVersionMismatch" in [event[0] for event in bench.agent.seen]


def test_one_version_written_in_two_ways_is_one_handler(bench: Bench) -> None:
    bench.publish(NAME, "1.0")
    bench.apply(wanted(NAME, "1.0"))
    bench.platform.packages[NAME] = {"1.0.0": package("1.0.0", bench.trace_file)}
    assert bench.apply(wanted(NAME, "1.0.0", sequence=1)) == ["enable 1.0"]
    assert sorted(path.name for path in Path(bench.agent.paths.lib_dir).glob(f"{NAME}*")) == [f"{NAME}-1.0"]
    assert bench.status() == {NAME: ("Ready", 0, "success", 0)}
    assert bench.apply(wanted(NAME, "1.0.0", "uninstall")) == ["disable 1.0", "uninstall 1.0"]


# --- Commands (extensions §10.4, §12.1) ------------------------------------------------------------------------------


def ended(operation: str, **result: object) -> outcomes.Verdict:
    call = Order("id", NAME, "1.0", None, operation, "/lib/x/bin/run it", "/lib/x", outcomes.TIMEOUTS[operation])
    out, err = Captured("out\n"), Captured("err\n")
    return outcomes.judge(call, Result(out=out, err=err, **result), "/lib", "/nonexistent")  # type: ignore[arg-type]


SAID = "[stdout]\nout\n\n\n[stderr]\nerr\n"


@pytest.mark.parametrize(
    ("operation", "seconds", "code"),
    [
        ("install", 900, 1007),
        ("update", 900, 1008),
        ("enable", 300, 1009),
        ("disable", 900, 1010),
        ("uninstall", 300, 1000),
    ],
)
def test_limits_codes_and_texts_of_each_command(operation: str, seconds: int, code: int) -> None:
    assert outcomes.TIMEOUTS[operation] == seconds
    good = ended(operation, code=0)
    assert (good.ok, good.error, good.exit_code) == (True, 0, "0")
    bad = ended(operation, code=7)
    assert (bad.ok, bad.error, bad.exit_code) == (False, code, "7")
    assert bad.text == f"[ExtensionOperationError] Non-zero exit code: 7, /lib/x/bin/run it\n{SAID}"
    late = ended(operation, timed_out=True)
    assert (late.ok, late.error, late.exit_code) == (False, 1011, "1011")
    assert late.text == f"[ExtensionOperationError] Timeout({seconds}): /lib/x/bin/run it\n{SAID}"
    held = ended(operation, timed_out=True, throttled=12.0)
    assert held.text.startswith(f"[ExtensionOperationError] Timeout({seconds});CPUThrottledTime(12secs): /lib/x/bin/")
    never = ended(operation, problem="No such file or directory")
    assert (never.ok, never.error) == (False, code)
    assert never.text == "[ExtensionOperationError] Failed to launch '/lib/x/bin/run it': No such file or directory"


V2 = "0::/azure.slice/azure-vmextensions.slice/azure-vmextensions-X.slice/enable_1.scope\n"
V1 = V2.replace("0::", "4:cpuacct,cpu:")
SLICE = "azure.slice/azure-vmextensions.slice/azure-vmextensions-X.slice"


@pytest.mark.parametrize(
    ("cgroup", "files", "seconds"),
    [
        (
            V2,
            {f"{SLICE}/cpu.max": "40000 100000\n", f"{SLICE}/cpu.stat": "nr_throttled 9\nthrottled_usec 12400000\n"},
            12.4,
        ),
        (V2, {f"{SLICE}/cpu.max": "max 100000\n", f"{SLICE}/cpu.stat": "throttled_usec 12400000\n"}, None),
        (V2, {"cpu.max": "40000 100000\n", "cpu.stat": "throttled_usec 1\n"}, None),
        (V2, {f"{SLICE}/cpu.max": "40000 100000\n"}, None),
        (
            V1,
            {
                f"cpu,cpuacct/{SLICE}/cpu.cfs_quota_us": "40000\n",
                f"cpu,cpuacct/{SLICE}/cpu.stat": "throttled_time 3000000000\n",
            },
            3.0,
        ),
        (V1, {f"cpu,cpuacct/{SLICE}/cpu.cfs_quota_us": "-1\n"}, None),
        ("", {}, None),
    ],
)
def test_how_long_a_quota_held_a_command_back(
    tmp_path: Path, cgroup: str, files: dict[str, str], seconds: float | None
) -> None:
    for name, text in {"proc/7/cgroup": cgroup, **{f"groups/{name}": text for name, text in files.items()}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert throttling.seconds_held_back(7, str(tmp_path / "proc"), str(tmp_path / "groups")) == seconds


@pytest.mark.parametrize(("code", "hint"), [(127, True), (51, True), (52, True), (1, False), (126, False)])
def test_exit_codes_of_a_missing_interpreter_get_a_hint(code: int, hint: bool) -> None:
    assert ("HINT: no python or python3" in ended("enable", code=code).text) is hint


@pytest.mark.parametrize(
    ("mounts", "found"),
    [
        ("/dev/a / ext4 rw,noexec 0 0\n/dev/b /var/lib ext4 rw 0 0\n", None),
        ("/dev/a / ext4 rw 0 0\n/dev/b /var/lib ext4 rw,noexec 0 0\n", "/var/lib"),
        ("/dev/a / ext4 rw 0 0\n/dev/b /var/li ext4 rw,noexec 0 0\n", None),
        ("/dev/a / ext4 rw 0 0\n/dev/b /var ext4 noexec 0 0\n/dev/c /var ext4 rw 0 0\n", None),
        ("nonsense\n", None),
    ],
)
def test_the_longest_mount_point_tells_whether_programs_may_run(tmp_path: Path, mounts: str, found: str | None) -> None:
    (tmp_path / "mounts").write_text(mounts)
    assert outcomes.no_exec_mount("/var/lib/waagent", str(tmp_path / "mounts")) == found


def test_a_link_to_where_programs_may_run_is_followed(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "var/waagent").symlink_to(tmp_path / "data")
    (tmp_path / "mounts").write_text(f"/dev/a / ext4 rw 0 0\n/dev/b {tmp_path}/var ext4 rw,noexec 0 0\n")
    assert outcomes.no_exec_mount(str(tmp_path / "var/waagent"), str(tmp_path / "mounts")) is None
    assert outcomes.no_exec_mount(str(tmp_path / "var"), str(tmp_path / "mounts")) == f"{tmp_path}/var"


@pytest.mark.parametrize(
    ("slow", "keeps_going", "code", "states", "told"),
    [
        ("disable", False, 1008, ("Enabled", "NotInstalled"), {}),
        ("disable", True, 0, (None, "Enabled"), {"update 2.0": ("AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODE", "1011")}),
        ("uninstall", False, 1008, ("Installed", "NotInstalled"), {}),
        (
            "uninstall",
            True,
            0,
            (None, "Enabled"),
            {
                "install 2.0": ("AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE", "1011"),
                "enable 2.0": ("AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE", "1011"),
            },
        ),
        ("update", True, 1011, ("Installed", "FailedUpgrade"), {}),
        ("install", True, 1011, (None, "NotInstalled"), {}),
        ("enable", True, 1011, (None, "Installed"), {}),
    ],
)
def test_every_command_of_an_update_out_of_time(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    slow: str,
    keeps_going: bool,
    code: int,
    states: tuple[str | None, str],
    told: dict[str, tuple[str, str]],
) -> None:
    hangs = {slow: "sleep 60"}
    bench.publish(NAME, "1.0", hangs if slow in ("disable", "uninstall") else {})
    bench.apply(wanted(NAME, "1.0"))
    bench.publish(NAME, "2.0", {} if slow in ("disable", "uninstall") else hangs, continueOnUpdateFailure=keeps_going)
    monkeypatch.setitem(outcomes.TIMEOUTS, slow, 0.3)
    bench.apply(wanted(NAME, "2.0", sequence=1))
    assert bench.status()[NAME][:2] == (("NotReady", code) if code else ("Ready", 0))
    assert (bench.state(NAME, "1.0"), bench.state(NAME, "2.0")) == states
    if code:
        assert bench.message(NAME).startswith("[ExtensionOperationError] Timeout(0): ")
        assert bench.message(NAME).endswith("; ContinueOnUpdate: False") is (code == 1008)
    for command, (name, value) in told.items():
        assert bench.variables(command)[name] == value


# --- Status (extensions §11.6, §13.3) --------------------------------------------------------------------------------


def test_a_fault_in_the_loop_fails_the_goal_state_and_the_next_one_is_processed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.publish(NAME, "1.4.2")

    def fail(handlers: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(order, "waits", fail)
        assert bench.apply(wanted(NAME, "1.4.2")) == []
    report = bench.reporter.build().goal_state
    assert report is not None
    assert (report.status, report.code, report.message) == ("Failed", -1, "RuntimeError: a bug")
    assert bench.apply(wanted(NAME, "1.4.2")) == ["install 1.4.2", "enable 1.4.2"]
    report = bench.reporter.build().goal_state
    assert report is not None
    assert (report.status, report.code) == ("Success", 0)


def test_a_handler_that_cannot_be_reported_does_not_hide_the_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("A", "B", "C"):
        bench.publish(name, "1.0")
    bench.apply(*(wanted(name, "1.0") for name in ("A", "B", "C")))
    real = bench.reporter._record

    def odd(place: object) -> object:
        if getattr(place, "name", "") == "B":
            raise ValueError("odd")
        return real(place)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.reporter, "_record", odd)
    assert sorted(bench.status()) == ["A", "C"]
    assert "The status of B cannot be read: ValueError('odd')" in bench.log()


@pytest.mark.parametrize(
    ("word", "reported"),
    [("Ready", "Ready"), ("notready", "NotReady"), ("Busy", "Busy")],
)
def test_a_heartbeat_speaks_for_an_enabled_handler_until_it_is_silent(bench: Bench, word: str, reported: str) -> None:
    bench.publish(NAME, "1.0", reportHeartbeat=True)
    bench.apply(wanted(NAME, "1.0"))
    assert bench.status()[NAME][0] == "Ready", "it has ten minutes for its first beat"
    path = bench.handler_dir(NAME, "1.0") / "heartbeat.log"
    path.write_text(
        f'[{{"version":"1.0","heartbeat":{{"status":"{word}","code":"0",'
        '"formattedMessage":{"lang":"en-US","message":"I am here"}}}]'
    )
    assert bench.status()[NAME] == (reported, 0, "success", 0)
    assert bench.message(NAME) == "I am here"
    silent = path.stat().st_mtime - 601
    os.utime(path, (silent, silent))
    assert bench.status()[NAME] == ("Unresponsive", -1, "success", 0)
    assert bench.message(NAME) == "Extension heartbeat is not responsive"
    path.write_text("no json")
    assert bench.status()[NAME][:2] == ("NotReady", -1)


def test_a_handler_level_failure_is_reported_for_each_of_several_extensions(bench: Bench) -> None:
    bench.publish(NAME, "1.0", {"install": "exit 3"}, supportsMultipleExtensions=True)
    ran = bench.apply(multi(NAME, "1.0", ("job-a.b", 0, "enabled"), ("jobB", 9, "enabled")))
    # What fails for the handler as a whole is tried again by each of its extensions (§11.8).
    assert ran == ["install 1.0", "install 1.0"]
    assert bench.status() == {
        f"{NAME}.job-a.b": ("NotReady", 1007, "error", 1007),
        f"{NAME}.jobB": ("NotReady", 1007, "error", 1007),
    }
    statuses = sorted(path.name for path in (bench.handler_dir(NAME, "1.0") / "status").iterdir())
    assert statuses == ["job-a.b.0.status", "jobB.9.status"]


@pytest.mark.parametrize("failing", ["enable", "dependency"])
def test_ordinary_extensions_get_no_file_in_the_handlers_place(bench: Bench, failing: str) -> None:
    bench.publish("A", "1.0", {"enable": "exit 1"})
    bench.publish("B", "2.0")
    bench.apply(wanted("A", "1.0"), wanted("B", "2.0", level=1))
    name, version = ("A", "1.0") if failing == "enable" else ("B", "2.0")
    assert not list((bench.handler_dir(name, version) / "status").glob("*"))


# --- States (extensions §10.3-§10.5) ---------------------------------------------------------------------------------


def test_what_the_old_version_reported_moves_on_with_its_times(bench: Bench) -> None:
    bench.publish(NAME, "1.0")
    bench.apply(wanted(NAME, "1.0", sequence=4))
    old, new = bench.handler_dir(NAME, "1.0"), bench.handler_dir(NAME, "2.0")
    (old / "mrseq").write_text("4")
    for path in (old / "mrseq", old / "status/4.status"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    bench.publish(NAME, "2.0")
    bench.apply(wanted(NAME, "2.0", sequence=5))
    assert [int((new / name).stat().st_mtime) for name in ("mrseq", "status/4.status")] == [1_700_000_000] * 2
    settings = sorted(path.name for path in (new / "config").glob("*.settings"))
    assert settings == ["5.settings"], "those of the old version stay behind"


def test_a_disabled_handler_keeps_the_files_of_its_extensions(bench: Bench) -> None:
    bench.publish(NAME, "1.0", supportsMultipleExtensions=True)
    jobs = (("jobA", 1, "enabled"), ("jobB", 2, "enabled"))
    bench.apply(multi(NAME, "1.0", *jobs))
    assert bench.apply(multi(NAME, "1.0", *jobs, state="disabled")) == ["disable 1.0", "disable 1.0"]
    config = bench.handler_dir(NAME, "1.0") / "config"
    assert {path.name: path.read_text() for path in config.glob("*HandlerState")} == {
        "HandlerState": "Installed",
        "jobA.HandlerState": "disabled",
        "jobB.HandlerState": "disabled",
    }
    assert sorted(path.name for path in config.glob("*.settings")) == ["jobA.1.settings", "jobB.2.settings"]
    assert "RequestedStateDisabled" in [event[0] for event in bench.agent.seen]


def test_a_state_that_nobody_knows_is_an_error_of_that_handler(bench: Bench) -> None:
    bench.publish(NAME, "1.0")
    bench.publish("B", "2.0")
    assert bench.apply(wanted(NAME, "1.0", "reinstall"), wanted("B", "2.0")) == ["install 2.0", "enable 2.0"]
    assert bench.status()[NAME][:2] == ("NotReady", -1)
    assert "Unknown requested state: 'reinstall'" in bench.message(NAME)
