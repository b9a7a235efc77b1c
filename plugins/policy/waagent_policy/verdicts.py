"""What the policy means for an extension: a veto with the words of extensions §15.2, or none."""

from __future__ import annotations

import os
import re

from waagent import Handler, StateError, Veto, read_limited
from waagent_policy.manifest import supports_policy
from waagent_policy.policyfile import Policy
from waagent_policy.source import Found

ENABLE_REFUSED, DISABLE_REFUSED = 1009, 1010
MARK = "package_validated"
"""A file in the directory of a package whose signature was verified, made by whoever verified it (extensions §16)."""

_ENABLING = ("install", "update", "enable")
_USABLE = ("Installed", "Enabled")
_REST = re.compile(r"-(?P<version>[0-9][0-9A-Za-z_.]*)\Z")
_BEGIN = "Extension will not be processed: failed to"


def invalid(found: Found, operation: str) -> Veto:
    """Return the veto against everything while the policy file is invalid."""
    return Veto(found.invalid_reason, _code(operation))


def on_extension(found: Found, handler: Handler, operation: str, lib_dir: str) -> Veto | None:
    """Return the policy's veto against *operation* on *handler*, before anything is downloaded or run."""
    policy = found.policy
    if policy is None:
        return invalid(found, operation)
    word = _word(operation)
    if not policy.allows(handler.name):
        return Veto(
            f"{_BEGIN} {word} extension '{handler.name}' because it is not specified as an allowed extension. To "
            f"{word}, add the extension to the list of allowed extensions in the policy file ('{found.path}').",
            _code(operation),
        )
    installed = installed_versions(lib_dir, handler.name)
    if policy.requires_signature(handler.name):
        for version, directory in installed:
            if not os.path.isfile(os.path.join(directory, MARK)):
                return _unsigned(
                    found, handler.name, operation, f"the signature of its installed version {version} was not verified"
                )
        if operation in _ENABLING and not handler.signature and not installed:
            return _unsigned(found, handler.name, operation, "its package has no signature")
    if operation in _ENABLING:
        for version, directory in installed:
            # Another version may be the one that comes: it is looked at when it is there.
            if version == handler.version:
                return on_runtime_policy(found, policy, handler.name, version, directory)
    return None


def on_package(found: Found, name: str, version: str, signed: bool, directory: str) -> Veto | None:
    """Return the policy's veto against an unpacked package, before any of its commands runs (extensions §15.3)."""
    policy = found.policy
    if policy is None:
        return invalid(found, "install")
    if policy.requires_signature(name) and not os.path.isfile(os.path.join(directory, MARK)):
        why = "the signature of its package could not be verified" if signed else "its package has no signature"
        return _unsigned(found, name, "install", why)
    return on_runtime_policy(found, policy, name, version, directory)


def on_runtime_policy(found: Found, policy: Policy, name: str, version: str, directory: str) -> Veto | None:
    """Return the veto against a handler that would not know of the runtime policy there is for it (§15.4)."""
    rule = policy.rule(name)
    if rule is None or not rule.has_runtime or supports_policy(directory):
        return None
    return Veto(
        f"{_BEGIN} run extension '{name}' because there is a runtime policy for it, and its version {version} does not "
        f"support runtime policies. To run, remove 'runtimePolicy' of the extension from the policy file "
        f"('{found.path}').",
        ENABLE_REFUSED,
    )


def installed_versions(lib_dir: str, name: str) -> list[tuple[str, str]]:
    """Return (version, directory) of every version of handler *name* that counts as installed."""
    found = []
    try:
        entries = sorted(os.listdir(lib_dir))
    except OSError:
        return []
    for entry in entries:
        match = _REST.match(entry, len(name)) if entry.startswith(name) else None
        directory = os.path.join(lib_dir, entry)
        if match is not None and _state(directory) in _USABLE:
            found.append((match["version"], directory))
    return found


def _state(directory: str) -> str:
    try:
        return read_limited(os.path.join(directory, "config", "HandlerState"), 64).decode("ascii", "replace").strip()
    except (OSError, StateError):
        return ""


def _unsigned(found: Found, name: str, operation: str, why: str) -> Veto:
    word = _word(operation)
    return Veto(
        f"{_BEGIN} {word} extension '{name}' because signed packages are required and {why}. To {word}, set "
        f"'signatureRequired' to false for the extension in the policy file ('{found.path}').",
        _code(operation),
    )


def _code(operation: str) -> int:
    return ENABLE_REFUSED if operation in _ENABLING else DISABLE_REFUSED


def _word(operation: str) -> str:
    return "run" if operation in _ENABLING else "uninstall"
