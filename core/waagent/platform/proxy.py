"""Which proxy a storage URL goes through (wireserver §3.4). The platform itself is never asked through one."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

import attrs

DEFAULT_PORT = 80
"""Port of ``HttpProxy.Host`` when ``HttpProxy.Port`` is absent (spec/configuration.md §8)."""


@attrs.frozen
class Proxy:
    """A proxy; HTTPS goes through it with CONNECT."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The proxy as libraries want it named."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@attrs.frozen(eq=False, repr=False)
class ProxyRules:
    """Where proxies come from.

    Attributes:
        host: ``HttpProxy.Host``, ``None`` when absent; beats the environment.
        port: ``HttpProxy.Port``.
        environment: ``http_proxy``, ``https_proxy``, ``no_proxy`` and their upper-case forms are looked up here.
    """

    host: str | None = None
    port: int | None = None
    environment: Mapping[str, str] = attrs.field(factory=lambda: os.environ, repr=False)

    def choose(self, url: str) -> Proxy | None:
        """Return the proxy for *url*, ``None`` for a direct connection."""
        scheme, _, rest = url.partition("://")
        host, _ = _authority(rest.split("/", 1)[0].split("?", 1)[0])
        if not host or is_excluded(host, self._variable("no_proxy")):
            return None
        if self.host:
            return Proxy(self.host, self.port or DEFAULT_PORT)
        if scheme.lower() not in ("http", "https"):
            return None
        return parse_proxy(self._variable(f"{scheme.lower()}_proxy"))

    def _variable(self, name: str) -> str:
        return self.environment.get(name) or self.environment.get(name.upper()) or ""


def parse_proxy(text: str) -> Proxy | None:
    """Return the proxy that an environment variable names; scheme and credentials are ignored.

    ``None`` unless host **and** port are there.
    """
    _, separator, rest = text.strip().partition("://")
    host, port = _authority((rest if separator else text.strip()).split("/", 1)[0])
    return Proxy(host, port) if host and port is not None else None


def is_excluded(host: str, no_proxy: str) -> bool:
    """Whether ``no_proxy`` excludes a host.

    An entry matches an IPv4 literal exactly, or as a network (``10.0.0.0/8``); it matches a name that ends with it, in
    any case, without regard to dots. ``*`` is not special.
    """
    entries = [entry for entry in no_proxy.replace(" ", "").replace("\t", "").split(",") if entry]
    address = _ipv4(host)
    if address is None:
        return any(host.lower().endswith(entry.lower()) for entry in entries)
    for entry in entries:
        network, slash, bits = entry.partition("/")
        base = _ipv4(network)
        if base is None:
            continue
        if not slash:
            if base == address:
                return True
        elif bits.isascii() and bits.isdecimal() and len(bits) <= 2 and 1 <= int(bits) <= 32:
            shift = 32 - int(bits)
            if base >> shift == address >> shift:
                return True
    return False


def _ipv4(text: str) -> int | None:
    if text.count(".") != 3:  # inet_aton also takes "10.1"
        return None
    try:
        return int.from_bytes(socket.inet_aton(text), "big")
    except (OSError, ValueError):
        return None


def _authority(text: str) -> tuple[str, int | None]:
    text = text.rpartition("@")[2]
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        number = rest[1:] if rest.startswith(":") else ""
    else:
        host, _, number = text.partition(":")
    if number.isascii() and number.isdecimal() and 0 < int(number[:6]) < 65536:
        return host, int(number)
    return host, None
