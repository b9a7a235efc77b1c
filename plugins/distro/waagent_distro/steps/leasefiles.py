"""The platform's address (option 245) in the lease files of DHCP clients (spec/distro.md §5.1, §5.2)."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from waagent import AgentError, lease_address, parse_isc_leases, parse_networkd_lease, read_limited

if TYPE_CHECKING:
    from waagent import Agent

Parser = Callable[[bytes], "str | None"]

_LIMIT = 1 << 20
_WICKED = re.compile(r"<code>\s*245\s*</code>\s*<data>\s*([0-9a-fA-F:]+)\s*</data>")


def parse_wicked_lease(data: bytes) -> str | None:
    """Return the address in a lease of wicked, ``None`` when there is none.

    It keeps an option that it does not know as ``<unknown-245><code>245</code><data>a8:3f:81:10</data></unknown-245>``.
    """
    match = _WICKED.search(data.decode("utf-8", "replace"))
    return lease_address(match.group(1)) if match else None


NETWORKD: tuple[tuple[str, Parser], ...] = (("/run/systemd/netif/leases/*", parse_networkd_lease),)
NETWORKMANAGER: tuple[tuple[str, Parser], ...] = (
    ("/var/lib/NetworkManager/internal-*.lease", parse_networkd_lease),
    ("/var/lib/NetworkManager/dhclient-*.lease", parse_isc_leases),
)
DHCLIENT: tuple[tuple[str, Parser], ...] = (
    ("/var/lib/dhcp/dhclient*.leases", parse_isc_leases),
    ("/var/lib/dhclient/dhclient-*.lease", parse_isc_leases),
    ("/var/lib/dhclient/dhclient-*.leases", parse_isc_leases),
)
WICKED: tuple[tuple[str, Parser], ...] = (
    ("/run/wicked/lease-*-dhcp-ipv4.xml", parse_wicked_lease),
    ("/var/lib/wicked/lease-*-dhcp-ipv4.xml", parse_wicked_lease),
)

EVERYWHERE = (*NETWORKD, *DHCLIENT, *NETWORKMANAGER, *WICKED)
"""Where every client known here keeps its leases, and in which form."""


def endpoint(agent: Agent, places: Sequence[tuple[str, Parser]]) -> str:
    """Return the address that the first of *places* names, empty when there are leases and none names one.

    Raises:
        AgentError: there is no lease at all.
    """
    seen = False
    for pattern, parse in places:
        found = ""
        for path in sorted(glob.glob(agent.paths.at(pattern))):
            try:
                data = read_limited(path, _LIMIT)
            except Exception as problem:  # gone meanwhile, or not what its name says: the next one may do
                agent.log.verbose(f"Cannot read the lease {path}: {problem}")
                continue
            seen = True
            found = parse(data) or found
        if found:
            return found
    if not seen:
        raise AgentError("there is no DHCP lease")
    return ""
