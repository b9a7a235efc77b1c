"""Hashes without OpenSSL's library in the resident process: ``hashlib`` would load it, for megabytes."""

from __future__ import annotations

from importlib import import_module

_HOMES = {"sha256": ("_sha2", "_sha256"), "sha384": ("_sha2", "_sha512"), "sha512": ("_sha2", "_sha512")}


def digest(name: str, data: bytes) -> bytes:
    """Return the hash *name* (``sha256``, ``sha384`` or ``sha512``) of *data*."""
    for home in _HOMES[name]:
        try:
            made: bytes = getattr(import_module(home), name)(data).digest()
        except (ImportError, AttributeError):
            continue  # another version of Python, or one that has OpenSSL's alone
        return made
    import hashlib

    return hashlib.new(name, data).digest()
