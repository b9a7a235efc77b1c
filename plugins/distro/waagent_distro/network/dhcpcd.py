"""``linux.dhcpcd``: dhcpcd asks DHCP, alone or started by OpenRC or ifupdown."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from waagent import hookimpl
from waagent_distro.network import probing

if TYPE_CHECKING:
    from waagent import Agent

SETTINGS = "/etc/dhcpcd.conf"


@hookimpl
def set_dhcp_hostname(agent: Agent, hostname: str, interface: str | None) -> bool | None:
    """Make it send the system's name, whatever that is."""
    if not probing.is_mine(agent, probing.DHCPCD, interface):
        return None
    from waagent_distro.steps import textfiles

    path = agent.paths.at(SETTINGS)
    text = textfiles.read_or_empty(path)
    if text:
        textfiles.replace_if_different(path, with_hostname(text))
    return True


@hookimpl
def restart_interface(agent: Agent, interface: str) -> bool | None:
    """Send SIGHUP to its first process: it reads its settings and binds its leases again."""
    if not probing.is_mine(agent, probing.DHCPCD, interface):
        return None
    from waagent_distro.steps import interfaces, processes

    routed = interfaces.default_interface(agent) != ""
    found = processes.named(agent, ("dhcpcd",))
    if not found:
        return None  # it ended just now
    try:
        os.kill(found[0], signal.SIGHUP)
    except ProcessLookupError:
        return None
    return interfaces.come_back(
        agent, interface, routed, "dhcpcd's SIGHUP", recover=lambda: agent.distro.service_action("dhcpcd", "restart")
    )


@hookimpl
def find_dhcp_processes(agent: Agent) -> tuple[int, ...] | None:
    """Its first process: the helpers of that one come and go."""
    if not probing.is_mine(agent, probing.DHCPCD):
        return None
    from waagent_distro.steps import processes

    return processes.named(agent, ("dhcpcd",))[:1]


def with_hostname(text: str) -> str:
    """Return the settings with a plain ``hostname``, which means the system's, before any block for one interface."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line.split()[:1] == ["hostname"]:
            lines[number] = "hostname"
            break
        if line.split()[:1] in (["interface"], ["ssid"], ["profile"]):
            lines.insert(number, "hostname")
            break
    else:
        lines.append("hostname")
    return "\n".join(lines) + "\n"
