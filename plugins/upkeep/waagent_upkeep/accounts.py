"""What is known of accounts: those in the password file, and which of them are just-in-time ones."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from waagent import StateError, read_limited

if TYPE_CHECKING:
    from waagent import Agent

MARK = "JIT_Account"
"""The comment that makes an account one of these: no other account is ever touched."""
DAY = 86400

_FILE = "/etc/passwd"
_LIMIT = 64 << 20
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

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


def parse_expiration(text: str) -> int | None:
    """Return ``Fri, 13 Nov 2026 10:00:00 UTC`` as seconds since the epoch; ``None`` when it is no such text."""
    words = text.replace(",", ", ").split()
    if len(words) != 6 or not words[0].endswith(",") or words[0][:-1].title() not in _DAYS:
        return None
    if words[5].upper() not in ("UTC", "GMT") or words[2].title() not in _MONTHS:
        return None
    try:
        day, year = int(words[1]), int(words[3])
        hour, minute, second = (int(part) for part in words[4].split(":"))
    except ValueError:
        return None
    import datetime as dt

    try:
        moment = dt.datetime(
            year, _MONTHS.index(words[2].title()) + 1, day, hour, minute, second, tzinfo=dt.timezone.utc
        )
    except (ValueError, OverflowError):
        return None
    return int(moment.timestamp())


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
