from __future__ import annotations

import base64
import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.platform.models import (
    ExtensionReport,
    GoalStateReport,
    HandlerReport,
    StatusReport,
    Substatus,
    UpdateReport,
)
from waagent.platform.statusblob import (
    build_status,
    encode_status,
    host_plugin_body,
    storage_calls,
    timeless,
)

NOW = "2026-01-02T03:04:05Z"
URL = "https://c.blob.core.windows.net/$system/demo.status?sv=2018-03-28&sig=AAA%3d&sp=w"
SAS = "https://a.example/x?restype=c&sig=SECRET"


def build(*reports: Any, **options: Any) -> dict[str, Any]:
    given_options = {"computer_name": "vm1", "os_name": "debian", "os_version": "12", "version": "3.0.0.0"}
    document = build_status(reports, timestamp=NOW, **{**given_options, **options})
    sent = json.loads(encode_status(document))
    assert sent == document  # what is sent is what was built
    return sent  # type: ignore[no-any-return]


def test_the_minimal_document() -> None:
    found = build(
        StatusReport(
            goal_state=GoalStateReport("7", "Success", 0, "GoalState executed successfully", "2025-01-02T03:04:00Z"),
            features=("MultipleExtensionsPerHandler",),
        ),
        features=("FastTrack",),
    )
    assert found == {
        "version": "1.1",
        "timestampUTC": NOW,
        "aggregateStatus": {
            "guestAgentStatus": {
                "version": "3.0.0.0",
                "status": "Ready",
                "formattedMessage": {"lang": "en-US", "message": "Guest Agent is running"},
            },
            "handlerAggregateStatus": [],
            "vmArtifactsAggregateStatus": {
                "goalStateAggregateStatus": {
                    "formattedMessage": {"lang": "en-US", "message": "GoalState executed successfully"},
                    "timestampUTC": "2025-01-02T03:04:00Z",
                    "inSvdSeqNo": "7",
                    "status": "Success",
                    "code": 0,
                }
            },
        },
        "guestOSInfo": {"computerName": "vm1", "osName": "debian", "osVersion": "12", "version": "3.0.0.0"},
        "supportedFeatures": [
            {"Key": "FastTrack", "Value": "1.0"},
            {"Key": "MultipleExtensionsPerHandler", "Value": "1.0"},
        ],
    }


def test_the_full_document() -> None:
    extension = ExtensionReport(
        "first",
        4,
        "success",
        0,
        "done",
        operation="Enabling",
        substatus=(Substatus("StdOut", "success", 0, "hi"),),
    )
    found = build(
        StatusReport(
            handlers=(
                HandlerReport("Contoso.Multi", "2.0.0", "Ready", 0, "Plugin enabled", True, extension),
                HandlerReport("Contoso.Alone", "1.0", "NotReady", 1007),
            ),
            update=UpdateReport("2.15.0.1", "Success", 0),
        )
    )
    aggregate = found["aggregateStatus"]
    assert aggregate["guestAgentStatus"]["updateStatus"] == {
        "expectedVersion": "2.15.0.1",
        "status": "Success",
        "code": 0,
        "formattedMessage": {"lang": "en-US", "message": ""},
    }
    assert aggregate["handlerAggregateStatus"] == [
        {
            "handlerName": "Contoso.Multi",
            "handlerVersion": "2.0.0",
            "status": "Ready",
            "code": 0,
            "useExactVersion": True,
            "formattedMessage": {"lang": "en-US", "message": "Plugin enabled"},
            "runtimeSettingsStatus": {
                "sequenceNumber": 4,
                "extensionName": "first",
                "settingsStatus": {
                    "version": 1.0,
                    "timestampUTC": NOW,
                    "status": {
                        "name": "first",
                        "operation": "Enabling",
                        "status": "success",
                        "code": 0,
                        "configurationAppliedTime": None,
                        "formattedMessage": {"lang": "en-US", "message": "done"},
                        "substatus": [
                            {
                                "name": "StdOut",
                                "status": "success",
                                "code": 0,
                                "formattedMessage": {"lang": "en-US", "message": "hi"},
                            }
                        ],
                    },
                },
            },
        },
        {
            "handlerName": "Contoso.Alone",
            "handlerVersion": "1.0",
            "status": "NotReady",
            "code": 1007,
            "useExactVersion": True,
        },
    ]
    assert "vmArtifactsAggregateStatus" not in aggregate
    assert "supportedFeatures" not in found


def test_what_is_left_out_of_a_single_config_extension() -> None:
    extension = ExtensionReport("A.B", "3", "transitioning", message=None)
    found = build(StatusReport(handlers=(HandlerReport("A.B", "1", "Ready", extension=extension),)))
    runtime = found["aggregateStatus"]["handlerAggregateStatus"][0]["runtimeSettingsStatus"]
    assert runtime["sequenceNumber"] == "3"  # the type of the goal state
    assert "extensionName" not in runtime
    assert "substatus" not in runtime["settingsStatus"]["status"]
    assert runtime["settingsStatus"]["status"]["formattedMessage"]["message"] == ""


def test_parts_are_joined_in_order_and_the_first_goal_state_counts() -> None:
    found = build(
        StatusReport(handlers=(HandlerReport("A", "1", "Ready"),), problems=("disk full",), features=("X", "Y")),
        StatusReport(
            handlers=(HandlerReport("B", "1", "Ready"),),
            goal_state=GoalStateReport(9, "Failed", 2001, "unsupported", NOW),
            problems=("plugin off",),
            features=("Y",),
        ),
        StatusReport(goal_state=GoalStateReport(10, "Success", 0, "fine", NOW)),
        problems=("clock",),
    )
    aggregate = found["aggregateStatus"]
    assert [item["handlerName"] for item in aggregate["handlerAggregateStatus"]] == ["A", "B"]
    assert aggregate["vmArtifactsAggregateStatus"]["goalStateAggregateStatus"]["inSvdSeqNo"] == 9
    message = aggregate["guestAgentStatus"]["formattedMessage"]["message"]
    assert message == "Guest Agent is running; clock; disk full; plugin off"
    assert [item["Key"] for item in found["supportedFeatures"]] == ["X", "Y"]


def test_every_message_is_redacted() -> None:
    extension = ExtensionReport(
        "x", 1, "error", 1, f"bad {SAS}", substatus=(Substatus(f"s {SAS}", "error", 1, f"worse {SAS}."),)
    )
    found = build(
        StatusReport(
            handlers=(HandlerReport("A", "1", "NotReady", 1, f"failed {SAS}", False, extension),),
            goal_state=GoalStateReport(1, "Failed", -1, f"gs {SAS}", NOW),
            update=UpdateReport("1", "Error", 1, f"update {SAS}"),
            problems=(f"problem {SAS}",),
        )
    )
    assert "SECRET" not in json.dumps(found)
    assert json.dumps(found).count("https://a.example/x?<redacted>") == 7


class Nasty:
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value", [True, 7.0, float("nan"), float("inf"), 10**30, {"a": 1}, None, Nasty(), "\ud800", b"x", 1.5, object()]
)
def test_odd_values_of_plugins_never_spoil_the_document(value: Any) -> None:
    extension = ExtensionReport("x", value, value, value, value, value, value, value, (Substatus(value, value, value),))
    found = build(
        StatusReport(
            handlers=(
                HandlerReport(value, value, value, value, value, True, extension),
                HandlerReport("A", "1", "Ready", extension=value),
                value,
                HandlerReport("Fine", "1", "Ready"),
            ),
            problems=(value,),
            features=(value,),
            update=value,
            goal_state=value,
        ),
        value,
        StatusReport(handlers=value, problems=value, features=value),
        StatusReport(handlers=(HandlerReport("Last", "1", "Ready"),)),
    )
    names = [item["handlerName"] for item in found["aggregateStatus"]["handlerAggregateStatus"]]
    assert names[-2:] == ["Fine", "Last"]
    assert len(names) == 5
    encode_status(found).decode("ascii").encode("utf-8")


texts = st.text(max_size=30)
codes = st.one_of(st.integers(-(2**53), 2**53), texts)
substatuses = st.builds(Substatus, texts, texts, codes, st.none() | texts)
optional = st.none() | texts
extensions = st.builds(
    ExtensionReport,
    name=texts,
    sequence_number=codes,
    status=texts,
    code=codes,
    message=optional,
    operation=optional,
    configuration_applied_time=optional,
    substatus=st.lists(substatuses, max_size=3).map(tuple),
)
handlers = st.builds(
    HandlerReport,
    texts,
    texts,
    texts,
    st.integers(-(2**53), 2**53),
    st.none() | texts,
    st.booleans(),
    st.none() | extensions,
)


@given(st.lists(handlers, max_size=4).map(tuple))
def test_the_document_says_what_the_reports_said(items: tuple[HandlerReport, ...]) -> None:
    listed = build(StatusReport(handlers=items))["aggregateStatus"]["handlerAggregateStatus"]
    assert len(listed) == len(items)
    for item, report in zip(listed, items):
        assert (item["handlerName"], item["handlerVersion"], item["status"], item["code"]) == (
            report.name,
            report.version,
            report.status,
            report.code,
        )
        assert ("formattedMessage" in item) == (report.message is not None)
        assert ("runtimeSettingsStatus" in item) == (report.extension is not None)
        if report.extension is not None:
            runtime = item["runtimeSettingsStatus"]
            assert runtime["sequenceNumber"] == report.extension.sequence_number
            assert ("extensionName" in runtime) == report.multi_config
            status = runtime["settingsStatus"]["status"]
            assert (status["status"], status["code"]) == (report.extension.status, report.extension.code)
            assert len(status.get("substatus", ())) == len(report.extension.substatus)


def test_the_key_ignores_when_it_was_reported_and_nothing_else() -> None:
    extension = ExtensionReport("x", 1, "success", message="done")
    handler = HandlerReport("A", "1", "Ready", extension=extension)
    alone = HandlerReport("B", "1", "Ready", message="m")
    report = StatusReport(handlers=(handler, alone), goal_state=GoalStateReport(1, "Success", 0, "m", NOW))

    def key(part: StatusReport, timestamp: str = NOW) -> str:
        return timeless(build_status([part], computer_name="c", os_name="o", os_version="v", timestamp=timestamp))

    assert key(report) == key(report, "2030-01-01T00:00:00Z")
    changed = attrs.evolve(handler, extension=attrs.evolve(extension, message="other"))
    assert key(report) != key(attrs.evolve(report, handlers=(changed, alone)))
    assert key(report) != key(attrs.evolve(report, handlers=(handler, attrs.evolve(alone, message="other"))))
    later = GoalStateReport(1, "Success", 0, "m", "2030-01-01T00:00:00Z")
    assert key(report) != key(attrs.evolve(report, goal_state=later))


# --- upload


def test_a_block_blob_takes_one_call() -> None:
    (call,) = storage_calls(URL, "BlockBlob", b'{"a": 1}', NOW)
    assert call.url == URL
    assert call.body == b'{"a": 1}'
    assert call.headers == (
        ("Content-Length", "8"),
        ("x-ms-blob-type", "BlockBlob"),
        ("x-ms-date", NOW),
        ("x-ms-version", "2014-02-14"),
    )
    assert "sig" not in repr(call)


@pytest.mark.parametrize(
    ("size", "padded", "ranges"),
    [
        (1, 512, ["bytes=0-511"]),
        (512, 512, ["bytes=0-511"]),
        (513, 1024, ["bytes=0-1023"]),
        (4 << 20, 4 << 20, ["bytes=0-4194303"]),
        ((4 << 20) + 1, (4 << 20) + 512, ["bytes=0-4194303", "bytes=4194304-4194815"]),
    ],
)
def test_a_page_blob_is_created_and_filled_with_valid_json(size: int, padded: int, ranges: list[str]) -> None:
    content = b"1" * size
    create, *pages = storage_calls(URL, "PageBlob", content, NOW)
    assert create.url == URL
    assert create.body is None
    assert create.headers == (
        ("Content-Length", "0"),
        ("x-ms-blob-content-length", str(padded)),
        ("x-ms-blob-type", "PageBlob"),
        ("x-ms-date", NOW),
        ("x-ms-version", "2014-02-14"),
    )
    assert [dict(page.headers)["x-ms-range"] for page in pages] == ranges
    for page in pages:
        assert page.url == URL + "&comp=page"
        assert page.body is not None
        assert page.headers == (
            ("Content-Length", str(len(page.body))),
            ("x-ms-range", dict(page.headers)["x-ms-range"]),
            ("x-ms-page-write", "update"),
            ("x-ms-date", NOW),
            ("x-ms-version", "2014-02-14"),
        )
    assert b"".join(page.body or b"" for page in pages) == content + b" " * (padded - size)


def test_a_page_blob_without_query_gets_one() -> None:
    assert storage_calls("https://c/s.status", "PageBlob", b"1", NOW)[1].url == "https://c/s.status?comp=page"


def test_the_host_plugin_is_told_the_same_calls() -> None:
    create, page = storage_calls(URL, "PageBlob", b'{"a": "\xc3\xa9"}', NOW)
    told = json.loads(host_plugin_body(page))
    assert base64.b64decode(told["content"]) == page.body
    assert told["headers"] == [{"headerName": name, "headerValue": value} for name, value in page.headers]
    assert told["requestUri"] == page.url
    assert all(isinstance(header["headerValue"], str) for header in told["headers"])
    assert "content" not in json.loads(host_plugin_body(create))


def test_characters_and_bytes_count_alike() -> None:
    document = build_status([], computer_name="höst-😀", os_name="o", os_version="v", timestamp=NOW)
    sent = encode_status(document)
    assert sent.isascii()
    assert json.loads(sent)["guestOSInfo"]["computerName"] == "höst-😀"
