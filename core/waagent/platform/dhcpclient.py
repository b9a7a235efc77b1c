"""The machine's side of a DHCP exchange: interface, routes and the firewall's port (wireserver §2.4)."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from waagent.errors import CommandError, DhcpError
from waagent.files import ensure_dir, write_json
from waagent.log import Log
from waagent.platform import dhcp

_IPTABLES = (
    ("iptables", "-D", "INPUT", "-p", "udp", "--dport", "68", "-j", "ACCEPT"),
    ("iptables", "-I", "INPUT", "-p", "udp", "--dport", "68", "-j", "ACCEPT"),
)


class DhcpClient:
    """Asks the network for the endpoint, with port 68 open and a way out for broadcasts while it does.

    Args:
        run: runs a command (:func:`waagent.commands.run`).
        log: what was asked and set up.
        sleep: waits between attempts; true ends the exchange.
        sys_net: where the kernel lists interfaces.
        route_table: the kernel's routes.
        exchange: :func:`waagent.platform.dhcp.exchange`.
        routes_file: where the routes that were set are noted, as JSON with ``interface``, ``gateway`` (``None`` when
            there was a default route already) and ``routes``: whoever watches the DHCP client sets them again.
    """

    def __init__(
        self,
        run: Callable[..., Any],
        log: Log,
        sleep: Callable[[float], Any],
        *,
        sys_net: str = "/sys/class/net",
        route_table: str = "/proc/net/route",
        exchange: Callable[..., dhcp.DhcpAnswer] = dhcp.exchange,
        routes_file: str | None = None,
    ) -> None:
        self._run = run
        self._log = log
        self._sleep = sleep
        self._sys_net = sys_net
        self._route_table = route_table
        self._exchange = exchange
        self._routes_file = routes_file
        self._asked = False

    def endpoint(self) -> str | None:
        """Return the address that the network names, ``None`` when it answers without one.

        Raises:
            DhcpError: no interface, or no valid answer.
        """
        interface, mac = self._primary_interface()
        had_default_route = self._has_default_route()
        self._log.info(f"Asking the network for the endpoint on {interface}")
        if not had_default_route:
            self._quietly("ip", "route", "add", "255.255.255.255", "dev", interface)
        try:
            answer = self._exchange(
                mac,
                broadcast=self._asked,
                before_attempt=self._open_port,
                sleep=lambda seconds: bool(self._sleep(seconds)),
            )
        finally:
            self._asked = True
            if not had_default_route:
                self._quietly("ip", "route", "del", "255.255.255.255", "dev", interface)
        if answer.gateway and not had_default_route:
            self._quietly("ip", "route", "add", "default", "via", answer.gateway)
        for network, gateway in answer.routes:
            self._quietly("ip", "route", "add", network, "via", gateway)
        self._note(interface, None if had_default_route else answer.gateway, answer.routes)
        return answer.endpoint

    def _note(self, interface: str, gateway: str | None, routes: tuple[tuple[str, str], ...]) -> None:
        if self._routes_file is None:
            return
        content = {"schema": 1, "interface": interface, "gateway": gateway, "routes": [list(route) for route in routes]}
        try:
            ensure_dir(os.path.dirname(self._routes_file), 0o755)
            write_json(self._routes_file, content, durable=False)
        except OSError as problem:
            self._log.warning(f"{self._routes_file} cannot be written: {problem}")

    def _open_port(self) -> None:
        for command in _IPTABLES:
            self._quietly(*command)

    def _quietly(self, *command: str) -> None:
        try:
            self._run(command, timeout=30)
        except (OSError, CommandError) as problem:
            self._log.verbose(f"{' '.join(command)}: {problem}")

    def _has_default_route(self) -> bool:
        return any(fields[1:2] == ["00000000"] for fields in self._routes())

    def _routes(self) -> list[list[str]]:
        try:
            with open(self._route_table, encoding="ascii", errors="replace") as stream:
                return [line.split() for line in stream.readlines()[1:]]
        except OSError:
            return []

    def _primary_interface(self) -> tuple[str, bytes]:
        """The interface of the default route, else the first that is a real one, and its hardware address."""
        routed = [fields[0] for fields in self._routes() if fields[1:2] == ["00000000"]]
        try:
            present = sorted(os.listdir(self._sys_net))
        except OSError:
            present = []
        real = [name for name in present if os.path.exists(os.path.join(self._sys_net, name, "device"))]
        for name in (*routed, *real, *(name for name in present if name != "lo")):
            try:
                with open(os.path.join(self._sys_net, name, "address"), encoding="ascii", errors="replace") as stream:
                    mac = bytes.fromhex(stream.read().strip().replace(":", ""))
            except (OSError, ValueError):
                continue
            if len(mac) == 6 and any(mac):
                return name, mac
        raise DhcpError("Failed to receive dhcp response. There is no network interface with a hardware address")
