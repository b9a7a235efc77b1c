"""Whole agents as real processes against the embedded platform, with a plugin that tells what it is asked."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from waagent_fabric.agentprocess import RunningAgent
from waagent_fabric.api import Fabric
from waagent_fabric.faults import Fault

from .conftest import wait_for

pytestmark = pytest.mark.fabric

Starter = Callable[..., RunningAgent]

LINE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z (VERBOSE|INFO|WARNING|ERROR) \S+ ")

WATCHER = """
import os, sys, time
from waagent import hookimpl, Plan, Step, StatusReport

ROOT = {root!r}
ROLE = next((word[1:] for word in sys.argv if word.startswith("-run-")), "other")

def tell(text):
    with open(os.path.join(ROOT, "trace"), "a") as stream:
        stream.write(text + "\\n")

{top}

class Watcher:
    @hookimpl
    def on_start(self, agent):
        tell("start")

    @hookimpl
    def on_stop(self, agent):
        tell("stop")

    @hookimpl
    def on_goal_state(self, agent, goal_state):
        tell("goal state " + goal_state.extensions.id + " " + str(len(goal_state.certificates)))

    @hookimpl
    def report_status(self, agent):
        return StatusReport(details={{"seen": "watcher"}})

    @hookimpl
    def on_boot(self, agent):
        tell("boot")
        {boot}

plugin = Watcher()
"""


def install(root: Path, *, top: str = "", boot: str = "return None") -> dict[str, str]:
    """Install a third party's plugin and return the environment in which an agent finds it."""
    site = root.parent / "site"
    metadata = site / "watcher_waagent-1.0.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    metadata.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: watcher-waagent\nVersion: 1.0\n")
    metadata.joinpath("entry_points.txt").write_text("[waagent.plugins]\nwatcher = watcher_plugin:plugin\n")
    body = WATCHER.format(root=str(root), top=top, boot=boot)
    site.joinpath("watcher_plugin.py").write_text(body)
    for path in (site, metadata, *metadata.iterdir(), site / "watcher_plugin.py"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return {"PYTHONPATH": str(site)}


def trace(root: Path) -> list[str]:
    path = root / "trace"
    return path.read_text().splitlines() if path.exists() else []


def copy(root: Path) -> dict[str, Any]:
    path = root / "run/waagent/status.json"
    return json.loads(path.read_text()) if path.exists() else {}  # type: ignore[no-any-return]


def until(agent: RunningAgent, condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    agent.wait_until(condition, seconds, what)


def test_first_request_status_and_end(agent_root: Path, fabric: Fabric, running_agent: Starter) -> None:
    environment = install(agent_root)
    agent = running_agent(agent_root, fabric, environment=environment)
    until(agent, lambda: any(line.startswith("goal state") for line in trace(agent_root)), "the goal state")
    until(agent, lambda: fabric.statuses, "a status")
    assert [request.path for request in list(fabric.requests)[:2]] == ["/?comp=versions", "/machine/?comp=goalstate"]
    until(agent, lambda: copy(agent_root), "the copy for people")  # it follows the upload
    assert copy(agent_root)["version"] == "3.0.0.0"
    until(agent, lambda: copy(agent_root).get("report", {}).get("outcome") == "uploaded", "the copy")
    assert copy(agent_root)["details"]["watcher"] == {"seen": "watcher"}
    worker = agent.worker
    assert worker is not None
    maps = Path(f"/proc/{worker}/maps").read_text()
    assert "_ssl." not in maps, "the resident worker never loads ssl (ruling 30a)"
    assert "cryptography" not in maps
    count = len(fabric.statuses)
    process = agent.process
    assert process is not None
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0
    assert time.monotonic() - began < 5
    # A worker that comes after a short boot stage acts once; the boot stage asked once.
    assert trace(agent_root).count("boot") == 1
    assert trace(agent_root).count("start") == 1
    assert trace(agent_root)[-1] == "stop"
    assert len(fabric.statuses) == count + 1, "one last report"
    lines = [line for line in agent.log().splitlines() if line[:1].isdigit()]
    assert lines
    assert all(LINE.match(line) for line in lines)
    assert not [line for line in lines if " ERROR " in line]


def test_a_killed_worker_is_replaced_and_status_flows_on(
    agent_root: Path, fabric: Fabric, running_agent: Starter
) -> None:
    agent = running_agent(agent_root, fabric, environment=install(agent_root))
    until(agent, lambda: fabric.statuses, "a status")
    agent.kill_worker()
    count = len(fabric.statuses)
    until(agent, lambda: len(fabric.statuses) > count, "a status of the new worker")
    until(agent, lambda: sum(line.startswith("goal state") for line in trace(agent_root)) == 2, "the goal state again")
    assert trace(agent_root).count("boot") == 1, "the boot stage runs at a start of the service, not of the worker"


def test_a_worker_never_outlives_its_supervisor(agent_root: Path, fabric: Fabric, running_agent: Starter) -> None:
    agent = running_agent(agent_root, fabric)
    until(agent, lambda: fabric.statuses, "a status")
    worker = agent.worker
    assert worker is not None
    assert agent.process is not None
    agent.process.kill()
    agent.process.wait()
    wait_for(
        lambda: not Path(f"/proc/{worker}").exists() or " Z " in Path(f"/proc/{worker}/stat").read_text(), "its end"
    )
    assert "the worker is an orphan -- exiting" in agent.log()
    agent.process = None
    count = len(fabric.statuses)
    agent.start()
    until(agent, lambda: len(fabric.statuses) > count, "a status of the next start")


def test_status_flows_through_a_long_boot_and_nothing_is_acted_on(
    agent_root: Path, fabric: Fabric, running_agent: Starter
) -> None:
    boot = """
        def wait():
            while not os.path.exists(os.path.join(ROOT, "go")):
                time.sleep(0.02)
            tell("boot step done")
        step = Step("wait", "wait for the test", wait)
        return Plan("waiting", lambda: {"done": os.path.exists(os.path.join(ROOT, "go"))},
                    lambda facts: [] if facts["done"] else [step], phase="provision")"""
    agent = running_agent(agent_root, fabric, environment=install(agent_root, boot=boot))
    until(agent, lambda: fabric.statuses, "a status during boot")
    assert "start" in trace(agent_root)
    assert not [line for line in trace(agent_root) if line.startswith("goal state")]
    assert not list((agent_root / "var/lib/waagent").glob("*.prv")), "the boot stage owns the directory"
    (agent_root / "go").touch()
    until(agent, lambda: any(line.startswith("goal state") for line in trace(agent_root)), "the goal state")
    order = trace(agent_root)
    acted = next(line for line in order if line.startswith("goal state"))
    assert order.index("boot step done") < order.index(acted)
    assert int(acted.split()[-1]) > 0, "what was held back during boot is there before plugins act"


def test_a_failed_plan_is_in_the_status(agent_root: Path, fabric: Fabric, running_agent: Starter) -> None:
    boot = """
        def fail():
            raise OSError("no such disk")
        return Plan("disk", dict, lambda facts: [Step("format", "format the disk", fail)], phase="disk")"""
    agent = running_agent(agent_root, fabric, environment=install(agent_root, boot=boot))

    def told() -> bool:
        return any("no such disk" in json.dumps(status.document) for status in list(fabric.statuses))

    until(agent, told, "the failure in the status")

    def shown() -> bool:
        return any("boot: disk of plugin watcher" in line for line in copy(agent_root).get("problems", ()))

    until(agent, shown, "the failure in the copy for people")


def test_swap_runs_on_after_the_stage_is_done(agent_root: Path, fabric: Fabric, running_agent: Starter) -> None:
    boot = """
        def wait():
            while not os.path.exists(os.path.join(ROOT, "go")):
                time.sleep(0.02)
            tell("swap done")
        return Plan("swap", lambda: {"done": os.path.exists(os.path.join(ROOT, "go"))},
                    lambda facts: [] if facts["done"] else [Step("wait", "wait", wait)], phase="background")"""
    agent = running_agent(agent_root, fabric, environment=install(agent_root, boot=boot))
    until(agent, lambda: any(line.startswith("goal state") for line in trace(agent_root)), "the goal state")
    assert agent.boot is not None
    assert "swap done" not in trace(agent_root)
    (agent_root / "go").touch()
    until(agent, lambda: agent.boot is None, "the boot stage's end")
    assert "swap done" in trace(agent_root)


def test_a_boot_stage_killed_in_its_work_goes_on_from_the_facts(
    agent_root: Path, fabric: Fabric, running_agent: Starter
) -> None:
    boot = """
        def die():
            open(os.path.join(ROOT, "half"), "w").close()
            os.kill(os.getpid(), 9)
        def finish():
            tell("finished")
            open(os.path.join(ROOT, "done"), "w").close()
        there = lambda name: os.path.exists(os.path.join(ROOT, name))
        return Plan("work", lambda: {"half": there("half"), "done": there("done")},
                    lambda f: [] if f["done"] else [Step("finish", "finish", finish)] if f["half"]
                    else [Step("die", "die", die)])"""
    agent = running_agent(agent_root, fabric, environment=install(agent_root, boot=boot))
    until(agent, lambda: "finished" in trace(agent_root), "the second boot stage")
    until(agent, lambda: any(line.startswith("goal state") for line in trace(agent_root)), "the goal state")
    assert trace(agent_root).count("boot") == 2
    assert "The boot stage is started once more" in agent.log()


def test_without_a_boot_stage_the_worker_lists_the_plugins_itself_and_says_so(
    agent_root: Path, fabric: Fabric, running_agent: Starter
) -> None:
    environment = install(agent_root, top='if ROLE == "run-boot": tell("dies"); os._exit(9)')
    agent = running_agent(agent_root, fabric, environment=environment)
    until(agent, lambda: any(line.startswith("goal state") for line in trace(agent_root)), "the goal state")
    assert trace(agent_root).count("dies") == 2

    def told() -> bool:
        return any(
            "the worker looked for them itself" in json.dumps(status.document) for status in list(fabric.statuses)
        )

    until(agent, told, "the status says so")


def test_reload_applies_the_configuration(agent_root: Path, fabric: Fabric, running_agent: Starter) -> None:
    agent = running_agent(agent_root, fabric, environment=install(agent_root))
    until(agent, lambda: any(line.startswith("goal state") for line in trace(agent_root)), "the goal state")
    assert agent.process is not None
    pid = agent.process.pid
    with open(agent_root / "etc/waagent.conf", "a", encoding="utf-8") as stream:
        stream.write("Plugins.Disabled=watcher\n")
    agent.process.send_signal(signal.SIGHUP)
    until(agent, lambda: trace(agent_root)[-1] == "stop", "the old worker's end")

    def is_off() -> bool:
        return any(one["name"] == "watcher" and one["state"] == "off" for one in copy(agent_root).get("plugins", ()))

    until(agent, is_off, "the plugin is off")
    assert trace(agent_root).count("start") == 1
    assert agent.process.pid == pid
    assert agent.running


def test_a_disabled_agent_does_nothing_and_says_why(agent_root: Path, fabric: Fabric, running_agent: Starter) -> None:
    place = agent_root / "var/lib/waagent"
    place.mkdir(parents=True, mode=0o700)
    (place / "ovf-env.xml").write_text("<x><wa:ProvisionGuestAgent>false</wa:ProvisionGuestAgent></x>")
    agent = running_agent(agent_root, fabric, environment=install(agent_root))
    until(agent, lambda: copy(agent_root).get("disabled"), "the copy says so")
    assert "allowExtensionOperations" in agent.log()
    assert (place / "disable_agent").exists()
    asked = len(fabric.requests)
    time.sleep(2.5)  # two periods in which nothing may happen
    assert len(fabric.requests) == asked
    assert fabric.statuses == []
    assert not [line for line in trace(agent_root) if line.startswith("goal state")]
    assert agent.running


def test_an_outage_is_told_sparsely_and_ends_within_two_periods(
    agent_root: Path, fabric: Fabric, running_agent: Starter
) -> None:
    agent = running_agent(agent_root, fabric, environment=install(agent_root))
    until(agent, lambda: fabric.statuses, "a status")
    before = len(agent.log().splitlines())
    fabric.inject(Fault("outage"))
    until(agent, lambda: copy(agent_root).get("poll", {}).get("failures", 0) >= 8, "eight failed polls")
    errors = [line for line in agent.log().splitlines()[before:] if re.search(" (ERROR|WARNING) ", line)]
    assert len(errors) <= 12, "\n".join(errors)
    count = len(fabric.statuses)
    fabric.clear_faults()
    began = time.monotonic()
    until(agent, lambda: len(fabric.statuses) > count, "a status after the outage")
    assert time.monotonic() - began < 2 * 1.0 + 1.0
    until(agent, lambda: "recovered from previous errors" in agent.log(), "the recovery line")


def test_an_outage_at_the_start_keeps_no_plugin_waiting(
    agent_root: Path, fabric: Fabric, running_agent: Starter
) -> None:
    fabric.inject(Fault("outage"))
    agent = running_agent(agent_root, fabric, environment=install(agent_root))
    until(agent, lambda: "start" in trace(agent_root), "on_start without a platform")
    until(agent, lambda: copy(agent_root).get("poll", {}).get("failures"), "failures in the copy")
    assert fabric.statuses == []
    fabric.clear_faults()
    until(agent, lambda: fabric.statuses, "a status after the outage")


def test_stacks_of_every_thread_on_request(agent_root: Path, fabric: Fabric, running_agent: Starter) -> None:
    """What the supervisor asks of a silent worker."""
    agent = running_agent(agent_root, fabric)
    until(agent, lambda: fabric.statuses, "a status")
    worker = agent.worker
    assert worker is not None
    os.kill(worker, signal.SIGUSR1)
    path = agent_root / "run/waagent/worker.stacks"
    wait_for(lambda: "loop.py" in path.read_text(), "the loop's stack")
    wait_for(lambda: path.read_text().count("Thread 0x") + path.read_text().count("Current thread") >= 3, "all threads")
    assert agent.worker == worker


OURS = (
    "run/waagent/plugins.json",
    "run/waagent/boot.json",
    "run/waagent/status.json",
    "run/waagent/daemon.lock",
    "run/waagent/boot.lock",
    "run/waagent/worker.lock",
    "run/waagent/worker.stacks",
    "var/run/waagent.pid",
    "var/lib/waagent/state/provision_guest_agent.json",
    "var/lib/waagent/journal/boot.jsonl",
    "var/lib/waagent/journal/worker.jsonl",
    "var/lib/waagent/initial_goal_state",
    "var/lib/waagent/current_version",
    "var/lib/waagent/fast_track.json",
    "var/lib/waagent/ovf-env.xml",
    "var/lib/waagent/WireServerEndpoint",
    "var/lib/waagent/Protocol",
    "var/lib/waagent/agents/9.9.9.9.ban.json",
)


@pytest.mark.parametrize("kind", ["empty", "truncated", "random", "directory", "symlink"])
def test_no_file_of_ours_can_keep_the_agent_from_reporting(
    agent_root: Path, fabric: Fabric, running_agent: Starter, kind: str
) -> None:
    """Every file at once, of one kind; what a link leads to stays as it is."""
    victim = agent_root / "victim"
    victim.write_text("precious")
    for name in OURS:
        path = agent_root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "directory":
            path.mkdir()
            (path / "child").write_text("x")
        elif kind == "symlink":
            path.symlink_to(victim)
        else:
            path.write_bytes({"empty": b"", "truncated": b'{"schema": 1, "va', "random": os.urandom(3000)}[kind])
    agent = running_agent(agent_root, fabric, environment=install(agent_root))
    until(agent, lambda: fabric.statuses, "a status")
    until(agent, lambda: any(line.startswith("goal state") for line in trace(agent_root)), "the goal state")
    assert victim.read_text() == "precious"
    assert agent.process is not None
    agent.process.send_signal(signal.SIGTERM)
    assert agent.process.wait(15) == 0


def test_a_key_that_its_helper_could_not_make_is_made_later(
    agent_root: Path, fabric: Fabric, running_agent: Starter
) -> None:
    """The helper dies of what lies in the key's place; the worker has it made once the way is free."""
    place = agent_root / "var/lib/waagent"
    place.mkdir(parents=True, mode=0o700)
    (place / "TransportPrivate.pem").mkdir()
    (place / "TransportPrivate.pem/child").touch()
    agent = running_agent(agent_root, fabric)
    until(agent, lambda: "cannot be made" in agent.log(), "the helper's failure")
    until(agent, lambda: fabric.statuses, "a status all the same")
    (place / "TransportPrivate.pem/child").unlink()
    (place / "TransportPrivate.pem").rmdir()
    agent.kill_worker()
    until(agent, lambda: (place / "TransportCert.pem").exists(), "the key")
    until(agent, lambda: list(place.glob("*.prv")), "the tenant's key")
    assert (place / "TransportPrivate.pem").stat().st_mode & 0o077 == 0


def test_a_worker_started_by_hand_leaves_the_services_worker_alone(
    agent_root: Path, fabric: Fabric, running_agent: Starter
) -> None:
    agent = running_agent(agent_root, fabric)
    until(agent, lambda: fabric.statuses, "a status")
    worker = agent.worker
    done = subprocess.run(
        [sys.executable, "-m", "waagent", "--root", str(agent_root), "-run-exthandlers"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0
    assert f"A worker is already running: {worker}" in done.stderr
    assert agent.worker == worker
