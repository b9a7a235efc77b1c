"""The kernel's routes, and those that the agent's own DHCP exchange brought (provisioning §22.5)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from waagent import Plan, StateError, Step, read_json, read_limited
from waagent_upkeep.patience import numbered

if TYPE_CHECKING:
    from waagent import Agent

TABLE = "/proc/net/route"
ADDRESSES = "/proc/net/fib_trie"
NOTED = "dhcp-routes.json"
"""In the runtime directory; written by whoever did the exchange."""
_UP = 1
_LIMIT = 4 << 20


@attrs.frozen(eq=False, repr=False)
class Route:
    """One row of the kernel's table; numbers in host order."""

    interface: str
    network: int
    mask: int
    gateway: int
    metric: int

    @property
    def prefix(self) -> int:
        """The length of the network part in bits."""
        return bin(self.mask).count("1")


def parse_table(text: str) -> list[Route]:
    """Return the routes that are up; rows that cannot be read are passed over."""
    found = []
    for line in text.split("\n")[1:]:
        words = line.split()
        try:
            network, gateway, mask = (_host_order(words[index]) for index in (1, 2, 7))
            if int(words[3], 16) & _UP:
                found.append(Route(words[0], network, mask, gateway, int(words[6])))
        except (IndexError, ValueError):
            continue
    return found


def parse_local_addresses(text: str) -> list[int]:
    """Return the machine's own addresses from the kernel's tree of them."""
    found = set()
    address = 0
    for line in text.split("\n"):
        words = line.split()
        if words[:1] == ["|--"] and len(words) == 2:
            try:
                address = number(words[1])
            except ValueError:
                address = 0
        elif words == ["/32", "host", "LOCAL"] and address:
            found.add(address)
    return sorted(found)


def primary(table: list[Route]) -> Route | None:
    """Return the default route with the lowest metric."""
    return min((route for route in table if not route.mask), key=lambda route: route.metric, default=None)


def fingerprint(agent: Agent) -> tuple[str, tuple[int, ...]] | None:
    """Return the primary interface and its addresses; ``None`` while there is none, or where nobody tells."""
    table = parse_table(_text(agent, TABLE))
    main = primary(table)
    if main is None:
        return None
    networks = [route for route in table if route.interface == main.interface and route.mask and not route.gateway]
    addresses = parse_local_addresses(_text(agent, ADDRESSES))
    own = tuple(one for one in addresses if any(one & route.mask == route.network for route in networks))
    return (main.interface, own) if own else None


def plan(agent: Agent, change: int = 0) -> Plan | None:
    """Return the plan that sets the noted routes again; ``None`` when the agent never set any.

    Args:
        agent: whose distribution sets them.
        change: which change of the network this is; a route that was refused twice is tried again at the next.
    """
    noted = _noted(agent)
    if noted is None:
        return None
    interface, wanted = noted

    def probe() -> dict[str, Any]:
        table = parse_table(_text(agent, TABLE))
        return {"present": frozenset((route.network, route.prefix) for route in table)}

    def missing(facts: Mapping[str, Any]) -> list[Step]:
        steps = []
        for network, prefix, gateway in wanted:
            key = (number(network), prefix)
            if key in facts["present"]:
                continue

            def run(network: str = network, prefix: int = prefix, gateway: str = gateway) -> None:
                agent.distro.add_route(network, prefix, gateway, interface)

            summary = f"route {network}/{prefix} through {gateway}"
            gives = {"present": facts["present"] | {key}}
            name = numbered(f"{network}/{prefix} via {gateway}", change)
            steps.append(Step(name, summary, run, gives=gives, optional=True))
        return steps

    return Plan("routes", probe, missing)


def number(address: str) -> int:
    """Return a dotted IPv4 address as a number.

    Raises:
        ValueError: it is none.
    """
    parts = [int(part) for part in address.split(".")]
    if len(parts) != 4 or not all(0 <= part <= 255 for part in parts):
        raise ValueError(f"{address!r} is no IPv4 address")
    return parts[0] << 24 | parts[1] << 16 | parts[2] << 8 | parts[3]


def _noted(agent: Agent) -> tuple[str, list[tuple[str, int, str]]] | None:
    path = agent.paths.run(NOTED)
    try:
        content = read_json(path, _LIMIT)
        if content is None:
            return None
        wanted = [(network, gateway) for network, gateway in content["routes"]]
        if content["gateway"]:
            wanted.insert(0, ("0.0.0.0/0", content["gateway"]))
        found = []
        for text, gateway in wanted:
            network, _, prefix = text.partition("/")
            number(network), number(gateway)
            found.append((network, int(prefix), gateway))
        return str(content["interface"]), found
    except (StateError, KeyError, TypeError, ValueError, AttributeError) as problem:
        agent.log.warning(f"{path} cannot be used: {type(problem).__name__}: {problem}")
        return None


def _host_order(text: str) -> int:
    # The kernel prints the four bytes as if they were a number of this machine.
    return int.from_bytes(int(text, 16).to_bytes(4, sys.byteorder), "big")


def _text(agent: Agent, path: str) -> str:
    try:
        return read_limited(agent.paths.at(path), _LIMIT).decode("ascii", "replace")
    except (OSError, StateError):
        return ""
