"""``linux.networkmanager``: NetworkManager runs the interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import hookimpl
from waagent_distro.network import probing

if TYPE_CHECKING:
    from waagent import Agent

_TRIES, _PAUSE = 3, 5.0
_given: dict[str, str] = {}
"""Interface to the name that its device was given last."""


@hookimpl
def set_dhcp_hostname(agent: Agent, hostname: str, interface: str | None) -> bool | None:
    """Set it for the device as it is now: with the system's name by default, NetworkManager sends that at boot."""
    link = interface or agent.distro.find_primary_interface()
    if not probing.is_mine(agent, probing.NETWORKMANAGER, link):
        return None
    from waagent_distro.steps import hostnames

    hostnames.check(hostname)
    command = ("nmcli", "device", "modify", link, "ipv4.dhcp-hostname", hostname, "ipv6.dhcp-hostname", hostname)
    for _ in range(_TRIES - 1):
        if agent.run(command, timeout=20).ok:
            break
        agent.stopping.wait(_PAUSE)  # 6: the device is not activated yet
    else:
        agent.run(command, timeout=20, check=True)
    _given[link] = hostname
    return True


@hookimpl
def publish_hostname(agent: Agent, hostname: str) -> bool | None:
    """Change the device's name for DHCP, and no more: that asks the server again.

    Reapplying the connection, as a renewal does, would take the name back and send the one that NetworkManager knows,
    which may still be the old one. Where the device cannot be changed, that way is left.
    """
    link = agent.distro.find_primary_interface()
    if not probing.is_mine(agent, probing.NETWORKMANAGER, link):
        return None
    from waagent_distro.steps import interfaces

    routed = interfaces.default_interface(agent) != ""
    _given.pop(link, None)
    agent.distro.set_dhcp_hostname(hostname, link)
    if _given.get(link) != hostname:
        return None
    return interfaces.come_back(agent, link, routed, "`nmcli device modify`", recover=lambda: _restart(agent))


@hookimpl
def restart_interface(agent: Agent, interface: str) -> bool | None:
    """Reapply the connection, which asks DHCP again; the link stays up. Restart NetworkManager if that breaks it."""
    if not probing.is_mine(agent, probing.NETWORKMANAGER, interface):
        return None
    from waagent_distro.steps import interfaces

    ways = [("nmcli", "device", "reapply", interface), ("nmcli", "device", "connect", interface)]
    return interfaces.renew(agent, interface, ways, recover=lambda: _restart(agent))


@hookimpl
def find_dhcp_processes(agent: Agent) -> tuple[int, ...] | None:
    """The service itself, which watches over the client that it uses."""
    if not probing.is_mine(agent, probing.NETWORKMANAGER):
        return None
    from waagent_distro.steps import processes

    return processes.named(agent, ("NetworkManager",))


@hookimpl
def dhcp_lease_endpoint(agent: Agent) -> str | None:
    """Read its lease files; its own client keeps option 245 in memory only, so ask for that too."""
    link = agent.distro.find_primary_interface()
    if not probing.is_mine(agent, probing.NETWORKMANAGER, link):
        return None
    from waagent import AgentError, lease_address
    from waagent_distro.steps import leasefiles

    try:
        found = leasefiles.endpoint(agent, leasefiles.NETWORKMANAGER)
    except AgentError:
        found = ""
    if found:
        return found
    done = agent.run(("nmcli", "-t", "-e", "no", "-f", "DHCP4", "device", "show", link), timeout=15)
    for line in done.stdout.splitlines():
        key, _, value = line.partition(":")[2].partition(" = ")
        if key.strip() in ("unknown_245", "private_245", "option_245"):
            return lease_address(value) or ""
    return ""


def _restart(agent: Agent) -> None:
    agent.distro.service_action("NetworkManager", "restart")
