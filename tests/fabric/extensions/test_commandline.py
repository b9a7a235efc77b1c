"""``waagent extensions list``, ``show`` and ``plan`` beside a running agent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from waagent_fabric import Fabric, HandlerSpec, SettingsSpec, read_calls, sample_package

pytestmark = pytest.mark.fabric
NAME = "Contoso.Sample"


def waagent(root: Path, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "waagent", "--root", str(root), *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def shown(root: Path, name: str = NAME) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(waagent(root, "extensions", "show", name, "--json"))
    return document


def test_people_see_what_runs_what_ran_and_where_the_logs_are(
    fabric: Fabric, agent_root: Path, running_agent: Any, tmp_path: Path
) -> None:
    wait = f"echo half way; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0", enable=wait))
    fabric.publish([HandlerSpec(NAME, "1.0.0", settings=(SettingsSpec(public={}, sequence_number=3),))])
    agent = running_agent(agent_root, fabric)
    agent.wait_until(lambda: len(read_calls(agent_root, NAME)) == 2, 40.0, "enable runs")
    fabric.wait_for_status(lambda document: "Running enable" in str(document), 20.0)

    agent.wait_until(lambda: "enable runs since" in waagent(agent_root, "extensions", "list"), 20.0, "it is listed")
    listed = json.loads(waagent(agent_root, "extensions", "list", "--json"))
    assert [(item["fullName"], item["sequenceNumber"]) for item in listed["extensions"]] == [(NAME, 3)]
    document = shown(agent_root)
    running = document["running"]
    assert (running["operation"], running["lastLine"]) == ("enable", "half way")
    assert running["since"] < running["deadline"]
    assert [(entry["operation"], entry["exitCode"], entry["end"]) for entry in document["commands"]] == [
        ("install", 0, "succeeded")
    ]
    assert document["state"] == "Installed"

    (tmp_path / "go").touch()
    fabric.wait_for_extension(NAME, sequence_number=3)
    agent.wait_until(lambda: shown(agent_root)["running"] is None, 20.0, "it is shown that nothing runs")
    # What the platform is told follows with the next report.
    agent.wait_until(lambda: shown(agent_root)["status"] == "Ready", 20.0, "it is shown as ready")
    document = shown(agent_root)
    assert (document["status"], document["state"]) == ("Ready", "Enabled")
    assert [(item["status"], item["message"]) for item in document["extensions"]] == [("success", "done")]
    last = document["commands"][-1]
    assert (last["operation"], last["command"], last["exitCode"]) == ("enable", "bin/handler.sh enable", 0)
    assert 0 < last["seconds"] < 60
    assert all(Path(path).exists() for path in document["logs"])
    assert document["logs"][0].endswith(f"{NAME}/CommandExecution.log")
    text = waagent(agent_root, "extensions", "show", NAME.lower())
    assert "enable 1.0.0: succeeded, exit code 0" in text
    assert "no extension is called 'Nobody'" in waagent(agent_root, "extensions", "show", "Nobody", code=1)


def test_a_recorded_goal_state_is_planned_and_not_done(fabric: Fabric, agent_root: Path, running_agent: Any) -> None:
    for version in ("1.0.0", "1.1.0"):
        fabric.add_package(NAME, version, sample_package(NAME, version))
    fabric.publish([HandlerSpec(NAME, "1.0.0", settings=(SettingsSpec({}, {"a": "secret"}),))])
    agent = running_agent(agent_root, fabric)
    fabric.wait_for_extension(NAME)
    agent.stop()
    history = agent_root / "var/lib/waagent/history"
    (recorded,) = [
        path
        for path in history.glob("*/ExtensionsConfig.xml")
        if NAME in path.read_text() and "REDACTED" in path.read_text()
    ]
    text = waagent(agent_root, "extensions", "plan", str(recorded))
    assert f"run enable of {NAME} 1.0.0 (bin/handler.sh enable; at most 300 s)" in text
    assert "run install" not in text

    newer = agent_root / "newer.xml"
    newer.write_text(recorded.read_text().replace("1.0.0", "1.1.0"))
    document = json.loads(waagent(agent_root, "extensions", "plan", str(newer), "--json"))
    steps = [step.partition(" (")[0] for step in document["units"][0]["steps"]]
    assert [step for step in steps if step.startswith("run ")] == [
        f"run disable of {NAME} 1.0.0",
        f"run update of {NAME} 1.1.0",
        f"run uninstall of {NAME} 1.0.0",
        f"run install of {NAME} 1.1.0",
        f"run enable of {NAME} 1.1.0",
    ]
    assert [call.operation for call in read_calls(agent_root, NAME)] == ["install", "enable"]
    assert not (agent_root / "var/lib/waagent" / f"{NAME}-1.1.0").exists()
    nothing = agent_root / "nothing"
    nothing.write_text("nothing")
    assert "was expected" in waagent(agent_root, "extensions", "plan", str(nothing), code=1)
