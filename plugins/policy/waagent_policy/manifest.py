"""The one thing that the policy wants to know of a handler's manifest (extensions §5, §15.4)."""

from __future__ import annotations

import json
import os

from waagent import StateError, read_limited

_LIMIT = 1 << 20


def supports_policy(directory: str) -> bool:
    """Return whether the handler in *directory* reads a runtime policy; what cannot be read does not."""
    try:
        document = json.loads(read_limited(os.path.join(directory, "HandlerManifest.json"), _LIMIT))
    except (OSError, StateError, ValueError, RecursionError):
        return False
    top = document[0] if isinstance(document, list) and document else None
    body = top.get("handlerManifest") if isinstance(top, dict) else None
    value = body.get("supportsPolicy") if isinstance(body, dict) else None
    # Real packages write the word as text as well.
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")
