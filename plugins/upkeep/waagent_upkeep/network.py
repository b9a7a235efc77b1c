"""The plugin ``network``: a restarted DHCP client loses routes, and others want to know (provisioning §17, §22.5)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waagent import Periodic, Plan, hookimpl

if TYPE_CHECKING:
    from waagent import Agent
    from waagent_upkeep.networkwatch import NetworkWatch


class NetworkPlugin:
    """The hooks."""

    def __init__(self) -> None:
        self._watch: NetworkWatch | None = None
        self._changes = 0

    @hookimpl
    def declare_periodic(self, agent: Agent) -> list[Periodic]:
        """Look at the DHCP client and at the address; a directory that stands for a machine has neither."""
        if not (agent.paths.is_real or os.path.isdir(agent.paths.at("/proc"))):
            return []
        return [Periodic("dhcp client", "OS.MonitorDhcpClientRestartPeriod", self._look)]

    @hookimpl
    def on_network_change(self, agent: Agent) -> Plan | None:
        """Set the routes again that the agent had set itself."""
        from waagent_upkeep import routes

        self._changes += 1
        return routes.plan(agent, self._changes - 1)

    def _look(self, agent: Agent) -> None:
        if self._watch is None:
            from waagent_upkeep.networkwatch import NetworkWatch

            self._watch = NetworkWatch(agent)
        self._watch.look()


plugin = NetworkPlugin()
