"""``HandlerManifest.json``: what commands a package has and how it wants to be treated (extensions §5)."""

from __future__ import annotations

import json
from typing import Any

import attrs

from waagent_extensions import codes
from waagent_extensions.codes import HandlerError

LIMIT = 1 << 20
COMMANDS = ("install", "uninstall", "update", "enable", "disable")


@attrs.frozen(eq=False, repr=False)
class HandlerManifest:
    """Element 0 of the manifest.

    Attributes:
        commands: operation to command line relative to the handler's directory; an operation without one is missing.
        report_heartbeat: the handler writes ``heartbeat.log``.
        update_with_install: the new version's install command is part of an update.
        continue_on_update_failure: a failing disable or uninstall of the old version does not stop an update.
        multi_config: the handler takes several named extensions.
        supports_policy: the handler reads a runtime policy.
        resource_limits, signing_info: as they stand in the file, ``{}`` when absent.
        odd_booleans: keys that hold neither a boolean nor the word true or false; logged once at install.
    """

    commands: dict[str, str]
    report_heartbeat: bool = False
    update_with_install: bool = True
    continue_on_update_failure: bool = False
    multi_config: bool = False
    supports_policy: bool = False
    resource_limits: dict[str, Any] = attrs.field(factory=dict)
    signing_info: dict[str, Any] = attrs.field(factory=dict)
    odd_booleans: tuple[str, ...] = ()

    def command(self, operation: str) -> str:
        """Return the command line of *operation*, relative to the handler's directory.

        Raises:
            HandlerError: the manifest has none (code -1).
        """
        line = self.commands.get(operation)
        if line is None:
            raise HandlerError(
                f"HandlerManifest.json names no {operation}Command", codes.UNKNOWN, operation.capitalize()
            )
        return line


def load(path: str) -> HandlerManifest:
    """Read the manifest at *path*.

    Raises:
        HandlerError: unreadable (1002), or not what a manifest must be (1003); says which.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(LIMIT + 1)
    except OSError as problem:
        raise HandlerError(
            f"HandlerManifest.json cannot be read: {problem.strerror} ({path})", codes.MANIFEST_NOT_FOUND, "Download"
        ) from problem
    return parse(data)


def parse(data: bytes) -> HandlerManifest:
    """Return the manifest in *data*.

    Raises:
        HandlerError: code 1003; says what was expected and where.
    """
    if len(data) > LIMIT:
        raise _malformed(f"larger than {LIMIT} bytes")
    try:
        document = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as problem:
        raise _malformed(f"not JSON: {problem}") from problem
    if not isinstance(document, list) or not document or not isinstance(document[0], dict):
        raise _malformed("an array whose first element is an object was expected")
    top = document[0]
    body = top.get("handlerManifest")
    if not isinstance(body, dict):
        raise _malformed("handlerManifest is missing or no object")

    commands = {}
    for operation in COMMANDS:
        line = body.get(f"{operation}Command")
        if line is None:
            continue
        if not isinstance(line, str) or "\0" in line:
            raise _malformed(f"{operation}Command is no text")
        commands[operation] = line.lstrip("/")

    odd: list[str] = []
    mode = body.get("updateMode")
    return HandlerManifest(
        commands=commands,
        report_heartbeat=_flag(body, "reportHeartbeat", odd),
        update_with_install=mode is None or str(mode).lower() == "updatewithinstall",
        continue_on_update_failure=_flag(body, "continueOnUpdateFailure", odd),
        multi_config=_flag(body, "supportsMultipleExtensions", odd),
        supports_policy=_flag(body, "supportsPolicy", odd),
        resource_limits=_object(top.get("resourceLimits")),
        signing_info=_object(top.get("signingInfo")),
        odd_booleans=tuple(odd),
    )


def _flag(body: dict[str, Any], name: str, odd: list[str]) -> bool:
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    # Real packages write the words as text; any other type is worth a line but not a failure.
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    odd.append(name)
    return False


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _malformed(reason: str) -> HandlerError:
    return HandlerError(f"HandlerManifest.json is malformed: {reason}", codes.MANIFEST_MALFORMED, "Download")
