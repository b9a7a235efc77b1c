"""The provisioning document: every row of spec/provisioning.md §3, and what may never be believed (§29.1, §29.2)."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.provisioning.bench import KEY, document, platform_settings
from waagent import (
    DeployedKeyPair,
    DeployedPublicKey,
    OvfError,
    build_provisioning_document,
    document_from_metadata,
    parse_provisioning_document,
    redact_provisioning_document,
)

PASSWORD = "s3cret-A1!"
THUMBPRINT = "00112233445566778899AABBCCDDEEFF00112233"


def test_the_platforms_own_sample(fixtures: Path) -> None:
    """§29.1: the host's sample."""
    found = parse_provisioning_document((fixtures / "ovf-env.xml").read_bytes())
    assert (found.host_name, found.user_name, found.password) == ("HostName", "UserName", "UserPassword")
    assert found.custom_data == "CustomData"
    assert found.public_keys == (
        DeployedPublicKey("$HOME/UserName/.ssh/authorized_keys", "ssh-rsa AAAANOTAREALKEY== foo@bar.local"),
    )
    assert found.key_pairs == (
        DeployedKeyPair("$HOME/UserName/.ssh/id_rsa", "EB0C0AB4B2D5FC35F2F0658D19F44C8283E2DD62"),
    )
    assert not found.disable_password_login
    other = parse_provisioning_document((fixtures / "ovf-env-2.xml").read_bytes())
    assert {found.guest_agent, other.guest_agent} == {True, False}


@pytest.mark.parametrize("prefix", ["wa", "ns0", "ns1"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["", "BOM"])
def test_prefixes_and_a_byte_order_mark_change_nothing(prefix: str, mark: bytes) -> None:
    """§29.1: ns0/ns1 sample, BOM."""
    found = parse_provisioning_document(mark + document(prefix=prefix))
    assert (found.host_name, found.user_name, found.guest_agent) == ("node7", "ops", True)


@pytest.mark.parametrize(
    ("inside", "wanted"),
    [
        ("", True),
        ("<wa:ProvisionGuestAgent>true</wa:ProvisionGuestAgent>", True),
        ("<wa:ProvisionGuestAgent>FALSE</wa:ProvisionGuestAgent>", False),
        ("<wa:ProvisionGuestAgent> false </wa:ProvisionGuestAgent>", False),
        ("<wa:ProvisionGuestAgent>no</wa:ProvisionGuestAgent>", True),
        ("<wa:ProvisionGuestAgent/>", True),
        ("<wa:ProvisionGuestAgent>0</wa:ProvisionGuestAgent>", True),
    ],
)
def test_only_false_means_no_agent(inside: str, wanted: bool) -> None:
    """§29.1: missing and junk ProvisionGuestAgent."""
    assert parse_provisioning_document(document(settings=platform_settings(inside))).guest_agent is wanted


@pytest.mark.parametrize(
    ("inside", "kind"),
    [
        ("", ""),
        ("<wa:PreprovisionedVm>false</wa:PreprovisionedVm>", ""),
        ("<wa:PreprovisionedVm>true</wa:PreprovisionedVm>", "Running"),
        ("<wa:PreprovisionedVMType>Savable</wa:PreprovisionedVMType>", "Savable"),
        ("<wa:PreprovisionedVmType>PreprovisionedOSDisk</wa:PreprovisionedVmType>", "PreprovisionedOSDisk"),
        ("<wa:PreprovisionedVMType>None</wa:PreprovisionedVMType>", ""),
    ],
)
def test_machines_from_a_pool(inside: str, kind: str) -> None:
    assert parse_provisioning_document(document(settings=platform_settings(inside))).preprovisioned == kind


@pytest.mark.parametrize(
    ("inside", "password"),
    [
        ("", None),
        ("<wa:UserPassword/>", None),
        ("<wa:UserPassword>\n  </wa:UserPassword>", None),
        ("<wa:UserPassword> two blanks </wa:UserPassword>", " two blanks "),
        ("<wa:UserPassword>\u00a0</wa:UserPassword>", "\u00a0"),
        ("<wa:UserPassword><![CDATA[a<b&c]]></wa:UserPassword>", "a<b&c"),
        (f"<wa:UserPassword>{'x' * 72}</wa:UserPassword>", "x" * 72),
    ],
)
def test_passwords(inside: str, password: str | None) -> None:
    found = parse_provisioning_document(document(inside=inside))
    assert found.password == password
    assert found.wants_password is (password is not None)


@pytest.mark.parametrize("mark", ["*", "REDACTED"])
def test_what_stands_in_copies_is_no_password(mark: str) -> None:
    found = parse_provisioning_document(document(inside=f"<wa:UserPassword>{mark}</wa:UserPassword>"))
    assert found.password is None
    assert found.password_withheld
    assert found.wants_password


@pytest.mark.parametrize(
    ("text", "off"), [("true", True), ("True", True), ("false", False), ("1", False), ("", False), ("yes", False)]
)
def test_only_true_switches_password_logins_off(text: str, off: bool) -> None:
    element = f"<wa:DisableSshPasswordAuthentication>{text}</wa:DisableSshPasswordAuthentication>"
    assert parse_provisioning_document(document(inside=element)).disable_password_login is off
    assert not parse_provisioning_document(document()).disable_password_login


def ssh(inside: str) -> str:
    return f"<wa:SSH>{inside}</wa:SSH>"


def key(inside: str) -> str:
    return ssh(f"<wa:PublicKeys><wa:PublicKey>{inside}</wa:PublicKey></wa:PublicKeys>")


def test_a_value_wins_over_a_thumbprint() -> None:
    inside = f"<wa:Fingerprint>junk</wa:Fingerprint><wa:Path>/p</wa:Path><wa:Value>{KEY}</wa:Value>"
    assert parse_provisioning_document(document(inside=key(inside))).public_keys == (DeployedPublicKey("/p", KEY),)
    inside = f"<wa:Fingerprint>{THUMBPRINT.lower()}</wa:Fingerprint><wa:Path>/p</wa:Path>"
    found = parse_provisioning_document(document(inside=key(inside)))
    assert found.public_keys == (DeployedPublicKey("/p", None, THUMBPRINT),)


def test_unknown_elements_and_nested_names_are_passed_over() -> None:
    inside = "<wa:New><wa:UserName>intruder</wa:UserName></wa:New><UserName xmlns='urn:other'>else</UserName>"
    assert parse_provisioning_document(document(inside=inside)).user_name == "ops"


BAD = [
    (b"", "expected well-formed XML"),
    (b"nonsense", "expected well-formed XML"),
    (b"<Environment/>", "expected the element Environment, found Environment of another namespace"),
    (b"<Other/>", "expected the element Environment, found Other"),
    (b'<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1"/>', "ProvisioningSection not found"),
    (document(user=None), "UserName not found"),
    (document(host=None), "HostName not found"),
    (document(host="-x"), "HostName: expected 1 to 64 letters"),
    (document(host=".x"), "HostName: expected"),
    (document(host="a" * 65), "HostName: expected"),
    (document(host="a_b"), "HostName: expected"),
    (document(host="a;reboot"), "HostName: expected"),
    (document(user="o;rm"), "UserName: expected a letter or _"),
    (document(user="1ops"), "UserName: expected"),
    (document(user="ops ALL=(ALL)"), "UserName: expected"),
    (document(user="o" * 33), "UserName: expected"),
    (document(user="op\u00e9"), "UserName: expected"),
    (
        document(inside=f"<wa:UserPassword>{'x' * 73}</wa:UserPassword>"),
        "UserPassword: expected at most 72 characters, found 73",
    ),
    (document(inside="<wa:UserName>second</wa:UserName>"), "UserName: expected once, found 2 times"),
    (document(inside="<wa:UserPassword><b/></wa:UserPassword>"), "UserPassword: expected text, found elements"),
    (document(inside=key("<wa:Value>ssh-rsa A</wa:Value>")), "PublicKey: expected a Path"),
    (document(inside=key("<wa:Path>/p</wa:Path>")), "SSH public key Fingerprint and Value are None"),
    (document(inside=key("<wa:Path>/p</wa:Path><wa:Fingerprint>../../x</wa:Fingerprint>")), "expected 40 hexadecimal"),
    (
        document(inside=ssh("<wa:KeyPairs><wa:KeyPair><wa:Path>/p</wa:Path></wa:KeyPair></wa:KeyPairs>")),
        "KeyPair: expected",
    ),
    (b'<!DOCTYPE a [<!ENTITY x "y">]>' + document().partition(b"?>")[2], "expected no document type declaration"),
    (document(inside="<wa:CustomData>&x;</wa:CustomData>"), "expected well-formed XML"),
    (b" " * ((1 << 20) + 1), "expected at most 1048576 bytes"),
]


@pytest.mark.parametrize(("data", "said"), BAD, ids=[said[:40] for _, said in BAD])
def test_what_cannot_be_used_says_which_element_and_what_was_expected(data: bytes, said: str) -> None:
    """§29.1, §3.3."""
    with pytest.raises(OvfError, match=re.escape(said)) as caught:
        parse_provisioning_document(data)
    assert "xxxx" not in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        document(user=None),
        document(host=None),
        document(inside=f"<wa:UserPassword>{'x' * 73}</wa:UserPassword>"),
        document(inside="<wa:UserName>second</wa:UserName><wa:HostName>second</wa:HostName>"),
        document(inside="<wa:UserPassword><b/></wa:UserPassword><wa:CustomData/><wa:CustomData/>"),
        document(inside="<wa:DisableSshPasswordAuthentication><b/></wa:DisableSshPasswordAuthentication>"),
        document(inside="<wa:SSH><wa:PublicKeys><wa:PublicKey/></wa:PublicKeys></wa:SSH>"),
    ],
    ids=["no user", "no host", "long password", "two users", "odd secrets", "odd switch", "odd keys"],
)
@pytest.mark.parametrize("wanted", [True, False])
def test_where_cloud_init_provisions_only_the_platforms_settings_matter(data: bytes, wanted: bool) -> None:
    """§29.1: missing UserName in each mode, a password of 73 characters; §13."""
    inside = f"<wa:ProvisionGuestAgent>{str(wanted).lower()}</wa:ProvisionGuestAgent>"
    data = data.replace(b"</o:Environment>", platform_settings(inside).encode() + b"</o:Environment>")
    found = parse_provisioning_document(data, complete=False)
    assert found.guest_agent is wanted
    assert (found.password, found.custom_data) == (None, None)
    if data.count(b"<wa:UserName>") == 2:
        assert found.user_name is None, "nobody knows which of the two is meant"


def test_secrets_are_in_no_representation() -> None:
    inside = f"<wa:UserPassword>{PASSWORD}</wa:UserPassword><wa:CustomData>Y3VzdG9t</wa:CustomData>"
    text = repr(parse_provisioning_document(document(inside=inside)))
    assert PASSWORD not in text
    assert "Y3VzdG9t" not in text


@pytest.mark.parametrize(
    "element",
    [
        f"<wa:UserPassword>{PASSWORD}</wa:UserPassword>",
        f"<UserPassword xmlns='http://schemas.microsoft.com/windowsazure'>{PASSWORD}</UserPassword>",
        f"<wa:UserPassword>\n{PASSWORD}\nmore\n</wa:UserPassword>",
        f"<wa:UserPassword><![CDATA[{PASSWORD}]]></wa:UserPassword>",
        f"<wa:UserPassword a='>'>{PASSWORD}</wa:UserPassword >",
        f"<wa:AdminUserPassword>{PASSWORD}</wa:AdminUserPassword>",
        f"<wa:UserPassword><inner>{PASSWORD}</inner>{PASSWORD}</wa:UserPassword>",
        f"<wa:UserPassword>{''.join(f'&#{ord(letter)};' for letter in PASSWORD)}</wa:UserPassword>",
    ],
)
def test_the_copy_holds_no_password_in_whatever_form(element: str) -> None:
    """§29.2: prefixed, multi-line, CDATA."""
    data = document(inside=element + "<wa:CustomData>Q1VTVE9N</wa:CustomData>")
    copy = redact_provisioning_document(data)
    texts = " ".join(one.text or "" for one in ET.fromstring(copy.decode()).iter())
    assert PASSWORD not in texts
    assert "more" not in texts
    assert "&#115;" not in copy.decode()
    assert b"Q1VTVE9N" in copy  # kept: cloud-init reads user data from this copy
    assert copy.count(b">*<") == 1


def test_nothing_else_in_the_copy_changes() -> None:
    data = document(inside=f"<wa:UserPassword>{PASSWORD}</wa:UserPassword><!-- <UserPassword>x</UserPassword> --><x/>")
    assert redact_provisioning_document(data) == data.replace(PASSWORD.encode(), b"*")
    assert redact_provisioning_document(document()) == document()


def test_what_cannot_be_read_is_not_copied() -> None:
    with pytest.raises(OvfError):
        redact_provisioning_document(b"<Environment><UserPassword>x</UserPassword>")


TEXT = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x2FFF, exclude_categories=["Cs", "Cc"]), min_size=1, max_size=72
)


@settings(max_examples=150, deadline=None)
@given(TEXT)
def test_any_password_comes_through_and_is_redacted(text: str) -> None:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    data = document(inside=f"<wa:UserPassword>{escaped}</wa:UserPassword>")
    found = parse_provisioning_document(data)
    if text in ("*", "REDACTED"):
        return
    assert found.password == text
    again = parse_provisioning_document(redact_provisioning_document(data))
    assert again.password is None
    assert again.password_withheld


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300) | st.integers(0, 600).map(lambda at: document()[:at] + b"<" + document()[at + 1 :]))
def test_hostile_bytes_are_refused_or_read_and_nothing_else(data: bytes) -> None:
    for complete in (True, False):
        try:
            parse_provisioning_document(data, complete=complete)
        except OvfError as problem:
            assert str(problem)
    try:
        redact_provisioning_document(data)
    except OvfError as problem:
        assert str(problem)


COMPUTE = {
    "osProfile": {"adminUsername": "ops", "computerName": "node7", "disablePasswordAuthentication": "true"},
    "publicKeys": [{"keyData": KEY, "path": "/home/else/.ssh/authorized_keys"}],
}


def test_metadata_instead_of_a_document() -> None:
    found = document_from_metadata(COMPUTE)
    assert found is not None
    assert found.public_keys == (DeployedPublicKey("$HOME/ops/.ssh/authorized_keys", KEY),)
    assert parse_provisioning_document(build_provisioning_document(found)).user_name == "ops"
    assert parse_provisioning_document(build_provisioning_document(found)).host_name == "node7"


@pytest.mark.parametrize(
    "compute",
    [
        {},
        {**COMPUTE, "publicKeys": []},
        {**COMPUTE, "osProfile": {**COMPUTE["osProfile"], "disablePasswordAuthentication": "false"}},  # type: ignore[dict-item]
        {**COMPUTE, "osProfile": {**COMPUTE["osProfile"], "adminUsername": "a b"}},  # type: ignore[dict-item]
        {**COMPUTE, "osProfile": None},
    ],
)
def test_metadata_that_is_not_enough(compute: dict[str, object]) -> None:
    assert document_from_metadata(compute) is None
