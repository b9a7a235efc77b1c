"""Versions as the platform writes them: dotted integers, perhaps with a pre-release suffix (extensions §4.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable

_VERSION = re.compile(r"(\d+(?:\.\d+)*)(?:[.-]?(alpha|beta|rc)[.-]?(\d+)?)?\Z", re.IGNORECASE | re.ASCII)
_RANK = {"alpha": 0, "beta": 1, "rc": 2}
_RELEASE = 3
_LONGEST = 64

Key = tuple[tuple[int, ...], int, int]


def is_version(text: str) -> bool:
    """Return whether *text* is a version."""
    return len(text) <= _LONGEST and _VERSION.match(text) is not None


def key(text: str) -> Key:
    """Return a value that orders versions: numerically, missing parts 0, a pre-release before its release.

    Text that is no version sorts below every version.
    """
    match = _VERSION.match(text) if len(text) <= _LONGEST else None
    if match is None:
        return ((-1,), 0, 0)
    parts = [int(part) for part in match.group(1).split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    suffix = (match.group(2) or "").lower()
    return (tuple(parts), _RANK.get(suffix, _RELEASE), int(match.group(3) or 0))


def matches(requested: str, candidate: str) -> bool:
    """Return whether *candidate* is what *requested* names, exactly or as a prefix: ``1.0`` matches ``1.0.5``."""
    wanted, given = _VERSION.match(requested), _VERSION.match(candidate)
    if wanted is None or given is None:
        return requested == candidate
    if wanted.group(2) or given.group(2):
        return key(requested) == key(candidate)
    wanted_parts = [int(part) for part in wanted.group(1).split(".")]
    given_parts = [int(part) for part in given.group(1).split(".")]
    if len(wanted_parts) > len(given_parts):
        return key(requested) == key(candidate)
    return given_parts[: len(wanted_parts)] == wanted_parts


def choose(requested: str, candidates: Iterable[str]) -> str | None:
    """Return the highest of *candidates* that *requested* names, or ``None``."""
    fitting = [candidate for candidate in candidates if matches(requested, candidate)]
    return max(fitting, key=key) if fitting else None
