"""The host name: set, told to the DHCP client, published (spec/provisioning.md §10)."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from waagent import AgentError
from waagent_distro.steps import services, textfiles

if TYPE_CHECKING:
    from waagent import Agent

DHCLIENT_FILES = ("/etc/dhcp/dhclient.conf", "/etc/dhcp3/dhclient.conf", "/etc/dhclient.conf")

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?\Z")
_SENDS_ITSELF = re.compile(r"(?m)^\s*send\s+host-name\s.*(<hostname>|gethostname\s*\()")
_SEND = re.compile(r"\s*send\s+host-name\b")
_INTERFACE_TRIES = 30
_KERNEL_NAME = "/proc/sys/kernel/hostname"


def check(hostname: str) -> None:
    """Refuse what is no host name.

    Raises:
        AgentError: it is none.
    """
    if not _NAME.match(hostname):
        raise AgentError(f"{hostname!r} is no host name: letters, digits, dots and hyphens are allowed, 64 at most")


def set_hostname(agent: Agent, hostname: str) -> bool:
    """Give the machine its name, in the kernel and for the next boot.

    Raises:
        AgentError: it is no host name.
        OSError: it cannot be written.
    """
    check(hostname)
    done = None
    if services.manager(agent) == services.SYSTEMD:
        # Early at boot its service may not answer yet; what it does can be done without it.
        done = agent.run(("hostnamectl", "set-hostname", "--static", hostname), timeout=20)
        if not done.ok:
            agent.log.info(f"{done.describe()}; /etc/hostname is written instead")
    if done is None or not done.ok:
        textfiles.replace_if_different(agent.paths.at("/etc/hostname"), hostname + "\n")
        _set_in_conf_d(agent, hostname)
    set_kernel_name(agent, hostname)
    return True


def set_kernel_name(agent: Agent, hostname: str) -> None:
    """Give the running kernel its name; under another root there is no kernel to tell."""
    path = agent.paths.at(_KERNEL_NAME)
    if not os.path.exists(path) or textfiles.first_line(path) == hostname:
        return
    with open(path, "w", encoding="ascii") as stream:
        stream.write(hostname)


def set_in_dhclient(agent: Agent, hostname: str) -> bool:
    """Make dhclient send *hostname*, unless it sends the system's name by itself."""
    check(hostname)
    for name in DHCLIENT_FILES:
        path = agent.paths.at(name)
        if not os.path.exists(path):
            continue
        text = textfiles.read(path)
        if sends_system_name(text):
            return True
        textfiles.replace_if_different(path, with_host_name(text, hostname))
    return True


def sends_system_name(text: str) -> bool:
    """Return whether this configuration of dhclient sends whatever the system is called."""
    return _SENDS_ITSELF.search(text) is not None


def with_host_name(text: str, hostname: str) -> str:
    """Return the configuration of dhclient with the host name, in place of any other, at its end."""
    lines = [line for line in text.splitlines() if not _SEND.match(line)]
    return "\n".join([*lines, f'send host-name "{hostname}";']) + "\n"


def publish(agent: Agent, hostname: str) -> bool:
    """Make the DHCP server learn the name, so that the platform's DNS answers for it.

    Raises:
        AgentError: there is no network interface, for a minute.
        NoAnswer: nothing here can tell the DHCP server; names what was tried.
    """
    check(hostname)
    interface = ""
    for attempt in range(_INTERFACE_TRIES):
        interface = agent.distro.find_primary_interface()
        if interface or agent.stopping.is_set():
            break
        if attempt < _INTERFACE_TRIES - 1:
            agent.stopping.wait(2)
    if not interface:
        raise AgentError(f"the name {hostname} is not published: there is no network interface")
    agent.distro.set_dhcp_hostname(hostname, interface)
    agent.distro.restart_interface(interface)
    return True


def _set_in_conf_d(agent: Agent, hostname: str) -> None:
    """OpenRC reads the name from its own file where that names one (Gentoo)."""
    path = agent.paths.at("/etc/conf.d/hostname")
    text = textfiles.read_or_empty(path)
    lines = [f'hostname="{hostname}"' if line.startswith("hostname=") else line for line in text.split("\n")]
    if "\n".join(lines) != text:
        textfiles.replace(path, "\n".join(lines))
