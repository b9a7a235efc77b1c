"""What is known of accounts: those in the password file, and which of them are just-in-time ones."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from waagent import ProtocolError, StateError, expiration_seconds, read_limited

if TYPE_CHECKING:
    from waagent import Agent

MARK = "JIT_Account"
"""The comment that makes an account one of these: no other account is ever touched."""
DAY = 86400

_FILE = "/etc/passwd"
_LIMIT = 64 << 20

NONE, OURS, ORDINARY = "none", "ours", "ordinary"
"""What an account is to this plugin."""


def marked(agent: Agent) -> frozenset[str]:
    """Return the names of the just-in-time accounts.

    Raises:
        OSError: the password file cannot be read: better nothing is done than the wrong thing.
    """
    return frozenset(name for name, comment in _entries(agent) if comment == MARK)


def standing(agent: Agent, name: str) -> str:
    """Return what the account *name* is: ``none``, ``ours`` or ``ordinary``.

    Raises:
        OSError: the password file cannot be read.
    """
    for other, comment in _entries(agent):
        if other == name:
            return OURS if comment == MARK else ORDINARY
    if agent.paths.is_real:
        import pwd

        try:
            pwd.getpwnam(name)
        except (KeyError, ValueError):
            return NONE
        return ORDINARY  # a directory service knows it
    return NONE


def moment_of(expiration: str) -> int | None:
    """Return when the platform lets an account end, as seconds since the epoch; ``None`` when that cannot be read."""
    try:
        return expiration_seconds(expiration)
    except ProtocolError:
        return None


def last_day(expiration: int) -> str:
    """Return the day after *expiration* as ``YYYY-MM-DD``: the system itself bars the account from then on."""
    return time.strftime("%Y-%m-%d", time.gmtime(expiration + DAY))


def _entries(agent: Agent) -> list[tuple[str, str]]:
    try:
        text = read_limited(agent.paths.at(_FILE), _LIMIT).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        if not agent.paths.is_real:
            return []
        raise
    except StateError as problem:
        raise OSError(str(problem)) from None
    rows = (line.split(":") for line in text.split("\n"))
    return [(row[0], row[4]) for row in rows if len(row) == 7]
