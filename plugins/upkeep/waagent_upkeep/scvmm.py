"""The plugin ``scvmm``: hands a machine over to System Center Virtual Machine Manager (provisioning §20)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import Plan, hookimpl

if TYPE_CHECKING:
    from waagent import Agent


@hookimpl
def on_boot(agent: Agent) -> Plan | None:
    """Look on the optical drives for its installer, where the image's builder asked for that."""
    if not agent.config.boolean("DetectScvmmEnv"):
        return None
    from waagent_upkeep.scvmminstall import Handover

    return Handover(agent).plan()
