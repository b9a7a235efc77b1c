"""What a package says it is, inside what was signed: a good signature of another package does not count (§16)."""

from __future__ import annotations

import json
import os

from waagent import StateError, read_limited

_LIMIT = 1 << 20


def problem(directory: str, name: str, version: str) -> str | None:
    """Return how the manifest in *directory* disagrees with handler *name* and *version*, or ``None``."""
    try:
        document = json.loads(read_limited(os.path.join(directory, "HandlerManifest.json"), _LIMIT))
    except (OSError, StateError, ValueError, RecursionError) as error:
        return f"HandlerManifest.json cannot be read: {error}"
    top = document[0] if isinstance(document, list) and document else None
    info = top.get("signingInfo") if isinstance(top, dict) else None
    if not isinstance(info, dict):
        return "HandlerManifest.json has no signingInfo"
    publisher, _, kind = name.rpartition(".")
    for key, expected in (("publisher", publisher), ("type", kind), ("version", version)):
        value = info.get(key)
        if value is None or isinstance(value, (dict, list, bool)):
            return f"signingInfo has no {key}"
        if str(value).lower() != expected.lower():
            return f"signingInfo says {key} {str(value)[:128]!r}, the goal state {expected!r}"
    return None
