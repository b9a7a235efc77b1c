"""``linux.networkd``: systemd-networkd runs the interface, whether netplan wrote its files or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import hookimpl
from waagent_distro.network import pausing, probing

if TYPE_CHECKING:
    from waagent import Agent

_SERVICE = "systemd-networkd"


@hookimpl
def set_dhcp_hostname(agent: Agent, hostname: str, interface: str | None) -> bool | None:
    """Nothing to write: networkd sends the system's name by itself."""
    return True if probing.is_mine(agent, probing.NETWORKD, interface) else None


@hookimpl
def restart_interface(agent: Agent, interface: str) -> bool | None:
    """Reconfigure the link; before systemd 244, which cannot, restart the service: addresses stay in both cases."""
    if not probing.is_mine(agent, probing.NETWORKD, interface):
        return None
    from waagent_distro.steps import interfaces

    restart = ("systemctl", "restart", _SERVICE)
    ways = [("networkctl", "reconfigure", interface), restart]
    return interfaces.renew(agent, interface, ways, recover=lambda: agent.run(restart, check=True))


@hookimpl
def find_dhcp_processes(agent: Agent) -> tuple[int, ...] | None:
    """The service itself: it is the client."""
    if not probing.is_mine(agent, probing.NETWORKD):
        return None
    from waagent_distro.steps import processes

    return processes.named(agent, ("systemd-network",))


@hookimpl
def must_pause_dhcp(agent: Agent) -> bool | None:
    """Yes: networkd binds the port that the agent's own request needs."""
    return True if pausing.is_paused(agent, _SERVICE) or probing.is_mine(agent, probing.NETWORKD) else None


@hookimpl
def stop_dhcp(agent: Agent) -> bool | None:
    """Stop the service."""
    if not (pausing.is_paused(agent, _SERVICE) or probing.is_mine(agent, probing.NETWORKD)):
        return None
    return pausing.pause(agent, _SERVICE)


@hookimpl
def start_dhcp(agent: Agent) -> bool | None:
    """Start the service again; it was stopped here, so it cannot be asked whether it runs the interface."""
    return pausing.resume(agent, _SERVICE)


@hookimpl
def dhcp_lease_endpoint(agent: Agent) -> str | None:
    """Read its lease files."""
    if not probing.is_mine(agent, probing.NETWORKD):
        return None
    from waagent_distro.steps import leasefiles

    return leasefiles.endpoint(agent, leasefiles.NETWORKD)
