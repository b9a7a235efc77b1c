"""Where the WireServer is: the order of sources, what is saved and forgotten (wireserver §2)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.platform.memoryworld import Clock, Lines, Machine, configuration
from waagent.errors import CommandError, DhcpError, ProtocolError
from waagent.log import Log
from waagent.paths import Paths
from waagent.platform.dhcp import DhcpAnswer
from waagent.platform.dhcpclient import DhcpClient
from waagent.platform.discovery import Discovery

ROUTE = "Iface\tDestination\tGateway\nlo\t00000000\t00000000\neth0\t10813FA8\t0100000A\t0007\n"


class Here:
    """A machine's files, and a network that answers or not."""

    def __init__(self, root: Path, dhcp: str | Exception | None = None) -> None:
        self.paths = Paths(str(root))
        self.sinks = Lines()
        self.asked = 0
        self._answer = dhcp
        self.discovery = Discovery(self.paths, Log(self.sinks, "X"), self._dhcp)

    def _dhcp(self) -> str | None:
        self.asked += 1
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def write(self, path: str, text: str) -> None:
        place = Path(self.paths.at(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def lease(self, address: str = "a83f8111") -> None:
        self.write("/run/systemd/netif/leases/2", f"ADDRESS=10.0.0.4\nOPTION_245={address}\n")

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


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/run/systemd/netif/leases/2", "OPTION_245=a83f8111\n"),
        ("/var/lib/dhcp/dhclient.eth0.leases", "lease {\n option unknown-245 a8:3f:81:11;\n expire never;\n}\n"),
        ("/var/lib/dhclient/dhclient-eth0.lease", "lease {\n option unknown-245 a8:3f:81:11;\n expire never;\n}\n"),
        (
            "/var/lib/NetworkManager/dhclient-x-eth0.lease",
            "lease {\n option unknown-245 a8:3f:81:11;\n expire 2 2099/01/01 00:00:00;\n}\n",
        ),
    ],
)
def test_leases_of_all_places(tmp_path: Path, path: str, text: str) -> None:
    here = Here(tmp_path)
    here.write(path, text)
    assert here.discovery.resolve() == "168.63.129.17:80"
    assert here.asked == 0
    assert here.sinks.having("Found the endpoint 168.63.129.17 in")


def test_an_unreadable_lease_is_passed_over(tmp_path: Path) -> None:
    here = Here(tmp_path, "10.0.0.1")
    os.makedirs(here.paths.at("/run/systemd/netif/leases/1"))
    assert here.discovery.resolve() == "10.0.0.1:80"
    assert len(here.sinks.having("Cannot read the lease")) == 1


def test_the_network_is_last_and_after_a_failed_try_before_the_leases(tmp_path: Path) -> None:
    here = Here(tmp_path, "10.0.0.1")
    assert here.discovery.resolve() == "10.0.0.1:80"
    here.lease()
    assert here.discovery.resolve() == "168.63.129.17:80"
    here.discovery.skip_leases = True
    assert here.discovery.resolve() == "10.0.0.1:80"


@pytest.mark.parametrize("answer", [None, DhcpError("Failed to receive dhcp response. timed out")])
def test_a_lease_counts_again_where_the_network_does_not_answer(tmp_path: Path, answer: Any) -> None:
    here = Here(tmp_path, answer)
    here.lease()
    here.discovery.skip_leases = True
    assert here.discovery.resolve() == "168.63.129.17:80"
    assert here.asked == 1


def test_where_nobody_names_it_the_well_known_address_is_asked(tmp_path: Path) -> None:
    assert Here(tmp_path).discovery.resolve() == "168.63.129.16:80"


def test_under_another_root_nobody_is_asked_unless_something_names_it(tmp_path: Path) -> None:
    with pytest.raises(DhcpError, match="another root"):
        Discovery(Paths(str(tmp_path)), Log(Lines(), "X")).resolve()


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
    def client(self, tmp_path: Path, answer: DhcpAnswer | Exception, route: str = "Iface\tDest\n") -> DhcpClient:
        self.commands: list[str] = []
        self.exchanges: list[tuple[bytes, bool]] = []
        net = tmp_path / "net"
        for name, mac, is_real in (("lo", "00:00:00:00:00:00", False), ("eth1", "00:0d:3a:00:00:02", True)):
            (net / name / "device").mkdir(parents=True) if is_real else (net / name).mkdir(parents=True)
            (net / name / "address").write_text(mac + "\n")
        (tmp_path / "route").write_text(route)

        def run(argv: tuple[str, ...], timeout: float) -> None:
            self.commands.append(" ".join(argv))
            if argv[0] == "iptables":
                raise CommandError("no iptables here")

        def exchange(mac: bytes, *, broadcast: bool, before_attempt: Any, sleep: Any) -> DhcpAnswer:
            self.exchanges.append((mac, broadcast))
            before_attempt()
            if isinstance(answer, Exception):
                raise answer
            return answer

        return DhcpClient(
            run,
            Log(Lines(), "X"),
            Clock().sleep,
            sys_net=str(net),
            route_table=str(tmp_path / "route"),
            exchange=exchange,
            routes_file=str(tmp_path / "run" / "routes.json"),
        )

    def test_a_machine_without_routes(self, tmp_path: Path) -> None:
        answer = DhcpAnswer("168.63.129.16", "10.0.0.1", (("168.63.129.16/32", "10.0.0.1"),))
        client = self.client(tmp_path, answer)
        assert client.endpoint() == "168.63.129.16"
        assert self.commands == [
            "ip route add 255.255.255.255 dev eth1",
            "iptables -D INPUT -p udp --dport 68 -j ACCEPT",
            "iptables -I INPUT -p udp --dport 68 -j ACCEPT",
            "ip route del 255.255.255.255 dev eth1",
            "ip route add default via 10.0.0.1",
            "ip route add 168.63.129.16/32 via 10.0.0.1",
        ]
        noted = json.loads((tmp_path / "run" / "routes.json").read_text())
        assert (noted["interface"], noted["gateway"]) == ("eth1", "10.0.0.1")
        assert noted["routes"] == [["168.63.129.16/32", "10.0.0.1"]]
        client.endpoint()
        mac = bytes.fromhex("000d3a000002")
        assert self.exchanges == [(mac, False), (mac, True)], "a broadcast answer is asked for from the second one on"

    def test_a_machine_with_a_default_route_keeps_it(self, tmp_path: Path) -> None:
        client = self.client(tmp_path, DhcpAnswer(None, "10.0.0.1"), "Iface\tDest\neth1\t00000000\t0100000A\n")
        assert client.endpoint() is None
        assert not [command for command in self.commands if command.startswith("ip ")]
        assert json.loads((tmp_path / "run" / "routes.json").read_text())["gateway"] is None

    def test_the_route_for_broadcasts_is_taken_away_after_a_failure(self, tmp_path: Path) -> None:
        client = self.client(tmp_path, DhcpError("no answer"))
        with pytest.raises(DhcpError):
            client.endpoint()
        assert self.commands[-1] == "ip route del 255.255.255.255 dev eth1"

    def test_no_interface(self, tmp_path: Path) -> None:
        client = DhcpClient(
            lambda *_, **__: None, Log(Lines(), "X"), Clock().sleep, sys_net=str(tmp_path), route_table="/nonexistent"
        )
        with pytest.raises(DhcpError, match="no network interface"):
            client.endpoint()
