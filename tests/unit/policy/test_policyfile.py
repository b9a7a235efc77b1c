"""What a policy file may say; every rule of extensions §15.1, and the words for each that is broken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent_policy.policyfile import LIMIT, InvalidPolicy, Policy, parse


def document(**policies: Any) -> bytes:
    return json.dumps({"policyVersion": "0.1.0", "extensionPolicies": policies}).encode()


def problem(data: bytes | str) -> str:
    with pytest.raises(InvalidPolicy) as caught:
        parse(data if isinstance(data, bytes) else data.encode())
    return str(caught.value)


def test_the_documented_example() -> None:
    policy = parse(
        b'{"policyVersion":"0.1.0","extensionPolicies":{"allowListedExtensionsOnly":true,"signatureRequired":false,'
        b'"extensions":{"Contoso.Tools.Sample":{"signatureRequired":true,"runtimePolicy":{"any":"object"}}}}}'
    )
    assert policy.allows("contoso.TOOLS.sample")
    assert not policy.allows("Contoso.Tools.Other")
    assert policy.requires_signature("contoso.tools.sample")
    assert not policy.requires_signature("Contoso.Tools.Other")
    rule = policy.rule("Contoso.Tools.Sample")
    assert rule is not None
    assert (rule.has_runtime, rule.runtime) == (True, {"any": "object"})


@pytest.mark.parametrize(
    "data",
    [
        '{"policyVersion": "0.1.0"}',
        '{"policyVersion": "0.1.0", "extensionPolicies": null}',
        '{"policyVersion": "0.1.0", "extensionPolicies": {}}',
        '{"policyVersion": "0.1.0", "extensionPolicies": {"allowListedExtensionsOnly": null, "extensions": null}}',
        '\ufeff{"policyVersion": "0.1.0"}',
    ],
)
def test_what_is_not_said_restricts_nothing(data: str) -> None:
    policy = parse(data.encode())
    assert policy.allows("Any.Thing")
    assert not policy.requires_signature("Any.Thing")
    assert policy.rule("Any.Thing") is None


@pytest.mark.parametrize("version", ["0", "0.0", "0.1", "0.1.0", "0.0.9", "00.01.000", "0" * 5000])
def test_versions_up_to_the_newest_known_one_are_understood(version: str) -> None:
    assert parse(json.dumps({"policyVersion": version}).encode()).version == version


@pytest.mark.parametrize("version", ["0.1.1", "0.2", "1", "1.0.0", "10.0", "9" * 5000])
def test_newer_versions_are_not(version: str) -> None:
    assert "the newest version it knows is '0.1.0'" in problem(json.dumps({"policyVersion": version}))


@pytest.mark.parametrize("version", ["", "v1", "0.1.0.0", "0.", ".1", "0.1.0\n", "\u0660.1", "0,1", "-0.1", " 0.1"])
def test_a_version_of_another_form_is_refused(version: str) -> None:
    assert problem(json.dumps({"policyVersion": version})).startswith("attribute 'policyVersion' must be one to three")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("", "the file is empty"),
        (" \n", "the file is empty"),
        ("{", "the file is not JSON: "),
        ("{}]", "the file is not JSON: "),
        ("'a'", "the file is not JSON: "),
        (b"\xff\xfe{}", "the file is not UTF-8 text: byte 0 cannot be read"),
        ("[" * 100_000, "the file is nested too deeply"),
        ('{"policyVersion": NaN}', "the file is not JSON: NaN is no JSON value"),
        ("[]", "the policy must be an object, but is an array"),
        ("null", "the policy must be an object, but is null"),
        ("7", "the policy must be an object, but is a number"),
        ("{}", "attribute 'policyVersion' is missing"),
        ('{"policyVersion": null}', "attribute 'policyVersion' is missing"),
        ('{"policyVersion": 0.1}', "attribute 'policyVersion' must be a string, but is a number"),
        ('{"policyVersion": "0.1", "policyVersion": "0.1"}', "attribute 'policyVersion' occurs twice in one object"),
        (
            '{"policyVersion": "0.1", "extensionpolicies": {}}',
            "attribute 'extensionpolicies' is unknown; known here are policyVersion, extensionPolicies",
        ),
        (
            '{"policyVersion": "0.1", "extensionPolicies": []}',
            "attribute 'extensionPolicies' must be an object, but is an array",
        ),
        (
            document(allowListedExtensionOnly=True),
            (
                "attribute 'extensionPolicies.allowListedExtensionOnly' is unknown; known here are "
                "allowListedExtensionsOnly, signatureRequired, extensions"
            ),
        ),
        (
            document(allowListedExtensionsOnly="true"),
            "attribute 'extensionPolicies.allowListedExtensionsOnly' must be true or false, but is a string",
        ),
        (
            document(signatureRequired=1),
            "attribute 'extensionPolicies.signatureRequired' must be true or false, but is a number",
        ),
        (
            document(extensions=["A.B"]),
            "attribute 'extensionPolicies.extensions' must be an object, but is an array",
        ),
        (
            document(extensions={"A.B": None}),
            "attribute 'extensionPolicies.extensions.A.B' must be an object, but is null",
        ),
        (
            document(extensions={"A.B": True}),
            "attribute 'extensionPolicies.extensions.A.B' must be an object, but is true",
        ),
        (
            document(extensions={"A.B": {"signatureRequired": {}}}),
            "attribute 'extensionPolicies.extensions.A.B.signatureRequired' must be true or false, but is an object",
        ),
        (
            document(extensions={"A.B": {"runtimepolicy": {}}}),
            (
                "attribute 'extensionPolicies.extensions.A.B.runtimepolicy' is unknown; known here are "
                "signatureRequired, runtimePolicy"
            ),
        ),
        (
            document(extensions={"A.B": {}, "a.b": {}}),
            (
                "attribute 'extensionPolicies.extensions.a.b' and attribute 'extensionPolicies.extensions.A.B' are "
                "about the same extension: upper and lower case do not count"
            ),
        ),
        (b" " * LIMIT + b"{}", f"the file is larger than {LIMIT} bytes"),
        (b'{"policyVersion": "0.1", "x": 1e999}', "the file is not JSON: 1e999 is no JSON value"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(data: bytes | str, expected: str) -> None:
    assert problem(data).startswith(expected)


@pytest.mark.parametrize("runtime", [{"a": [1, None]}, [], "text", 0, False, "", 1.5])
def test_a_runtime_policy_may_be_anything(runtime: Any) -> None:
    rule = parse(document(extensions={"A.B": {"runtimePolicy": runtime}})).rule("A.B")
    assert rule is not None
    assert (rule.has_runtime, rule.runtime) == (True, runtime)


def test_a_runtime_policy_of_null_is_none() -> None:
    rule = parse(document(extensions={"A.B": {"runtimePolicy": None}})).rule("A.B")
    assert rule is not None
    assert not rule.has_runtime


@pytest.mark.parametrize(
    ("everywhere", "here", "expected"),
    [(True, None, True), (True, False, False), (False, True, True), (False, None, False), (True, True, True)],
)
def test_what_an_extension_says_of_signatures_counts_before_what_the_policy_says(
    everywhere: bool, here: bool | None, expected: bool
) -> None:
    policy = parse(document(signatureRequired=everywhere, extensions={"A.B": {"signatureRequired": here}}))
    assert policy.requires_signature("A.B") is expected
    assert policy.requires_signature("Other") is everywhere


NAMES = st.text(min_size=1, max_size=30)
RULE = st.fixed_dictionaries(
    {}, optional={"signatureRequired": st.none() | st.booleans(), "runtimePolicy": st.none() | st.text()}
)
VALID = st.fixed_dictionaries(
    {"policyVersion": st.sampled_from(["0", "0.1", "0.1.0"])},
    optional={
        "extensionPolicies": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "allowListedExtensionsOnly": st.none() | st.booleans(),
                "signatureRequired": st.none() | st.booleans(),
                "extensions": st.none() | st.dictionaries(NAMES, RULE, max_size=4),
            },
        )
    },
)


@given(VALID)
def test_every_policy_by_the_rules_is_understood_as_it_was_meant(meant: dict[str, Any]) -> None:
    policies = meant.get("extensionPolicies") or {}
    extensions = policies.get("extensions") or {}
    data = json.dumps(meant).encode()
    if len({name.lower() for name in extensions}) < len(extensions):
        assert "same extension" in problem(data)
        return
    policy = parse(data)
    for name, rule in extensions.items():
        assert policy.allows(name)
        assert policy.allows(name.lower())
        own = rule.get("signatureRequired")
        assert policy.requires_signature(name) is (bool(policies.get("signatureRequired")) if own is None else own)
    assert policy.allows("\0 named by nobody") is not bool(policies.get("allowListedExtensionsOnly"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
ATTRIBUTE = st.sampled_from(
    ["policyVersion", "extensionPolicies", "allowListedExtensionsOnly", "signatureRequired", "extensions", "A.B"]
)


@given(st.dictionaries(ATTRIBUTE, JSON | st.dictionaries(ATTRIBUTE, JSON, max_size=4), max_size=4))
def test_any_other_document_is_a_policy_or_a_clear_error(anything: dict[str, Any]) -> None:
    outcome(json.dumps(anything).encode())


@given(st.binary(max_size=200))
def test_any_bytes_are_a_policy_or_a_clear_error(data: bytes) -> None:
    outcome(data)


def outcome(data: bytes) -> None:
    try:
        assert isinstance(parse(data), Policy)
    except InvalidPolicy as refused:
        text = str(refused)
        assert text.isascii()
        assert text.strip()
        assert "\n" not in text
        assert len(text) < 1500
