"""Extensions through the whole agent: a platform over HTTP, real processes, kills (extensions §23)."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from waagent_fabric import Fabric, Fault, HandlerSpec, SettingsSpec, read_calls, sample_package

pytestmark = pytest.mark.fabric
NAME = "Contoso.Sample"


def spec(version: str, sequence: int = 0, state: str = "enabled", **settings: Any) -> HandlerSpec:
    return HandlerSpec(NAME, version, state, (SettingsSpec(public={}, sequence_number=sequence, **settings),))


def operations(root: Path, name: str = NAME) -> list[str]:
    return [f"{call.operation} {call.version}" for call in read_calls(root, name)]


def wait_for(fabric: Fabric, status: str, sequence: int = 0, timeout: float = 40.0) -> dict[str, Any]:
    def settled(document: dict[str, Any]) -> bool:
        for item in document["aggregateStatus"]["handlerAggregateStatus"]:
            settings = item.get("runtimeSettingsStatus")
            if item["handlerName"] == NAME and settings and settings["sequenceNumber"] == sequence:
                # An extension may report success while its command is still about to end.
                ready = status != "success" or item["status"] == "Ready"
                return bool(ready and settings["settingsStatus"]["status"]["status"] == status)
        return False

    return fabric.wait_for_status(settled, timeout)


def handlers_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = document["aggregateStatus"]["handlerAggregateStatus"]
    return found


def item_of(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(
        item for item in document["aggregateStatus"]["handlerAggregateStatus"] if item["handlerName"] == NAME
    )
    return found


def test_install_upgrade_downgrade_uninstall(fabric: Fabric, agent_root: Path, running_agent: Any) -> None:
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0"))
    fabric.add_package(NAME, "1.1.0", sample_package(NAME, "1.1.0"))
    fabric.publish([spec("1.0.0", protected={"secret": "of a test"})])
    running_agent(agent_root, fabric)
    first = item_of(wait_for(fabric, "success"))
    assert (first["status"], first["handlerVersion"]) == ("Ready", "1.0.0")
    assert operations(agent_root) == ["install 1.0.0", "enable 1.0.0"]

    fabric.publish([spec("1.1.0", 1)])
    assert item_of(wait_for(fabric, "success", 1))["handlerVersion"] == "1.1.0"
    assert operations(agent_root)[2:] == [
        "disable 1.0.0",
        "update 1.1.0",
        "uninstall 1.0.0",
        "install 1.1.0",
        "enable 1.1.0",
    ]

    fabric.publish([spec("1.0.0", 2)])
    assert item_of(wait_for(fabric, "success", 2))["handlerVersion"] == "1.0.0"
    assert operations(agent_root)[7:] == [
        "disable 1.1.0",
        "update 1.1.0",
        "uninstall 1.1.0",
        "install 1.0.0",
        "enable 1.0.0",
    ]

    fabric.publish([spec("1.0.0", 2, "uninstall")])
    fabric.wait_for(lambda: fabric.status and not handlers_of(fabric.status), 40.0, "the handler is no longer reported")
    assert operations(agent_root)[12:] == ["disable 1.0.0", "uninstall 1.0.0"]
    assert not list((agent_root / "var/lib/waagent").glob(f"{NAME}*"))


def test_while_a_command_runs_the_status_says_which_and_flows_every_period(
    fabric: Fabric, agent_root: Path, running_agent: Any, tmp_path: Path
) -> None:
    wait = f"echo half way; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0", install=wait))
    fabric.publish([spec("1.0.0", 3)])
    running_agent(agent_root, fabric)
    busy = item_of(fabric.wait_for_status(lambda document: "last output: half way" in str(document), 40.0))
    assert busy["status"] == "Installing"
    assert busy["formattedMessage"]["message"].startswith("Running install since ")
    settings = busy["runtimeSettingsStatus"]
    assert (settings["sequenceNumber"], settings["settingsStatus"]["status"]["status"]) == (3, "transitioning")
    before = len(fabric.statuses)
    fabric.wait_for(lambda: len(fabric.statuses) >= before + 3, 20.0, "three more uploads")
    (tmp_path / "go").touch()
    wait_for(fabric, "success", 3)


def test_a_child_that_holds_the_output_open_does_not_hold_up_the_agent(
    fabric: Fabric, agent_root: Path, running_agent: Any, tmp_path: Path
) -> None:
    enable = f"sleep 90 & echo $! >{tmp_path}/child"
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0", enable=enable))
    fabric.publish([spec("1.0.0")])
    running_agent(agent_root, fabric)
    wait_for(fabric, "success")
    os.kill(int((tmp_path / "child").read_text()), 0)


@pytest.mark.parametrize("operation", ["install", "enable"])
def test_a_killed_worker_is_followed_by_one_that_takes_the_command_up(
    fabric: Fabric, agent_root: Path, running_agent: Any, tmp_path: Path, operation: str
) -> None:
    wait = f"touch {tmp_path}/begun; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0", **{operation: wait}))  # type: ignore[arg-type]
    fabric.publish([spec("1.0.0", 4)])
    agent = running_agent(agent_root, fabric)
    agent.wait_until((tmp_path / "begun").exists, 40.0, "the command runs")
    before = len(fabric.statuses)
    agent.kill_worker()
    # Status flows again while the command still runs.
    agent.wait_until(lambda: len(fabric.statuses) > before, 20.0, "a status of the new worker")
    (tmp_path / "go").touch()
    wait_for(fabric, "success", 4)
    assert operations(agent_root) == ["install 1.0.0", "enable 1.0.0"]


def test_a_stopped_service_leaves_the_command_running_and_takes_it_up_when_started_again(
    fabric: Fabric, agent_root: Path, running_agent: Any, tmp_path: Path
) -> None:
    wait = f"echo $$ >{tmp_path}/begun; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0", enable=wait))
    fabric.publish([spec("1.0.0", 4)])
    agent = running_agent(agent_root, fabric)
    agent.wait_until((tmp_path / "begun").exists, 40.0, "the command runs")
    began = time.monotonic()
    agent.process.send_signal(signal.SIGTERM)
    agent.wait_exit(20.0)
    assert time.monotonic() - began < 10
    os.kill(int((tmp_path / "begun").read_text()), 0)
    agent.start()
    agent.wait_for_log("Going on with", 30.0)
    (tmp_path / "go").touch()
    wait_for(fabric, "success", 4)
    assert operations(agent_root) == ["install 1.0.0", "enable 1.0.0"]


def test_a_package_cut_short_once_is_fetched_again(fabric: Fabric, agent_root: Path, running_agent: Any) -> None:
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0"))
    cut = fabric.inject(Fault("truncate", path="1.0.0", method="GET", times=1))
    fabric.publish([spec("1.0.0")])
    running_agent(agent_root, fabric)
    wait_for(fabric, "success")
    assert cut.hits == 1
    assert operations(agent_root) == ["install 1.0.0", "enable 1.0.0"]


def test_twenty_quick_extensions(fabric: Fabric, agent_root: Path, running_agent: Any) -> None:
    names = [f"Contoso.Quick{number}" for number in range(20)]
    for name in names:
        fabric.add_package(name, "1.0.0", sample_package(name, "1.0.0"))
    agent = running_agent(agent_root, fabric)
    agent.wait_until(lambda: fabric.statuses, 30.0, "the first status")
    began = time.monotonic()
    fabric.publish([HandlerSpec(name, "1.0.0", settings=(SettingsSpec(public={}),)) for name in names])

    def all_there(document: dict[str, Any]) -> bool:
        items = document["aggregateStatus"]["handlerAggregateStatus"]
        return len(items) == 20 and all(
            item.get("runtimeSettingsStatus", {}).get("settingsStatus", {}).get("status", {}).get("status") == "success"
            for item in items
        )

    fabric.wait_for_status(all_there, 60.0)
    assert time.monotonic() - began < 20
