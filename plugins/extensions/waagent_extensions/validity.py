"""Whether the names in a goal state can be file names: everything of a handler lies under its name."""

from __future__ import annotations

import re

from waagent import Handler
from waagent_extensions import versions

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_VERSION = re.compile(r"\d[0-9A-Za-z.]{0,63}\Z")
_EXTENSION = re.compile(r"[A-Za-z0-9_][^/\x00-\x1f\x7f]{0,127}\Z")


def problem(handler: Handler) -> str | None:
    """Return why *handler* cannot be processed under its names, or ``None``."""
    if not _NAME.match(handler.name):
        return f"The handler name {handler.name[:128]!r} cannot be used."
    if not _VERSION.match(handler.version) or not versions.is_version(handler.version):
        return f"The version {handler.version[:64]!r} of {handler.name} cannot be used."
    seen = set()
    for settings in handler.extensions if handler.multi_config else ():
        if not _EXTENSION.match(settings.name):
            return f"The extension name {settings.name[:128]!r} of {handler.name} cannot be used."
        if settings.name in seen:
            return f"The extension name {settings.name!r} of {handler.name} occurs twice."
        seen.add(settings.name)
    return None
