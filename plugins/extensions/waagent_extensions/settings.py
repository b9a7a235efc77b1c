"""The settings file that a handler reads (extensions §7). What is protected stays encrypted: the handler opens it."""

from __future__ import annotations

import json
import os

from waagent import ExtensionSettings, ensure_dir, write_atomic
from waagent_extensions.layout import HandlerDir


def content(settings: ExtensionSettings | None) -> str:
    """Return the text of a settings file; the empty text for a handler without settings.

    The three keys are always there, ``null`` when the platform gave none: handlers rely on them.
    """
    if settings is None or not settings.has_content:
        return ""
    handler_settings = {
        "publicSettings": settings.public,
        "protectedSettings": settings.protected,
        "protectedSettingsCertThumbprint": settings.thumbprint,
    }
    return json.dumps({"runtimeSettings": [{"handlerSettings": handler_settings}]})


def write(handler: HandlerDir, settings: ExtensionSettings | None, multi_config: bool = False) -> str:
    """Write the settings file and return its path; always rewritten, so that its mtime is the newest.

    Raises:
        OSError: the disk refused; the old file is as it was.
    """
    ensure_dir(handler.config_dir, 0o700)
    extension = settings.name if settings is not None and multi_config else None
    path = handler.settings_file(extension, settings.sequence_number if settings is not None else 0)
    # Written at every goal state: what a power cut brings back is replaced before the handler reads it.
    write_atomic(path, content(settings), 0o600, sync_name=False)
    return path


def newest_sequence(handler: HandlerDir, extension: str | None = None) -> int:
    """Return the number of the settings file with the newest mtime, -1 when there is none (extensions §7)."""
    prefix = f"{extension}." if extension else ""
    best, newest = -1, float("-inf")
    for name in _names(handler.config_dir, prefix, ".settings"):
        path = os.path.join(handler.config_dir, name)
        number = name[len(prefix) : -len(".settings")]
        if not (number.isascii() and number.isdigit()):
            continue
        try:
            modified = os.stat(path).st_mtime
        except OSError:
            continue
        if modified > newest:
            best, newest = int(number), modified
    return best


def remove(handler: HandlerDir, extension: str) -> None:
    """Delete every settings and status file of one extension of a multi-config handler (extensions §10.5)."""
    for directory, suffix in ((handler.config_dir, "settings"), (handler.status_dir, "status")):
        for name in _names(directory, f"{extension}.", f".{suffix}"):
            if name[len(extension) + 1 : -len(suffix) - 1].isdigit():
                os.unlink(os.path.join(directory, name))


def _names(directory: str, start: str, end: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return [name for name in names if name.startswith(start) and name.endswith(end)]
