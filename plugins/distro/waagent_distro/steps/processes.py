"""Processes, found by name in ``/proc``."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from waagent_distro.steps import textfiles

if TYPE_CHECKING:
    from waagent import Agent

DHCP_CLIENTS = frozenset(
    ("dhclient", "dhclient3", "dhcpcd", "udhcpc", "systemd-network", "NetworkManager", "wickedd-dhcp4")
)
"""Names of DHCP clients as the kernel keeps them: fifteen letters at most."""

_known: dict[tuple[str, frozenset[str]], dict[int, str]] = {}
_known_lock = threading.Lock()


def named(agent: Agent, names: Iterable[str]) -> tuple[int, ...]:
    """Return the ids of the processes with one of *names*, in ascending order.

    Asked for again and again by whoever watches: while all that were found the last time are still there, ``/proc``
    is not searched.
    """
    wanted = frozenset(names)
    key = (agent.paths.root, wanted)
    proc = agent.paths.at("/proc")
    with _known_lock:
        before = _known.get(key)
    if before and all(_started(proc, pid) == since for pid, since in before.items()):
        return tuple(sorted(before))
    found = {}
    try:
        entries = os.listdir(proc)
    except OSError:
        entries = []
    for entry in entries:
        if entry.isdigit() and textfiles.first_line(f"{proc}/{entry}/comm") in wanted:
            found[int(entry)] = _started(proc, int(entry))
    with _known_lock:
        _known[key] = found
    return tuple(sorted(found))


def _started(proc: str, pid: int) -> str:
    """Return when the process began, in ticks since boot; empty when it is gone."""
    # The name, in parentheses, may hold anything; the start is the twentieth word after it.
    words = textfiles.first_line(f"{proc}/{pid}/stat").rpartition(")")[2].split()
    return words[19] if len(words) > 19 else ""
