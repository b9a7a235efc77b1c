"""Acceptance checks of extensions §23 through the whole agent: those that the other modules here do not hold."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from waagent_fabric import Fabric, HandlerSpec, SettingsSpec, read_calls, sample_package
from waagent_fabric.faults import Fault
from waagent_fabric.seen import find_handler

pytestmark = pytest.mark.fabric
NAME = "Contoso.Sample"


def spec(
    name: str = NAME, version: str = "1.0.0", sequence: int = 0, state: str = "enabled", **more: Any
) -> HandlerSpec:
    public = more.pop("public", {})
    return HandlerSpec(name, "1.0.0", settings=(SettingsSpec(public, sequence_number=sequence, **more),))


def operations(root: Path, name: str = NAME) -> list[str]:
    return [call.operation for call in read_calls(root, name)]


def message_of(item: dict[str, Any] | None) -> str:
    found: str = ((item or {}).get("formattedMessage") or {}).get("message") or ""
    return found


def test_1_a_fresh_install_in_order_with_the_files_that_handlers_know(
    fabric: Fabric, agent_root: Path, running_agent: Any, tmp_path: Path
) -> None:
    late = f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    detached = f"( {late}; write_status success 0 done ) >/dev/null 2>&1 &"
    package = sample_package(NAME, "1.0.0", enable=detached, status=None, extra={"lib/deep/data.txt": "x"})
    fabric.add_package(NAME, "1.0.0", package)
    fabric.publish([spec(sequence=3, protected={"a": "secret"})])
    agent = running_agent(agent_root, fabric)
    first = fabric.wait_for_status(lambda document: (find_handler(document, NAME) or {}).get("status") == "Ready", 40.0)
    item = find_handler(first, NAME)
    assert item is not None
    assert message_of(item) == "Plugin enabled"
    settings = item["runtimeSettingsStatus"]
    assert (settings["sequenceNumber"], settings["settingsStatus"]["status"]["status"]) == (3, "transitioning")
    (tmp_path / "go").touch()
    fabric.wait_for_extension(NAME, sequence_number=3)

    lines = agent.log()
    story = (
        "Download extension package",
        "Unpack extension package",
        "Update settings file: 3.settings",
        "Launch command:bin/handler.sh install",
        "Launch command:bin/handler.sh enable",
    )
    assert [lines.count(line) for line in story] == [1] * len(story)
    assert [lines.index(line) for line in story] == sorted(lines.index(line) for line in story)

    lib, logs = agent_root / "var/lib/waagent", agent_root / "var/log/azure"
    base = lib / f"{NAME}-1.0.0"
    modes = {
        lib: 0o700,
        base: 0o755,
        base / "lib/deep": 0o755,
        base / "HandlerManifest.json": 0o744,
        base / "HandlerEnvironment.json": 0o644,
        base / "config": 0o700,
        base / "config/3.settings": 0o600,
        base / "config/HandlerState": 0o644,
        base / "config/HandlerStatus": 0o644,
        base / "status": 0o700,
        lib / "initial_goal_state": 0o644,
        lib / "history": 0o700,
        logs: 0o755,
        logs / NAME: 0o755,
        logs / NAME / "CommandExecution.log": 0o644,
        logs / NAME / "events": 0o700,
    }
    assert {path: oct(path.stat().st_mode & 0o7777) for path in modes} == {path: oct(modes[path]) for path in modes}
    assert not list(lib.glob("*.zip*"))


def test_2_a_restart_runs_enable_only_and_what_changed_alone_brings_all_enables(
    fabric: Fabric, agent_root: Path, running_agent: Any
) -> None:
    for name in ("A", "B"):
        fabric.add_package(f"Contoso.{name}", "1.0.0", sample_package(f"Contoso.{name}", "1.0.0"))
    fabric.publish([spec("Contoso.A"), spec("Contoso.B")])
    agent = running_agent(agent_root, fabric)
    fabric.wait_for_extension("Contoso.A")
    fabric.wait_for_extension("Contoso.B")
    agent.process.terminate()
    agent.wait_exit()
    agent.start()
    agent.wait_until(lambda: operations(agent_root, "Contoso.B")[2:] == ["enable"], 30.0, "enable after the start")
    fabric.publish([spec("Contoso.A", sequence=1), spec("Contoso.B")])
    agent.wait_until(lambda: len(operations(agent_root, "Contoso.B")) == 4, 30.0, "enable for the goal state")
    fabric.wait_for_extension("Contoso.A", sequence_number=1)
    for name in ("Contoso.A", "Contoso.B"):
        assert operations(agent_root, name) == ["install", "enable", "enable", "enable"]


def test_6_the_time_limits_are_those_that_publishers_were_told(
    fabric: Fabric, agent_root: Path, running_agent: Any, tmp_path: Path
) -> None:
    wait = f"while [ ! -e {tmp_path}/$op ]; do sleep 0.05; done"
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0", install=wait, enable=wait))
    fabric.publish([spec()])
    agent = running_agent(agent_root, fabric)
    limits = {}
    for operation in ("install", "enable"):
        agent.wait_until(lambda: operations(agent_root)[-1:] == [operation], 30.0, operation)  # noqa: B023
        (order,) = [
            json.loads(path.read_text()) for path in (agent_root / "run/waagent/commands").glob("*/command.json")
        ]
        limits[order["operation"]] = order["timeout"]
        (tmp_path / operation).touch()
    assert limits == {"install": 900.0, "enable": 300.0}
    fabric.wait_for_extension(NAME)


def test_8_levels_wait_and_what_fails_takes_its_dependants_along(
    fabric: Fabric, agent_root: Path, running_agent: Any
) -> None:
    for name, more in (("First", {"long_run": 2}), ("Second", {}), ("Broken", {"enable": "exit 4"}), ("Left", {})):
        fabric.add_package(f"Contoso.{name}", "1.0.0", sample_package(f"Contoso.{name}", "1.0.0", **more))
    fabric.publish(
        [
            spec("Contoso.Second", level=1, depends_on=("Contoso.First",)),
            spec("Contoso.Left", level=1, depends_on=("Contoso.Broken",)),
            spec("Contoso.First"),
            spec("Contoso.Broken"),
        ]
    )
    running_agent(agent_root, fabric)
    fabric.wait_for_extension("Contoso.Second")
    assert (
        find_handler(fabric.status, "Contoso.First")["runtimeSettingsStatus"]["settingsStatus"]["status"][  # type: ignore[index]
            "status"
        ]
        == "success"
    ), "its detached work was waited for"
    left = fabric.wait_for_extension("Contoso.Left", status="error")
    assert "Contoso.Broken" in left["runtimeSettingsStatus"]["settingsStatus"]["status"]["formattedMessage"]["message"]
    assert operations(agent_root, "Contoso.Left") == []


def test_9_three_extensions_of_one_handler(fabric: Fabric, agent_root: Path, running_agent: Any) -> None:
    fails = '[ "$ConfigExtensionName" != bad ] || exit 9'
    package = sample_package(NAME, "1.0.0", enable=fails, manifest={"supportsMultipleExtensions": True})
    fabric.add_package(NAME, "1.0.0", package)

    def several(sequence: int, **states: str) -> HandlerSpec:
        settings = tuple(
            SettingsSpec({}, sequence_number=sequence, name=name, state=state) for name, state in states.items()
        )
        return HandlerSpec(NAME, "1.0.0", "enabled", settings, multi_config=True)

    fabric.publish([several(0, good="enabled", bad="enabled", off="disabled")])
    agent = running_agent(agent_root, fabric)
    fabric.wait_for_extension(NAME, extension="good")
    bad = fabric.wait_for_extension(NAME, "error", extension="bad")
    assert bad["status"] == "Ready"
    assert bad["runtimeSettingsStatus"]["settingsStatus"]["status"]["code"] == 1009
    fabric.wait_for(lambda: find_handler(fabric.status, NAME, "off") is None, 20.0, "the disabled one is not reported")
    state = agent_root / "var/lib/waagent" / f"{NAME}-1.0.0" / "config"
    assert (state / "HandlerState").read_text() == "Enabled"

    fabric.publish([several(1, good="disabled", bad="disabled", off="disabled")])
    agent.wait_until(lambda: (state / "HandlerState").read_text() == "Installed", 30.0, "the last one is disabled")
    assert not list(state.glob("good.*"))


def test_13_switched_off_the_platform_hears_it_at_once(fabric: Fabric, agent_root: Path, running_agent: Any) -> None:
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0"))
    fabric.publish([spec(sequence=5)])
    running_agent(agent_root, fabric, conf={"Extensions.Enabled": "n"})
    item = fabric.wait_for_extension(NAME, "error", sequence_number=5, timeout=15)
    assert (item["status"], item["code"]) == ("NotReady", 1009)
    assert "extension processing is disabled" in message_of(item)
    assert fabric.status is not None
    assert fabric.status["aggregateStatus"]["guestAgentStatus"]["status"] == "Ready"
    assert not [record for record in fabric.requests if "__1.0.0" in record.path], "nothing was downloaded"


def test_a_lost_key_is_fetched_again_before_the_handler_needs_it(
    fabric: Fabric, agent_root: Path, running_agent: Any
) -> None:
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0", enable='open_protected >"$logs/opened"'))
    fabric.publish([spec(protected={"password": "first"})])
    agent = running_agent(agent_root, fabric)
    fabric.wait_for_extension(NAME)
    lib, opened = agent_root / "var/lib/waagent", agent_root / "var/log/azure" / NAME / "opened"
    assert json.loads(opened.read_text()) == {"password": "first"}
    keys = [path for path in lib.glob("*.prv") if len(path.stem) == 40]
    assert keys
    for key in keys:
        key.unlink()
    # The other channel brings no certificates: nobody but the extension misses the key.
    fabric.publish([spec(sequence=1, protected={"password": "second"})], channel="fasttrack")
    agent.wait_until(lambda: "second" in opened.read_text(), 30.0, "the settings are opened again")
    fabric.wait_for_extension(NAME, sequence_number=1)
    assert "The protected settings need what is not there, asking for it again: " in agent.log()
    assert all(key.exists() for key in keys)


def test_a_newer_goal_state_comes_while_a_command_runs(
    fabric: Fabric, agent_root: Path, running_agent: Any, tmp_path: Path
) -> None:
    wait = f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    fabric.add_package("Contoso.Slow", "1.0.0", sample_package("Contoso.Slow", "1.0.0", install=wait))
    fabric.add_package("Contoso.Unwanted", "1.0.0", sample_package("Contoso.Unwanted", "1.0.0"))
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0"))
    fabric.publish([spec("Contoso.Slow"), spec("Contoso.Unwanted")])
    agent = running_agent(agent_root, fabric)
    agent.wait_until(lambda: operations(agent_root, "Contoso.Slow") == ["install"], 30.0, "the install")
    fabric.publish([spec("Contoso.Slow", sequence=1), spec()])
    agent.wait_for_log("takes the place of", 20.0)
    (tmp_path / "go").touch()
    fabric.wait_for_extension(NAME)
    fabric.wait_for_extension("Contoso.Slow", sequence_number=1)
    assert operations(agent_root, "Contoso.Slow") == ["install", "enable"]
    assert operations(agent_root, "Contoso.Unwanted") == []


def test_a_newer_goal_state_does_not_wait_for_a_hopeless_download(
    fabric: Fabric, agent_root: Path, running_agent: Any
) -> None:
    for name in ("Contoso.Hopeless", NAME):
        fabric.add_package(name, "1.0.0", sample_package(name, "1.0.0"))
    fabric.inject(Fault("status", server="hostplugin", path="/extensionArtifact", statuses=500, times=10_000))
    fabric.inject(Fault("status", server="blobs", path="Contoso.Hopeless", statuses=500, times=10_000))
    fabric.publish([spec("Contoso.Hopeless")])
    agent = running_agent(agent_root, fabric)
    fabric.wait_for(lambda: any("Contoso.Hopeless" in r.path for r in fabric.requests), 30.0, "the download")
    began = time.monotonic()
    fabric.publish([spec(), spec("Contoso.Hopeless", sequence=1)])
    agent.wait_until(lambda: operations(agent_root) == ["install", "enable"], 60.0, "the newer goal state's work")
    log = agent.log()
    assert "[Contoso.Hopeless-1.0.0] Given up, as there is a newer goal state: Failed to download artifacts" in log
    # The first tries of the hopeless download alone take half a minute, and three more follow.
    assert time.monotonic() - began < 25
    assert "is newer; planned anew: Contoso.Hopeless\n" in log


def test_a_fast_track_goal_state_is_done_like_any_other(fabric: Fabric, agent_root: Path, running_agent: Any) -> None:
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0"))
    running_agent(agent_root, fabric)
    fabric.wait_for_status(timeout=20)
    fabric.publish([spec(sequence=2, protected={"a": "secret"})], channel="fasttrack")
    fabric.wait_for_extension(NAME, sequence_number=2)
    assert operations(agent_root) == ["install", "enable"]
    fabric.wait_for(lambda: (find_handler(fabric.status, NAME) or {}).get("status") == "Ready", 20.0, "it is ready")
