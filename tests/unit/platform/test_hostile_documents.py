"""Whatever the platform's side sends, a parser answers with a model or a ``ProtocolError``, and soon."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from waagent.errors import ProtocolError
from waagent.platform import imdsdoc
from waagent.platform.artifactsprofile import parse_on_hold
from waagent.platform.certdoc import parse_certificate_file
from waagent.platform.extensionsconfig import parse_extensions_config, redact_extensions_config
from waagent.platform.goalstate import parse_goal_state
from waagent.platform.hosting import check_shared_config, parse_hosting_environment
from waagent.platform.manifest import parse_manifest
from waagent.platform.models import ExtensionsGoalState
from waagent.platform.remoteaccess import parse_remote_access
from waagent.platform.versions import parse_versions
from waagent.platform.vmsettings import parse_vm_settings, redact_vm_settings

SECRET = "MIIBc2VjcmV0c2V0dGluZ3Nmb3JoYW5kbGVy"
SIGNATURE = "c2lnbmF0dXJlb2Z0aGVzdGF0dXNibG9i"
BLOB = f"https://c/s.status?sv=1&sig={SIGNATURE}"

VERSIONS = "<Versions><Preferred><Version>2012-11-30</Version></Preferred></Versions>"
GOAL_STATE = """<GoalState><Incarnation>1</Incarnation><Container><ContainerId>c</ContainerId><RoleInstanceList>
<RoleInstance><InstanceId>i</InstanceId><Configuration><HostingEnvironmentConfig>http://h</HostingEnvironmentConfig>
<SharedConfig>http://s</SharedConfig><ConfigName>a.b</ConfigName></Configuration></RoleInstance></RoleInstanceList>
</Container></GoalState>"""
HANDLER_SETTINGS = json.dumps(
    {
        "runtimeSettings": [
            {
                "handlerSettings": {
                    "protectedSettings": SECRET,
                    "protectedSettingsCertThumbprint": "AB",
                    "publicSettings": {"k": [1, "v"]},
                }
            }
        ]
    }
)
EXTENSIONS = f"""<Extensions><GuestAgentExtension><GAFamilies><GAFamily><Name>Prod</Name><Uris><Uri>https://a</Uri></Uris>
</GAFamily></GAFamilies></GuestAgentExtension><RequiredFeatures><RequiredFeature><Name>F</Name></RequiredFeature>
</RequiredFeatures><StatusUploadBlob statusBlobType="BlockBlob">{BLOB.replace("&", "&amp;")}</StatusUploadBlob><Plugins>
<Plugin name="A" version="1" state="enabled" location="https://l"><additionalLocations><additionalLocation>https://m
</additionalLocation></additionalLocations></Plugin><Plugin name="B" version="2" state="enabled"/></Plugins>
<PluginSettings><Plugin name="A" version="1"><DependsOn dependencyLevel="1"><DependsOnExtension handler="B"/>
</DependsOn><RuntimeSettings seqNo="1">{HANDLER_SETTINGS}</RuntimeSettings></Plugin><Plugin name="B" version="2">
<ExtensionRuntimeSettings name="x" seqNo="1" state="enabled">{HANDLER_SETTINGS}</ExtensionRuntimeSettings></Plugin>
</PluginSettings><InVMGoalStateMetaData createdOnTicks="637726657706205217" activityId="a"/></Extensions>"""
VM_SETTINGS: dict[str, Any] = {
    "hostGAPluginVersion": "1.0.8.175",
    "vmSettingsSchemaVersion": "0.0",
    "activityId": "a",
    "inSvdSeqNo": 1,
    "extensionsLastModifiedTickCount": 637726657706205217,
    "extensionGoalStatesSource": "FastTrack",
    "onHold": False,
    "statusUploadBlob": {"statusBlobType": "BlockBlob", "value": BLOB},
    "requiredFeatures": [{"name": "F"}],
    "gaFamilies": [{"name": "Prod", "isVersionFromRSM": True, "uris": ["https://a"]}],
    "extensionGoalStates": [
        {
            "name": "A",
            "version": "1",
            "state": "enabled",
            "location": "https://l",
            "additionalLocations": ["https://m"],
            "settingsSeqNo": 1,
            "settings": [
                {"publicSettings": '{"k": 1}', "protectedSettings": SECRET, "protectedSettingsCertThumbprint": "AB"}
            ],
            "dependsOn": [{"dependencyLevel": 1, "dependsOnExtension": [{"handler": "B"}]}],
        },
        {
            "name": "B",
            "version": "2",
            "state": "enabled",
            "isMultiConfig": True,
            "settings": [{"extensionName": "x", "extensionState": "enabled", "seqNo": 1, "publicSettings": "{}"}],
            "dependsOn": [{"name": "x", "dependencyLevel": 2}],
        },
    ],
}
COMPUTE = {"vmId": "x", "publicKeys": [{"keyData": "ssh-rsa AA", "path": "/p"}]}
INSTANCE = {
    "compute": COMPUTE,
    "network": {"interface": [{"macAddress": "0", "ipv4": {"ipAddress": [{"privateIpAddress": "1"}]}}]},
}

Parser = Callable[[bytes], Any]
XML: dict[str, tuple[Parser, str]] = {
    "versions": (parse_versions, VERSIONS),
    "goal state": (parse_goal_state, GOAL_STATE),
    "hosting environment": (
        parse_hosting_environment,
        '<HostingEnvironmentConfig><Role name="r"/><Incarnation instance="i"/></HostingEnvironmentConfig>',
    ),
    "shared configuration": (check_shared_config, "<SharedConfig><Deployment/></SharedConfig>"),
    "extensions": (lambda data: parse_extensions_config(data, "1"), EXTENSIONS),
    "manifest": (
        parse_manifest,
        """<PluginVersionManifest><Plugins><Plugin><Version>1.0</Version><Uris><Uri>u</Uri></Uris></Plugin></Plugins>
        </PluginVersionManifest>""",
    ),
    "accounts": (
        parse_remote_access,
        "<RemoteAccess><Users><User><Name>n</Name><Password>p</Password></User></Users></RemoteAccess>",
    ),
    "certificates": (parse_certificate_file, "<CertificateFile><Format/><Data>MIIO</Data></CertificateFile>"),
}
JSON: dict[str, tuple[Parser, Any]] = {
    "vmSettings": (lambda data: parse_vm_settings(data, "1"), VM_SETTINGS),
    "profile": (parse_on_hold, {"onHold": True}),
    "compute": (imdsdoc.parse_compute, COMPUTE),
    "instance": (imdsdoc.check_instance, INSTANCE),
}
PARSERS: dict[str, tuple[Parser, bytes]] = {
    **{name: (parser, text.encode()) for name, (parser, text) in XML.items()},
    **{name: (parser, json.dumps(value).encode()) for name, (parser, value) in JSON.items()},
}
NAMES = sorted(PARSERS)
unhurried = settings(deadline=2000, suppress_health_check=[HealthCheck.too_slow])


def survives(name: str, data: bytes) -> Any:
    """Parse *data*; a ``ProtocolError`` is an answer, anything else is not."""
    begin = time.process_time()
    try:
        found = PARSERS[name][0](data)
    except ProtocolError as problem:
        assert SECRET not in str(problem)
        assert SIGNATURE not in str(problem)
        found = None
    assert time.process_time() - begin < 1
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_samples_are_sound(name: str) -> None:
    parser, data = PARSERS[name]
    found = parser(data)
    extensions = getattr(found, "extensions", found)
    if isinstance(extensions, ExtensionsGoalState):
        assert [handler.invalid_reason for handler in extensions.handlers] == [None, None]


@pytest.mark.parametrize("name", NAMES)
@unhurried
@given(data=st.binary(max_size=200))
@example(data=b"")
@example(data=b"null")
@example(data=b"\xef\xbb\xbf")
@example(data=b"\xff\xfe")
def test_any_bytes(name: str, data: bytes) -> None:
    survives(name, data)


PIECES = [
    *(b"", b"\0", b"\xff", b"<", b"&", b'"', b"]]>", b"null", b"{}", b"[]", b"-1", b"1e9", b"NaN"),
    *(b"<!DOCTYPE a>", b"&#0;", b"\\u0000", b"\\ud800", b"9" * 30, b"../", "é".encode()),
]


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """Cut, repeat, overwrite and insert pieces of *original*."""
    data = original
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 40)))
        piece = draw(st.sampled_from(PIECES) | st.just(data[start:end] * 2) | st.binary(max_size=4))
        data = data[:start] + piece + data[end:]
    return data


@pytest.mark.parametrize("name", NAMES)
@unhurried
@given(draw=st.data())
def test_mutated_documents(name: str, draw: st.DataObject) -> None:
    survives(name, draw.draw(mutated(PARSERS[name][1])))


def pieces(value: Any) -> list[tuple[Any, ...]]:
    """Return the paths of all members of a JSON value."""
    found: list[tuple[Any, ...]] = [()]
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        found.extend((key, *path) for path in pieces(member))
    return found


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a copy of a JSON value with the member at *path* replaced, or removed when *new* is ``...``."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    member = replaced(value[path[0]], path[1:], new)
    if member is ...:
        del copy[path[0]]
    else:
        copy[path[0]] = member
    return copy


odd = st.sampled_from(
    [..., None, True, 0, -1, 1.5, 10**18, 10**40, "", " ", "x", "../x", "\0", "\ud800", [], [None], [[]], {}, {"": {}}]
)
values = odd | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("name", sorted(JSON))
@unhurried
@given(draw=st.data())
def test_any_member_replaced_by_anything(name: str, draw: st.DataObject) -> None:
    document = JSON[name][1]
    for _ in range(draw.draw(st.integers(1, 3))):
        path = draw.draw(st.sampled_from(pieces(document)[1:] or [()]))
        new = draw.draw(values)
        document = replaced(document, path, new)
        if not isinstance(document, dict) or not document:
            break
    survives(name, json.dumps(None if document is ... else document).encode())


def test_every_member_of_vm_settings_removed_or_odd() -> None:
    """Each member in turn: a change inside one handler never touches the other, and no secret is told."""
    for path in pieces(VM_SETTINGS)[1:]:
        for new in [..., None, True, -1, 1.5, "", "x", [], {}, [[]], [None]]:
            found = survives("vmSettings", json.dumps(replaced(VM_SETTINGS, path, new)).encode())
            if path[:1] == ("extensionGoalStates",) and len(path) >= 3 and path[2] != "name":
                assert found is not None, path
                other = 1 - path[1]
                assert found.extensions.handlers[other].invalid_reason is None, (path, new)
            for handler in found.extensions.handlers if found else ():
                assert SECRET not in (handler.invalid_reason or "")


@unhurried
@given(draw=st.data())
def test_secrets_never_survive_redaction(draw: st.DataObject) -> None:
    """Documents with anything put in or cut out between the members: not a piece of a secret is shown."""
    where = draw.draw(st.integers(0, len(EXTENSIONS)))
    junk = draw.draw(st.text("<>&;'\"{}[]:,\\ \nprotectedSettings?=sig/", max_size=20))
    for begin in (EXTENSIONS.find(secret) for secret in (SECRET, SIGNATURE)):
        if begin < where < begin + len(SECRET):
            return  # a secret broken in two is another secret
    text = redact_extensions_config(EXTENSIONS[:where] + junk + EXTENSIONS[where:])
    assert SECRET not in text
    assert SIGNATURE not in text


@unhurried
@given(draw=st.data())
def test_secrets_never_survive_redaction_of_vm_settings(draw: st.DataObject) -> None:
    data = draw.draw(mutated(json.dumps(VM_SETTINGS).encode()))
    text = redact_vm_settings(data)
    if not text.startswith("Could not redact"):
        found = json.loads(text)
        for item in found.get("extensionGoalStates") or () if isinstance(found, dict) else ():
            for each in item.get("settings") or () if isinstance(item, dict) else ():
                if isinstance(each, dict):
                    assert each.get("protectedSettings") in (None, "***REDACTED***")


@pytest.mark.parametrize("name", sorted(XML))
def test_the_same_document_in_utf_16(name: str) -> None:
    parser, text = XML[name]
    assert repr(parser(text.encode("utf-16"))) == repr(parser(text.encode()))


def test_many_handlers_are_parsed_quickly() -> None:
    plugins = "".join(f'<Plugin name="H{n}" version="1" state="enabled"/>' for n in range(20_000))
    nodes = "".join(f'<Plugin name="h{n}" version="1"><RuntimeSettings seqNo="1"/></Plugin>' for n in range(20_000))
    data = f"<Extensions><Plugins>{plugins}</Plugins><PluginSettings>{nodes}</PluginSettings></Extensions>".encode()
    begin = time.process_time()
    found = parse_extensions_config(data, "1")
    assert len(found.handlers) == 20_000
    assert time.process_time() - begin < 10
