"""``linux.ifupdown``: ``/etc/network/interfaces`` configures the interface, dhclient asks DHCP as a rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import hookimpl
from waagent_distro.network import probing

if TYPE_CHECKING:
    from waagent import Agent


@hookimpl
def restart_interface(agent: Agent, interface: str) -> bool | None:
    """``ifdown`` and ``ifup``: it knows nothing gentler. One command, which ends with "up" whatever else happens."""
    if not probing.is_mine(agent, probing.IFUPDOWN, interface):
        return None
    from waagent_distro.steps import interfaces

    script = 'ifdown "$1"; exec ifup "$1"'
    return interfaces.renew(agent, interface, [("sh", "-c", script, "sh", interface)])


@hookimpl
def find_dhcp_processes(agent: Agent) -> tuple[int, ...] | None:
    """The clients that it starts."""
    if not probing.is_mine(agent, probing.IFUPDOWN):
        return None
    from waagent_distro.steps import processes

    return processes.named(agent, ("dhclient", "dhclient3", "udhcpc"))


@hookimpl
def dhcp_lease_endpoint(agent: Agent) -> str | None:
    """Read dhclient's lease files."""
    if not probing.is_mine(agent, probing.IFUPDOWN):
        return None
    from waagent_distro.steps import leasefiles

    return leasefiles.endpoint(agent, leasefiles.DHCLIENT)
