"""The policy file: what it may say and what that means (extensions §15.1). Pure: bytes in, policy or clear error out.

Strict on purpose: what is misspelt here would otherwise let pass what the owner of the machine meant to keep out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import attrs

from waagent import AgentError

NEWEST = (0, 1, 0)
"""The newest version of the format that is understood."""
LIMIT = 1 << 20
"""Bytes that a policy file may have."""

_VERSION = re.compile(r"[0-9]+(\.[0-9]+(\.[0-9]+)?)?\Z")
_SHOWN = 80


class InvalidPolicy(AgentError):
    """The policy file is not what it has to be; the message names the place and what was expected there."""


@attrs.frozen(eq=False, repr=False)
class Rule:
    """What the policy says about one extension.

    Attributes:
        name: as it is spelt in the file.
        signature_required: ``None`` leaves it to the policy as a whole.
        has_runtime: there is a runtime policy.
        runtime: the runtime policy, any JSON value.
    """

    name: str
    signature_required: bool | None = None
    has_runtime: bool = False
    runtime: Any = None


@attrs.frozen(eq=False, repr=False)
class Policy:
    """A valid policy.

    Attributes:
        version: as it is spelt in the file.
        allow_listed_only: only extensions that have a rule are accepted.
        signature_required: packages have to be signed, unless the extension's rule says otherwise.
        rules: by name in lower case.
    """

    version: str
    allow_listed_only: bool = False
    signature_required: bool = False
    rules: Mapping[str, Rule] = attrs.field(factory=dict)

    def rule(self, name: str) -> Rule | None:
        """Return the rule about extension *name*; upper and lower case do not count."""
        return self.rules.get(name.lower())

    def allows(self, name: str) -> bool:
        """Return whether extension *name* is accepted at all."""
        return not self.allow_listed_only or self.rule(name) is not None

    def requires_signature(self, name: str) -> bool:
        """Return whether packages of extension *name* have to be signed."""
        rule = self.rule(name)
        if rule is not None and rule.signature_required is not None:
            return rule.signature_required
        return self.signature_required


def parse(data: bytes) -> Policy:
    """Return the policy in *data*.

    Raises:
        InvalidPolicy: any rule of extensions §15.1 is broken; says which, and where.
    """
    if len(data) > LIMIT:
        raise InvalidPolicy(f"the file is larger than {LIMIT} bytes")
    if not data.strip():
        raise InvalidPolicy("the file is empty")
    document = _object(_load(data), "", "the policy")
    _only(document, "", ("policyVersion", "extensionPolicies"))
    version = _version(document.get("policyVersion"))
    place = "extensionPolicies"
    policies = _object(_given(document, place, {}), place)
    _only(policies, place, ("allowListedExtensionsOnly", "signatureRequired", "extensions"))
    return Policy(
        version=version,
        allow_listed_only=_flag(policies, place, "allowListedExtensionsOnly") or False,
        signature_required=_flag(policies, place, "signatureRequired") or False,
        rules=_rules(_object(_given(policies, "extensions", {}), f"{place}.extensions"), f"{place}.extensions"),
    )


def _load(data: bytes) -> Any:
    try:
        # Editors of other systems put a byte order mark at the beginning.
        return json.loads(
            data.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_float
        )
    except UnicodeDecodeError as problem:
        raise InvalidPolicy(f"the file is not UTF-8 text: byte {problem.start} cannot be read") from problem
    except RecursionError as problem:
        raise InvalidPolicy("the file is nested too deeply") from problem
    except ValueError as problem:
        raise InvalidPolicy(f"the file is not JSON: {problem}") from problem


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            # Which of the two is meant cannot be known, and readers differ.
            raise InvalidPolicy(f"attribute {_quoted(name)} occurs twice in one object")
        found[name] = value
    return found


def _float(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        return _no_constant(text)  # type: ignore[no-any-return]
    return number


def _no_constant(word: str) -> Any:
    raise InvalidPolicy(f"the file is not JSON: {word} is no JSON value")


def _version(value: Any) -> str:
    if value is None:
        raise InvalidPolicy("attribute 'policyVersion' is missing")
    if not isinstance(value, str):
        raise _wrong_type("policyVersion", "a string", value)
    if not _VERSION.match(value):
        raise InvalidPolicy(
            f"attribute 'policyVersion' must be one to three numbers with dots between them, as in '0.1.0', "
            f"but is {_quoted(value)}"
        )
    parts = [part.lstrip("0") or "0" for part in value.split(".")]
    # Very long numbers are compared by their length: int() refuses them.
    numbers = tuple(int(part) if len(part) < 10 else 10**9 for part in parts)
    if (*numbers, 0, 0)[:3] > NEWEST:
        newest = ".".join(str(number) for number in NEWEST)
        raise InvalidPolicy(
            f"attribute 'policyVersion' is {_quoted(value)}, which this agent does not know; the newest version it "
            f"knows is '{newest}'"
        )
    return value


def _rules(extensions: dict[str, Any], place: str) -> dict[str, Rule]:
    found: dict[str, Rule] = {}
    for name, value in extensions.items():
        here = f"{place}.{name}"
        if name.lower() in found:
            raise InvalidPolicy(
                f"attribute {_quoted(here)} and attribute {_quoted(f'{place}.{found[name.lower()].name}')} are about "
                f"the same extension: upper and lower case do not count"
            )
        fields = _object(value, here)
        _only(fields, here, ("signatureRequired", "runtimePolicy"))
        runtime = fields.get("runtimePolicy")
        found[name.lower()] = Rule(name, _flag(fields, here, "signatureRequired"), runtime is not None, runtime)
    return found


def _given(fields: dict[str, Any], name: str, default: Any) -> Any:
    """Return an attribute's value; null counts as absent."""
    value = fields.get(name)
    return default if value is None else value


def _flag(fields: dict[str, Any], place: str, name: str) -> bool | None:
    value = fields.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise _wrong_type(f"{place}.{name}", "true or false", value)


def _object(value: Any, place: str, what: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if what:
        raise InvalidPolicy(f"{what} must be an object, but is {_kind(value)}")
    raise _wrong_type(place, "an object", value)


def _only(fields: dict[str, Any], place: str, known: tuple[str, ...]) -> None:
    for name in fields:
        if name not in known:
            full = f"{place}.{name}" if place else name
            raise InvalidPolicy(f"attribute {_quoted(full)} is unknown; known here are {', '.join(known)}")


def _wrong_type(place: str, expected: str, value: Any) -> InvalidPolicy:
    return InvalidPolicy(f"attribute {_quoted(place)} must be {expected}, but is {_kind(value)}")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    words = {str: "a string", int: "a number", float: "a number", list: "an array", dict: "an object"}
    return words[type(value)]


def _quoted(text: str) -> str:
    """Return *text* for a message: one line of ASCII, the middle of a long one left out."""
    if len(text) > 2 * _SHOWN:
        text = f"{text[:_SHOWN]}...{text[-_SHOWN:]}"
    return "'" + text.encode("unicode_escape").decode("ascii") + "'"
