"""Where the WireServer is (wireserver §2)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from waagent.errors import AgentError, DhcpError, StateError
from waagent.files import ensure_dir, read_limited, write_atomic
from waagent.log import INFO, WARNING, Log
from waagent.paths import Paths

DEFAULT = "168.63.129.16"
PORT = 80
PROTOCOL = "WireProtocol"

ENDPOINT_FILE = "WireServerEndpoint"
PROTOCOL_FILE = "Protocol"

# 168.63.129.16 as the kernel writes it, least significant byte first.
_ROUTE_MARK = "10813FA8"
_OLD_PROTOCOL = "MetadataProtocol"
_OLD_PROTOCOL_FILES = ("V2TransportPrivate.pem", "V2TransportCert.pem", "Certificates.p7b")


class Discovery:
    """Finds the endpoint and remembers it for the other processes of this service start; the supervisor forgets it.

    Args:
        paths: everything is looked for under this root.
        log: what was found, and what could not be read.
        distro: the operations of the operating system, which know where leases lie (DIFF-1); ``None`` as long as no
            plugins are loaded.
        dhcp: asks the network; ``None`` where that cannot be (another root).
    """

    def __init__(
        self, paths: Paths, log: Log, distro: Callable[[], Any], dhcp: Callable[[], str | None] | None = None
    ) -> None:
        self._paths = paths
        self._log = log
        self._distro = distro
        self._dhcp = dhcp
        self._skip_leases = False

    def resolve(self, configured: str | None = None, *, static: bool = False) -> str:
        """Return ``host:port`` of the WireServer.

        The first that answers: the configured development endpoint; the saved or the well-known address when discovery
        is switched off; the kernel's route; the address saved since the service started; cached leases; the network;
        the well-known address.

        Args:
            configured: ``Platform.WireServer``.
            static: ``Protocol.EndpointDiscovery`` is not ``dhcp``.

        Raises:
            DhcpError: under another root, where nothing names it.
        """
        if configured:
            return configured if ":" in configured else f"{configured}:{PORT}"
        saved = self.saved()
        if static:
            return f"{saved or DEFAULT}:{PORT}"
        if self._has_route():
            return f"{DEFAULT}:{PORT}"
        if saved and self._read(PROTOCOL_FILE) == PROTOCOL:
            return f"{saved}:{PORT}"
        found = None if self._skip_leases else self._from_leases()
        if not found and self._dhcp is not None:
            try:
                found = self._dhcp()
            except DhcpError as problem:
                self._log.periodic(3600, "dhcp", WARNING, str(problem))
        # A lease that failed once may have been right: the WireServer was down then.
        found = found or self._from_leases()
        if not found and self._dhcp is None:
            raise DhcpError("No route, saved address or lease names the WireServer; another root asks no network")
        if not found:
            # The address is the same in every region: asking there costs one try.
            self._log.periodic(3600, "well-known", INFO, f"Nothing names the WireServer; trying {DEFAULT}")
            found = DEFAULT
        return f"{found}:{PORT}"

    def failed(self) -> None:
        """Note that nobody answered: the leases may be of another network (``skip_cache``)."""
        self._skip_leases = self._distro() is not None

    def saved(self) -> str | None:
        """Return the address that an earlier detection saved, ``None`` when there is none."""
        text = self._read(ENDPOINT_FILE)
        return text if text and _is_host(text) else None

    def remember(self, endpoint: str) -> None:
        """Save what was found; remove what an agent of before 2.2.48 left (wireserver §2.1).

        Args:
            endpoint: ``host:port``.
        """
        was_old = self._read(PROTOCOL_FILE) == _OLD_PROTOCOL or os.path.exists(self._paths.lib(_OLD_PROTOCOL_FILES[1]))
        try:
            ensure_dir(self._paths.lib_dir)
            host = endpoint.rpartition(":")[0]
            for name, text in ((ENDPOINT_FILE, host), (PROTOCOL_FILE, PROTOCOL)):
                if self._read(name) != text:
                    write_atomic(self._paths.lib(name), text)
            for name in _OLD_PROTOCOL_FILES if was_old else ():
                if os.path.exists(self._paths.lib(name)):
                    os.unlink(self._paths.lib(name))
        except OSError as problem:
            self._log.warning(f"Cannot save the endpoint: {problem}")

    def _has_route(self) -> bool:
        try:
            table = read_limited(self._paths.at("/proc/net/route"), 4 << 20)
        except (OSError, StateError):
            return False
        return any(_ROUTE_MARK in line.upper() for line in table.decode("ascii", "replace").splitlines())

    def _from_leases(self) -> str | None:
        distro = self._distro()
        if distro is None:
            return None
        try:
            found = distro.dhcp_lease_endpoint()
        except AgentError as problem:
            self._log.verbose(f"No lease tells the endpoint: {problem}")
            return None
        if not isinstance(found, str) or not found or not _is_host(found):
            return None
        self._log.periodic(3600, "lease", INFO, f"Found the endpoint {found} in the leases")
        return found

    def _read(self, name: str) -> str | None:
        try:
            return read_limited(self._paths.lib(name), 4096).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return None
        except (OSError, StateError) as problem:
            self._log.warning(f"Cannot read {self._paths.lib(name)}: {problem}")
            return None


def _is_host(text: str) -> bool:
    return len(text) <= 253 and all(letter.isalnum() or letter in ".-" for letter in text) and text.isascii()
