"""Seeing that the DHCP client was restarted, or that the machine has another address (service §4)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waagent_upkeep import routes
from waagent_upkeep.patience import LANE

if TYPE_CHECKING:
    from waagent import Agent

SELDOM = 10
"""A client that is gone is searched for so often; then, and where none ever ran, only one look in so many does that."""


class NetworkWatch:
    """Looks at the network; to be called from one thread at a time.

    Args:
        agent: the worker's agent.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._known: dict[int, str] = {}
        self._looks = 0  # since all that are known were there
        self._network = routes.fingerprint(agent)

    def look(self) -> None:
        """Compare with what was seen before; on a change tell everybody, in the lane for that."""
        restarted = self._client_restarted()
        network = routes.fingerprint(self._agent)
        # For a moment without address nothing is told: the next one counts.
        moved = network is not None and self._network is not None and network != self._network
        self._network = network or self._network
        if moved and not restarted:
            self._agent.log.info("EnvMonitor: The address of the primary interface changed")
        if restarted or moved:
            self._agent.lane(LANE).submit_once("network change", self._tell, name="network change")

    def _client_restarted(self) -> bool:
        agent, known = self._agent, self._known
        if known and all(start_time(agent, pid) == start for pid, start in known.items()):
            self._looks = 0
            return False
        self._looks += 1
        if (not known or self._looks > SELDOM) and self._looks % SELDOM != 1:
            return False
        found = {pid: start_time(agent, pid) for pid in agent.distro.find_dhcp_processes()}
        found = {pid: start for pid, start in found.items() if start}  # without those that have just ended
        if not found:
            if self._looks == 1:
                agent.log.warning("Dhcp client is not running.")
            return False
        if known and found.items() <= known.items():
            return False  # one of several has ended, and its successor has not begun yet
        self._known, self._looks = found, 0
        if known:
            agent.log.info("EnvMonitor: Detected dhcp client restart. Restoring routing table.")
        return bool(known)

    def _tell(self) -> None:
        agent = self._agent
        for _plugin, plan in agent.hooks.on_network_change(agent):
            agent.executor.run(plan, stop=agent.stopping)


def start_time(agent: Agent, pid: int) -> str:
    """Return when the process *pid* started, in the kernel's words; empty when it is gone."""
    try:
        with open(agent.paths.at(f"/proc/{pid}/stat"), "rb") as stream:
            fields = stream.read(4096).rpartition(b")")[2].split()
    except OSError:
        return _living(agent, pid)
    dead = len(fields) < 20 or fields[0] in (b"Z", b"X")
    return "" if dead else fields[19].decode("ascii", "replace")


def _living(agent: Agent, pid: int) -> str:
    """Say of a process that it lives where the kernel tells no more (the BSDs)."""
    if not agent.paths.is_real or os.path.exists("/proc/self/stat"):
        return ""
    try:
        os.kill(pid, 0)
    except OSError:
        return ""
    return "living"
