"""``openwrt``: OpenWrt (spec/distro.md §4.7)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waagent import hookimpl

if TYPE_CHECKING:
    from waagent import Agent


@hookimpl
def create_user(agent: Agent, name: str, comment: str | None, expiration: str | None) -> bool:
    """There is no ``/home`` at first, and no bash."""
    from waagent_distro.steps import accounts

    os.makedirs(agent.paths.at("/home"), 0o755, exist_ok=True)
    return accounts.create_user(agent, name, comment, expiration, "/bin/ash")


@hookimpl
def set_hostname(agent: Agent, hostname: str) -> bool:
    """Write ``/etc/hostname`` and tell ``uci``, from which the name is set at each boot."""
    from waagent_distro.steps import hostnames, textfiles

    hostnames.check(hostname)
    textfiles.replace_if_different(agent.paths.at("/etc/hostname"), hostname + "\n")
    agent.run(("uci", "set", f"system.@system[0].hostname={hostname}"), check=True)
    agent.run(("uci", "commit", "system"), check=True)
    agent.run(("/etc/init.d/system", "reload"), check=True)
    hostnames.set_kernel_name(agent, hostname)
    return True


@hookimpl
def start_network(agent: Agent) -> bool:
    """Start the script ``network``."""
    agent.run(("/etc/init.d/network", "start"), timeout=60, check=True)
    return True


@hookimpl
def restart_interface(agent: Agent, interface: str) -> bool:
    """``ifdown`` and ``ifup`` of netifd."""
    from waagent_distro.steps import interfaces

    return interfaces.renew(agent, interface, [("sh", "-c", 'ifdown "$1"; exec ifup "$1"', "sh", interface)])


@hookimpl
def restart_ssh(agent: Agent) -> bool:
    """Restart OpenSSH where it is installed; Dropbear, the usual server, reads its keys for each connection."""
    if os.path.exists(agent.paths.at("/etc/init.d/sshd")):
        agent.run(("/etc/init.d/sshd", "restart"), timeout=60, check=True)
    return True


@hookimpl
def eject_provisioning_media() -> bool:
    """Nothing: it cannot be ejected here."""
    return True


@hookimpl
def move_persistent_net_rules() -> bool:
    """Nothing: there is no udev."""
    return True


@hookimpl
def restore_persistent_net_rules() -> bool:
    """Nothing was moved."""
    return True
