"""What a handler is told about its place: ``HandlerEnvironment.json`` and the environment of its commands."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from waagent import ensure_dir, write_atomic
from waagent_extensions.layout import HandlerDir

NOT_RUN = "NOT_RUN"
SUPPORTED_FEATURES = json.dumps([{"Key": "ExtensionTelemetryPipeline", "Value": "1.0"}], separators=(",", ":"))

# What the agent needs for itself and what would mislead a handler's own interpreter (extensions §12.1 N); and what a
# handler that started the agent anew was told: that is not for all the others.
_OURS = frozenset(
    {
        "ConfigExtensionName",
        "ConfigSequenceNumber",
        "LD_LIBRARY_PATH",
        "MALLOC_ARENA_MAX",
        "NOTIFY_SOCKET",
        "PYTHONHOME",
        "PYTHONPATH",
        "VIRTUAL_ENV",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
    }
)
_PREFIXES = ("WAAGENT_", "AZURE_GUEST_AGENT_")


def write_handler_environment(handler: HandlerDir) -> None:
    """Write ``HandlerEnvironment.json`` (extensions §6): an array of one object, ``version`` a number.

    Raises:
        OSError: the disk refused.
    """
    events = handler.events_dir
    document = [
        {
            "name": handler.name,
            "version": 1.0,
            "handlerEnvironment": {
                "logFolder": handler.log_dir,
                "configFolder": handler.config_dir,
                "statusFolder": handler.status_dir,
                "heartbeatFile": handler.heartbeat,
                "eventsFolder": events,
                "eventsFolder_preview": events,
            },
        }
    ]
    write_atomic(handler.environment, json.dumps(document), 0o644, sync_name=False)  # every start writes it anew


def make_directories(handler: HandlerDir) -> None:
    """Create the directories a handler expects; modes of existing ones are left alone (extensions §3, §21)."""
    ensure_dir(handler.config_dir, 0o700)
    ensure_dir(handler.status_dir, 0o700)
    ensure_dir(handler.log_dir, 0o755)
    ensure_dir(handler.events_dir, 0o700)


def command_environment(
    handler: HandlerDir,
    *,
    wire_address: str,
    sequence_number: int | None,
    extension: str | None = None,
    extra: Mapping[str, str] | None = None,
    inherited: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the whole environment of a command (extensions §12.2); ours wins over what is inherited.

    Args:
        handler: the version whose command runs.
        wire_address: the WireServer's address.
        sequence_number: the goal state's number; ``None`` without settings, shown as ``0``.
        extension: the extension's name for multi-config, else ``None``.
        extra: the variables of this operation (``VERSION``, exit codes …).
        inherited: the agent's own environment; default ``os.environ``.
    """
    base = os.environ if inherited is None else inherited
    environment = {name: value for name, value in base.items() if name not in _OURS and not name.startswith(_PREFIXES)}
    environment.update(own_variables(handler, wire_address, sequence_number, extension, extra))
    return environment


def own_variables(
    handler: HandlerDir,
    wire_address: str,
    sequence_number: int | None,
    extension: str | None,
    extra: Mapping[str, str] | None,
) -> dict[str, str]:
    """Return only what the agent adds: this is what the log shows of an environment."""
    variables = {
        "AZURE_GUEST_AGENT_EXTENSION_PATH": handler.base,
        "AZURE_GUEST_AGENT_EXTENSION_VERSION": handler.version,
        "AZURE_GUEST_AGENT_WIRE_PROTOCOL_ADDRESS": wire_address,
        "ConfigSequenceNumber": str(sequence_number if sequence_number is not None else 0),
        "AZURE_GUEST_AGENT_EXTENSION_SUPPORTED_FEATURES": SUPPORTED_FEATURES,
    }
    if extension:
        variables["ConfigExtensionName"] = extension
    variables.update({name: "" if value is None else str(value) for name, value in (extra or {}).items()})
    return variables
