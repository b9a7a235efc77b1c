"""Where the WireServer is: the order of sources, what is saved and forgotten (wireserver §2)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.platform.memoryworld import Clock, Lines, Machine, configuration
from waagent.errors import CommandError, DhcpError, NoAnswer, ProtocolError
from waagent.log import Log
from waagent.paths import Paths
from waagent.platform.dhcp import DhcpAnswer
from waagent.platform.dhcpclient import DhcpClient
from waagent.platform.discovery import Discovery

ROUTE = "Iface\tDestination\tGateway\nlo\t00000000\t00000000\neth0\t10813FA8\t0100000A\t0007\n"


class System:
    """The operations of a system: answers, and what was asked for in order."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {"find_primary_interface": "", "is_default_route_missing": True, **answers}
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def operation(*values: object) -> Any:
            self.asked.append(" ".join((name, *map(str, values))))
            answer = self.answers.get(name, True)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return operation


class Here:
    """A machine's files and leases, and a network that answers or not."""

    def __init__(self, root: Path, dhcp: str | Exception | None = None) -> None:
        self.paths = Paths(str(root))
        self.sinks = Lines()
        self.asked = 0
        self.system: System | None = System(dhcp_lease_endpoint="")
        self._answer = dhcp
        self.discovery = Discovery(self.paths, Log(self.sinks, "X"), lambda: self.system, self._dhcp)

    def _dhcp(self) -> str | None:
        self.asked += 1
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def write(self, path: str, text: str) -> None:
        place = Path(self.paths.at(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def lease(self, address: object = "168.63.129.17") -> None:
        assert self.system is not None
        self.system.answers["dhcp_lease_endpoint"] = address

    def saved(self, address: str = "10.9.9.9", protocol: str = "WireProtocol") -> None:
        self.write("/var/lib/waagent/WireServerEndpoint", address + "\n")
        self.write("/var/lib/waagent/Protocol", protocol)


def test_the_configured_endpoint_wins(tmp_path: Path) -> None:
    here = Here(tmp_path)
    here.write("/proc/net/route", ROUTE)
    assert here.discovery.resolve("127.0.0.1:8080") == "127.0.0.1:8080"
    assert here.discovery.resolve("127.0.0.1") == "127.0.0.1:80"


def test_static_takes_what_is_saved_or_the_well_known_address(tmp_path: Path) -> None:
    here = Here(tmp_path, "10.0.0.1")
    assert here.discovery.resolve(static=True) == "168.63.129.16:80"
    here.saved(protocol="")
    assert here.discovery.resolve(static=True) == "10.9.9.9:80"
    here.saved("not a host!")
    assert here.discovery.resolve(static=True) == "168.63.129.16:80"
    assert here.asked == 0


def test_the_kernels_route_is_enough(tmp_path: Path) -> None:
    here = Here(tmp_path, "10.0.0.1")
    here.write("/proc/net/route", ROUTE)
    here.saved()
    here.lease()
    assert here.discovery.resolve() == "168.63.129.16:80"
    assert here.asked == 0


def test_what_was_saved_in_this_boot_is_next(tmp_path: Path) -> None:
    here = Here(tmp_path, "10.0.0.1")
    here.lease()
    here.saved()
    assert here.discovery.resolve() == "10.9.9.9:80"
    here.saved(protocol="MetadataProtocol")
    assert here.discovery.resolve() == "168.63.129.17:80"


def test_the_leases_are_the_systems_to_read(tmp_path: Path) -> None:
    here = Here(tmp_path)
    here.lease()
    assert here.discovery.resolve() == "168.63.129.17:80"
    assert here.asked == 0
    assert here.sinks.having("Found the endpoint 168.63.129.17 in the leases")


@pytest.mark.parametrize("answer", [NoAnswer("nobody knows"), "", None, 17, "10.0.0.9 and more", "x" * 300])
def test_leases_that_name_no_address_are_passed_over(tmp_path: Path, answer: object) -> None:
    here = Here(tmp_path, "10.0.0.1")
    here.lease(answer)
    assert here.discovery.resolve() == "10.0.0.1:80"


def test_before_plugins_are_loaded_no_lease_is_read_and_none_counts_as_tried(tmp_path: Path) -> None:
    here = Here(tmp_path)
    here.system = None
    assert here.discovery.resolve() == "168.63.129.16:80"
    here.discovery.failed()
    here.system = System(dhcp_lease_endpoint="168.63.129.17")
    assert here.discovery.resolve() == "168.63.129.17:80"


def test_the_network_is_last_and_after_a_failed_try_before_the_leases(tmp_path: Path) -> None:
    here = Here(tmp_path, "10.0.0.1")
    assert here.discovery.resolve() == "10.0.0.1:80"
    here.lease()
    assert here.discovery.resolve() == "168.63.129.17:80"
    here.discovery.failed()
    assert here.discovery.resolve() == "10.0.0.1:80"


@pytest.mark.parametrize("answer", [None, DhcpError("Failed to receive dhcp response. timed out")])
def test_a_lease_counts_again_where_the_network_does_not_answer(tmp_path: Path, answer: Any) -> None:
    here = Here(tmp_path, answer)
    here.lease()
    here.discovery.failed()
    assert here.discovery.resolve() == "168.63.129.17:80"
    assert here.asked == 1


def test_where_nobody_names_it_the_well_known_address_is_asked(tmp_path: Path) -> None:
    assert Here(tmp_path).discovery.resolve() == "168.63.129.16:80"


def test_under_another_root_nobody_is_asked_unless_something_names_it(tmp_path: Path) -> None:
    with pytest.raises(DhcpError, match="another root"):
        Discovery(Paths(str(tmp_path)), Log(Lines(), "X"), lambda: None).resolve()


def test_what_was_found_is_saved(tmp_path: Path) -> None:
    here = Here(tmp_path)
    here.discovery.remember("10.1.1.1:80")
    for name, text in (("WireServerEndpoint", "10.1.1.1"), ("Protocol", "WireProtocol")):
        file = Path(here.paths.lib(name))
        assert (file.read_text(), file.stat().st_mode & 0o777) == (text, 0o600)
    assert here.discovery.resolve() == "10.1.1.1:80"


def test_what_an_old_agent_left_is_removed(tmp_path: Path) -> None:
    here = Here(tmp_path)
    for name in ("V2TransportPrivate.pem", "V2TransportCert.pem", "Certificates.p7b", "Mine.pem"):
        here.write(f"/var/lib/waagent/{name}", "x")
    here.discovery.remember("10.1.1.1:80")
    assert sorted(os.listdir(here.paths.lib_dir)) == ["Mine.pem", "Protocol", "WireServerEndpoint"]


def test_a_state_directory_that_cannot_be_written_is_lived_with(tmp_path: Path) -> None:
    here = Here(tmp_path)
    here.write("/var/lib", "a file")
    here.discovery.remember("10.1.1.1:80")
    assert len(here.sinks.having("Cannot save the endpoint")) == 1


def test_another_root_never_asks_the_network(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.platform.config = configuration(Platform__WireServer="None")
    machine.platform._detection._config = machine.platform.config
    with pytest.raises(ProtocolError, match="asks no network"):
        machine.platform.detect()
    assert machine.world.requests == []


class TestDhcpClient:
    MAC = bytes.fromhex("000d3a000002")

    def client(self, tmp_path: Path, answer: DhcpAnswer | Exception, **answers: Any) -> DhcpClient:
        self.exchanges: list[tuple[bytes, bool]] = []
        net = tmp_path / "net"
        for name, mac in (("lo", "00:00:00:00:00:00"), ("eth0", "00:0d:3a:00:00:01"), ("eth1", "00:0d:3a:00:00:02")):
            (net / name).mkdir(parents=True)
            (net / name / "address").write_text(mac + "\n")
        self.system = System(**{"find_primary_interface": "eth1", "must_pause_dhcp": False, **answers})

        def exchange(mac: bytes, *, broadcast: bool, before_attempt: Any, sleep: Any) -> DhcpAnswer:
            self.exchanges.append((mac, broadcast))
            before_attempt()
            self.system.asked.append("-- exchange")
            if isinstance(answer, Exception):
                raise answer
            return answer

        return DhcpClient(
            self.system,
            Log(Lines(), "X"),
            Clock().sleep,
            sys_net=str(net),
            exchange=exchange,
            routes_file=str(tmp_path / "run" / "routes.json"),
        )

    def changes(self) -> list[str]:
        questions = ("find_primary_interface", "is_default_route_missing", "must_pause_dhcp")
        return [asked for asked in self.system.asked if not asked.startswith(questions)]

    def test_a_machine_without_routes(self, tmp_path: Path) -> None:
        answer = DhcpAnswer("168.63.129.16", "10.0.0.1", (("168.63.129.16/32", "10.0.0.1"),))
        client = self.client(tmp_path, answer)
        assert client.endpoint() == "168.63.129.16"
        assert self.changes() == [
            "add_broadcast_route eth1",
            "open_dhcp_port",
            "-- exchange",
            "close_dhcp_port",
            "delete_broadcast_route eth1",
            "add_route 0.0.0.0 0 10.0.0.1 eth1",
            "add_route 168.63.129.16 32 10.0.0.1 eth1",
        ]
        noted = json.loads((tmp_path / "run" / "routes.json").read_text())
        assert (noted["interface"], noted["gateway"]) == ("eth1", "10.0.0.1")
        assert noted["routes"] == [["168.63.129.16/32", "10.0.0.1"]]
        self.system.answers["is_default_route_missing"] = False
        client.endpoint()
        assert self.exchanges == [(self.MAC, False), (self.MAC, True)], "a broadcast is asked for from the second on"
        noted = json.loads((tmp_path / "run" / "routes.json").read_text())
        assert noted["gateway"] == "10.0.0.1", "the default route is still the one that was set"

    def test_a_machine_with_a_default_route_keeps_it(self, tmp_path: Path) -> None:
        client = self.client(tmp_path, DhcpAnswer(None, "10.0.0.1"), is_default_route_missing=False)
        assert client.endpoint() is None
        assert self.changes() == ["open_dhcp_port", "-- exchange", "close_dhcp_port"]
        assert json.loads((tmp_path / "run" / "routes.json").read_text())["gateway"] is None

    def test_a_client_that_owns_the_port_is_stopped_meanwhile(self, tmp_path: Path) -> None:
        client = self.client(tmp_path, DhcpError("no answer"), must_pause_dhcp=True)
        with pytest.raises(DhcpError):
            client.endpoint()
        assert (self.changes()[0], self.changes()[-1]) == ("stop_dhcp", "start_dhcp")

    def test_the_route_for_broadcasts_is_taken_away_after_a_failure(self, tmp_path: Path) -> None:
        client = self.client(tmp_path, DhcpError("no answer"))
        with pytest.raises(DhcpError):
            client.endpoint()
        assert self.changes()[-1] == "delete_broadcast_route eth1"

    def test_operations_that_fail_are_done_without(self, tmp_path: Path) -> None:
        failing = CommandError("no such tool")
        answers = dict.fromkeys(("find_primary_interface", "is_default_route_missing", "must_pause_dhcp"), failing)
        client = self.client(tmp_path, DhcpAnswer("10.0.0.9"), open_dhcp_port=failing, **answers)
        assert client.endpoint() == "10.0.0.9"
        assert self.exchanges == [(bytes.fromhex("000d3a000001"), False)], "any interface with an address will do"

    def test_no_interface(self, tmp_path: Path) -> None:
        client = DhcpClient(System(), Log(Lines(), "X"), Clock().sleep, sys_net=str(tmp_path))
        with pytest.raises(DhcpError, match="no network interface"):
            client.endpoint()
