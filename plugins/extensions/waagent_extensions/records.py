"""The agent's own records beside a handler: its state, its status, its extensions' states (extensions §3, §10, §13.1).

They are read as hostile: a handler's directory is writable by what runs there. An empty or unknown state is
``NotInstalled``, an unreadable status is no status; nothing here stops the agent.
"""

from __future__ import annotations

import json
import os
from typing import Any

import attrs

from waagent import StateError, ensure_dir, read_limited, redact, write_atomic
from waagent_extensions.layout import HandlerDir

NOT_INSTALLED = "NotInstalled"
INSTALLED = "Installed"
ENABLED = "Enabled"
FAILED_UPGRADE = "FailedUpgrade"
STATES = (NOT_INSTALLED, INSTALLED, ENABLED, FAILED_UPGRADE)

READY = "Ready"
NOT_READY = "NotReady"
INSTALLING = "Installing"
UNRESPONSIVE = "Unresponsive"

_LIMIT = 1 << 20


@attrs.frozen(eq=False, repr=False)
class HandlerStatus:
    """How a handler stands, as last recorded (extensions §13.1)."""

    name: str
    version: str
    status: str
    code: int = 0
    message: str | None = None
    multi_config: bool = False


def _text(path: str) -> str | None:
    try:
        return read_limited(path, _LIMIT).decode("utf-8", "replace")
    except (OSError, StateError):
        return None


def read_state(handler: HandlerDir) -> str:
    """Return the handler's state; anything unknown counts as ``NotInstalled``."""
    state = (_text(handler.state_file) or "").strip()
    return state if state in STATES else NOT_INSTALLED


def ensure_place(handler: HandlerDir) -> None:
    """Make the handler's directory and the one for records, if need be.

    A new one takes its place with a state in it: without that clean-up would take it for somebody else's.
    """
    if not os.path.isdir(handler.base):
        directory, name = os.path.split(handler.base)
        stage = os.path.join(directory, f".{name}.new")
        ensure_dir(os.path.join(stage, "config"), 0o700)
        os.chmod(stage, 0o755)
        write_atomic(os.path.join(stage, "config", "HandlerState"), NOT_INSTALLED, 0o644, durable=False)
        os.rename(stage, handler.base)
    ensure_dir(handler.config_dir, 0o700)


def write_state(handler: HandlerDir, state: str) -> None:
    """Record the handler's state."""
    ensure_place(handler)
    write_atomic(handler.state_file, state, 0o644)


def is_installed(state: str) -> bool:
    """Return whether a handler in *state* counts as installed."""
    return state in (INSTALLED, ENABLED)


def read_status(handler: HandlerDir) -> HandlerStatus | None:
    """Return the recorded status, or ``None`` when there is none that can be read."""
    text = _text(handler.status_record)
    if text is None:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not isinstance(document.get("status"), str):
        return None
    code = document.get("code")
    message = document.get("message")
    return HandlerStatus(
        name=str(document.get("name") or handler.name),
        version=str(document.get("version") or handler.version),
        status=document["status"],
        code=code if isinstance(code, int) else 0,
        message=None if message is None else str(message),
        multi_config=document.get("supports_multi_config") is True,
    )


def write_status(handler: HandlerDir, status: HandlerStatus) -> None:
    """Record the handler's status; SAS tokens in its message are taken out."""
    ensure_place(handler)
    document: dict[str, Any] = {
        "name": status.name,
        "version": status.version,
        "status": status.status,
        "code": status.code,
        "message": None if status.message is None else redact(status.message),
        "supports_multi_config": status.multi_config,
        "extension_status": None,
    }
    # It is written anew at every enable; the old one is no harm.
    write_atomic(handler.status_record, json.dumps(document), 0o644, sync_name=False)


def read_last_sequence(handler: HandlerDir) -> int | None:
    """Return the number that the handler noted in ``mrseq``, or ``None``."""
    text = (_text(handler.last_sequence) or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def read_extension_state(handler: HandlerDir, extension: str) -> str | None:
    """Return ``enabled``, ``disabled`` or ``None`` for one extension of a multi-config handler."""
    state = (_text(handler.extension_state_file(extension)) or "").strip()
    return state if state in ("enabled", "disabled") else None


def write_extension_state(handler: HandlerDir, extension: str, state: str) -> None:
    """Record the state of one extension of a multi-config handler."""
    ensure_place(handler)
    write_atomic(handler.extension_state_file(extension), state, 0o644)


def remove_extension_state(handler: HandlerDir, extension: str) -> None:
    """Forget one extension of a multi-config handler."""
    try:
        os.unlink(handler.extension_state_file(extension))
    except FileNotFoundError:
        return


def recorded_extensions(handler: HandlerDir) -> dict[str, str]:
    """Return every recorded extension of a multi-config handler with its state, by name."""
    found = {}
    try:
        entries = sorted(os.listdir(handler.config_dir))
    except OSError:
        return {}
    for entry in entries:
        name = entry[: -len(".HandlerState")]
        if entry.endswith(".HandlerState") and name:
            state = read_extension_state(handler, name)
            if state is not None:
                found[name] = state
    return found
