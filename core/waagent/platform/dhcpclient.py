"""The machine's side of a DHCP exchange: interface, routes and the firewall's port (wireserver §2.4)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from waagent.errors import AgentError, DhcpError, StateError
from waagent.files import ensure_dir, read_json, write_json
from waagent.log import Log
from waagent.platform import dhcp


class DhcpClient:
    """Asks the network for the endpoint, with port 68 free and open and a way out for broadcasts while it does.

    Args:
        distro: the operations of the operating system; one that fails is done without.
        log: what was asked and set up.
        sleep: waits between attempts; true ends the exchange.
        sys_net: where the kernel lists interfaces.
        exchange: :func:`waagent.platform.dhcp.exchange`.
        routes_file: where the routes that were set are noted, as JSON with ``interface``, ``gateway`` (``None`` when
            there was a default route already) and ``routes``: whoever watches the DHCP client sets them again.
    """

    def __init__(
        self,
        distro: Any,
        log: Log,
        sleep: Callable[[float], Any],
        *,
        sys_net: str = "/sys/class/net",
        exchange: Callable[..., dhcp.DhcpAnswer] = dhcp.exchange,
        routes_file: str | None = None,
    ) -> None:
        self._distro = distro
        self._log = log
        self._sleep = sleep
        self._sys_net = sys_net
        self._exchange = exchange
        self._routes_file = routes_file
        self._asked = False

    def endpoint(self) -> str | None:
        """Return the address that the network names, ``None`` when it answers without one.

        Raises:
            DhcpError: no interface, or no valid answer.
        """
        interface, mac = self._primary_interface()
        needs_route = self._system("is_default_route_missing") is True
        must_pause = self._system("must_pause_dhcp") is True
        self._log.info(f"Asking the network for the endpoint on {interface}")
        if must_pause:
            self._system("stop_dhcp")
        try:
            answer = self._ask(mac, interface, needs_route)
        finally:
            if must_pause:
                self._system("start_dhcp")
        if answer.gateway and needs_route:
            self._system("add_route", "0.0.0.0", 0, answer.gateway, interface)  # noqa: S104  (the default route)
        for network, gateway in answer.routes:
            address, _, prefix = network.partition("/")
            self._system("add_route", address, int(prefix), gateway, interface)
        self._note(interface, answer.gateway if needs_route else self._noted_gateway(interface), answer.routes)
        return answer.endpoint

    def _ask(self, mac: bytes, interface: str, needs_route: bool) -> dhcp.DhcpAnswer:
        if needs_route:
            self._system("add_broadcast_route", interface)
        try:
            return self._exchange(
                mac,
                broadcast=self._asked,
                before_attempt=lambda: self._system("open_dhcp_port"),
                sleep=lambda seconds: bool(self._sleep(seconds)),
            )
        finally:
            self._asked = True
            self._system("close_dhcp_port")
            if needs_route:
                self._system("delete_broadcast_route", interface)

    def _noted_gateway(self, interface: str) -> str | None:
        """Return the gateway that an earlier exchange on *interface* set: the default route may be that one."""
        try:
            content = read_json(self._routes_file, 1 << 16) if self._routes_file is not None else None
        except StateError:
            return None
        known = content if isinstance(content, dict) and content.get("interface") == interface else {}
        gateway = known.get("gateway")
        return gateway if isinstance(gateway, str) else None

    def _note(self, interface: str, gateway: str | None, routes: tuple[tuple[str, str], ...]) -> None:
        if self._routes_file is None:
            return
        content = {"schema": 1, "interface": interface, "gateway": gateway, "routes": [list(route) for route in routes]}
        try:
            ensure_dir(os.path.dirname(self._routes_file), 0o755)
            write_json(self._routes_file, content, durable=False)
        except OSError as problem:
            self._log.warning(f"{self._routes_file} cannot be written: {problem}")

    def _system(self, operation: str, *values: object) -> Any:
        try:
            return getattr(self._distro, operation)(*values)
        except AgentError as problem:
            self._log.verbose(f"DHCP: {operation}: {problem}")
            return None

    def _primary_interface(self) -> tuple[str, bytes]:
        """Return the interface that the system calls the primary one, else any, and its hardware address."""
        try:
            present = sorted(os.listdir(self._sys_net))
        except OSError:
            present = []
        for name in (str(self._system("find_primary_interface") or ""), *(name for name in present if name != "lo")):
            try:
                with open(os.path.join(self._sys_net, name, "address"), encoding="ascii", errors="replace") as stream:
                    mac = bytes.fromhex(stream.read().strip().replace(":", ""))
            except (OSError, ValueError):
                continue
            if len(mac) == 6 and any(mac):
                return name, mac
        raise DhcpError("Failed to receive dhcp response. There is no network interface with a hardware address")
