from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from waagent.errors import VmSettingsNotSupported, VmSettingsParseError
from waagent.platform.extensionsconfig import parse_extensions_config
from waagent.platform.models import (
    MINIMUM_TIMESTAMP,
    NULL_GUID,
    AgentFamily,
    Dependency,
    ExtensionSettings,
    ExtensionsGoalState,
    Handler,
    StatusBlob,
)
from waagent.platform.vmsettings import VmSettings, parse_vm_settings

Captured = Callable[[str], bytes]


def document(*handlers: Any, **members: Any) -> bytes:
    found: dict[str, Any] = {"hostGAPluginVersion": "1.0.8.175", **members}
    if handlers:
        found["extensionGoalStates"] = list(handlers)
    return json.dumps({name: value for name, value in found.items() if value is not ...}).encode()


def handler(**members: Any) -> dict[str, Any]:
    """Return an item of ``extensionGoalStates``; ``...`` as a value leaves the member out."""
    found = {"name": "A.B", "version": "1.0", "state": "enabled", "location": "https://a", **members}
    return {name: value for name, value in found.items() if value is not ...}


def parsed(*handlers: Any, notes: list[str] | None = None, **members: Any) -> VmSettings:
    return parse_vm_settings(document(*handlers, **members), "42", notes)


def only(item: dict[str, Any], notes: list[str] | None = None) -> Handler:
    """Return the one handler made of *item*, with a sound one beside it that must stay sound."""
    found = parsed(item, handler(name="Sound"), notes=notes).extensions.handlers
    assert found[1] == Handler("Sound", "1.0", "enabled", ("https://a",))
    return found[0]


# --- the document


def test_an_empty_document_asks_for_nothing() -> None:
    found = parsed()
    assert (found.host_plugin_version, found.source, found.etag, found.schema_version) == (
        "1.0.8.175",
        "UNKNOWN",
        "42",
        "0.0.0.0",
    )
    assert found.extensions == ExtensionsGoalState(
        id="etag_42",
        channel="HostGAPlugin",
        source="UNKNOWN",
        sequence=0,
        activity_id=NULL_GUID,
        correlation_id=NULL_GUID,
        created=MINIMUM_TIMESTAMP,
    )


def test_document_fields_in_any_case() -> None:
    notes: list[str] = []
    found = parsed(
        notes=notes,
        vmSettingsSchemaVersion="0.0",
        ActivityID="act",
        correlationId="cor",
        inSvdSeqNo=9,
        extensionsLastModifiedTickCount=637726657706205217,
        EXTENSIONGOALSTATESSOURCE="fasttrack",
        onHold=True,
        statusUploadBlob={"StatusBlobType": "PageBlob", "Value": " https://c/s?sig=A "},
        requiredFeatures=[{"Name": "One"}, {"name": "Two", "value": "1.0"}],
        gaFamilies=[
            {
                "NAME": "Prod",
                "version": "2.15.0.1",
                "fromVersion": "2.14.0.1",
                "isVersionFromRSM": True,
                "isVMEnabledForRSMUpgrades": False,
                "uris": ["https://a/m.xml"],
            },
            {"name": "Test", "uris": None},
            {"name": None},
        ],
        inVMMetadata={"vmId": "x"},
        certificatesRevision=0,
        somethingNew=[1, 2],
    )
    assert found.schema_version == "0.0"
    assert found.source == "FastTrack"
    assert found.extensions == ExtensionsGoalState(
        id="etag_42",
        channel="HostGAPlugin",
        source="FastTrack",
        sequence=9,
        activity_id="act",
        correlation_id="cor",
        created="2021-11-16T13:22:50.620522Z",
        required_features=("One", "Two"),
        on_hold=True,
        status_blob=StatusBlob("https://c/s?sig=A", "PageBlob"),
        agent_families=(
            AgentFamily("Prod", "2.15.0.1", "2.14.0.1", True, False, ("https://a/m.xml",)),
            AgentFamily("Test"),
            AgentFamily(""),
        ),
    )
    assert notes == []
    assert "sig=" not in repr(found)


@pytest.mark.parametrize(
    ("source", "expected"), [("Fabric", "Fabric"), ("FastTrack", "FastTrack"), (None, "UNKNOWN"), ("Other", "Other")]
)
def test_sources(source: str | None, expected: str) -> None:
    assert parsed(extensionGoalStatesSource=source).source == expected


def test_ticks_and_numbers_may_be_text() -> None:
    found = parsed(extensionsLastModifiedTickCount="637726657706205217", inSvdSeqNo="12").extensions
    assert (found.created, found.sequence) == ("2021-11-16T13:22:50.620522Z", 12)


@pytest.mark.parametrize("blob_type", [..., None, "AppendBlob", 7])
def test_an_unknown_blob_type_counts_as_block_blob(blob_type: Any) -> None:
    blob = {"value": "https://c/s"} if blob_type is ... else {"value": "https://c/s", "statusBlobType": blob_type}
    notes: list[str] = []
    assert parsed(notes=notes, statusUploadBlob=blob).extensions.status_blob == StatusBlob("https://c/s", "BlockBlob")
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("version", "supported"),
    [
        ("1.0.8.132", False),
        ("1.0.8.133", True),
        ("1.0.9", True),
        ("1.0.8", False),
        ("2.0", True),
        (None, False),
        (..., False),
    ],
)
def test_only_newer_host_plugins_count(version: Any, supported: bool) -> None:
    # The old shape is not looked at: an old plugin is "not supported", never "broken".
    data = document(hostGAPluginVersion=version, extensionGoalStates=None if supported else "something")
    if supported:
        assert parse_vm_settings(data, "42").extensions.handlers == ()
    else:
        with pytest.raises(VmSettingsNotSupported, match=r"^vmSettings need host plugin 1\.0\.8\.133, found "):
            parse_vm_settings(data, "42")


@pytest.mark.parametrize(("version", "signature"), [("1.0.8.158", ""), ("1.0.8.159", "MIIn"), ("1.0.8.1000", "MIIn")])
def test_only_newer_host_plugins_sign(version: str, signature: str) -> None:
    found = parse_vm_settings(document(handler(encodedSignature="MIIn"), hostGAPluginVersion=version), "42")
    assert found.extensions.handlers[0].signature == signature


SECRET = "c2VjcmV0LXNldHRpbmdz"


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"hostGAPluginVersion": "new"}, "hostGAPluginVersion: expected a dotted version, found text"),
        ({"hostGAPluginVersion": 1}, "hostGAPluginVersion: expected a dotted version, found a number"),
        ({"vmSettingsSchemaVersion": []}, "vmSettingsSchemaVersion: expected a dotted version, found a list"),
        ({"inSvdSeqNo": "nine"}, "inSvdSeqNo: expected a number, found text"),
        ({"inSvdSeqNo": -1}, "inSvdSeqNo: expected a number, found a number"),
        ({"onHold": 1}, "onHold: expected true or false, found a number"),
        ({"statusUploadBlob": {"statusBlobType": "BlockBlob"}}, "statusUploadBlob.value: expected text, found null"),
        ({"statusUploadBlob": {"value": " "}}, "statusUploadBlob.value: expected text, found text"),
        ({"statusUploadBlob": "https://c/s?sig=SECRET"}, "statusUploadBlob: expected an object, found text"),
        ({"requiredFeatures": {}}, "requiredFeatures: expected a list, found an object"),
        ({"requiredFeatures": ["One"]}, "requiredFeatures[0]: expected an object, found text"),
        ({"requiredFeatures": [{}]}, "requiredFeatures[].name: expected text, found null"),
        ({"gaFamilies": "x"}, "gaFamilies: expected a list, found text"),
        ({"gaFamilies": [{}]}, "gaFamilies[].name: expected text, found nothing"),
        ({"gaFamilies": [{"name": "P", "isVersionFromRSM": "true"}]}, "isVersionFromRSM: unexpectedly found text"),
        ({"gaFamilies": [{"name": "P", "uris": "https://a"}]}, "gaFamilies[].uris: unexpectedly found text"),
        ({"gaFamilies": [{"name": "P", "uris": [1]}]}, "gaFamilies[].uris: expected a list of texts"),
        (
            {"extensionGoalStates": {"protectedSettings": SECRET}},
            "extensionGoalStates: expected a list, found an object",
        ),
        ({"extensionGoalStates": [SECRET]}, "extensionGoalStates[0]: expected an object, found text"),
        ({"extensionGoalStates": [{"version": "1"}]}, "extensionGoalStates[].name: expected text, found null"),
        ({"extensionGoalStates": [{"name": ""}]}, "extensionGoalStates[].name: expected text, found empty text"),
    ],
)
def test_what_makes_the_document_unsound(members: dict[str, Any], said: str) -> None:
    with pytest.raises(VmSettingsParseError) as caught:
        parsed(**members)
    text = str(caught.value)
    version = "0.0.0.0" if "hostGAPluginVersion" in members else "1.0.8.175"
    assert text.startswith(f"Error parsing vmSettings [HGAP: {version} Etag:42]: vmSettings: ")
    assert said in text
    assert SECRET not in text
    assert caught.value.etag == "42"
    assert "sig=" not in caught.value.redacted
    json.loads(caught.value.redacted)  # what is saved is the document


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"<html/>", b"null", b'{"a":1,"a":2}', b"\xff", b"[" * 100_000])
def test_what_is_no_such_document(data: bytes) -> None:
    with pytest.raises(
        VmSettingsParseError, match=r"^Error parsing vmSettings \[HGAP: 0\.0\.0\.0 Etag:42\]: vmSettings: expected"
    ):
        parse_vm_settings(data, "42")


# --- handlers


def test_single_config() -> None:
    found = only(
        handler(
            version="1.2.3",
            failoverLocation="https://b",
            ADDITIONALLOCATIONS=["https://c", "", None],
            autoUpgrade=True,
            encodedSignature=" MIIn ",
            settingsSeqNo="4",
            settings=[
                {
                    "publicSettings": '{"k": {"K": 1}}',
                    "ProtectedSettings": "MIIB",
                    "protectedSettingsCertThumbprint": "0123abcd",
                }
            ],
            dependsOn=[
                {
                    "DependsOnExtension": [{"handler": "X", "extension": "first"}, {"Handler": "Y"}, {}],
                    "dependencyLevel": 1,
                }
            ],
        )
    )
    assert found == Handler(
        "A.B",
        "1.2.3",
        "enabled",
        ("https://a", "https://b", "https://c"),
        "MIIn",
        False,
        (
            ExtensionSettings(
                "A.B",
                4,
                "enabled",
                1,
                (Dependency("X", "first"), Dependency("Y")),
                {"k": {"K": 1}},
                "MIIB",
                "0123ABCD",
            ),
        ),
    )


def test_multi_config() -> None:
    found = only(
        handler(
            isMultiConfig=True,
            settingsSeqNo=0,
            settings=[
                {"extensionName": "first", "extensionState": "enabled", "seqNo": 0, "publicSettings": "{}"},
                {"extensionName": "second", "extensionState": "Disabled", "seqNo": "7", "publicSettings": None},
            ],
            dependsOn=[{"name": "second", "dependencyLevel": "2", "dependsOnExtension": [{"handler": "A.B"}]}],
        )
    )
    assert found.multi_config
    assert found.invalid_reason is None
    assert found.extensions == (
        ExtensionSettings("first", 0, "enabled", public={}),
        ExtensionSettings("second", 7, "disabled", 2, (Dependency("A.B"),)),
    )


@pytest.mark.parametrize("settings", [..., None, []])
def test_handlers_without_settings(settings: Any) -> None:
    assert only(handler(settings=settings)).extensions == ()
    assert only(handler(settings=settings)).invalid_reason is None


def test_uninstall_needs_no_locations() -> None:
    found = only(handler(state="uninstall", location=..., failoverLocation=None))
    assert (found.state, found.manifest_uris, found.invalid_reason) == ("uninstall", (), None)


def test_settings_have_the_state_of_a_single_config_handler() -> None:
    found = only(handler(state="disabled", settingsSeqNo=1, settings=[{"publicSettings": "{}"}]))
    assert found.extensions[0].state == "disabled"


ONE = [{"publicSettings": "{}"}]
FIRST = {"extensionName": "first", "extensionState": "enabled", "seqNo": 5, "publicSettings": "{}"}


def first(**members: Any) -> list[dict[str, Any]]:
    found = {**FIRST, **members}
    return [{name: value for name, value in found.items() if value is not ...}]


@pytest.mark.parametrize(
    ("members", "reason", "known"),
    [
        ({"version": ...}, "version: expected text, found null", []),
        ({"version": 1}, "version: expected text, found a number", []),
        ({"version": "a/b"}, "The version of handler A.B cannot be part of a file name", []),
        ({"name": "../A", "settingsSeqNo": 1, "settings": ONE}, "The name of the handler cannot be part of", [1]),
        ({"state": ...}, "state: expected enabled, disabled or uninstall", []),
        (
            {"state": "paused", "settingsSeqNo": 3, "settings": ONE},
            "state: expected enabled, disabled or uninstall",
            [3],
        ),
        ({"location": 5}, "location: expected text, found a number", []),
        ({"failoverLocation": []}, "failoverLocation: expected text, found a list", []),
        ({"additionalLocations": "https://a"}, "additionalLocations: expected a list, found text", []),
        ({"additionalLocations": [5]}, "additionalLocations: expected a list of texts", []),
        ({"encodedSignature": 5}, "encodedSignature: expected text, found a number", []),
        ({"isMultiConfig": "true"}, "isMultiConfig: expected true or false, found text", []),
        ({"settings": {}}, "settings: expected a list, found an object", []),
        ({"settings": ["x"]}, "settings[]: expected an object, found text", []),
        (
            {"settingsSeqNo": 1, "settings": ONE * 2},
            "Single-config extension A.B has more than one settings object (2)",
            [],
        ),
        ({"settings": ONE}, "SeqNo not specified for the Extension: A.B", []),
        ({"settings": ONE, "settingsSeqNo": "x"}, "SeqNo is not a number for the Extension: A.B", []),
        ({"settings": ONE, "settingsSeqNo": True}, "SeqNo is not a number for the Extension: A.B", []),
        (
            {"settings": [{"publicSettings": "{" + SECRET}], "settingsSeqNo": 1},
            "publicSettings of the Extension: A.B: expected JSON, found: ",
            [1],
        ),
        (
            {"settings": [{"publicSettings": ""}], "settingsSeqNo": 1},
            "publicSettings of the Extension: A.B: expected JSON",
            [1],
        ),
        (
            {"settings": [{"publicSettings": {"k": SECRET}}], "settingsSeqNo": 1},
            "publicSettings: expected text that holds JSON, found an object",
            [1],
        ),
        (
            {"settings": [{"protectedSettings": SECRET}], "settingsSeqNo": 1},
            "protectedSettings of the Extension: A.B came without a thumbprint",
            [1],
        ),
        (
            {"settings": [{"protectedSettings": {"p": SECRET}}], "settingsSeqNo": 1},
            "protectedSettings of the Extension: A.B: expected text or null, found an object",
            [1],
        ),
        (
            {"settings": ONE, "settingsSeqNo": 1, "dependsOn": [{"dependencyLevel": 1}] * 2},
            "dependsOn of extension A.B has more than one item (2)",
            [],
        ),
        ({"settings": ONE, "settingsSeqNo": 1, "dependsOn": {}}, "dependsOn: expected a list, found an object", []),
        ({"settings": ONE, "settingsSeqNo": 1, "dependsOn": ["x"]}, "dependsOn[]: expected an object, found text", []),
        ({"isMultiConfig": True, "settings": first(extensionName=...)}, "extensionName: expected text, found null", []),
        (
            {"isMultiConfig": True, "settings": first(extensionName="a/b")},
            "The name of an extension of handler A.B",
            [],
        ),
        (
            {"isMultiConfig": True, "settings": first(extensionState=...)},
            "extensionState: expected text, found null",
            [],
        ),
        ({"isMultiConfig": True, "settings": first(seqNo=...)}, "SeqNo not specified for the Extension: A.B.first", []),
        ({"isMultiConfig": True, "settings": [FIRST, {}]}, "extensionName: expected text, found null", [5]),
        (
            {"isMultiConfig": True, "settings": [FIRST], "dependsOn": [{"dependencyLevel": 1}]},
            "dependsOn[].name: expected text, found null",
            [],
        ),
        (
            {"isMultiConfig": True, "settings": [FIRST], "dependsOn": [{"name": "other", "dependencyLevel": 1}]},
            "dependsOn of extension A.B names an extension that has no settings",
            [5],
        ),
        ({"Version": "2.0"}, "expected every name once, found one with two values", []),
    ],
)
def test_a_bad_item_makes_its_handler_invalid_and_no_other(
    members: dict[str, Any], reason: str, known: list[int]
) -> None:
    found = only(handler(**members))
    assert found.invalid_reason is not None
    assert reason in found.invalid_reason
    assert SECRET not in found.invalid_reason
    assert [item.sequence_number for item in found.extensions] == known


@pytest.mark.parametrize(
    ("members", "level", "notes_expected"),
    [
        ({"dependsOn": []}, 0, 1),
        ({"dependsOn": None}, 0, 0),
        ({"dependsOn": [{"dependencyLevel": 3}]}, 3, 1),
        ({"dependsOn": [{"dependencyLevel": "high", "dependsOnExtension": []}]}, 0, 1),
        ({"dependsOn": [{"dependsOnExtension": []}]}, 0, 1),
        ({"dependsOn": [{"dependencyLevel": 3, "dependsOnExtension": []}]}, 3, 0),
    ],
)
def test_odd_dependencies_are_let_pass_with_a_note(members: dict[str, Any], level: int, notes_expected: int) -> None:
    notes: list[str] = []
    found = only(handler(settings=ONE, settingsSeqNo=1, **members), notes)
    assert found.invalid_reason is None
    assert found.extensions[0].dependency_level == level
    assert len(notes) == notes_expected


def test_dependencies_without_settings_are_ignored_with_a_note() -> None:
    notes: list[str] = []
    found = only(handler(dependsOn=[{"dependencyLevel": 3, "dependsOnExtension": []}]), notes)
    assert (found.invalid_reason, found.extensions, len(notes)) == (None, (), 1)


# --- captured documents (§26)


def test_captured_document(captured: Captured) -> None:
    found = parse_vm_settings(captured("hostgaplugin/vm_settings.json"), "1")
    assert (found.host_plugin_version, found.source) == ("1.0.8.133", "FastTrack")
    assert found.extensions.id == "etag_1"
    assert found.extensions.sequence == 1
    assert found.extensions.on_hold
    assert found.extensions.created == "2021-11-16T13:22:50.620530Z"
    assert found.extensions.required_features == ("MultipleExtensionsPerHandler",)
    assert [item.signature for item in found.extensions.handlers] == [""] * 5  # the host plugin is too old to sign


def test_both_channels_give_equal_handlers(captured: Captured) -> None:
    fabric = parse_extensions_config(captured("hostgaplugin/ext_conf.xml"), "10")
    fast_track = parse_vm_settings(captured("hostgaplugin/vm_settings.json"), "1").extensions
    # The captured pair names another certificate for the last handler; all else must be equal.
    last = fabric.handlers[-1]
    other = attrs.evolve(last.extensions[0], thumbprint="F6ABAA61098A301EBB8A571C3C7CF77F355F7FA9")
    assert last.extensions[0] != other
    expected = (*fabric.handlers[:-1], attrs.evolve(last, extensions=(other,)))
    assert fast_track.handlers == expected
    assert fast_track.agent_families == fabric.agent_families
    assert fast_track.status_blob == fabric.status_blob
    assert fast_track.required_features == fabric.required_features
    assert (fast_track.activity_id, fast_track.correlation_id) == (fabric.activity_id, fabric.correlation_id)
