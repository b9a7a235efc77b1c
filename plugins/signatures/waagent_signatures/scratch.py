"""The files of a check in the state directory: what openssl reads and writes, and nobody keeps."""

from __future__ import annotations

import contextlib
import os

SIGNATURE, TOKEN, CONTENT = "_signature.pem", "_timestamp.pem", "_timeinfo.pem"
"""Endings of their names, after the package's. The first is known to operators and says PEM, though it is DER (§3)."""


def clear(stem: str) -> None:
    """Remove the files of one check; *stem* is the path that their names begin with."""
    for ending in (SIGNATURE, TOKEN, CONTENT):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(stem + ending)


def clear_all(directory: str) -> None:
    """Remove the files of checks that were cut off."""
    with contextlib.suppress(OSError):
        for entry in os.listdir(directory):
            stem = next((entry[: -len(end)] for end in (SIGNATURE, TOKEN, CONTENT) if entry.endswith(end)), None)
            if stem is not None and ".zip" in stem:
                clear(os.path.join(directory, stem))
