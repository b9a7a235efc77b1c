"""Network interfaces and routes of Linux."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from waagent import AgentError
from waagent_distro.steps import services, textfiles

if TYPE_CHECKING:
    from waagent import Agent

TRIES, PAUSE = 3, 5.0
"""How often a tool is asked to renew, and seconds between."""
SETTLE = 30.0
"""Seconds in which an interface has to have its address and route back."""
_ASK_TIMEOUT = 15.0

_BOUNCE = (
    'ip link set "$1" down; ip link set "$1" up || exit; '
    'link="$1"; shift; for route; do ip route replace $route dev "$link"; done; true'
)
_UP, _GATEWAY = 0x1, 0x2
_NETWORKS = ("systemd-networkd", "NetworkManager", "wicked", "networking", "network", "dhcpcd")
"""Services that bring the network up; of those that are enabled the first is started."""


def default_interface(agent: Agent) -> str:
    """Return the interface of the default route with the lowest metric, empty when there is no such route."""
    best: tuple[int, str] | None = None
    text = textfiles.read_or_empty(agent.paths.at("/proc/net/route"), 16 << 20)
    for line in text.split("\n")[1:]:
        words = line.split()
        if len(words) < 8 or words[1] != "00000000" or words[7] != "00000000":
            continue
        flags, metric = int(words[3], 16), int(words[6])
        if flags & _UP and flags & _GATEWAY and (best is None or metric < best[0]):
            best = (metric, words[0])
    return best[1] if best is not None else ""


def primary(agent: Agent) -> str:
    """Return the interface of the default route, else the first one with hardware behind it, else an empty text."""
    found = default_interface(agent)
    if found:
        return found
    place = agent.paths.at("/sys/class/net")
    names = sorted(os.listdir(place)) if os.path.isdir(place) else []
    for name in names:
        # A virtual function of accelerated networking has a master, which has the address.
        here = os.path.join(place, name)
        if name != "lo" and os.path.exists(here + "/device") and not os.path.exists(here + "/master"):
            return name
    return ""


def has_address(agent: Agent, interface: str) -> bool:
    """Return whether the interface has an IPv4 address."""
    done = agent.run(("ip", "-4", "-o", "address", "show", "dev", interface, "scope", "global"), timeout=10)
    return done.ok and " inet " in done.stdout


def renew(
    agent: Agent,
    interface: str,
    ways: Sequence[Sequence[str]],
    recover: Callable[[], object] | None = None,
) -> bool:
    """Make an interface ask DHCP again, and wait until it is usable.

    Args:
        ways: commands that do it, the gentlest first; the next is only tried when one fails, and all of them three
            times at most. Nothing is repeated after a success.
        recover: tried once when the interface does not come back.

    Raises:
        AgentError: no command succeeded, or the interface did not come back.
    """
    routed = default_interface(agent) != ""
    _ask(agent, interface, ways)
    return come_back(agent, interface, routed, f"`{' '.join(ways[0])}`", recover)


def come_back(
    agent: Agent, interface: str, routed: bool, what: str, recover: Callable[[], object] | None = None
) -> bool:
    """Wait until an interface that was renewed is usable.

    Args:
        routed: whether there was a default route before.
        what: how it was renewed, for the message.
        recover: tried once when the interface does not come back.

    Raises:
        AgentError: it did not come back.
    """
    if _settled(agent, interface, routed):
        return True
    agent.log.warning(f"{interface} has no address or route {SETTLE:g} s after it was renewed")
    if recover is not None:
        recover()
        if _settled(agent, interface, routed):
            return True
    raise AgentError(f"{interface} did not come back after {what}")


def bounce(agent: Agent, interface: str) -> bool:
    """Take the link down and up again, in one command that goes on to its end whatever happens to the agent.

    The kernel forgets the routes of a link that goes down, and nobody may be there to set them: they are put back.

    Raises:
        AgentError: it did not come back.
    """
    return renew(agent, interface, [("sh", "-c", _BOUNCE, "sh", interface, *_routes(agent, interface))])


def add_route(agent: Agent, network: str, prefix: int, gateway: str, interface: str) -> bool:
    """Add a route, or change the one that leads there.

    Raises:
        AgentError: the prefix is no length of an IPv4 network.
        CommandError: the kernel refuses the route.
    """
    if not 0 <= prefix <= 32:
        raise AgentError(f"{prefix} is no length of a network")
    agent.run(("ip", "route", "replace", f"{network}/{prefix}", "via", gateway, "dev", interface), check=True)
    return True


def delete_broadcast_route(agent: Agent, interface: str) -> bool:
    """Delete the route to 255.255.255.255, unless there is none.

    Raises:
        AgentError: it is there and stays.
    """
    done = agent.run(("ip", "route", "del", "255.255.255.255/32", "dev", interface))
    if not done.ok and "No such" not in done.stderr:
        raise AgentError(f"the route stays: {done.describe()}")
    return True


def start_network(agent: Agent) -> bool:
    """Start the service that brings the network up here.

    Raises:
        AgentError: none is known here.
        CommandError: it does not start.
    """
    systemd = services.manager(agent) == services.SYSTEMD
    for name in _NETWORKS:
        if services.is_enabled(agent, name + ".service") if systemd else services.exists(agent, name):
            return services.act(agent, name, "start")
    raise AgentError(f"no network service is here: looked for {', '.join(_NETWORKS)}")


def _routes(agent: Agent, interface: str) -> list[str]:
    """Return the IPv4 routes of an interface that the kernel did not make itself, those first that others need."""
    done = agent.run(("ip", "-4", "route", "show", "dev", interface), timeout=10)
    found = [line.split() for line in done.stdout.splitlines() if " proto kernel " not in f" {line} "]
    found = [[word for word in words if word not in ("linkdown", "dead")] for words in found if words]
    return [" ".join(words) for words in sorted(found, key=lambda words: "via" in words)]


def _ask(agent: Agent, interface: str, ways: Sequence[Sequence[str]]) -> None:
    problem = "no way is known"
    for attempt in range(TRIES):
        if attempt and agent.stopping.wait(PAUSE):
            break
        for way in ways:
            done = agent.run(tuple(way), timeout=_ASK_TIMEOUT)
            if done.ok:
                return
            problem = done.describe()
    raise AgentError(f"{interface} cannot be made to ask DHCP again: {problem}")


def _settled(agent: Agent, interface: str, routed: bool) -> bool:
    """Wait until the interface has an address, and the default route is back if there was one."""
    end = time.monotonic() + SETTLE
    while True:
        if has_address(agent, interface) and (not routed or default_interface(agent)):
            return True
        if time.monotonic() >= end or agent.stopping.wait(1):
            return False
