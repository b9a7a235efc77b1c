"""DHCP client restarts, changed addresses, and the routes that the agent set itself (provisioning §17, §22.5)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.upkeep.machine import Machine
from waagent_upkeep import routes
from waagent_upkeep.network import NetworkPlugin
from waagent_upkeep.networkwatch import SELDOM, NetworkWatch

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
DEFAULT = "eth0\t00000000\t0104000A\t0003\t0\t0\t{metric}\t00000000\t0\t0\t0\n"
LOCAL = "eth0\t0004000A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"
TREE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- {address}
        /32 host LOCAL
     |-- 10.0.4.255
        /32 link BROADCAST
     |-- 172.17.0.1
        /32 host LOCAL
"""


class Hooks:
    def __init__(self, *plans: Any) -> None:
        self.fired = 0
        self.plans = plans

    def on_network_change(self, agent: Any) -> list[tuple[str, Any]]:
        self.fired += 1
        return [("network", plan) for plan in self.plans]


@pytest.fixture
def hooks(machine: Machine) -> Hooks:
    machine.hooks = Hooks()
    machine.distro.answers["find_dhcp_processes"] = lambda: tuple(
        int(path.name) for path in sorted((machine.root / "proc").glob("[0-9]*"))
    )
    return machine.hooks


def start(machine: Machine, pid: int, begun: int) -> None:
    machine.write(f"/proc/{pid}/stat", f"{pid} (dh (x) client) S " + " ".join(["0"] * 18) + f" {begun} 0 0\n")


def end(machine: Machine, pid: int) -> None:
    path = machine.root / f"proc/{pid}"
    (path / "stat").unlink()
    path.rmdir()


def address(machine: Machine, text: str, metric: int = 100) -> None:
    machine.write("/proc/net/route", HEAD + DEFAULT.format(metric=metric) + LOCAL)
    machine.write("/proc/net/fib_trie", TREE.format(address=text))


def test_a_restarted_client(machine: Machine, hooks: Hooks) -> None:
    start(machine, 100, 5)
    watch = NetworkWatch(machine)
    watch.look()
    watch.look()
    assert hooks.fired == 0
    assert len(machine.distro.asked("find_dhcp_processes")) == 1, "while it lives nobody searches for it"
    end(machine, 100)
    start(machine, 200, 9)
    watch.look()
    assert hooks.fired == 1
    assert machine.logged("INFO", "EnvMonitor: Detected dhcp client restart. Restoring routing table.")
    watch.look()
    assert hooks.fired == 1


def test_a_client_that_ends_while_it_is_looked_for(machine: Machine, hooks: Hooks) -> None:
    machine.distro.answers["find_dhcp_processes"] = lambda: (100,)
    watch = NetworkWatch(machine)
    watch.look()
    assert machine.logged("Dhcp client is not running.")
    start(machine, 100, 5)
    for _ in range(SELDOM):
        watch.look()
    start(machine, 100, 6)
    watch.look()
    assert hooks.fired == 1


def test_a_number_that_another_process_has_got(machine: Machine, hooks: Hooks) -> None:
    start(machine, 100, 5)
    watch = NetworkWatch(machine)
    watch.look()
    start(machine, 100, 77)
    watch.look()
    assert hooks.fired == 1


def test_a_client_that_is_gone_for_a_while(machine: Machine, hooks: Hooks) -> None:
    start(machine, 100, 5)
    watch = NetworkWatch(machine)
    watch.look()
    end(machine, 100)
    watch.look()
    start(machine, 101, 6)
    watch.look()
    assert hooks.fired == 1, "at the first look after it is back"
    end(machine, 101)
    searched = len(machine.distro.asked("find_dhcp_processes"))
    for _ in range(5 * SELDOM):
        watch.look()
    assert len(machine.logged("Dhcp client is not running.")) == 2, "once per disappearance"
    assert len(machine.distro.asked("find_dhcp_processes")) - searched == SELDOM + 4, "later now and then"
    start(machine, 102, 7)
    for _ in range(SELDOM):
        watch.look()
    assert hooks.fired == 2


def test_one_of_two_clients_is_restarted(machine: Machine, hooks: Hooks) -> None:
    start(machine, 100, 5)
    start(machine, 200, 5)
    watch = NetworkWatch(machine)
    watch.look()
    end(machine, 100)
    watch.look()
    assert hooks.fired == 0, "the other one was not touched"
    start(machine, 300, 9)
    watch.look()
    assert hooks.fired == 1
    watch.look()
    assert hooks.fired == 1


def test_a_machine_with_a_fixed_address(machine: Machine, hooks: Hooks) -> None:
    watch = NetworkWatch(machine)
    for _ in range(100):
        watch.look()
    assert len(machine.logged("Dhcp client is not running.")) == 1
    assert hooks.fired == 0


def test_the_duty(machine: Machine, hooks: Hooks) -> None:
    plugin = NetworkPlugin()
    assert plugin.declare_periodic(machine) == [], "a directory has no processes"
    start(machine, 100, 5)
    (duty,) = plugin.declare_periodic(machine)
    assert duty.period == "OS.MonitorDhcpClientRestartPeriod"
    duty.run(machine)
    start(machine, 100, 6)
    duty.run(machine)
    assert hooks.fired == 1


def test_a_changed_address(machine: Machine, hooks: Hooks) -> None:
    address(machine, "10.0.4.7")
    watch = NetworkWatch(machine)
    watch.look()
    address(machine, "10.0.4.7", metric=50)
    watch.look()
    assert hooks.fired == 0, "another metric is no other network"
    machine.write("/proc/net/route", HEAD)
    watch.look()
    assert hooks.fired == 0, "no address at all is not the end of it"
    address(machine, "10.0.4.8")
    watch.look()
    assert hooks.fired == 1
    assert machine.logged("The address of the primary interface changed")


def test_addresses_of_other_networks_do_not_count(machine: Machine) -> None:
    address(machine, "10.0.4.7")
    assert routes.fingerprint(machine) == ("eth0", (routes.number("10.0.4.7"),))


def test_plans_of_everybody_run(machine: Machine, hooks: Hooks) -> None:
    from waagent import Plan, Step

    ran: list[str] = []
    plan = Plan("acme", dict, lambda facts: [] if ran else [Step("go", "go", lambda: ran.append("go"))])
    hooks.plans = (plan,)
    start(machine, 100, 5)
    watch = NetworkWatch(machine)
    watch.look()
    start(machine, 100, 6)
    watch.look()
    assert ran == ["go"]


def note_routes(machine: Machine, **content: Any) -> None:
    value = {"schema": 1, "interface": "eth0", "gateway": "10.0.4.1", "routes": [["168.63.129.16/32", "10.0.4.1"]]}
    machine.write("/run/waagent/dhcp-routes.json", json.dumps({**value, **content}))


def test_the_agents_own_routes_are_set_again(machine: Machine) -> None:
    note_routes(machine)
    machine.write("/proc/net/route", HEAD + LOCAL)
    plan = NetworkPlugin().on_network_change(machine)
    assert plan is not None
    assert [step.name for step in machine.executor.dry_run(plan)] == [
        "0.0.0.0/0 via 10.0.4.1",
        "168.63.129.16/32 via 10.0.4.1",
    ]

    def add(network: str, prefix: int, gateway: str, interface: str) -> bool:
        table = machine.read("/proc/net/route")
        order = bytes(map(int, network.split("."))).hex()
        flipped = "".join(order[i : i + 2] for i in (6, 4, 2, 0)).upper()
        mask = "FFFFFFFF" if prefix == 32 else "00000000"
        machine.write("/proc/net/route", table + f"{interface}\t{flipped}\t0104000A\t0003\t0\t0\t0\t{mask}\t0\t0\t0\n")
        return True

    machine.distro.answers["add_route"] = add
    assert machine.executor.run(plan).ok
    assert machine.distro.asked("add_route") == [
        ("0.0.0.0", 0, "10.0.4.1", "eth0"),
        ("168.63.129.16", 32, "10.0.4.1", "eth0"),
    ]


def test_a_default_route_of_others_stays_the_only_one(machine: Machine) -> None:
    note_routes(machine)
    machine.write("/proc/net/route", HEAD + DEFAULT.format(metric=100))
    plan = NetworkPlugin().on_network_change(machine)
    assert plan is not None
    assert machine.names(plan) == ["168.63.129.16/32 via 10.0.4.1"]


def test_a_route_that_is_refused_is_tried_at_every_change(machine: Machine) -> None:
    note_routes(machine, gateway="")
    machine.write("/proc/net/route", HEAD + LOCAL)
    machine.distro.answers["add_route"] = OSError("Network is unreachable")
    plugin = NetworkPlugin()
    for _ in range(5):
        plan = plugin.on_network_change(machine)
        assert plan is not None
        machine.executor.run(plan)
    assert len(machine.distro.asked("add_route")) == 5


def test_a_machine_whose_routes_the_agent_never_set(machine: Machine) -> None:
    assert NetworkPlugin().on_network_change(machine) is None


@pytest.mark.parametrize(
    "change",
    [
        {"routes": [["bad", "10.0.4.1"]]},
        {"routes": 7},
        {"interface": None, "gateway": "x"},
        {"routes": [["1.2.3.4/x", "1.1.1.1"]]},
    ],
)
def test_a_damaged_note_is_left_alone(machine: Machine, change: dict[str, Any]) -> None:
    note_routes(machine, **change)
    assert NetworkPlugin().on_network_change(machine) is None
    assert machine.logged("WARNING", "dhcp-routes.json cannot be used")


@given(st.text())
def test_any_table_can_be_read(text: str) -> None:
    routes.primary(routes.parse_table(text))
    routes.parse_local_addresses(text)
