"""Find the WireServer and agree on the protocol version (wireserver §2.2, §5)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from waagent.config import Config
from waagent.errors import ProtocolError, ProtocolNotFound
from waagent.log import Log
from waagent.platform import discovery, hostplugin, versions
from waagent.platform.discovery import Discovery
from waagent.platform.endpoint import Endpoint
from waagent.platform.observations import EventSink
from waagent.platform.wire import WireServer


class Detection:
    """Sets the addresses of WireServer and host plugin once they are known; several threads may ask.

    Attributes:
        found: ``host:port`` of the WireServer, ``None`` before it answered.

    Args:
        config: ``Platform.*`` and ``Protocol.EndpointDiscovery``.
        where: finds and saves the address.
        wire: asked for its versions.
        host: the host plugin's endpoint, on the same host.
        log: the log contract of wireserver §15.8.
        events: takes ``ProtocolEndpoint`` when the address is an unusual one.
    """

    def __init__(
        self,
        config: Config,
        where: Discovery,
        wire: WireServer,
        host: Endpoint,
        *,
        log: Log,
        events: EventSink | None,
    ) -> None:
        self.found: str | None = None
        self._config = config
        self._where = where
        self._wire = wire
        self._host = host
        self._log = log
        self._events = events
        self._lock = threading.Lock()
        self._is_saved = False

    def ensure(self, save: bool) -> str:
        """Return the endpoint; find it first when that was not done.

        Args:
            save: write ``WireServerEndpoint`` and ``Protocol`` when that was not done.

        Raises:
            ProtocolError: nobody answers, or nobody knows where to ask; the next call begins anew.
        """
        with self._lock:
            if self.found is None:
                try:
                    self._detect()
                except ProtocolError:
                    self._where.failed()
                    raise
            assert self.found is not None
            if save and not self._is_saved:
                self._is_saved = True
                self._where.remember(self.found)
            return self.found

    def repeat(self, attempts: int, pause: float, save: bool) -> str:
        """As :meth:`ensure`, *attempts* times, *pause* seconds apart.

        Raises:
            ProtocolNotFound: none of them worked; names the last failure.
        """
        tries = 0
        while True:
            tries += 1
            try:
                return self.ensure(save)
            except ProtocolError as problem:
                if tries >= attempts or self._wire.endpoint.stopping.is_set():
                    raise ProtocolNotFound(f"No protocol found. {problem}") from None
            self._wire.endpoint.sleep(pause)

    def _detect(self) -> None:
        is_static = (self._config.text("Protocol.EndpointDiscovery") or "dhcp").lower() != "dhcp"
        found = self._where.resolve(with_port(self._config.text("Platform.WireServer")), static=is_static)
        address = found.rpartition(":")[0]
        self._wire.endpoint.address = found
        host = with_port(self._config.text("Platform.HostPlugin"), hostplugin.PORT)
        self._host.address = host or f"{address}:{hostplugin.PORT}"
        offered = self._wire.versions()
        spoken = versions.negotiate(offered)
        self.found = found
        self._log.info(f"Wire server endpoint:{address}")
        self._log.info(f"Wire protocol version:{spoken}")
        if offered.preferred and offered.preferred != spoken:
            self._log.info(f"Server preferred version:{offered.preferred}")
        if self._events is not None and address != discovery.DEFAULT:
            self._events.add("ProtocolEndpoint", message=found)


def with_port(address: str | None, port: int = discovery.PORT) -> str | None:
    """Return ``host:port`` of a configured address, ``None`` when it is absent."""
    if not address:
        return None
    return address if ":" in address else f"{address}:{port}"


def dhcp_question(
    distro: Callable[[], Any],
    is_real_root: bool,
    log: Log,
    sleep: Callable[[float], object],
    routes_file: str | None = None,
) -> Callable[[], str | None] | None:
    """Return what asks the network, ``None`` where that cannot be: without root, or on another root (ruling 7).

    Nobody is asked as long as there is no *distro* to make way for the question.
    """
    if not is_real_root or os.geteuid() != 0:
        return None
    clients: list[Any] = []

    def ask() -> str | None:
        system = distro()
        if system is None:
            return None
        if not clients:
            from waagent.platform.dhcpclient import DhcpClient  # almost no machine comes here

            clients.append(DhcpClient(system, log, sleep, routes_file=routes_file))
        found: str | None = clients[0].endpoint()
        return found

    return ask
