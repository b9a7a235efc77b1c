"""The part of the policy that a handler itself enforces: a file beside its settings (extensions §15.4)."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

from waagent import ensure_dir, write_atomic

NAME = "waagent_runtime_policy.json"


def write(directory: str, runtime: Any) -> str:
    """Write the runtime policy of the handler in *directory* and return the file's path.

    Raises:
        OSError: the disk refused.
    """
    config = os.path.join(directory, "config")
    ensure_dir(config, 0o700)
    path = os.path.join(config, NAME)
    write_atomic(path, json.dumps(runtime), 0o644)
    return path


def remove(directory: str) -> None:
    """Remove what an earlier policy said to the handler in *directory*."""
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(directory, "config", NAME))
