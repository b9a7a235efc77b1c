"""The agent's own quota: only once commands have units of their own, and never on anybody else (ruling 50)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.scopes.conftest import LIMITS, Machine
from waagent import Paths
from waagent_scopes import governor, own

UNIT = "waagent.service"
GROUP = "sys/fs/cgroup/azure.slice/waagent.service"
SUPERVISOR, WORKER = 100, 101


def write(machine: Machine, name: str, text: str) -> None:
    path = machine.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def processes(machine: Machine, parents: dict[int, int], state: str = "S") -> None:
    """Put processes into the agent's group, each with its parent."""
    write(machine, f"{GROUP}/cgroup.procs", "".join(f"{pid}\n" for pid in parents))
    for pid, parent in parents.items():
        write(machine, f"proc/{pid}/stat", f"{pid} (a) b ) {state} {parent} 1 1")


def held_back(machine: Machine, seconds: float) -> None:
    write(machine, f"{GROUP}/cpu.stat", f"usage_usec 5\nthrottled_usec {int(seconds * 1e6)}\n")


@pytest.fixture
def machine(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a machine whose agent is a service, with the supervisor and the worker in its group."""
    monkeypatch.setattr("os.getppid", lambda: SUPERVISOR)
    write(machine, "proc/self/cgroup", f"0::/azure.slice/{UNIT}\n")
    processes(machine, {SUPERVISOR: 1, WORKER: SUPERVISOR, 102: WORKER})
    machine.systemd.set_units({UNIT: {"LoadState": "loaded"}})
    machine.restart()
    return machine


def attend(machine: Machine) -> None:
    duty = machine.plugin.declare_periodic(machine)  # type: ignore[arg-type]
    assert duty is not None
    assert duty.period == "Debug.CgroupCheckPeriod"
    duty.run(machine)  # type: ignore[arg-type]


def test_the_agent_has_its_quota_once_a_command_went_through_its_unit(machine: Machine) -> None:
    attend(machine)
    assert machine.systemd.calls == []
    machine.handle("exit 3")
    assert machine.systemd.quotas == {UNIT: "500ms"}
    assert machine.details["limits"] == {UNIT: 50.0}
    machine.systemd.forget_calls()
    machine.handle()
    attend(machine)
    assert machine.systemd.settings == []
    assert [call["tool"] for call in machine.systemd.calls] == ["systemd-run"], "systemd is asked once"
    machine.handle(operation="uninstall", limits=LIMITS)
    assert machine.systemd.quotas == {UNIT: "500ms"}


def test_the_quota_is_the_configured_one(machine: Machine) -> None:
    machine.values["Debug.AgentCpuQuota"] = 75
    machine.handle()
    assert machine.systemd.quotas == {UNIT: "750ms"}


@pytest.mark.parametrize(("key", "value"), [("CGroups.EnforceLimits", False), ("Extensions.Launcher", "process")])
def test_without_limits_or_units_it_has_none(machine: Machine, key: str, value: Any) -> None:
    machine.handle()
    machine.values[key] = value
    machine.restart()
    assert machine.systemd.quotas == {}
    machine.handle()
    assert machine.systemd.quotas == {}


def test_a_failed_systemd_run_takes_it_back(machine: Machine) -> None:
    machine.handle()
    machine.systemd.mode("refused")
    assert machine.handle("exit 4").code == 4
    assert machine.systemd.quotas == {}


def test_a_command_that_gets_no_unit_is_not_held_by_it(machine: Machine) -> None:
    machine.values["Extensions.Launcher"] = "service"
    machine.handle()
    assert machine.systemd.quotas == {UNIT: "500ms"}
    launch = machine.root / "run/waagent/launch"
    launch.rmdir()
    launch.write_text("a file in the way")
    assert machine.plugin.launch(machine, machine.command()) is None  # type: ignore[arg-type]
    assert machine.systemd.quotas == {}


@pytest.mark.parametrize("found", ["before a command", "by a look", "by another process of the agent"])
def test_what_others_left_in_the_group_is_not_held(machine: Machine, found: str) -> None:
    if found != "before a command":
        machine.handle()
        assert machine.systemd.quotas
    processes(machine, {SUPERVISOR: 1, WORKER: SUPERVISOR, 900: 1})
    if found == "by another process of the agent":
        machine.restart()
    elif found == "by a look":
        attend(machine)
    else:
        machine.handle()
    assert machine.systemd.quotas == {}
    assert machine.having("[CGI] The agent has no quota beside processes 900")
    assert machine.details["launcher"] == "scope", "handlers keep their units"
    processes(machine, {SUPERVISOR: 1, WORKER: SUPERVISOR})
    machine.handle()
    assert machine.systemd.quotas == {UNIT: "500ms"}, "they are gone"


def test_strangers_may_be_disregarded(machine: Machine) -> None:
    processes(machine, {900: 1})
    machine.values["Debug.CgroupDisableOnProcessCheckFailure"] = False
    machine.handle()
    assert machine.systemd.quotas == {UNIT: "500ms"}


def test_an_agent_that_is_held_back_too_much_has_no_quota_any_more(machine: Machine) -> None:
    held_back(machine, 1000)
    machine.handle()
    attend(machine)
    held_back(machine, 1120)
    attend(machine)
    assert machine.systemd.quotas == {UNIT: "500ms"}, "120 s in a period are bearable"
    held_back(machine, 1241)
    attend(machine)
    assert machine.systemd.quotas == {}
    assert machine.seen[-1] == ("CGroupsDisabled", False)
    machine.handle()
    assert machine.systemd.quotas == {}, "until it is started again"
    machine.restart()
    machine.handle()
    assert machine.systemd.quotas == {UNIT: "500ms"}


def test_being_held_back_may_be_disregarded(machine: Machine) -> None:
    machine.values["Debug.CgroupDisableOnQuotaCheckFailure"] = False
    machine.handle()
    for seconds in (0, 500):
        held_back(machine, seconds)
        attend(machine)
    assert machine.systemd.quotas == {UNIT: "500ms"}


def test_the_memory_of_it_survives_the_process(machine: Machine) -> None:
    machine.handle()
    saved = machine.state.load("scopes", {})
    assert json.loads(json.dumps(saved))["units"] == {UNIT: [governor.AGENT, 50.0]}


# -- the group


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("0::/system.slice/waagent.service\n", "waagent.service"),
        ("12:cpu,cpuacct:/x\n1:name=systemd:/azure.slice/walinuxagent.service\n0::/\n", "walinuxagent.service"),
        ("0::/user.slice/user-0.slice/session-1.scope\n", None),
        ("0::/\n", None),
        ("", None),
    ],
)
def test_which_unit_this_is(tmp_path: Path, text: str, unit: str | None) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(text)
    found = own.find(Paths(str(tmp_path)))
    assert (found.unit if found else None) == unit


def test_zombies_and_what_has_just_gone_are_no_strangers(machine: Machine) -> None:
    group = own.find(machine.paths)
    assert group is not None
    processes(machine, {900: 1}, "Z")
    write(machine, f"{GROUP}/cgroup.procs", "900\n901\n")
    assert own.strangers(machine.paths, group, SUPERVISOR) == []
    (machine.root / GROUP / "cgroup.procs").unlink()
    assert own.strangers(machine.paths, group, SUPERVISOR) is None
    assert own.throttled(machine.paths, group) is None


def test_the_older_hierarchy_counts_in_nanoseconds(machine: Machine) -> None:
    group = own.find(machine.paths)
    assert group is not None
    write(machine, f"sys/fs/cgroup/cpu,cpuacct{group.path}/cpu.stat", "nr_throttled 2\nthrottled_time 2500000000\n")
    assert own.throttled(machine.paths, group) == 2.5
