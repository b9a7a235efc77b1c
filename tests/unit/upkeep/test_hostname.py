"""The host name monitor: flapping names, names given while the agent was down, tries that fail (provisioning §16)."""

from __future__ import annotations

import json
import os
import select
from typing import Any

import pytest

from tests.unit.upkeep.machine import Machine
from waagent_upkeep import publishing
from waagent_upkeep.hostname import HostNamePlugin
from waagent_upkeep.namewatch import KERNEL_FILE, NameWatch


class Hooks:
    """What the façade does, for one plugin and whoever else is listening."""

    def __init__(self, machine: Machine, name: list[str]) -> None:
        self.machine = machine
        self.name = name
        self.watch: NameWatch | None = None
        self.fired: list[tuple[str, str]] = []

    def on_hostname_change(self, agent: Any, old: str, new: str) -> list[tuple[str, Any]]:
        self.fired.append((old, new))
        attempt = self.watch.attempt if self.watch else 0
        return [("hostname", publishing.plan(self.machine, new, attempt, lambda: self.name[0]))]


class Monitor:
    def __init__(self, machine: Machine, name: str) -> None:
        self.machine = machine
        self.name = [name]
        self.hooks = machine.hooks = Hooks(machine, self.name)
        self.watch = self.hooks.watch = NameWatch(machine, lambda: self.name[0])
        self.watch.begin()
        self.watch.look()

    def rename(self, name: str) -> None:
        self.name[0] = name
        self.watch.look()

    @property
    def published(self) -> list[str]:
        return [name for (name,) in self.machine.distro.asked("publish_hostname")]


def test_a_new_name_is_set_published_and_noted(machine: Machine) -> None:
    monitor = Monitor(machine, "web1")
    assert machine.read("/var/lib/waagent/published_hostname") == "web1"
    monitor.rename("web2")
    machine.loop.advance(4.9)
    assert not machine.distro.calls, "not before it was stable for five seconds"
    machine.loop.advance(0.2)
    assert machine.distro.calls == [("set_hostname", "web2"), ("publish_hostname", "web2")]
    assert machine.read("/var/lib/waagent/published_hostname") == "web2"
    assert machine.logged("INFO", "EnvMonitor: Detected hostname change: web1 -> web2")
    assert monitor.hooks.fired == [("web1", "web2")]
    machine.loop.advance(1000)
    monitor.watch.look()
    assert monitor.published == ["web2"]


def test_a_name_that_comes_and_goes_is_not_published(machine: Machine) -> None:
    monitor = Monitor(machine, "web1")
    for name in ("localhost", "dhcp-7", "web1", "dhcp-7", "web1"):
        monitor.rename(name)
        machine.loop.advance(3)
    machine.loop.advance(60)
    assert machine.distro.calls == []


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST.localdomain", "", "(none)"])
def test_placeholders_are_no_names(machine: Machine, name: str) -> None:
    monitor = Monitor(machine, "web1")
    monitor.rename(name)
    machine.loop.advance(3600)
    assert machine.distro.calls == []


def test_the_last_of_several_names_counts(machine: Machine) -> None:
    monitor = Monitor(machine, "web1")
    monitor.rename("web2")
    machine.loop.advance(3)
    monitor.rename("web3")
    machine.loop.advance(60)
    assert monitor.published == ["web3"]


def test_a_name_given_while_the_agent_was_down(machine: Machine) -> None:
    machine.write("/var/lib/waagent/published_hostname", "web1\n")
    monitor = Monitor(machine, "web9")
    machine.loop.advance(6)
    assert monitor.published == ["web9"]
    assert monitor.hooks.fired == [("web1", "web9")]


def test_what_cloud_init_set_is_the_baseline(machine: Machine) -> None:
    machine.write("/var/lib/cloud/data/set-hostname", json.dumps({"fqdn": "web1.example", "hostname": " web1 "}))
    monitor = Monitor(machine, "renamed")
    assert machine.read("/var/lib/waagent/published_hostname") == "web1"
    machine.loop.advance(6)
    assert monitor.published == ["renamed"]


@pytest.mark.parametrize("text", ["", "{", '["web1"]', '{"hostname": 7}'])
def test_a_damaged_note_of_cloud_init_counts_for_nothing(machine: Machine, text: str) -> None:
    machine.write("/var/lib/cloud/data/set-hostname", text)
    Monitor(machine, "web1")
    assert machine.read("/var/lib/waagent/published_hostname") == "web1"


def test_a_failed_publication_is_repeated_after_30_60_and_120_seconds(machine: Machine) -> None:
    monitor = Monitor(machine, "web1")
    machine.distro.answers["publish_hostname"] = OSError("no interface")
    monitor.rename("web2")
    tries = []
    for second in range(1000):
        before = len(monitor.published)
        machine.loop.advance(1)
        tries += [second] * (len(monitor.published) - before)
    assert [later - tries[0] for later in tries] == [0, 30, 90, 210]
    assert len(machine.logged("EnvMonitor: Detected hostname change")) == 1
    assert [event.operation for event in machine.happened if not event.success] == ["HostnamePublishing"]
    assert machine.read("/var/lib/waagent/published_hostname") == "web1", "a restart tries again"
    monitor.rename("web3")
    machine.distro.answers.clear()
    machine.loop.advance(6)
    assert monitor.published[-1] == "web3", "another name is another matter"


def test_a_repeated_publication_succeeds(machine: Machine) -> None:
    monitor = Monitor(machine, "web1")
    failures = iter([OSError("no interface"), OSError("no interface")])

    def publish(name: str) -> bool:
        problem = next(failures, None)
        if problem:
            raise problem
        return True

    machine.distro.answers["publish_hostname"] = publish
    monitor.rename("web2")
    machine.loop.advance(200)
    assert machine.read("/var/lib/waagent/published_hostname") == "web2"
    assert machine.distro.asked("set_hostname")[-1] == ("web2",)


def test_a_name_that_changes_between_the_tries(machine: Machine) -> None:
    monitor = Monitor(machine, "web1")
    machine.distro.answers["publish_hostname"] = OSError("no interface")
    monitor.rename("web2")
    machine.loop.advance(10)
    machine.distro.answers.clear()
    monitor.rename("web3")
    machine.loop.advance(6)
    assert machine.read("/var/lib/waagent/published_hostname") == "web3"
    machine.loop.advance(1000)
    assert monitor.published == ["web2", "web3"]


def test_a_rename_back_needs_nothing(machine: Machine) -> None:
    monitor = Monitor(machine, "web1")
    machine.distro.answers["publish_hostname"] = OSError("no interface")
    monitor.rename("web2")
    machine.loop.advance(10)
    monitor.rename("web1")
    machine.loop.advance(1000)
    assert monitor.published == ["web2"]


def test_the_planner_by_facts(machine: Machine) -> None:
    plan = publishing.plan(machine, "web2", 0, lambda: "web2")
    facts = {"name": "web2", "set": False, "told": False, "published": "web1"}
    rows = {
        (): ["set web2", "publish web2", "note web2"],
        (("set", True),): ["publish web2", "note web2"],
        (("set", True), ("told", True)): ["note web2"],
        (("published", "web2"),): [],
        (("name", "web3"),): [],
    }
    for change, steps in rows.items():
        assert [step.name for step in plan.planner({**facts, **dict(change)})] == steps


@pytest.mark.skipif(not os.path.exists(KERNEL_FILE), reason="this kernel tells of no changes")
def test_the_kernels_file_is_watched_for_changes_only(machine: Machine) -> None:
    monitor = Monitor(machine, "web1")
    ((descriptor, (mask, wake)),) = machine.loop.watched.items()
    assert mask == select.POLLPRI | select.POLLERR
    monitor.name[0] = "web2"
    wake(select.POLLPRI)
    machine.loop.advance(6)
    assert monitor.published == ["web2"]
    monitor.watch.close()
    assert not machine.loop.watched
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_switched_off(machine: Machine) -> None:
    machine.configure("Provisioning.MonitorHostName=n\n")
    assert HostNamePlugin().declare_periodic(machine) == []
    assert HostNamePlugin().check_health(machine) == []


def test_health_names_both_names(machine: Machine) -> None:
    machine.write("/var/lib/waagent/published_hostname", "some-other-name")
    (check,) = HostNamePlugin().check_health(machine)
    assert check.result == "warning"
    assert "some-other-name" in check.detail
    assert os.uname().nodename in check.detail
