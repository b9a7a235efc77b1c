"""``suse``: SUSE Linux Enterprise, SLE Micro, openSUSE (spec/distro.md §4.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import hookimpl

if TYPE_CHECKING:
    from waagent import Agent

NO_NAME = "localhost.localdomain"
"""The name that deprovisioning gives to a machine."""


@hookimpl
def start_network(agent: Agent) -> bool:
    """Start ``network``, which is another name of wicked or NetworkManager, whichever is chosen."""
    return bool(agent.distro.service_action("network", "start"))


@hookimpl
def set_dhcp_hostname(agent: Agent, hostname: str) -> bool | None:
    """A machine without a name sends whatever name it gets: ``AUTO``, not the placeholder of deprovisioning."""
    if hostname != NO_NAME:
        return None
    from waagent_distro.network import wicked

    wicked.set_option(agent, wicked.AUTOMATIC)
    return True
