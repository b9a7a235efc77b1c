from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from waagent.errors import ExtensionsConfigError
from waagent.platform.extensionsconfig import empty_extensions_goal_state, parse_extensions_config
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

Captured = Callable[[str], bytes]

CONTENT = json.dumps({"runtimeSettings": [{"handlerSettings": {"publicSettings": {"k": "v"}}}]})


def parsed(inside: str, notes: list[str] | None = None) -> ExtensionsGoalState:
    return parse_extensions_config(f"<Extensions>{inside}</Extensions>".encode(), "7", notes)


def handler(settings: str = "", attributes: str = "", notes: list[str] | None = None) -> Handler:
    """Return the one handler ``A.B`` 1.0 with *settings* inside ``PluginSettings``."""
    plugin = f'<Plugin name="A.B" version="1.0" state="enabled" {attributes}/>'
    found = parsed(f"<Plugins>{plugin}</Plugins><PluginSettings>{settings}</PluginSettings>", notes)
    assert len(found.handlers) == 1
    return found.handlers[0]


def node(inside: str, version: str = "1.0") -> str:
    return f'<Plugin name="A.B" version="{version}">{inside}</Plugin>'


def single(sequence: str = 'seqNo="3"', text: str = CONTENT) -> str:
    return f"<RuntimeSettings {sequence}>{text}</RuntimeSettings>"


def multiple(attributes: str, text: str = CONTENT) -> str:
    return f"<ExtensionRuntimeSettings {attributes}>{text}</ExtensionRuntimeSettings>"


# --- the document


def test_an_empty_document_asks_for_nothing() -> None:
    assert parsed("") == empty_extensions_goal_state("7")
    assert empty_extensions_goal_state("7") == ExtensionsGoalState(
        id="incarnation_7", channel="WireServer", source="Fabric", sequence="7", created=MINIMUM_TIMESTAMP
    )


@pytest.mark.parametrize("data", [b"", b"<Extensions>", b"<GoalState/>", b"<!DOCTYPE x><Extensions/>", b"\xff"])
def test_what_is_no_such_document_fails_as_a_whole(data: bytes) -> None:
    with pytest.raises(ExtensionsConfigError, match=r"^ExtensionsConfig: expected "):
        parse_extensions_config(data, "7")


def test_document_fields() -> None:
    notes: list[str] = []
    found = parsed(
        """<GuestAgentExtension><GAFamilies>
        <GAFamily><Name>Prod</Name><Version>2.15.0.1</Version><FromVersion>2.14.0.1</FromVersion>
          <IsVersionFromRSM>True</IsVersionFromRSM><IsVMEnabledForRSMUpgrades>false</IsVMEnabledForRSMUpgrades>
          <Uris><Uri> https://a/m.xml
          </Uri><Uri>https://b/m.xml</Uri></Uris></GAFamily>
        <GAFamily><Name>Test</Name></GAFamily></GAFamilies></GuestAgentExtension>
        <RequiredFeatures><RequiredFeature><Name>One</Name><Value>1.0</Value></RequiredFeature>
          <RequiredFeature><Name>Two</Name></RequiredFeature></RequiredFeatures>
        <StatusUploadBlob statusBlobType="PageBlob">
            https://c/s.status?sv=1&amp;sig=A%3d
        </StatusUploadBlob>
        <InVMArtifactsProfileBlob> https://c/p?sig=B </InVMArtifactsProfileBlob>
        <InVMGoalStateMetaData inSvdSeqNo="99" createdOnTicks="637726657706205217" activityId="act"
            correlationId="cor"/>
        """,
        notes,
    )
    assert found.id == "incarnation_7"
    assert found.sequence == "7"  # the incarnation, not inSvdSeqNo
    assert (found.activity_id, found.correlation_id) == ("act", "cor")
    assert found.created == "2021-11-16T13:22:50.620522Z"
    assert found.required_features == ("One", "Two")
    assert found.status_blob == StatusBlob("https://c/s.status?sv=1&sig=A%3d", "PageBlob")
    assert found.artifacts_profile_uri == "https://c/p?sig=B"
    assert found.agent_families == (
        AgentFamily("Prod", "2.15.0.1", "2.14.0.1", True, False, ("https://a/m.xml", "https://b/m.xml")),
        AgentFamily("Test"),
    )
    assert notes == []
    assert "sig=" not in repr(found)


def test_missing_metadata_and_blank_blobs() -> None:
    found = parsed(
        "<InVMGoalStateMetaData activityId=''/><StatusUploadBlob> </StatusUploadBlob><InVMArtifactsProfileBlob/>"
    )
    assert (found.activity_id, found.correlation_id, found.created) == (NULL_GUID, NULL_GUID, MINIMUM_TIMESTAMP)
    assert found.status_blob is None
    assert found.artifacts_profile_uri == ""


@pytest.mark.parametrize("attribute", ["", 'statusBlobType="AppendBlob"', 'statusBlobType=""'])
def test_an_unknown_blob_type_counts_as_block_blob_and_is_noted(attribute: str) -> None:
    notes: list[str] = []
    found = parsed(f"<StatusUploadBlob {attribute}>https://c/s</StatusUploadBlob>", notes)
    assert found.status_blob == StatusBlob("https://c/s", "BlockBlob")
    assert len(notes) == 1


# --- handlers


def test_handler_fields() -> None:
    found = parsed(
        """<Plugins><Plugin name="A.B" version="1.2.3" state="Enabled" location="https://a" failoverlocation="https://b"
        autoUpgrade="true" runAsStartupTask="false" isJson="true" useExactVersion="true" config="" upgradeGuid="x"
        encodedSignature="MIIn"><additionalLocations><additionalLocation> https://c </additionalLocation>
        <additionalLocation/><additionalLocation>https://d</additionalLocation></additionalLocations></Plugin>
        <Plugin name="C.D" version="2" state="uninstall" location="" failoverlocation="https://e"/>
        <Plugin name="E.F" version="3" state="paused"/></Plugins>"""
    )
    assert found.handlers == (
        Handler("A.B", "1.2.3", "enabled", ("https://a", "https://b", "https://c", "https://d"), "MIIn"),
        Handler("C.D", "2", "uninstall", ("https://e",)),
        Handler("E.F", "3", "paused"),  # not judged here
    )


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ('name="" version="1"', "Extensions.Plugins.Plugin.name is None for ExtensionConfig"),
        ('name="A.B"', "Extensions.Plugins.Plugin.version is None for ExtensionConfig"),
        ('name="A.B" version="1" state=" "', "Received empty Extensions.Plugins.Plugin.state, failing Handler"),
        ('name="../A" version="1" state="enabled"', "The name of the handler cannot be part of a file name"),
        ('name="A.B" version="1/2" state="enabled"', "The version of handler A.B cannot be part of a file name"),
    ],
)
def test_a_bad_handler_spoils_no_other(attributes: str, reason: str) -> None:
    found = parsed(f'<Plugins><Plugin {attributes}/><Plugin name="C.D" version="2" state="enabled"/></Plugins>')
    assert [item.invalid_reason for item in found.handlers] == [reason, None]


# --- joining with settings (§8.2)


def test_a_handler_without_settings_is_valid() -> None:
    assert handler() == Handler("A.B", "1.0")
    assert handler('<Plugin name="Other" version="9"/>') == Handler("A.B", "1.0")
    assert handler(node("")) == Handler("A.B", "1.0")


def test_single_config_settings_are_named_after_the_handler_and_joined_in_any_case() -> None:
    text = json.dumps(
        {
            "runtimeSettings": [
                {
                    "handlerSettings": {
                        "publicSettings": {"k": "v"},
                        "protectedSettings": "MIIB",
                        "protectedSettingsCertThumbprint": "0123abcd",
                    }
                }
            ]
        }
    )
    inside = single('seqNo=" 4 "', f"\n{text}\n") + (
        '<DependsOn dependencyLevel="1"><DependsOnExtension extension="first" handler="X.Y"/>'
        '<DependsOnExtension handler="Z"/><DependsOnExtension extension="nothing"/></DependsOn>'
    )
    found = handler(node(inside).replace("A.B", "a.b"), 'encodedSignature="x"')
    assert found.extensions == (
        ExtensionSettings(
            name="A.B",
            sequence_number=4,
            state="enabled",
            dependency_level=1,
            depends_on=(Dependency("X.Y", "first"), Dependency("Z")),
            public={"k": "v"},
            protected="MIIB",
            thumbprint="0123ABCD",
        ),
    )
    assert not found.multi_config
    assert found.invalid_reason is None
    assert "MIIB" not in repr(found)


def test_single_config_settings_have_the_state_of_the_handler() -> None:
    plugins = '<Plugins><Plugin name="A.B" version="1.0" state="disabled"/></Plugins>'
    found = parsed(f"{plugins}<PluginSettings>{node(single())}</PluginSettings>")
    assert found.handlers[0].extensions[0].state == "disabled"


def test_absent_values_stay_absent() -> None:
    found = handler(node(single(text='{"runtimeSettings":[{"handlerSettings":{"protectedSettings":null}}]}')))
    item = found.extensions[0]
    assert (item.public, item.protected, item.thumbprint, item.has_content) == (None, None, None, True)


def test_multi_config() -> None:
    inside = (
        '<DependsOn dependencyLevel="2" name="second"><DependsOnExtension extension="first" handler="A.B"/></DependsOn>'
        + multiple('seqNo="0" name="first"')
        + multiple('seqNo="7" name="second" state="Disabled"')
    )
    found = handler(node(inside))
    assert found.multi_config
    assert found.invalid_reason is None
    assert found.extensions == (
        ExtensionSettings("first", 0, "enabled", public={"k": "v"}),
        ExtensionSettings("second", 7, "disabled", 2, (Dependency("A.B", "first"),), public={"k": "v"}),
    )


VERSION_AND = "for the same extension: A.B and version: 1.0"
MISMATCH = "Extension PluginSettings Version Mismatch! Expected PluginSettings version: 1.0 for Extension: A.B"


@pytest.mark.parametrize(
    ("settings", "reason", "known"),
    [
        (
            node(single(), "1.1"),
            f"{MISMATCH} but found versions: (1.1)",
            [],
        ),
        (
            node(single()) + node(single(), "1.0.0"),
            f"{MISMATCH} but found versions: (1.0, 1.0.0)",
            [],
        ),
        (
            node(single()) + node(single()).replace("A.B", "a.B"),
            "Multiple plugin settings found for the same extension: A.B and version: 1.0 (Expected: 1; Available: 2)",
            [],
        ),
        (
            node(single() + multiple('seqNo="1" name="x"')),
            f"Both RuntimeSettings and ExtensionRuntimeSettings found {VERSION_AND}",
            [],
        ),
        (node(single() * 3), f"Multiple RuntimeSettings found {VERSION_AND} (Expected: 1; Available: 3)", []),
        (
            node(single() + '<DependsOn dependencyLevel="1"/><DependsOn dependencyLevel="1"/>'),
            "Extension Handler can only have a single dependsOn node for Single config extensions. Found: 2",
            [],
        ),
        (
            node(multiple('seqNo="1" name="x"') + multiple('seqNo="1"')),
            "Extension Name not specified for ExtensionRuntimeSettings for MultiConfig!",
            [("x", 1)],
        ),
        (
            node(multiple('seqNo="1" name="x"') + '<DependsOn dependencyLevel="1"/>'),
            "No Name not specified for DependsOn object in ExtensionRuntimeSettings for MultiConfig!",
            [],
        ),
        (
            node(multiple('seqNo="1" name="../x"')),
            "The name of an extension of handler A.B cannot be part of a file name",
            [],
        ),
        (node(single('seqNo=""')), "SeqNo not specified for the Extension: A.B", []),
        (node(multiple('name="x"')), "SeqNo not specified for the Extension: x", []),
        (node(single('seqNo="four"')), "SeqNo is not a number for the Extension: A.B", []),
        (node(single('seqNo="-1"')), "SeqNo is not a number for the Extension: A.B", []),
        (node(single(f'seqNo="{"9" * 5000}"')), "SeqNo is not a number for the Extension: A.B", []),
        (
            node(single(text="{}")),
            "Expected one runtimeSettings item in the settings of the Extension: A.B",
            [("A.B", 3)],
        ),
        (
            node(single(text='{"runtimeSettings":[{"handlerSettings":{}},{"handlerSettings":{}}]}')),
            "Expected one runtimeSettings item in the settings of the Extension: A.B",
            [("A.B", 3)],
        ),
        (
            node(single(text='{"runtimeSettings":[[]]}')),
            "Expected a handlerSettings object in the settings of the Extension: A.B",
            [("A.B", 3)],
        ),
        (
            node(single(text='{"runtimeSettings":[{"handlerSettings":{"protectedSettings":{"password":"x"}}}]}')),
            "protectedSettings of the Extension: A.B: expected text or null, found an object",
            [("A.B", 3)],
        ),
    ],
)
def test_what_makes_a_handler_invalid(settings: str, reason: str, known: list[tuple[str, int]]) -> None:
    found = handler(settings)
    assert found.invalid_reason == reason
    assert [(item.name, item.sequence_number) for item in found.extensions] == known


@pytest.mark.parametrize("text", ["", "not json", "{'a': 1}", '{"a": NaN}', "[" * 500, '{"runtimeSettings":[]}'])
def test_settings_that_are_no_json_still_have_a_number(text: str) -> None:
    inside = single(text=text) + '<DependsOn dependencyLevel="5"/>'
    found = handler(node(inside))
    assert found.invalid_reason is None
    assert found.extensions == (ExtensionSettings("A.B", 3, "enabled", 5, has_content=False),)


@pytest.mark.parametrize("level", ['dependencyLevel="two"', "", 'dependencyLevel=""', 'dependencyLevel="-4"'])
def test_a_level_that_is_no_number_counts_as_zero_and_is_noted(level: str) -> None:
    notes: list[str] = []
    found = handler(node(single() + f"<DependsOn {level}/>"), notes=notes)
    assert found.extensions[0].dependency_level == 0
    assert notes == ["Could not parse dependencyLevel for handler A.B. Setting it to 0"]


def test_settings_in_a_character_section() -> None:
    assert handler(node(single(text=f"<![CDATA[{CONTENT}]]>"))).extensions[0].public == {"k": "v"}


def test_many_contradicting_nodes_stay_cheap_and_short() -> None:
    plugins = '<Plugin name="A" version="1" state="enabled"/>' * 2000
    settings = "".join(f'<Plugin name="A" version="{number}"/>' for number in range(2000))
    found = parsed(f"<Plugins>{plugins}</Plugins><PluginSettings>{settings}</PluginSettings>")
    assert all(len(item.invalid_reason or "") < 300 for item in found.handlers)
    assert all((item.invalid_reason or "").endswith("9, ...)") for item in found.handlers)


# --- captured documents (§26)


def test_captured_single_handler(captured: Captured) -> None:
    found = parse_extensions_config(captured("wire/ext_conf.xml"), "1")
    (only,) = found.handlers
    assert (only.name, only.version, only.state, only.invalid_reason) == (
        "OSTCExtensions.ExampleHandlerLinux",
        "1.0.0",
        "enabled",
        None,
    )
    assert len(only.manifest_uris) == 2
    assert only.signature.startswith("MIInEAYJ")
    assert only.extensions == (
        ExtensionSettings(
            "OSTCExtensions.ExampleHandlerLinux",
            0,
            public={"foo": "bar"},
            protected="MIICWgYJK",
            thumbprint="F6ABAA61098A301EBB8A571C3C7CF77F355F7FA9",
        ),
    )
    assert found.status_blob is not None
    assert found.status_blob.blob_type == "BlockBlob"
    assert found.created == "2021-11-16T13:22:50.620522Z"
    assert [family.name for family in found.agent_families] == ["Prod", "Test"]


def test_captured_multiple_handlers_and_wrapped_blob_url(captured: Captured) -> None:
    found = parse_extensions_config(captured("wire/ext_conf_multiple_extensions.xml"), "1")
    assert [item.name.rpartition(".")[2] for item in found.handlers] == [
        "ExampleHandlerLinux",
        "ExampleExtension",
        "ExampleHandlerLinux",
        "ExampleExtensionLinux",
        "ExampleExtensionLinuxInTest",
    ]
    assert all(item.invalid_reason is None and len(item.extensions) == 1 for item in found.handlers)
    assert found.status_blob is not None
    assert found.status_blob.url == found.status_blob.url.strip()


def test_captured_dependency_levels(captured: Captured) -> None:
    found = parse_extensions_config(captured("wire/ext_conf_sequencing.xml"), "1")
    assert [(item.extensions[0].dependency_level, item.extensions[0].depends_on) for item in found.handlers] == [
        (2, (Dependency("OSTCExtensions.OtherExampleHandlerLinux"),)),
        (1, ()),
    ]


def test_captured_multi_config(captured: Captured) -> None:
    found = parse_extensions_config(captured("wire/multi-config/ext_conf_with_multi_config.xml"), "4")
    run_command = found.handlers[0]
    assert run_command.multi_config
    assert [(item.name, item.sequence_number, item.dependency_level) for item in run_command.extensions] == [
        ("firstRunCommand", 2, 0),
        ("secondRunCommand", 2, 3),
        ("thirdRunCommand", 1, 4),
    ]
    assert [item.extensions[0].dependency_level for item in found.handlers[1:]] == [0, 0, 1, 2]
    assert [item.multi_config for item in found.handlers[1:]] == [False] * 4
    assert found.required_features == ("MultipleExtensionsPerHandler",)
    assert (found.activity_id, found.correlation_id) == (NULL_GUID, NULL_GUID)
    assert found.status_blob is not None
    assert found.status_blob.blob_type == "PageBlob"


def test_captured_disabled_extensions(captured: Captured) -> None:
    found = parse_extensions_config(captured("wire/multi-config/ext_conf_mc_disabled_extensions.xml"), "4")
    assert [(item.name, item.sequence_number, item.state) for item in found.handlers[0].extensions] == [
        ("firstExtension", 1, "disabled"),
        ("secondExtension", 2, "disabled"),
        ("thirdExtension", 99, "enabled"),
        ("fourthExtension", 101, "enabled"),
    ]
    assert found.handlers[1].extensions[0].sequence_number == 10


@pytest.mark.parametrize(
    ("name", "blob", "families"),
    [
        ("block_blob", StatusBlob("http://foo", "BlockBlob"), 0),
        ("page_blob", StatusBlob("http://sas_url", "PageBlob"), 2),
    ],
)
def test_captured_documents_without_extensions(captured: Captured, name: str, blob: StatusBlob, families: int) -> None:
    found = parse_extensions_config(captured(f"wire/ext_conf_no_extensions-{name}.xml"), "1")
    assert found.handlers == ()
    assert found.status_blob == blob
    assert len(found.agent_families) == families


def test_captured_artifacts_profile_and_metadata(captured: Captured) -> None:
    profile = parse_extensions_config(captured("wire/ext_conf_in_vm_artifacts_profile.xml"), "1")
    assert profile.artifacts_profile_uri.startswith("https://mock-goal-state/test.blob.core.windows.net/$system/")
    metadata = parse_extensions_config(captured("wire/ext_conf_in_vm_metadata.xml"), "1")
    assert metadata.activity_id == "555e551c-600e-4fb4-90ba-8ab8ec28eccc"
    assert metadata.correlation_id == "400de90b-522e-491f-9d89-ec944661f531"
    assert metadata.created == "2020-11-09T17:48:50.412123Z"
    assert metadata.artifacts_profile_uri == ""


def test_captured_required_features(captured: Captured) -> None:
    found = parse_extensions_config(captured("wire/ext_conf_required_features.xml"), "1")
    assert found.required_features == ("TestRequiredFeature1", "TestRequiredFeature2", "TestRequiredFeature3")


def test_captured_agent_version_of_the_platform(captured: Captured) -> None:
    found = parse_extensions_config(captured("wire/ext_conf_rsm_version.xml"), "1")
    uris = ("http://mock-goal-state/manifest_of_ga.xml",)
    assert found.agent_families == (
        AgentFamily("Prod", "9.9.9.10", None, True, True, uris),
        AgentFamily("Test", "9.9.9.10", None, True, True, uris),
    )
    redact = parse_extensions_config(captured("wire/ext_conf_redact.xml"), "1")
    assert redact.agent_families[0].version == "2.12.0.2"
    assert redact.agent_families[0].is_version_from_rsm is False
