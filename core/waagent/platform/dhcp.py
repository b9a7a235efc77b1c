"""An own DHCP exchange for the WireServer's address, where neither route nor lease tells it (wireserver §2.4)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from waagent.errors import DhcpError

if TYPE_CHECKING:
    import socket

SHORTEST_RESPONSE = 0xF6
RECEIVE_BUFFER = 1024
RECEIVE_TIMEOUT = 10.0
PAUSES = (0, 10, 30, 60, 60)
"""Seconds after each failed attempt; their number is the number of attempts."""

_COOKIE = b"\x63\x82\x53\x63"
_OPTIONS = 0xF0
_DISCOVER = b"\x35\x01\x01\xff"
_GATEWAY, _ROUTES, _ENDPOINT, _PAD, _END = 3, 249, 245, 0, 255
_SERVER = ("255.255.255.255", 67)
_CLIENT = ("0.0.0.0", 68)  # noqa: S104  (DHCP answers come to any address)


@attrs.frozen
class DhcpAnswer:
    """What a DHCP answer says that matters here.

    Attributes:
        endpoint: the WireServer's address (option 245), ``None`` when absent.
        gateway: the router (option 3), ``None`` when absent.
        routes: pairs of network (``a.b.c.d/n``) and gateway (option 249).
    """

    endpoint: str | None = None
    gateway: str | None = None
    routes: tuple[tuple[str, str], ...] = ()


def build_discover(mac: bytes, transaction: bytes, broadcast: bool) -> bytes:
    """Return a DISCOVER packet of 244 bytes.

    Args:
        mac: six bytes of the primary interface.
        transaction: four random bytes.
        broadcast: ask for a broadcast answer: every request but the first of the process.
    """
    if len(mac) != 6 or len(transaction) != 4:
        raise DhcpError("DHCP request: expected a MAC address of 6 bytes and a transaction id of 4")
    head = b"\x01\x01\x06\x00" + transaction + b"\0\0" + (b"\x80\0" if broadcast else b"\0\0")
    return head + bytes(16) + mac + bytes(10 + 64 + 128) + _COOKIE + _DISCOVER


def parse_response(request: bytes, response: bytes) -> DhcpAnswer:
    """Parse the answer to *request*.

    Raises:
        DhcpError: too short (DIFF-2), or the answer to another request.
    """
    if len(response) < SHORTEST_RESPONSE:
        raise DhcpError(f"DHCP response: expected at least {SHORTEST_RESPONSE} bytes, found {len(response)}")
    for what, start, end in (("magic cookie", 0xEC, 0xF0), ("transaction id", 4, 8), ("MAC address", 0x1C, 0x22)):
        if response[start:end] != request[start:end]:
            raise DhcpError(f"DHCP response: the {what} is not that of the request")
    return parse_options(response[_OPTIONS:])


def parse_options(data: bytes) -> DhcpAnswer:
    """Parse the options of a packet; one that is cut short, or of a wrong length, does not count."""
    endpoint = gateway = None
    routes: tuple[tuple[str, str], ...] = ()
    position = 0
    while position < len(data) and data[position] != _END:
        code = data[position]
        position += 1
        if code == _PAD:
            continue
        if position >= len(data):
            break
        value = data[position + 1 : position + 1 + data[position]]
        if len(value) < data[position]:
            break
        position += 1 + len(value)
        if code == _ENDPOINT and len(value) == 4:
            endpoint = _dotted(value)
        elif code == _GATEWAY and len(value) == 4:
            gateway = _dotted(value)
        elif code == _ROUTES and len(value) >= 5:
            routes = _classless_routes(value)
    return DhcpAnswer(endpoint, gateway, routes)


def _classless_routes(value: bytes) -> tuple[tuple[str, str], ...]:
    routes = []
    position = 0
    while position < len(value):
        prefix = value[position]
        length = (prefix + 7) // 8
        end = position + 1 + length + 4
        if prefix > 32 or end > len(value):
            break
        network = value[position + 1 : position + 1 + length] + bytes(4 - length)
        routes.append((f"{_dotted(network)}/{prefix}", _dotted(value[end - 4 : end])))
        position = end
    return tuple(routes)


def _dotted(value: bytes) -> str:
    return ".".join(map(str, value))


def open_socket() -> socket.socket:
    """Return the socket of an exchange: bound to port 68, allowed to broadcast, with the receive timeout.

    Raises:
        OSError: the port is taken, or this is not root.
    """
    import socket  # almost no machine comes here

    found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(_CLIENT)
        found.settimeout(RECEIVE_TIMEOUT)
    except OSError:
        found.close()
        raise
    return found


def exchange(
    mac: bytes,
    *,
    broadcast: bool = False,
    opened: Callable[[], socket.socket] = open_socket,
    before_attempt: Callable[[], None] | None = None,
    sleep: Callable[[float], bool | None] = time.sleep,
    random: Callable[[int], bytes] = os.urandom,
) -> DhcpAnswer:
    """Ask the network's DHCP server, up to five times.

    Routes and firewall rules are the caller's: *before_attempt* opens port 68, and the route for broadcasts, if one is
    needed, is set up before and taken away after the call.

    Args:
        mac: six bytes of the primary interface.
        broadcast: ask for a broadcast answer already with the first packet (not the first exchange of the process).
        opened: gives a bound socket with a receive timeout; closed after each attempt.
        before_attempt: called before each attempt; its failure is ignored.
        sleep: waits between attempts; a true result ends the exchange (the agent is being stopped).
        random: gives random bytes.

    Returns:
        The first valid answer. There is no pause after the last attempt: the caller has its own.

    Raises:
        DhcpError: no valid answer; names the last failure.
    """
    last = "no attempt was made"
    for attempt, pause in enumerate(PAUSES):
        if before_attempt is not None:
            try:
                before_attempt()
            except Exception as problem:  # opening the firewall is an attempt, not a condition
                last = str(problem)
        try:
            return _attempt(build_discover(mac, random(4), broadcast or attempt > 0), opened)
        except (OSError, DhcpError) as problem:
            last = str(problem)
        if attempt < len(PAUSES) - 1 and sleep(pause):
            break
    raise DhcpError(f"Failed to receive dhcp response. {last}")


def _attempt(request: bytes, opened: Callable[[], socket.socket]) -> DhcpAnswer:
    connection = opened()
    try:
        connection.sendto(request, _SERVER)
        return parse_response(request, connection.recv(RECEIVE_BUFFER))
    finally:
        connection.close()
