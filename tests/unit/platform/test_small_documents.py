"""Versions, goal state, hosting environment, certificates, accounts, manifests, artifacts profile."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from waagent.errors import ProtocolError, ProtocolNotFound
from waagent.platform.artifactsprofile import parse_on_hold
from waagent.platform.certdoc import parse_certificate_file
from waagent.platform.goalstate import NoRoleInstance, parse_goal_state
from waagent.platform.hosting import check_shared_config, parse_hosting_environment
from waagent.platform.manifest import parse_manifest
from waagent.platform.models import HostingEnvironment, RemoteUser
from waagent.platform.remoteaccess import expiration_seconds, parse_remote_access
from waagent.platform.versions import ProtocolVersions, negotiate, parse_versions

Captured = Callable[[str], bytes]

# --- versions (§5)


def test_captured_versions_name_the_preferred_one_only_there(captured: Captured) -> None:
    offered = parse_versions(captured("wire/version_info.xml"))
    assert offered == ProtocolVersions("2012-11-30", ("2010-12-15", "2010-28-10"))
    assert negotiate(offered) == "2012-11-30"


@pytest.mark.parametrize(
    ("inside", "accepted"),
    [
        ("<Preferred><Version>2012-11-30</Version></Preferred>", True),
        (
            "<Preferred><Version>2015-04-05</Version></Preferred><Supported><Version>2012-11-30</Version></Supported>",
            True,
        ),
        ("<Supported><Version>2012-11-30</Version></Supported>", True),
        (
            "<Preferred><Version>2015-04-05</Version></Preferred><Supported><Version>2015-04-05</Version></Supported>",
            False,
        ),
        ("", False),
    ],
)
def test_negotiation(inside: str, accepted: bool) -> None:
    offered = parse_versions(f"<Versions>{inside}</Versions>".encode())
    if accepted:
        assert negotiate(offered) == "2012-11-30"
    else:
        with pytest.raises(
            ProtocolNotFound, match=r"^Agent supported wire protocol version: 2012-11-30 was not advised by Fabric\.$"
        ):
            negotiate(offered)


# --- goal state (§6)

GOAL_STATE = """<GoalState><Incarnation>7</Incarnation><Container><ContainerId>c1</ContainerId>{remote}
<RoleInstanceList>{roles}</RoleInstanceList></Container></GoalState>"""
ROLE = """<RoleInstance><InstanceId>i1</InstanceId><Configuration>
<HostingEnvironmentConfig>http://h/?a=1&amp;b=%5F</HostingEnvironmentConfig><SharedConfig>http://s/</SharedConfig>
{more}</Configuration></RoleInstance>"""


def test_captured_goal_state(captured: Captured) -> None:
    found = parse_goal_state(captured("wire/goal_state.xml"))
    base = (
        "http://168.63.129.16:80/machine/865a6683-91d8-450f-99ae/"
        "bc8b9d47%2Db5ed%2D4704%2D85d9%2Dfd74cc967ec2.%5Fcanary?comp="
    )
    assert found.incarnation == "1"
    assert found.container_id == "c6d5526c-5ac2-4200-b6e2-56f2b70c5ab2"
    assert found.role_instance_id == "b61f93d0-e1ed-40b2-b067-22c243233448.MachineRole_IN_0"
    assert found.role_config_name == (
        "bc8b9d47-b5ed-4704-85d9-fd74cc967ec2.5.bc8b9d47-b5ed-4704-85d9-fd74cc967ec2.5._canary.1.xml"
    )
    assert found.hosting_environment == base + "config&type=hostingEnvironmentConfig&incarnation=1"
    assert found.shared_config == base + "config&type=sharedConfig&incarnation=1"
    assert found.extensions_config == base + "config&type=extensionsConfig&incarnation=1"
    assert found.certificates == base + "certificates&incarnation=1"
    assert found.remote_access is None


def test_captured_goal_state_without_certificates(captured: Captured) -> None:
    found = parse_goal_state(captured("wire/goal_state_no_certs.xml"))
    assert found.certificates is None
    assert found.extensions_config is not None


def test_captured_goal_state_with_accounts_and_two_configuration_names(captured: Captured) -> None:
    found = parse_goal_state(captured("wire/goal_state_remote_access.xml"))
    assert found.remote_access == "http://168.63.129.16:80/remoteaccessinfouri/"
    assert found.role_config_name.startswith("b61f93d0-e1ed-40b2-b067-22c243233448.1.")


def test_a_minimal_goal_state_has_no_parts() -> None:
    found = parse_goal_state(GOAL_STATE.format(remote="", roles=ROLE.format(more="")).encode())
    assert found.hosting_environment == "http://h/?a=1&b=%5F"
    assert (found.extensions_config, found.certificates, found.remote_access) == (None, None, None)
    assert found.role_config_name == ""


def test_the_first_role_instance_counts() -> None:
    other = ROLE.format(more="<ExtensionsConfig>http://other/</ExtensionsConfig>").replace("i1", "i2")
    found = parse_goal_state(GOAL_STATE.format(remote="", roles=ROLE.format(more="") + other).encode())
    assert found.role_instance_id == "i1"
    assert found.extensions_config is None


def test_a_goal_state_without_role_instance_says_so_with_its_incarnation() -> None:
    with pytest.raises(
        NoRoleInstance, match=r"^Fetched goal state without a RoleInstance \[incarnation 7\]$"
    ) as caught:
        parse_goal_state(GOAL_STATE.format(remote="", roles="").encode())
    assert caught.value.incarnation == "7"


def test_a_goal_state_without_incarnation_has_none() -> None:
    text = GOAL_STATE.format(remote="", roles=ROLE.format(more=""))
    assert parse_goal_state(text.replace("<Incarnation>7</Incarnation>", "").encode()).incarnation is None


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("<SharedConfig>http://s/</SharedConfig>", "", "SharedConfig: expected a URI, found nothing"),
        ("http://h/?a=1&amp;b=%5F", " ", "HostingEnvironmentConfig: expected a URI, found nothing"),
        ("http://s/", "http://s/ HTTP/1.1&#13;&#10;x: y", "SharedConfig: expected a URI, found text with white space"),
        ("http://s/", "http://é/", "SharedConfig: expected a URI, found text with white space"),
        ("Configuration>", "Other>", "RoleInstance/Configuration: expected an element, found none"),
    ],
)
def test_goal_states_that_cannot_be_used(before: str, after: str, said: str) -> None:
    text = GOAL_STATE.format(remote="", roles=ROLE.format(more=""))
    assert before in text
    with pytest.raises(ProtocolError, match=rf"^GoalState: {said}"):
        parse_goal_state(text.replace(before, after).encode())


# --- hosting environment and shared configuration (§7)


def test_captured_hosting_environment(captured: Captured) -> None:
    assert parse_hosting_environment(captured("wire/hosting_env.xml")) == HostingEnvironment(
        vm_name="MachineRole_IN_0", role_name="MachineRole", deployment_name="db00a7755a5e4e8a8fe4b19bc3b330c3"
    )
    check_shared_config(captured("wire/shared_config.xml"))


def test_a_bare_hosting_environment_has_no_names() -> None:
    assert parse_hosting_environment(b"<HostingEnvironmentConfig/>") == HostingEnvironment()
    with pytest.raises(ProtocolError, match="expected the element SharedConfig, found HostingEnvironmentConfig"):
        check_shared_config(b"<HostingEnvironmentConfig/>")


# --- certificates (§11.2)


@pytest.mark.parametrize(
    ("inside", "data", "note", "is_warning"),
    [
        ("<Format>Pkcs7BlobWithPfxContents</Format><Data>\n MIIO\n jAYJ </Data>", "MIIOjAYJ", "", False),
        ("<Format></Format><Data>MIIO</Data>", "MIIO", "", False),
        ("<Data>MIIO</Data>", "MIIO", "", False),
        ("<Format>Pkcs7BlobWithPfxContents</Format><Data> </Data>", "", "holds no data", False),
        ("<Format>CertificatesNonPfxPackage</Format>", "", "holds no data", False),
        ("<Format>CertificatesNonPfxPackage</Format><Data>MIIO</Data>", "", "CertificatesNonPfxPackage", True),
    ],
)
def test_certificate_formats(inside: str, data: str, note: str, is_warning: bool) -> None:
    found = parse_certificate_file(f"<CertificateFile><Incarnation>7</Incarnation>{inside}</CertificateFile>".encode())
    assert (found.incarnation, found.data, found.is_warning) == ("7", data, is_warning)
    assert note in found.note
    assert bool(found.note) == bool(note)
    assert "MIIO" not in repr(found)


# --- accounts (§12)


def test_captured_account(captured: Captured) -> None:
    found = parse_remote_access(captured("wire/remote_access_single_account.xml"))
    assert found.incarnation == "1"
    assert found.users == (
        RemoteUser("testAccount", "encryptedPasswordString", "2019-01-01", ("Administrators", "RemoteDesktopUsers")),
    )
    assert "encryptedPasswordString" not in repr(found)


def test_accounts_without_a_name_are_left_out_and_noted() -> None:
    notes: list[str] = []
    found = parse_remote_access(
        b"<RemoteAccess><Incarnation>2</Incarnation><Users><User><Password>x</Password></User>"
        b"<User><Name>jit1</Name><Password>a\n b</Password><Expiration>Fri, 01 Jan 2027 12:00:00 GMT</Expiration>"
        b"</User></Users></RemoteAccess>",
        notes,
    )
    assert found.users == (RemoteUser("jit1", "ab", "Fri, 01 Jan 2027 12:00:00 GMT"),)
    assert len(notes) == 1


def test_no_accounts() -> None:
    assert parse_remote_access(b"<RemoteAccess/>").users == ()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Fri, 01 Jan 2027 12:00:00 GMT", 1798804800),
        (" fri, 1 jan 2027 12:00:00 utc ", 1798804800),
        ("Thu, 29 Feb 2024 00:00:00 UTC", 1709164800),
    ],
)
def test_expirations(text: str, seconds: int) -> None:
    assert expiration_seconds(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "2019-01-01", "Fri, 30 Feb 2027 12:00:00 GMT", "Fri, 01 Foo 2027 12:00:00 GMT", "01 Jan 2027", "never"]
)
def test_other_expirations_are_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match=r"^RemoteAccess: User/Expiration: expected a date"):
        expiration_seconds(text)


# --- manifests (§13)


def test_captured_manifest_has_internal_versions_last(captured: Captured) -> None:
    found = parse_manifest(captured("wire/manifest.xml"), "https://a/manifest.xml")
    internal = [item.version for item in found.versions if item.internal]
    public = [item.version for item in found.versions if not item.internal]
    assert internal == ["1.3.0", "2.3.0", "2.4.0"]
    assert public[:3] == ["1.0.0", "1.1.0", "1.1.1"]
    assert public[-1] == "4.1.0.0"
    assert found.versions[0].uris == ("http://mock-goal-state/foo.bar/zar/OSTCExtensions.ExampleHandlerLinux__1.0.0",)
    assert found.uri == "https://a/manifest.xml"


def test_captured_agent_manifest(captured: Captured) -> None:
    found = parse_manifest(captured("wire/ga_manifest.xml"))
    assert [item.version for item in found.versions] == [
        "1.0.0", "1.1.0", "1.2.0", "2.0.0", "2.1.0", "2.5.0", "9.9.9.10", "99999.0.0.0",
    ]  # fmt: skip


def test_manifest_fields_and_gaps() -> None:
    notes: list[str] = []
    found = parse_manifest(
        b"""<PluginVersionManifest><InternalPlugins><Plugin><Version>1.2.4</Version></Plugin></InternalPlugins><Plugins>
        <Plugin><Version> 1.2.3 </Version><Uris><Uri> https://a/1 </Uri><Uri/><Uri>https://b/1</Uri></Uris>
        <DisallowMajorVersionUpgrade>True</DisallowMajorVersionUpgrade></Plugin>
        <Plugin><Version>2.0</Version><Uris/><DisallowMajorVersionUpgrade>no</DisallowMajorVersionUpgrade></Plugin>
        <Plugin><Version>3.0.0-rc2</Version></Plugin>
        <Plugin><Version>../../etc</Version></Plugin><Plugin><Version/></Plugin><Plugin/>
        </Plugins></PluginVersionManifest>""",
        notes=notes,
    )
    assert [(item.version, item.uris, item.internal, item.disallow_major_upgrade) for item in found.versions] == [
        ("1.2.3", ("https://a/1", "https://b/1"), False, True),
        ("2.0", (), False, False),
        ("3.0.0-rc2", (), False, False),
        ("1.2.4", (), True, False),
    ]
    assert len(notes) == 3


def test_an_empty_manifest_has_no_versions_and_others_are_refused() -> None:
    assert parse_manifest(b"<PluginVersionManifest/>").versions == ()
    for data in (b"", b"<html/>", b"<Error><Code>AuthenticationFailed</Code></Error>"):
        with pytest.raises(ProtocolError, match=r"^PluginVersionManifest: expected"):
            parse_manifest(data)


# --- artifacts profile (§9)


def test_captured_profile(captured: Captured) -> None:
    assert parse_on_hold(captured("hostgaplugin/in_vm_artifacts_profile.json")) is True


@pytest.mark.parametrize(
    ("data", "held"),
    [
        (b'{"onHold": true}', True),
        (b'{"onHold": "TRUE"}', True),
        (b'{"onhold": false}', False),
        (b'{"onHold": "False", "profileId": "p1"}\r\n\t \0\0', False),
        (b'{"profileId": "p1"}', False),
    ],
)
def test_on_hold(data: bytes, held: bool) -> None:
    assert parse_on_hold(data) is held


@pytest.mark.parametrize(
    "data", [b"", b"\0\0", b"[]", b'{"onHold": 1}', b'{"onHold": "yes"}', b'{"onHold": null}', b"{"]
)
def test_on_hold_that_says_nothing(data: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"^InVMArtifactsProfile: "):
        parse_on_hold(data)
