"""The plugin ``hostname``: a changed host name becomes known to the platform's DNS (provisioning §10, §16)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waagent import HealthCheck, Periodic, Plan, hookimpl

if TYPE_CHECKING:
    from waagent import Agent
    from waagent_upkeep.namewatch import NameWatch

PERIOD = "Provisioning.MonitorHostNamePeriod"
FALLBACK = 300.0
"""Seconds between two looks where the kernel tells of changes by itself."""


class HostNamePlugin:
    """The hooks."""

    def __init__(self) -> None:
        self._watch: NameWatch | None = None

    @hookimpl
    def declare_periodic(self, agent: Agent) -> list[Periodic]:
        """Begin to watch once the boot stage is over; then look now and then."""
        if not agent.config.boolean("Provisioning.MonitorHostName"):
            return []
        from waagent_upkeep import namewatch

        if os.path.exists(namewatch.KERNEL_FILE):
            seconds = max(FALLBACK, float(agent.config.integer(PERIOD)))
            return [Periodic("host name", seconds, self._look)]
        return [Periodic("host name", PERIOD, self._look)]

    @hookimpl
    def on_hostname_change(self, agent: Agent, old: str, new: str) -> Plan:
        """Set the name for the next boot too, publish it, and remember that it is published."""
        from waagent_upkeep import publishing

        attempt = self._watch.attempt if self._watch is not None else 0
        return publishing.plan(agent, new, attempt)

    @hookimpl
    def on_stop(self, agent: Agent) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.close()

    @hookimpl
    def check_health(self, agent: Agent) -> list[HealthCheck]:
        """Compare the machine's name with the one that was published."""
        if not agent.config.boolean("Provisioning.MonitorHostName"):
            return []
        from waagent_upkeep import publishing

        name, published = os.uname().nodename, publishing.published(agent)
        if not published or published == name or publishing.is_placeholder(name):
            return [HealthCheck("hostname.published", "ok", f"the machine is called {name}")]
        return [
            HealthCheck(
                "hostname.published",
                "warning",
                f"the machine is called {name}, and the platform knows it as {published}",
                "see the log for what kept the name from being published",
            )
        ]

    def _look(self, agent: Agent) -> None:
        if self._watch is None:
            from waagent_upkeep.namewatch import NameWatch

            self._watch = NameWatch(agent)
            self._watch.begin()
        agent.call_soon(self._watch.look)


plugin = HostNamePlugin()
