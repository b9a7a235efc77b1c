"""Which features the status announces, and what becomes of a goal state that needs others (wireserver §8.1, §17.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from waagent_fabric import Fabric, write_conf

pytestmark = pytest.mark.fabric


def features(document: dict[str, Any]) -> set[str]:
    assert all(item["Value"] == "1.0" for item in document["supportedFeatures"])
    return {item["Key"] for item in document["supportedFeatures"]}


def test_fast_track_is_announced_and_updates_by_the_platform_are_not(
    fabric: Fabric, agent_root: Path, running_agent: Any
) -> None:
    running_agent(agent_root, fabric)
    announced = {"MultipleExtensionsPerHandler", "FastTrack"}
    fabric.wait_for_status(lambda document: features(document) == announced)
    # No plugin carries out updates: who asks for them is told so, and nothing of the goal state is done.
    goal_state = fabric.publish([], required_features=["MultipleExtensionsPerHandler", "VersioningGovernance"])

    def outcome(document: dict[str, Any]) -> tuple[str, int, str] | None:
        report = document["aggregateStatus"].get("vmArtifactsAggregateStatus", {}).get("goalStateAggregateStatus")
        return report and (report["status"], report["code"], report["formattedMessage"]["message"])

    failed = ("Failed", 2001, f"Failing GS {goal_state} as Unsupported features found: VersioningGovernance")
    document = fabric.wait_for_status(lambda document: outcome(document) == failed)
    assert features(document) == announced
    fabric.publish([])
    fabric.wait_for_status(lambda document: (outcome(document) or ("",))[0] == "Success")


@pytest.mark.parametrize("without", ["host plugin", "option"])
def test_without_fast_track_it_is_not_announced(without: str, tmp_path: Path, running_agent: Any) -> None:
    with Fabric(fast_track=without != "host plugin") as fabric:
        root = tmp_path / "root"
        write_conf(root, fabric, {} if without == "host plugin" else {"Debug.EnableFastTrack": "n"})
        running_agent(root, fabric)
        document = fabric.wait_for_status(lambda document: "supportedFeatures" in document)
        assert features(document) == {"MultipleExtensionsPerHandler"}
