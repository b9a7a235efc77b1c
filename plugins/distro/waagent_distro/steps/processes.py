"""Processes, found by name in ``/proc``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from waagent_distro.steps import textfiles

if TYPE_CHECKING:
    from waagent import Agent

DHCP_CLIENTS = frozenset(
    ("dhclient", "dhclient3", "dhcpcd", "udhcpc", "systemd-network", "NetworkManager", "wickedd-dhcp4")
)
"""Names of DHCP clients as the kernel keeps them: fifteen letters at most."""


def named(agent: Agent, names: Iterable[str]) -> tuple[int, ...]:
    """Return the ids of the processes with one of *names*, in ascending order."""
    wanted = frozenset(names)
    proc = agent.paths.at("/proc")
    try:
        entries = [entry for entry in os.listdir(proc) if entry.isdigit()]
    except OSError:
        return ()
    return tuple(sorted(int(one) for one in entries if textfiles.first_line(f"{proc}/{one}/comm") in wanted))
