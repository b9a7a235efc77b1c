"""``linux.wicked``: SUSE's wicked runs the interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import hookimpl
from waagent_distro.network import pausing, probing

if TYPE_CHECKING:
    from waagent import Agent

SETTINGS = "/etc/sysconfig/network/dhcp"
AUTOMATIC = "AUTO"
"""The value with which wicked sends the system's name."""

_SERVICE = "wickedd-dhcp4"


@hookimpl
def set_dhcp_hostname(agent: Agent, hostname: str, interface: str | None) -> bool | None:
    """Set ``DHCLIENT_HOSTNAME_OPTION``, unless it says that the system's name is sent."""
    if not probing.is_mine(agent, probing.WICKED, interface):
        return None
    from waagent_distro.steps import hostnames

    hostnames.check(hostname)
    set_option(agent, hostname)
    return True


@hookimpl
def restart_interface(agent: Agent, interface: str) -> bool | None:
    """``ifup`` alone, which asks DHCP again and leaves the link up."""
    if not probing.is_mine(agent, probing.WICKED, interface):
        return None
    from waagent_distro.steps import interfaces

    return interfaces.renew(
        agent, interface, [("ifup", interface)], recover=lambda: agent.distro.service_action("wicked", "restart")
    )


@hookimpl
def find_dhcp_processes(agent: Agent) -> tuple[int, ...] | None:
    """Its client for IPv4."""
    if not probing.is_mine(agent, probing.WICKED):
        return None
    from waagent_distro.steps import processes

    return processes.named(agent, ("wickedd-dhcp4",))


@hookimpl
def must_pause_dhcp(agent: Agent) -> bool | None:
    """Yes: its client binds the port that the agent's own request needs."""
    return True if pausing.is_paused(agent, _SERVICE) or probing.is_mine(agent, probing.WICKED) else None


@hookimpl
def stop_dhcp(agent: Agent) -> bool | None:
    """Stop the client's service."""
    if not (pausing.is_paused(agent, _SERVICE) or probing.is_mine(agent, probing.WICKED)):
        return None
    return pausing.pause(agent, _SERVICE)


@hookimpl
def start_dhcp(agent: Agent) -> bool | None:
    """Start the client's service, where it was stopped."""
    return pausing.resume(agent, _SERVICE)


@hookimpl
def dhcp_lease_endpoint(agent: Agent) -> str | None:
    """Read its lease files."""
    if not probing.is_mine(agent, probing.WICKED):
        return None
    from waagent_distro.steps import leasefiles

    return leasefiles.endpoint(agent, leasefiles.WICKED)


def set_option(agent: Agent, value: str) -> None:
    """Set ``DHCLIENT_HOSTNAME_OPTION`` to *value*; ``AUTO`` in the file stays. Nothing without the file."""
    from waagent_distro.steps import textfiles

    path = agent.paths.at(SETTINGS)
    text = textfiles.read_or_empty(path)
    if text:
        textfiles.replace_if_different(path, with_option(text, value))


def with_option(text: str, value: str) -> str:
    """Return the settings with the option in place of the one that is there, or at the end; ``AUTO`` stays."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        key, equals, old = line.partition("=")
        if equals and key == "DHCLIENT_HOSTNAME_OPTION":
            if old.strip().strip("\"'") == AUTOMATIC:
                return text
            lines[number] = f'DHCLIENT_HOSTNAME_OPTION="{value}"'
            break
    else:
        lines.append(f'DHCLIENT_HOSTNAME_OPTION="{value}"')
    return "\n".join(lines) + "\n"
