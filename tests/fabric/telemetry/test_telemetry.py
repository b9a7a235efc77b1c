"""Telemetry through the whole agent: what the platform gets, what it costs, what happens when it does not take it."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from waagent_fabric import Fabric, Fault, HandlerSpec, SettingsSpec, sample_package
from waagent_fabric.records import TelemetryRecord

pytestmark = pytest.mark.fabric

OPERATIONS, LOGS = "69B669B9-4AF8-4C50-BDC4-6006FA76E975", "FFF0196F-EE4C-4EAF-9AA5-776F622DEB4F"
SECRET = "Sig0fATest"
NAME = "Contoso.Sample"


def queue_of(root: Path) -> Path:
    return root / "var/lib/waagent/events"


def waiting(root: Path) -> list[str]:
    return sorted(path.name for path in queue_of(root).glob("*.tld")) if queue_of(root).exists() else []


def fill(root: Path, count: int, message: str = "m", suffix: str = ".waagent.tld") -> None:
    queue_of(root).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        document = {
            "eventId": 1,
            "providerId": OPERATIONS,
            "parameters": [
                {"name": "Operation", "value": "Test"},
                {"name": "Message", "value": f"{number} {message}"},
            ],
        }
        (queue_of(root) / f"{1700000000000000 + number}{suffix}").write_text(json.dumps(document))


def found_among(records: list[TelemetryRecord]) -> list[str]:
    return [record.parameters["Message"] for record in records if record.parameters.get("Operation") == "Test"]


def requests_of(fabric: Fabric) -> list[Any]:
    return [request for request in fabric.requests if "telemetrydata" in request.path]


def test_what_happens_to_an_extension_reaches_the_platform(
    fabric: Fabric, agent_root: Path, running_agent: Any
) -> None:
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0"))
    fabric.publish([HandlerSpec(NAME, "1.0.0", "enabled", (SettingsSpec(public={}, sequence_number=0),))])
    agent = running_agent(agent_root, fabric)
    fabric.wait_for(
        lambda: {record.parameters.get("Operation") for record in fabric.telemetry} >= {"Install", "Enable"},
        30.0,
        "the events of the extension",
    )
    enable = next(record for record in fabric.telemetry if record.parameters.get("Operation") == "Enable")
    found = enable.parameters
    assert (enable.provider, enable.event) == (OPERATIONS, "1")
    assert (found["Name"], found["Version"], found["OperationSuccess"]) == (NAME, "1.0.0", "True")
    assert found["GAVersion"].startswith("WALinuxAgent-")
    assert found["TaskName"] == "extensions"
    assert int(found["EventPid"]) == agent.worker
    assert found["ContainerId"] == fabric.platform.identity.container_id
    assert found["OSVersion"].startswith("Linux:")
    assert int(found["RAM"]) > 0
    assert int(found["Processors"]) > 0
    assert not [value for value in found.values() if "UNINITIALIZED" in value], "goal state and metadata are known"
    agent.wait_until(lambda: not waiting(agent_root), 10.0, "an empty queue")
    assert not fabric.violations


def test_many_events_go_out_in_few_requests_below_the_limit(
    fabric: Fabric, agent_root: Path, running_agent: Any
) -> None:
    fill(agent_root, 900, "x" * 300)
    agent = running_agent(agent_root, fabric)
    agent.wait_until(lambda: not waiting(agent_root), 90.0, "an empty queue")
    counts = Counter(found_among(fabric.telemetry))
    assert len(counts) == 900
    assert set(counts.values()) == {1}
    sent = requests_of(fabric)
    assert max(request.size for request in sent) < 65536
    for index, request in enumerate(sent):
        assert len([other for other in sent[: index + 1] if request.time - other.time < 15]) <= 15
    assert not fabric.violations


def test_with_more_than_a_thousand_the_newest_are_sent(fabric: Fabric, agent_root: Path, running_agent: Any) -> None:
    fill(agent_root, 1500)
    agent = running_agent(agent_root, fabric)
    agent.wait_until(lambda: not waiting(agent_root), 60.0, "an empty queue")
    numbers = {int(message.split()[0]) for message in found_among(fabric.telemetry)}
    assert max(numbers) == 1499
    assert min(numbers) >= 500
    assert 900 < len(numbers) <= 1000


def test_a_large_event_is_dropped_alone(fabric: Fabric, agent_root: Path, running_agent: Any) -> None:
    fill(agent_root, 3)
    path = queue_of(agent_root) / "1700000000000001.waagent.tld"
    document = json.loads(path.read_text())
    document["parameters"][1]["value"] = "x" * 70_000
    path.write_text(json.dumps(document))
    agent = running_agent(agent_root, fabric)
    agent.wait_until(lambda: not waiting(agent_root), 40.0, "an empty queue")
    assert [message.split()[0] for message in found_among(fabric.telemetry)] == ["0", "2"]
    assert "An event is too large" in agent.log()


def test_a_throttled_platform_is_left_alone_and_gets_everything_later(
    fabric: Fabric, agent_root: Path, running_agent: Any
) -> None:
    fill(agent_root, 20)
    fabric.inject(Fault("status", path="telemetrydata", statuses=(429,), times=1))
    agent = running_agent(agent_root, fabric)
    fabric.wait_for(lambda: requests_of(fabric), 30.0, "a first try")
    assert len(waiting(agent_root)) >= 20, "nothing is deleted that was not taken"
    polls = len(fabric.requests)
    agent.wait_until(lambda: not waiting(agent_root), 60.0, "an empty queue")
    first, second = requests_of(fabric)[:2]
    assert second.time - first.time >= 8
    assert len(set(found_among(fabric.telemetry))) == 20
    between = [r for r in fabric.requests[polls:] if first.time < r.time < second.time and "goalstate" in r.path]
    assert len(between) >= 4, "goal states are polled all the while"


def test_an_outage_loses_nothing(fabric: Fabric, agent_root: Path, running_agent: Any) -> None:
    fill(agent_root, 5)
    fault = Fault("status", path="telemetrydata", statuses=(500,))
    fabric.inject(fault)
    agent = running_agent(agent_root, fabric)
    agent.wait_for_log("Telemetry is not taken", 60.0)
    assert len(waiting(agent_root)) >= 5
    agent.stop()
    fabric.clear_faults()
    agent.start()
    agent.wait_until(lambda: not waiting(agent_root), 40.0, "an empty queue")
    assert sorted(message.split()[0] for message in found_among(fabric.telemetry)) == ["0", "1", "2", "3", "4"]


def test_no_secret_leaves(fabric: Fabric, agent_root: Path, running_agent: Any) -> None:
    url = f"https://store.example/c/b?sv=2020&sig={SECRET}"
    fill(agent_root, 1, url)
    fill(agent_root, 1, url, ".tld")
    folder = agent_root / "var/log/azure/Contoso.Tool/events"
    folder.mkdir(parents=True)
    event = {
        "Version": "1.0", "Timestamp": "2026-02-03T04:05:06Z", "TaskName": f"get {url}", "EventLevel": "Error",
        "Message": f"cannot get {url}", "EventPid": "1", "EventTid": 2, "OperationId": url,
    }  # fmt: skip
    (folder / "1.json").write_text(json.dumps([event]))
    running_agent(agent_root, fabric)
    fabric.wait_for(
        lambda: len(found_among(fabric.telemetry)) == 2 and any(r.provider == LOGS for r in fabric.telemetry),
        40.0,
        "all three",
    )
    assert SECRET not in str(fabric.telemetry)
    assert "store.example/c/b?<redacted>" in str(fabric.telemetry)
    assert not [text for text in fabric.violations if "signature" in str(text)]


def test_events_of_extensions_arrive_and_their_directory_is_emptied(
    fabric: Fabric, agent_root: Path, running_agent: Any
) -> None:
    folder = agent_root / "var/log/azure/Contoso.Tool/events"
    folder.mkdir(parents=True)
    event = {
        "version": "1.4.2", "TIMESTAMP": "2026-02-03T04:05:06.000001Z", "TaskName": "Setup",
        "EventLevel": "Informational", "Message": "hello", "EventPid": "4711", "EventTid": "1",
        "OperationId": "5d0c8e1e-0000-4000-8000-000000000001", "More": [1],
    }  # fmt: skip
    (folder / "1700000000000.json").write_text(json.dumps(event))
    (folder / "notes.txt").write_text("?")
    agent = running_agent(agent_root, fabric, conf={"Debug.EtpCollectionPeriod": "2"})
    fabric.wait_for(lambda: [r for r in fabric.telemetry if r.provider == LOGS], 40.0, "the event")
    (record,) = [r for r in fabric.telemetry if r.provider == LOGS]
    found = record.parameters
    assert record.event == "7"
    assert found["EventName"] == "Contoso.Tool-1.4.2"
    assert [found[name] for name in ("CapabilityUsed", "TaskName", "EventPid", "EventTid")] == [
        "Informational", "Setup", "4711", "1"
    ]  # fmt: skip
    assert [found[f"Context{number}"] for number in (1, 2, 3)] == [
        "hello", "2026-02-03T04:05:06.000001Z", "5d0c8e1e-0000-4000-8000-000000000001"
    ]  # fmt: skip
    agent.wait_until(lambda: not list(folder.iterdir()), 10.0, "an empty directory")


@pytest.mark.parametrize("conf", ["Plugins.Disabled=telemetry\n", "Telemetry.Enabled=n\n"])
def test_switched_off_it_sends_nothing_and_status_is_what_it_was(
    fabric: Fabric, agent_root: Path, running_agent: Any, conf: str
) -> None:
    fill(agent_root, 3)
    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0"))
    fabric.publish([HandlerSpec(NAME, "1.0.0", "enabled", (SettingsSpec(public={}, sequence_number=0),))])
    running_agent(agent_root, fabric, conf=conf)
    fabric.wait_for_extension(NAME)
    since = time.time()
    fabric.wait_for(
        lambda: len([r for r in fabric.requests if r.time > since and "goalstate" in r.path]) >= 8, 30.0, "8 polls"
    )
    assert not requests_of(fabric)
    assert not fabric.telemetry
    if conf.startswith("Telemetry"):
        assert not waiting(agent_root), "what nobody wants does not fill the disk"
