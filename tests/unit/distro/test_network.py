"""Interfaces and routes; and the five tools, each chosen by what runs, none by the distribution's name."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.unit.distro.conftest import ROUTES, process
from waagent.errors import NoAnswer
from waagent_distro.network import dhcpcd, probing, wicked
from waagent_distro.steps import interfaces

LINK_UP = f"sh -c {interfaces._BOUNCE} sh eth0"


def run_networkd(machine):
    machine.write("run/systemd/netif/links/2", "# private\nADMIN_STATE=configured\nOPER_STATE=routable\n")
    process(machine, 300, "systemd-network")


def run_networkmanager(machine):
    machine.write("run/NetworkManager/devices/2", "[device]\nmanaged=true\nconnection-uuid=1234\n")
    process(machine, 400, "NetworkManager")


def run_wicked(machine):
    process(machine, 500, "wickedd-dhcp4")
    machine.write("etc/sysconfig/network/dhcp", '# x\nDHCLIENT_HOSTNAME_OPTION="old"\nDHCLIENT_X="y"\n')


def run_ifupdown(machine):
    machine.write("etc/network/interfaces", "source interfaces.d/*\n")
    machine.write("etc/network/interfaces.d/eth0", "auto eth0\niface eth0 inet dhcp\n")
    process(machine, 700, "dhclient")


TOOLS = [
    (run_networkd, "networkctl", "networkctl reconfigure eth0"),
    (run_networkmanager, "nmcli", "nmcli device reapply eth0"),
    (run_wicked, "ifup", "ifup eth0"),
    (run_ifupdown, "sh", 'sh -c ifdown "$1"; exec ifup "$1" sh eth0'),
    (lambda machine: None, "sh", LINK_UP),
]


@pytest.mark.parametrize(("prepare", "program", "command"), TOOLS)
def test_a_renewal_is_one_gentle_command(networked, prepare, program, command):
    prepare(networked)
    networked.answer(program)
    assert networked.distro.restart_interface("eth0") is True
    assert networked.commands() == [command]


@pytest.mark.parametrize(
    "state",
    ["ADMIN_STATE=unmanaged\n", "ADMIN_STATE=pending\n", ""],
)
def test_networkd_that_does_not_administer_the_link_is_not_asked(networked, state):
    run_networkd(networked)
    networked.write("run/systemd/netif/links/2", state)
    assert probing.manager_of(networked, "eth0") == ""


def test_what_a_tool_left_behind_when_it_ended_does_not_count(networked):
    networked.write("run/systemd/netif/links/2", "ADMIN_STATE=configured\n")
    networked.write("run/NetworkManager/devices/2", "managed=true\n")
    assert probing.manager_of(networked, "eth0") == ""


def test_the_tool_above_comes_before_the_client_that_it_runs(networked):
    run_ifupdown(networked)
    process(networked, 600, "dhcpcd")
    assert probing.manager_of(networked, "eth0") == "dhcpcd"
    run_networkmanager(networked)
    assert probing.manager_of(networked, "eth0") == "networkmanager"


def test_another_interface_may_have_another_tool(networked):
    run_networkd(networked)
    networked.write("sys/class/net/eth1/ifindex", "3\n")
    assert probing.manager_of(networked, "eth1") == ""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("iface eth0 inet dhcp\n", True),
        ("# iface eth0 inet dhcp\n", False),
        ("iface eth00 inet dhcp\n", False),
        ("source /etc/network/more/*\n", True),
        ("source-directory more\n", True),
        ("source interfaces\n", False),
    ],
)
def test_interfaces_are_found_through_included_files(machine, text, found):
    machine.write("etc/network/interfaces", text)
    machine.write("etc/network/more/one", "iface eth0 inet dhcp\n")
    assert probing.is_in_interfaces(machine, "eth0") is found


def test_networkd_before_244_is_restarted_instead(networked):
    run_networkd(networked)
    networked.answer("networkctl", (1, "", "Unknown operation reconfigure.\n"))
    networked.distro.restart_interface("eth0")
    assert networked.commands() == ["networkctl reconfigure eth0", "systemctl restart systemd-networkd"]


def test_a_tool_that_fails_is_asked_three_times_and_then_the_link_is_bounced(networked):
    run_wicked(networked)
    networked.answer("ifup", (1, "", "no"))
    networked.answer("sh")
    assert networked.distro.restart_interface("eth0") is True
    assert networked.commands() == ["ifup eth0"] * 3 + [LINK_UP]
    assert networked.stopping.slept == [5.0, 5.0]


def test_an_interface_that_stays_down_gets_its_manager_restarted_once(networked, monkeypatch):
    monkeypatch.setattr(interfaces, "SETTLE", 0.0)
    run_networkmanager(networked)
    networked.answer("nmcli")
    networked.answer("ip -4 -o address", lambda _c, _d: networked.address)
    networked.address = ""

    def restart(_command, _data):
        networked.address = "2: eth0    inet 10.0.0.4/24"
        return 0

    networked.answer("systemctl restart NetworkManager.service", restart)
    assert networked.distro.restart_interface("eth0") is True
    assert networked.commands() == ["nmcli device reapply eth0", "systemctl restart NetworkManager.service"]
    assert any("eth0 has no address or route 0 s after it was renewed" in line for line in networked.lines)


def test_an_interface_that_never_comes_back_is_said(networked, monkeypatch):
    monkeypatch.setattr(interfaces, "SETTLE", 0.0)
    networked.answer("sh", lambda _c, _d: networked.write("proc/net/route", ROUTES.split("\n")[0]) and 0)
    with pytest.raises(NoAnswer, match="eth0 did not come back"):
        networked.distro.restart_interface("eth0")


def test_routes_that_a_link_loses_are_put_back(networked):
    shown = (
        "default via 10.0.0.1 proto static metric 100 linkdown \n10.0.0.0/24 proto kernel scope link src 10.0.0.4\n"
        "10.9.0.1 scope link\n"
    )
    networked.answer("ip -4 route show dev eth0", shown)
    networked.answer("sh")
    assert networked.distro.restart_interface("eth0") is True
    (command,) = [words for words in networked.ran if words[0] == "sh"]
    assert command[3:] == ("sh", "eth0", "10.9.0.1 scope link", "default via 10.0.0.1 proto static metric 100")


def test_networkmanager_sends_the_name_for_both_families(networked):
    run_networkmanager(networked)
    codes = iter([6, 0])
    networked.answer("nmcli", lambda _c, _d: next(codes))
    assert networked.distro.set_dhcp_hostname("web1") is True
    command = "nmcli device modify eth0 ipv4.dhcp-hostname web1 ipv6.dhcp-hostname web1"
    assert networked.commands() == [command, command]


MODIFY = "nmcli device modify eth0 ipv4.dhcp-hostname web1 ipv6.dhcp-hostname web1"


def test_networkmanager_asks_dhcp_again_when_the_name_is_changed_and_is_not_made_to_forget_it(networked):
    run_networkmanager(networked)
    networked.answer("nmcli")
    for _ in range(2):
        assert networked.distro.publish_hostname("web1") is True
    assert networked.commands() == [MODIFY] * 2


def test_networkmanager_that_takes_no_name_sends_the_systems(networked):
    run_networkmanager(networked)
    networked.answer("nmcli")
    networked.answer("nmcli device modify", (6, "", "Error: Device 'eth0' not active\n"))
    assert networked.distro.publish_hostname("web1") is True
    assert networked.commands()[-1] == "nmcli device reapply eth0"


def test_networkd_needs_no_name(networked):
    networked.write("etc/dhcp/dhclient.conf", "left;\n")
    run_networkd(networked)
    assert networked.distro.set_dhcp_hostname("web1") is True
    assert networked.read("etc/dhcp/dhclient.conf") == "left;\n"


def test_wicked_gets_the_name_in_its_settings(networked):
    run_wicked(networked)
    networked.distro.set_dhcp_hostname("web1")
    text = '# x\nDHCLIENT_HOSTNAME_OPTION="web1"\nDHCLIENT_X="y"\n'
    assert networked.read("etc/sysconfig/network/dhcp") == text


@pytest.mark.parametrize("value", ["AUTO", '"AUTO"', "'AUTO'"])
def test_wicked_that_sends_the_systems_name_is_left_alone(value):
    text = f"DHCLIENT_HOSTNAME_OPTION={value}\n"
    assert wicked.with_option(text, "web1") == text
    assert wicked.with_option("A=b", "web1") == 'A=b\nDHCLIENT_HOSTNAME_OPTION="web1"\n'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("duid\n", "duid\nhostname\n"),
        ("hostname old\nduid\n", "hostname\nduid\n"),
        ("duid\ninterface eth0\nhostname x\n", "duid\nhostname\ninterface eth0\nhostname x\n"),
        ("#hostname\n", "#hostname\nhostname\n"),
    ],
)
def test_dhcpcd_sends_the_systems_name(before, after):
    assert dhcpcd.with_hostname(before) == after
    assert dhcpcd.with_hostname(after) == after


LISTENER = """
import signal, sys
signal.signal(signal.SIGHUP, lambda *_: sys.exit(7))
print("ready", flush=True)
sys.stdin.read()
"""


def test_dhcpcd_is_told_by_a_signal_to_its_first_process(networked):
    with subprocess.Popen([sys.executable, "-c", LISTENER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout.readline() == b"ready\n"
        process(networked, client.pid, "dhcpcd")
        process(networked, client.pid + 1_000_000, "dhcpcd")
        assert networked.distro.restart_interface("eth0") is True
        assert client.wait(30) == 7
    assert networked.commands() == []


def test_dhcpcd_that_loses_the_address_is_restarted(networked, monkeypatch):
    monkeypatch.setattr(interfaces, "SETTLE", 0.0)
    monkeypatch.setattr(os, "kill", lambda pid, number: networked.answer("ip -4 -o address", ""))
    process(networked, 600, "dhcpcd")

    def restart(_command, _data):
        networked.answer("ip -4 -o address", "2: eth0    inet 10.0.0.4/24")
        return 0

    networked.answer("systemctl restart dhcpcd.service", restart)
    assert networked.distro.restart_interface("eth0") is True
    assert networked.commands() == ["systemctl restart dhcpcd.service"]


def test_dhcp_pauses_only_where_the_port_is_taken(networked):
    assert networked.distro.must_pause_dhcp() is False
    assert networked.distro.stop_dhcp() is True
    assert networked.distro.start_dhcp() is True
    assert networked.commands() == []
    run_networkd(networked)
    assert networked.distro.must_pause_dhcp() is True
    assert networked.distro.stop_dhcp() is True
    assert (networked.root / "run/waagent/paused-systemd-networkd").exists()
    (networked.root / "proc/300/stat").unlink()  # it has ended, and is started again all the same
    (networked.root / "proc/300/comm").unlink()
    assert networked.distro.start_dhcp() is True
    assert networked.commands() == [
        "systemctl stop systemd-networkd.service",
        "systemctl start systemd-networkd.service",
    ]


@pytest.mark.parametrize("service", ["systemd-networkd", "wickedd-dhcp4"])
def test_a_client_that_was_stopped_by_an_agent_that_was_killed_is_started_by_the_next(networked, service):
    networked.write(f"run/waagent/paused-{service}", "")  # written before it is stopped
    assert networked.distro.must_pause_dhcp() is True
    assert networked.distro.stop_dhcp() is True
    assert networked.distro.start_dhcp() is True
    assert networked.commands() == [f"systemctl stop {service}.service", f"systemctl start {service}.service"]
    assert networked.distro.must_pause_dhcp() is False


def test_a_client_that_cannot_be_stopped_is_not_to_be_started(networked):
    run_networkd(networked)
    networked.answer("systemctl stop", (1, "", "Job failed.\n"))
    assert networked.distro.stop_dhcp() is True, "nobody else has to be stopped"
    assert list((networked.root / "run/waagent").iterdir()) == []


def test_wicked_pauses_its_client(networked):
    run_wicked(networked)
    assert networked.distro.must_pause_dhcp() is True
    networked.distro.stop_dhcp()
    networked.distro.start_dhcp()
    assert networked.commands() == ["systemctl stop wickedd-dhcp4.service", "systemctl start wickedd-dhcp4.service"]


# ---- Interfaces, routes, processes ----


def test_the_primary_interface_has_the_lowest_metric(machine):
    head = ROUTES.split("\n")[0]
    machine.write(
        "proc/net/route",
        f"{head}\n"
        "tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n"  # no gateway
        "eth9\t00000000\t0100000A\t0002\t0\t0\t1\t00000000\t0\t0\t0\n"  # down
        "eth1\t00000000\t0100000A\t0003\t0\t0\t200\t00000000\t0\t0\t0\n"
        "eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
        "half\n",
    )
    assert machine.distro.find_primary_interface() == "eth0"
    assert machine.distro.is_default_route_missing() is False


def test_without_a_route_it_is_the_first_with_hardware(machine):
    assert machine.distro.find_primary_interface() == ""
    assert machine.distro.is_default_route_missing() is True
    for name in ("docker0", "enP1s1", "eth0", "eth1", "lo"):
        machine.write(f"sys/class/net/{name}/ifindex", "1\n")
    for path in ("enP1s1/device", "enP1s1/master", "eth0/device", "eth1/device"):
        (machine.root / "sys/class/net" / path).mkdir()
    assert machine.distro.find_primary_interface() == "eth0"


def test_routes_keep_their_mask_and_may_be_there_already(machine):
    machine.answer("ip")
    machine.distro.add_route("168.63.129.16", 32, "10.0.0.1", "eth0")
    machine.distro.add_broadcast_route("eth0")
    machine.answer("ip route del", (2, "", "RTNETLINK answers: No such process\n"))
    machine.distro.delete_broadcast_route("eth0")
    assert machine.commands() == [
        "ip route replace 168.63.129.16/32 via 10.0.0.1 dev eth0",
        "ip route replace 255.255.255.255/32 dev eth0",
        "ip route del 255.255.255.255/32 dev eth0",
    ]
    machine.answer("ip route del", (2, "", "RTNETLINK answers: Operation not permitted\n"))
    with pytest.raises(NoAnswer, match="Operation not permitted"):
        machine.distro.delete_broadcast_route("eth0")
    with pytest.raises(NoAnswer, match="33 is no length"):
        machine.distro.add_route("10.0.0.0", 33, "10.0.0.1", "eth0")


@pytest.mark.parametrize(
    ("enabled", "started"),
    [("NetworkManager.service", "NetworkManager"), ("networking.service", "networking")],
)
def test_the_network_is_started_by_what_is_enabled(machine, enabled, started):
    machine.answer("systemctl is-enabled", lambda command, _d: "enabled\n" if command[-1] == enabled else (1, "", ""))
    assert machine.distro.start_network() is True
    assert machine.commands() == [f"systemctl start {started}.service"]


def test_no_network_service_is_said(machine):
    with pytest.raises(NoAnswer, match="no network service is here"):
        machine.distro.start_network()


def test_dhcp_clients_are_found_by_name(machine):
    process(machine, 20, "dhclient")
    process(machine, 3, "systemd-network", since=5)
    process(machine, 4, "sshd")
    assert machine.distro.find_dhcp_processes() == (3, 20)


@pytest.mark.parametrize(
    ("prepare", "others", "found"),
    [
        (run_networkd, {900: "dhclient"}, (300,)),
        (run_networkmanager, {900: "dhclient"}, (400,)),
        (run_wicked, {900: "NetworkManager"}, (500,)),
        (run_ifupdown, {900: "NetworkManager", 701: "dhclient"}, (700, 701)),
        (lambda machine: process(machine, 600, "dhcpcd"), {601: "dhcpcd", 900: "NetworkManager"}, (600,)),
    ],
)
def test_the_client_is_the_one_of_the_tool_in_charge(networked, prepare, others, found):
    prepare(networked)
    for pid, name in others.items():
        process(networked, pid, name)
    assert networked.distro.find_dhcp_processes() == found


def test_a_client_that_was_restarted_is_another(machine):
    process(machine, 20, "dhclient")
    process(machine, 30, "dhclient")
    assert machine.distro.find_dhcp_processes() == (20, 30)
    process(machine, 20, "bash", since=900)  # the number was used again
    process(machine, 21, "dhclient", since=901)
    assert machine.distro.find_dhcp_processes() == (21, 30)


def test_ports_need_no_opening(machine):
    assert machine.distro.open_dhcp_port() is True
    assert machine.distro.close_dhcp_port() is True
    assert machine.ran == []


# ---- Leases ----

ISC = 'lease {\n  interface "eth0";\n  option unknown-245 a8:3f:81:10;\n  expire never;\n}\n'


WICKED = """<lease>
  <family>ipv4</family>
  <type>dhcp</type>
  <state>granted</state>
  <acquired>1769847342</acquired>
  <ipv4:dhcp>
    <server-id>168.63.129.16</server-id>
    <address>10.0.0.4</address>
    <options>
      <unknown-120>
        <code>120</code>
        <data>01:02:03:04</data>
      </unknown-120>
      <unknown-245>
        <code>245</code>
        <data>a8:3f:81:10</data>
      </unknown-245>
    </options>
  </ipv4:dhcp>
</lease>
"""


@pytest.mark.parametrize(
    ("prepare", "path", "text"),
    [
        (run_networkd, "run/systemd/netif/leases/2", "ADDRESS=10.0.0.4\nOPTION_245=a83f8110\n"),
        (run_networkmanager, "var/lib/NetworkManager/internal-1234-eth0.lease", "OPTION_245=a83f8110\n"),
        (run_networkmanager, "var/lib/NetworkManager/dhclient-1234-eth0.lease", ISC),
        (
            run_wicked,
            "var/lib/wicked/lease-eth0-dhcp-ipv4.xml",
            WICKED,
        ),
        (run_wicked, "run/wicked/lease-eth0-dhcp-ipv4.xml", WICKED),
        (run_ifupdown, "var/lib/dhcp/dhclient.eth0.leases", ISC),
        (lambda machine: None, "var/lib/dhclient/dhclient-eth0.lease", ISC),
    ],
)
def test_the_endpoint_is_read_from_the_lease(networked, prepare, path, text):
    prepare(networked)
    networked.answer("nmcli", "")
    networked.write(path, text)
    assert networked.distro.dhcp_lease_endpoint() == "168.63.129.16"


def test_networkmanagers_own_client_is_asked(networked):
    run_networkmanager(networked)
    networked.answer(
        "nmcli -t -e no -f DHCP4", "DHCP4.OPTION[1]:ip_address = 10.0.0.4\nDHCP4.OPTION[2]:private_245 = a8:3f:81:10\n"
    )
    assert networked.distro.dhcp_lease_endpoint() == "168.63.129.16"


def test_leases_without_the_option_are_an_answer_and_no_lease_is_none(networked):
    with pytest.raises(NoAnswer, match="there is no DHCP lease"):
        networked.distro.dhcp_lease_endpoint()
    networked.write("var/lib/dhcp/dhclient.eth0.leases", "lease {\n  expire never;\n}\n")
    assert networked.distro.dhcp_lease_endpoint() == ""


def test_a_tool_is_probed_without_running_commands(networked):
    run_networkd(networked)
    probing.manager_of(networked, "eth0")
    assert networked.ran == []
