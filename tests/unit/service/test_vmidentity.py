"""When a machine counts as another one, and what then happens (provisioning §12, §29.3; cli §5.3)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from waagent import Plan, Step, hookimpl
from waagent.agent import BOOT, Agent, make_agent
from waagent.plugins import PluginHost
from waagent.service.boot import BootStage
from waagent.service.vmidentity import same_machine, swapped

ONE = "544CDFD0-CB4E-4B4A-9954-5BDF3ED5C3B8"
ONE_SWAPPED = "D0DF4C54-4ECB-4A4B-9954-5BDF3ED5C3B8"
OTHER = "11111111-2222-3333-4444-555555555555"


@pytest.mark.parametrize(
    ("recorded", "present", "same"),
    [
        (ONE, ONE, True),
        (ONE.lower(), ONE, True),
        (ONE, ONE.lower(), True),
        (ONE_SWAPPED, ONE, True),
        (ONE_SWAPPED.lower(), ONE, True),
        (ONE, ONE_SWAPPED, True),
        (OTHER, ONE, False),
        ("no-guid", "no-guid", True),
        ("no-guid", ONE, False),
    ],
)
def test_identities_are_compared_in_either_byte_order_and_case(recorded: str, present: str, same: bool) -> None:
    assert same_machine(recorded, present) is same


def test_swapping_twice_changes_nothing() -> None:
    assert swapped(ONE) == ONE_SWAPPED
    assert swapped(ONE_SWAPPED) == ONE
    assert swapped(ONE.lower()) == ONE_SWAPPED.lower()
    assert swapped("not a GUID") == "not a GUID"


class Firmware:
    """Tells the machine's id."""

    waagent_any_root = True

    def __init__(self, vm_id: str) -> None:
        self.vm_id = vm_id

    @hookimpl
    def read_vm_id(self) -> str:
        return self.vm_id


class Feature:
    """Reacts to another identity with a plan, and shows in what order things happen."""

    def __init__(self, failing: bool = False) -> None:
        self.calls: list[str] = []
        self.failing = failing

    @hookimpl
    def on_vm_identity_change(self, agent: Any, old: str, new: str) -> Plan:
        self.calls.append(f"{old} -> {new}")
        done: list[str] = []

        def forget() -> None:
            self.calls.append("forgotten")
            done.append("forgotten")
            if self.failing:
                raise OSError("the disk is full")

        return Plan(
            "forget", lambda: {"done": bool(done)}, lambda facts: [] if facts["done"] else [Step("s", "s", forget)]
        )

    @hookimpl
    def on_boot(self, agent: Any) -> None:
        self.calls.append("boot")


def start(root: Path, firmware: Firmware, feature: Feature) -> Agent:
    for place in ("var/log", "run/waagent"):
        (root / place).mkdir(parents=True, exist_ok=True)
    agent = make_agent(BOOT, str(root))
    agent.log.sinks.stream = None
    host = PluginHost(agent.log, agent.config, agent.paths)
    host.add("feature", feature)
    host.add("linux", firmware, group="waagent.distros")
    agent.use_plugins(host)
    BootStage(agent, None).run()
    agent.executor.journal.close()
    return agent


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    (tmp_path / "var/lib/waagent").mkdir(parents=True)
    return tmp_path / "var/lib/waagent/provisioned"


def test_a_copy_of_a_machine_is_noticed_once_and_before_anything_else(tmp_path: Path, marker: Path) -> None:
    marker.write_text(ONE.lower())
    feature = Feature()
    start(tmp_path, Firmware(OTHER), feature)
    assert feature.calls == [f"{ONE} -> {OTHER}", "forgotten", "boot"]
    assert marker.read_text() == OTHER
    assert "VM identity changed" in (tmp_path / "var/log/waagent.log").read_text()
    start(tmp_path, Firmware(OTHER), feature)
    assert feature.calls[3:] == ["boot"]


@pytest.mark.parametrize("recorded", [ONE, ONE.lower(), ONE_SWAPPED, ONE_SWAPPED.lower(), "", None])
def test_the_same_machine_and_one_without_a_record_are_left_alone(
    tmp_path: Path, marker: Path, recorded: str | None
) -> None:
    if recorded is not None:
        marker.write_text(recorded)
    feature = Feature()
    start(tmp_path, Firmware(ONE), feature)
    assert feature.calls == ["boot"]
    assert (marker.read_text() if marker.exists() else None) == recorded


def test_a_machine_that_does_not_tell_who_it_is_keeps_everything(tmp_path: Path, marker: Path) -> None:
    marker.write_text(ONE)
    feature = Feature()
    start(tmp_path, Firmware(""), feature)
    assert feature.calls == ["boot"]
    assert marker.read_text() == ONE
    assert "does not tell its unique id" in (tmp_path / "var/log/waagent.log").read_text()


def test_under_another_root_the_machine_outside_is_not_asked(tmp_path: Path, marker: Path) -> None:
    marker.write_text(ONE)
    feature = Feature()
    firmware = Firmware(OTHER)
    firmware.waagent_any_root = False
    start(tmp_path, firmware, feature)
    assert feature.calls == ["boot"]
    assert marker.read_text() == ONE


def test_a_plan_that_fails_is_told_and_not_repeated_at_every_start(tmp_path: Path, marker: Path) -> None:
    marker.write_text(ONE)
    feature = Feature(failing=True)
    start(tmp_path, Firmware(OTHER), feature)
    results = json.loads((tmp_path / "run/waagent/boot.json").read_text())["plans"]
    assert [(plan["plan"], plan["ok"]) for plan in results] == [("forget", False)]
    assert "the disk is full" in results[0]["error"]
    assert marker.read_text() == OTHER
