"""The files beside a handler, as handlers and operators know them (extensions §3, §5-§9, §13.1)."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from waagent import ExtensionSettings
from waagent_extensions import codes, environment, handlermanifest, heartbeat, records
from waagent_extensions import settings as settings_file
from waagent_extensions.codes import HandlerError
from waagent_extensions.layout import HandlerDir, Layout
from waagent_extensions.statusfile import LIMIT, StatusReader, parse, write_placeholder


@pytest.fixture
def handler(tmp_path: Path) -> HandlerDir:
    made = HandlerDir(str(tmp_path / "lib"), str(tmp_path / "log"), "Contoso.Tools.Sample", "1.4.2")
    os.makedirs(made.base)
    environment.make_directories(made)
    return made


# --- HandlerManifest.json -------------------------------------------------------------------------------------------


def test_the_whole_manifest_is_understood() -> None:
    body = {
        "installCommand": "bin/setup.sh install",
        "enableCommand": "/bin/setup.sh enable",
        "reportHeartbeat": "True",
        "updateMode": "UpdateWithoutInstall",
        "continueOnUpdateFailure": True,
        "supportsMultipleExtensions": "false",
        "resetStateCommand": "unknown keys do not matter",
    }
    manifest = handlermanifest.parse(json.dumps([{"handlerManifest": body}]).encode())
    assert manifest.command("enable") == "bin/setup.sh enable"
    assert manifest.report_heartbeat is True
    assert manifest.update_with_install is False
    assert manifest.continue_on_update_failure is True
    assert manifest.multi_config is False
    with pytest.raises(HandlerError, match="no disableCommand") as caught:
        manifest.command("disable")
    assert caught.value.code == codes.UNKNOWN


def test_defaults_and_odd_booleans() -> None:
    manifest = handlermanifest.parse(b'\xef\xbb\xbf[{"handlerManifest":{"reportHeartbeat":1}}]')
    assert (manifest.report_heartbeat, manifest.update_with_install, manifest.odd_booleans) == (
        False,
        True,
        ("reportHeartbeat",),
    )


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"[1]", b'[{"handlerManifest":null}]', b"[" * 100_000, b"\xff\xfe"]
)
def test_a_malformed_manifest_is_1003(data: bytes) -> None:
    with pytest.raises(HandlerError) as caught:
        handlermanifest.parse(data)
    assert caught.value.code == codes.MANIFEST_MALFORMED


def test_a_manifest_that_is_not_there_is_1002(tmp_path: Path) -> None:
    with pytest.raises(HandlerError) as caught:
        handlermanifest.load(str(tmp_path / "none"))
    assert caught.value.code == codes.MANIFEST_NOT_FOUND


def test_captured_manifests_are_read(fixtures: Path) -> None:
    valid = handlermanifest.load(str(fixtures / "ext/handler_manifest/valid_manifest.json"))
    assert set(valid.commands) == set(handlermanifest.COMMANDS)
    bare = handlermanifest.load(str(fixtures / "ext/handler_manifest/manifest_no_optional_fields.json"))
    assert (bare.report_heartbeat, bare.continue_on_update_failure, bare.multi_config) == (False, False, False)


# --- settings -------------------------------------------------------------------------------------------------------


def test_settings_are_written_for_root_alone_and_keys_stay_when_null(handler: HandlerDir) -> None:
    path = settings_file.write(handler, ExtensionSettings(name=handler.name, sequence_number=3, public={"k": "v"}))
    assert path.endswith("/config/3.settings")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    inner = json.loads(Path(path).read_text())["runtimeSettings"][0]["handlerSettings"]
    assert inner == {"publicSettings": {"k": "v"}, "protectedSettings": None, "protectedSettingsCertThumbprint": None}


def test_no_settings_give_an_empty_file_zero(handler: HandlerDir) -> None:
    path = settings_file.write(handler, None)
    assert path.endswith("/config/0.settings")
    assert os.path.getsize(path) == 0


def test_multi_config_settings_carry_the_extensions_name(handler: HandlerDir) -> None:
    jobs = ExtensionSettings(name="job-A.b", sequence_number=12)
    assert settings_file.write(handler, jobs, multi_config=True).endswith("/config/job-A.b.12.settings")
    Path(handler.status_file("job-A.b", 12)).write_text("[]")
    Path(handler.status_file("job-A", 1)).write_text("[]")
    settings_file.remove(handler, "job-A.b")
    assert not os.path.exists(handler.settings_file("job-A.b", 12))
    assert not os.path.exists(handler.status_file("job-A.b", 12))
    assert os.path.exists(handler.status_file("job-A", 1))


def test_the_newest_settings_file_tells_the_number_when_the_goal_state_does_not(handler: HandlerDir) -> None:
    assert settings_file.newest_sequence(handler) == -1
    for number, age in ((7, 10), (2, 5)):
        path = settings_file.write(handler, ExtensionSettings(name=handler.name, sequence_number=number))
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    assert settings_file.newest_sequence(handler) == 2


# --- environment ----------------------------------------------------------------------------------------------------


def test_handler_environment_is_one_object_with_a_numeric_version(handler: HandlerDir) -> None:
    environment.write_handler_environment(handler)
    document = json.loads(Path(handler.environment).read_text())
    assert len(document) == 1
    assert document[0]["version"] == 1.0
    inner = document[0]["handlerEnvironment"]
    assert inner["configFolder"] == handler.config_dir
    assert inner["logFolder"] == handler.log_dir
    assert inner["statusFolder"] == handler.status_dir
    assert inner["heartbeatFile"] == handler.heartbeat
    assert inner["eventsFolder"] == inner["eventsFolder_preview"] == handler.events_dir


def test_ours_wins_over_what_is_inherited_and_the_agents_own_variables_go(handler: HandlerDir) -> None:
    inherited = {
        "PATH": "/bin",
        "http_proxy": "http://p:1",
        "ConfigSequenceNumber": "99",
        "PYTHONPATH": "/agent",
        "VIRTUAL_ENV": "/venv",
        "NOTIFY_SOCKET": "/run/x",
        "WAAGENT_ROOT": "/scratch",
    }
    made = environment.command_environment(
        handler,
        wire_address="168.63.129.16",
        sequence_number=4,
        extension="jobA",
        extra={"VERSION": "2.0", "X": None},  # type: ignore[dict-item]
        inherited=inherited,
    )
    assert made["PATH"] == "/bin"
    assert made["http_proxy"] == "http://p:1"
    assert made["ConfigSequenceNumber"] == "4"
    assert made["ConfigExtensionName"] == "jobA"
    assert made["X"] == ""
    assert made["AZURE_GUEST_AGENT_EXTENSION_PATH"] == handler.base
    assert (
        made["AZURE_GUEST_AGENT_EXTENSION_SUPPORTED_FEATURES"] == '[{"Key":"ExtensionTelemetryPipeline","Value":"1.0"}]'
    )
    assert not {"PYTHONPATH", "VIRTUAL_ENV", "NOTIFY_SOCKET", "WAAGENT_ROOT"} & set(made)


def test_a_command_gets_the_documented_variables_and_none_of_another_handlers(
    handler: HandlerDir,
) -> None:
    # An agent that a handler's command started anew has that command's environment.
    of_another = {
        "ConfigExtensionName": "jobA",
        "AZURE_GUEST_AGENT_UPDATING_FROM_VERSION": "0.9",
        "AZURE_GUEST_AGENT_DISABLE_CMD_EXIT_CODES_MULTIPLE_EXTENSIONS": "[]",
    }
    made = environment.command_environment(
        handler,
        wire_address="168.63.129.16",
        sequence_number=None,
        extra={"AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE": "NOT_RUN"},
        inherited={"PATH": "/bin", **of_another},
    )
    assert made == {
        "PATH": "/bin",
        "AZURE_GUEST_AGENT_EXTENSION_PATH": handler.base,
        "AZURE_GUEST_AGENT_EXTENSION_VERSION": "1.4.2",
        "AZURE_GUEST_AGENT_WIRE_PROTOCOL_ADDRESS": "168.63.129.16",
        "ConfigSequenceNumber": "0",
        "AZURE_GUEST_AGENT_EXTENSION_SUPPORTED_FEATURES": '[{"Key":"ExtensionTelemetryPipeline","Value":"1.0"}]',
        "AZURE_GUEST_AGENT_UNINSTALL_CMD_EXIT_CODE": "NOT_RUN",
    }


# --- records --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [None, "", "nonsense", "enabled", "\0\0"])
def test_an_unknown_state_is_not_installed(handler: HandlerDir, text: str | None) -> None:
    if text is not None:
        Path(handler.state_file).write_text(text)
    assert records.read_state(handler) == "NotInstalled"


def test_states_and_status_are_read_back(handler: HandlerDir) -> None:
    for state in records.STATES:
        records.write_state(handler, state)
        assert Path(handler.state_file).read_text() == state
        assert records.read_state(handler) == state
    status = records.HandlerStatus(handler.name, "1.4.2", "NotReady", 1007, "https://a/b?sig=secret failed")
    records.write_status(handler, status)
    read = records.read_status(handler)
    assert read is not None
    assert (read.status, read.code) == ("NotReady", 1007)
    assert read.message == "https://a/b?<redacted> failed"
    assert json.loads(Path(handler.status_record).read_text())["supports_multi_config"] is False


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200))
def test_records_of_any_bytes_never_stop_the_agent(handler: HandlerDir, data: bytes) -> None:
    for path in (handler.state_file, handler.status_record, handler.heartbeat, handler.extension_state_file("a")):
        Path(path).write_bytes(data)
    assert records.read_state(handler) in records.STATES
    status = records.read_status(handler)
    assert status is None or isinstance(status.status, str)
    assert records.read_extension_state(handler, "a") in (None, "enabled", "disabled")
    beat = heartbeat.read(handler, os.stat(handler.heartbeat).st_mtime)
    assert beat is not None
    assert beat.status


def test_only_our_directories_count_as_installed(tmp_path: Path, handler: HandlerDir) -> None:
    records.write_state(handler, "Enabled")
    os.makedirs(tmp_path / "lib" / "somebody-1.2" / "data")
    layout = Layout(str(tmp_path / "lib"), str(tmp_path / "log"))
    assert [(found.name, found.version) for found in layout.installed()] == [("Contoso.Tools.Sample", "1.4.2")]


def test_stray_packages_are_found_in_every_historical_form(tmp_path: Path, handler: HandlerDir) -> None:
    for name in ("A.B__1.0.zip", "A__B__1.1.zip", "A.B-1.2.zip", "WALinuxAgent-2.0.zip", "notes.zip", "A.B__x.zip"):
        (tmp_path / "lib" / name).write_text("")
    found = Layout(str(tmp_path / "lib"), str(tmp_path / "log")).stray_packages()
    assert [(name, version) for name, version, _ in found] == [("A.B", "1.2"), ("A.B", "1.0"), ("A.B", "1.1")]


# --- heartbeat ------------------------------------------------------------------------------------------------------


def test_heartbeat_words_are_mapped_and_a_silent_handler_is_unresponsive(handler: HandlerDir) -> None:
    assert heartbeat.read(handler, 1000.0, enabled_at=900.0) is None
    late = heartbeat.read(handler, 2000.0, enabled_at=900.0)
    assert late is not None
    assert (late.status, late.code) == ("NotReady", -1)
    beat = [
        {"version": "1.0", "heartbeat": {"status": "notready", "code": "0", "formattedMessage": {"Message": "busy"}}}
    ]
    Path(handler.heartbeat).write_text(json.dumps(beat))
    os.utime(handler.heartbeat, (2000, 2000))
    fresh = heartbeat.read(handler, 2600.0)
    assert fresh is not None
    assert (fresh.status, fresh.message) == ("NotReady", "busy")
    stale = heartbeat.read(handler, 2601.0)
    assert stale is not None
    assert (stale.status, stale.code) == ("Unresponsive", -1)


# --- status files ---------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def body(**changes: object) -> str:
    status = {
        "status": "success",
        "code": 0,
        "operation": "Enable",
        "formattedMessage": {"lang": "en", "message": "ok"},
    }
    status.update(changes)
    return json.dumps([{"version": "1.0", "timestampUTC": "2026-01-01T00:00:00Z", "status": status}])


def test_a_missing_file_is_transitioning_with_a_reason(handler: HandlerDir) -> None:
    report = StatusReader(Clock()).read(handler, None, 3, handler.name)
    assert (report.status, report.code, report.sequence_number) == ("transitioning", 0, 3)
    assert "no status" in (report.message or "")


def test_a_good_file_is_taken_and_read_again_only_when_it_changes(handler: HandlerDir) -> None:
    reader = StatusReader(Clock())
    path = Path(handler.status_file(None, 3))
    path.write_text(body(substatus=[None, {"status": "error", "name": "s", "formattedMessage": None}]))
    report = reader.read(handler, None, 3, handler.name)
    assert (report.status, report.operation, report.message) == ("success", "Enable", "ok")
    assert [(item.name, item.status, item.message) for item in report.substatus] == [("s", "error", None)]
    assert reader.read(handler, None, 3, handler.name) is report
    path.write_text(body(status="error"))
    assert reader.read(handler, None, 3, handler.name).status == "error"


def test_a_half_written_file_is_read_again_for_a_while_and_then_1012(handler: HandlerDir) -> None:
    clock = Clock()
    reader = StatusReader(clock)
    path = Path(handler.status_file(None, 3))
    path.write_text(body()[:40])
    for _ in range(4):
        assert reader.read(handler, None, 3, handler.name).status == "transitioning"
        clock.now += 2.0
    final = reader.read(handler, None, 3, handler.name)
    assert (final.status, final.code) == ("error", 1012)
    path.write_text(body())
    assert reader.read(handler, None, 3, handler.name).status == "success"


@pytest.mark.parametrize(
    ("text", "status", "code"),
    [
        ("[]", "transitioning", 0),
        (body(status="surprising"), "error", 0),
        (body(code="17"), "success", "17"),
        (body(formattedMessage=None), "success", 0),
    ],
)
def test_what_is_odd_but_usable_is_used(text: str, status: str, code: object) -> None:
    report = parse(text, "x", 1)
    assert (report.status, report.code) == (status, code)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[1]",
        '[{"status":{}}]',
        body(formattedMessage={"lang": "en"}),
        body(substatus=[{"status": "nonsense"}]),
        body(substatus="x"),
        "nonsense",
    ],
)
def test_what_breaks_the_rules_is_named(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text, "x", 1)


def test_a_very_large_file_with_null_names_is_cut_and_never_crashes() -> None:
    items = [
        {"name": None, "status": "success", "code": 0, "formattedMessage": None},
        *(
            {"name": "n", "status": "success", "formattedMessage": {"lang": "e", "message": "m" * 20000}}
            for _ in range(30)
        ),
    ]
    report = parse(body(formattedMessage={"lang": "en", "message": "x" * 5000}, substatus=items), "x", 1)
    assert report.message == "x" * 1024 + " ... [TRUNCATED]"
    assert report.substatus[1].message == "m" * 10240 + " ... [TRUNCATED]"
    assert sum(len(item.message or "") for item in report.substatus) <= LIMIT
    assert 2 < len(report.substatus) < 31


def test_the_limits_of_a_large_file_are_those_that_publishers_were_told() -> None:
    def total(items: list[dict[str, object]], **more: object) -> int:
        report = parse(body(formattedMessage={"lang": "e", "message": ""}, substatus=items, **more), "x", 1)
        return len(report.substatus)

    def item(length: int) -> dict[str, object]:
        return {"name": "", "status": "success", "formattedMessage": {"lang": "e", "message": "m" * length}}

    plain = body(formattedMessage={"lang": "e", "message": ""})
    assert parse(body(formattedMessage={"lang": "e", "message": "x" * (LIMIT - len(plain))}), "x", 1).message == (
        "x" * (LIMIT - len(plain))
    )
    assert len(parse(body(formattedMessage={"lang": "e", "message": "x" * LIMIT}), "x", 1).message or "") == 1024 + 16
    assert total([item(8192)] * 16) == 16  # 131072 characters of messages in a file that is larger
    assert total([item(8192)] * 15 + [item(8193)]) == 15
    long_name = [{**item(0), "name": "n" * 20000}]
    large = parse(body(substatus=long_name, operation="o" * LIMIT), "x", 1)
    assert large.substatus[0].name == "n" * 10240 + " ... [TRUNCATED]"


def test_what_a_handler_writes_anywhere_in_its_status_is_reported_without_secrets() -> None:
    url = "https://a.example/c/b?sv=1&sig=SECRET"
    items = [
        {"name": f"get {url}", "status": "success", "code": url, "formattedMessage": {"lang": "e", "message": url}}
    ]
    text = body(
        code=url,
        operation=url,
        configurationAppliedTime=url,
        formattedMessage={"lang": url, "message": url},
        substatus=items,
    )
    report = parse(text, "x", 1)
    assert report.substatus[0].name == "get https://a.example/c/b?<redacted>"
    assert "SECRET" not in json.dumps(attrs.asdict(report))


def test_a_status_file_that_cannot_be_read_is_an_error_with_the_reason(handler: HandlerDir) -> None:
    clock = Clock()
    reader = StatusReader(clock)
    Path(handler.status_file(None, 3)).mkdir()
    for _ in range(5):
        report = reader.read(handler, None, 3, handler.name)
        clock.now += 2.0
    assert (report.status, report.code) == ("error", -1)
    assert f"The status file of {handler.name} cannot be read" in (report.message or "")


def test_what_is_no_json_is_shown_up_to_2000_characters(handler: HandlerDir) -> None:
    clock = Clock()
    reader = StatusReader(clock)
    Path(handler.status_file(None, 3)).write_text("no json " + "z" * 5000)
    for _ in range(5):
        report = reader.read(handler, None, 3, handler.name)
        clock.now += 2.0
    assert (report.status, report.code) == ("error", 1012)
    assert (report.message or "").startswith(f"Could not get a valid status from the extension {handler.name}. ")
    assert (report.message or "").count("z") == 1992


def test_captured_status_files_are_read(fixtures: Path) -> None:
    report = parse((fixtures / "ext/sample-status.json").read_text(), "x", 1)
    assert report.status in ("success", "transitioning", "error", "warning")
    large = parse((fixtures / "ext/sample-status-very-large.json").read_text(), "x", 1)
    assert len(large.message or "") <= 1024 + len(" ... [TRUNCATED]")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["status", "substatus", "formattedMessage", "lang", "message", "code", "name"]),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_any_json_is_a_report_or_a_clear_error(document: object) -> None:
    try:
        report = parse(json.dumps([{"status": document}]), "x", 1)
    except ValueError as problem:
        assert str(problem)
    else:
        assert report.status in ("transitioning", "warning", "error", "success")


def test_a_placeholder_never_replaces_the_handlers_word_unless_told(handler: HandlerDir) -> None:
    common = {"full_name": handler.name, "status": "error", "code": 1009, "message": "no", "operation": "Enable"}
    write_placeholder(handler, None, 5, **common)  # type: ignore[arg-type]
    assert parse(Path(handler.status_file(None, 5)).read_text(), "x", 5).code == 1009
    Path(handler.status_file(None, 5)).write_text(body())
    write_placeholder(handler, None, 5, **common)  # type: ignore[arg-type]
    assert parse(Path(handler.status_file(None, 5)).read_text(), "x", 5).status == "success"
    write_placeholder(handler, None, 5, overwrite=True, **common)  # type: ignore[arg-type]
    assert parse(Path(handler.status_file(None, 5)).read_text(), "x", 5).status == "error"
