"""The plugin ``rdma``: addresses for InfiniBand cards of HPC sizes (provisioning §21, ruling 46)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import Plan, hookimpl

if TYPE_CHECKING:
    from waagent import Agent


@hookimpl
def on_boot(agent: Agent) -> Plan | None:
    """Give the cards the addresses that the host names; say what this agent leaves to the distribution."""
    config = agent.config
    asked = config.given("OS.CheckRdmaDriver") and config.boolean("OS.CheckRdmaDriver")
    if not (config.boolean("OS.EnableRDMA") or config.boolean("OS.UpdateRdmaDriver") or asked):
        return None
    if not agent.paths.is_real:
        return None  # the commands would act on the machine, whatever the root (ruling 7)
    from waagent_upkeep.infiniband import Cards

    if config.boolean("OS.UpdateRdmaDriver"):
        agent.log.warning("OS.UpdateRdmaDriver: no driver is installed; use the packages of the distribution")
    return Cards(agent).plan()
