"""Which tool runs an interface (spec/distro.md §5.1), found from what the tools themselves write and from processes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waagent_distro.steps import processes, textfiles

if TYPE_CHECKING:
    from waagent import Agent

NETWORKMANAGER, NETWORKD, WICKED, DHCPCD, IFUPDOWN = "networkmanager", "networkd", "wicked", "dhcpcd", "ifupdown"

_DEPTH = 5


def manager_of(agent: Agent, interface: str) -> str:
    """Return the tool that runs *interface*, one of the names above; empty when none of them does.

    No command is run for it. NetworkManager comes first because it may run dhcpcd or dhclient itself, ifupdown last
    because its file outlives its use.
    """
    if is_managed_by_networkmanager(agent, interface):
        return NETWORKMANAGER
    if is_managed_by_networkd(agent, interface):
        return NETWORKD
    if processes.named(agent, ("wickedd-dhcp4",)):
        return WICKED
    if processes.named(agent, ("dhcpcd",)):
        return DHCPCD
    return IFUPDOWN if is_in_interfaces(agent, interface) else ""


def is_mine(agent: Agent, name: str, interface: str | None = None) -> bool:
    """Return whether the tool *name* runs *interface*, by default the primary one."""
    found = interface or agent.distro.find_primary_interface()
    return bool(found) and manager_of(agent, found) == name


def is_managed_by_networkmanager(agent: Agent, interface: str) -> bool:
    """Return whether NetworkManager runs and calls the interface managed."""
    text = textfiles.read_or_empty(agent.paths.at(f"/run/NetworkManager/devices/{_index(agent, interface)}"))
    return "managed=true" in text.split() and bool(processes.named(agent, ("NetworkManager",)))


def is_managed_by_networkd(agent: Agent, interface: str) -> bool:
    """Return whether systemd-networkd runs and administers the interface."""
    return _is_administered(agent, interface) and bool(processes.named(agent, ("systemd-network",)))


def _is_administered(agent: Agent, interface: str) -> bool:
    text = textfiles.read_or_empty(agent.paths.at(f"/run/systemd/netif/links/{_index(agent, interface)}"))
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    return values.get("ADMIN_STATE", "unmanaged") not in ("unmanaged", "initialized", "pending", "linger")


def is_in_interfaces(agent: Agent, interface: str) -> bool:
    """Return whether ``/etc/network/interfaces``, or a file that it names, configures the interface."""
    todo, seen = ["/etc/network/interfaces"], set()
    for _ in range(_DEPTH):
        found = [path for path in todo if path not in seen]
        todo = []
        for path in found:
            seen.add(path)
            for line in textfiles.read_or_empty(agent.paths.at(path)).splitlines():
                words = line.split()
                if words[:2] == ["iface", interface]:
                    return True
                if words[:1] in (["source"], ["source-directory"]):
                    todo += [file for pattern in words[1:] for file in _files(agent, path, pattern)]
    return False


def _files(agent: Agent, base: str, pattern: str) -> list[str]:
    """Return the files that ``source`` and ``source-directory`` mean, as names under the root."""
    import glob  # brings regular expressions with it, which the resident worker otherwise does without

    whole = agent.paths.at(os.path.join(os.path.dirname(base), pattern))
    found = []
    for path in sorted(glob.glob(whole)):
        inside = sorted(glob.glob(glob.escape(path) + "/*")) if os.path.isdir(path) else [path]
        found += ["/" + os.path.relpath(one, agent.paths.root) for one in inside]
    return found


def _index(agent: Agent, interface: str) -> str:
    return textfiles.first_line(agent.paths.at(f"/sys/class/net/{os.path.basename(interface)}/ifindex")) or "none"
