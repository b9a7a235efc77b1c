"""Names from the platform that become file names: which are safe, and those of the history (wireserver §15.7)."""

from __future__ import annotations

import re
import time

GOAL_STATE = "GoalState.xml"
EXTENSIONS_CONFIG = "ExtensionsConfig.xml"
VM_SETTINGS = "VmSettings.json"
HOSTING_ENVIRONMENT = "HostingEnvironmentConfig.xml"
SHARED_CONFIG = "SharedConfig.xml"
CERTIFICATES = "Certificates.json"
REMOTE_ACCESS = "RemoteAccess.xml"
STATUS = "waagent_status.json"

PLACEHOLDER = "GoalState.1.xml"
"""Lies in the state directory, an empty XML element: other components of the platform look for the name."""
PLACEHOLDER_CONTENT = "<GoalState/>\n"

_MAX_LENGTH = 200
_DIRECTORY = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d__[^/\0]{1,200}\Z", re.ASCII)


def is_file_name(text: str) -> bool:
    """Whether *text* can be part of a file name: nothing that leads elsewhere, hides, or cannot be written."""
    return (
        0 < len(text) <= _MAX_LENGTH
        and text.isprintable()
        and "/" not in text
        and "\\" not in text
        and not text.startswith(".")
        and len(text.encode("utf-8", "surrogatepass")) <= _MAX_LENGTH
    )


def as_file_name(text: str) -> str:
    """Return *text* with everything that has no place in a file name replaced by ``_``."""
    kept = re.sub(r"[^A-Za-z0-9._+-]", "_", text)[: _MAX_LENGTH // 2]
    return "_" + kept if not kept or kept.startswith(".") else kept


def history_tag(incarnation: str | None, etag: str | None = None) -> str:
    """Return the tag of a history directory: ``<incarnation>`` or ``<incarnation>-<etag>``."""
    tag = str(incarnation) if etag is None else f"{incarnation}-{etag}"
    return as_file_name(tag)


def history_directory(tag: str, seconds: float | None = None) -> str:
    """Return ``YYYY-MM-DDTHH-MM-SS__<tag>`` for a moment since 1970, now by default (UTC)."""
    return time.strftime("%Y-%m-%dT%H-%M-%S__", time.gmtime(seconds)) + tag


def is_history_item(name: str) -> bool:
    """Whether *name* is one of our history directories, or the zip of one."""
    return bool(_DIRECTORY.match(name.removesuffix(".zip")))


def manifest_name(handler: str) -> str:
    """Return the history name of a handler's manifest; the agent's is ``waagent.<family>.manifest.xml``."""
    return as_file_name(handler) + ".manifest.xml"
