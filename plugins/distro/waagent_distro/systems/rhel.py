"""``rhel``: Red Hat Enterprise Linux; CentOS, AlmaLinux, Rocky, Oracle, CloudLinux through ``ID_LIKE`` (§4.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import hookimpl

if TYPE_CHECKING:
    from waagent import Agent


@hookimpl
def set_dhcp_hostname(agent: Agent, hostname: str, interface: str | None) -> None:
    """Set ``DHCP_HOSTNAME`` where the interface still has an ``ifcfg`` file, and leave the rest to the network's tool.

    NetworkManager reads that file when it starts; what is in force now is changed by the plugin that is asked next.
    """
    from waagent_distro.steps import hostnames, textfiles

    link = interface or agent.distro.find_primary_interface()
    path = agent.paths.at(f"/etc/sysconfig/network-scripts/ifcfg-{link}")
    text = textfiles.read_or_empty(path)
    if text:
        hostnames.check(hostname)
        textfiles.replace_if_different(path, with_dhcp_hostname(text, hostname))


def with_dhcp_hostname(text: str, hostname: str) -> str:
    """Return the ``ifcfg`` file with ``DHCP_HOSTNAME`` in place of the one that is there, or at its end."""
    kept = [line for line in text.splitlines() if not line.lstrip().startswith("DHCP_HOSTNAME=")]
    return "\n".join([*kept, f"DHCP_HOSTNAME={hostname}"]) + "\n"
