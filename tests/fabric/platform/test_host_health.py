"""The duty of telling the platform how its own services are, in a running agent (wireserver §14.2, §20)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from waagent_fabric.api import Fabric
from waagent_fabric.faults import Fault

pytestmark = pytest.mark.fabric


def test_the_platform_hears_how_its_services_are(fabric: Fabric, agent_root: Path, running_agent: Any) -> None:
    running_agent(agent_root, fabric)

    def heard() -> dict[str, bool]:
        return {item["ObservationName"]: item["IsHealthy"] for item in fabric.observations}

    fabric.wait_for(lambda: "InstanceMetadataHeartbeat" in heard(), 30)
    assert heard() == {
        "GuestAgentPluginVersions": True,
        "GuestAgentPluginStatus": True,
        "GuestAgentPluginHeartbeat": True,
        "InstanceMetadataHeartbeat": True,
    }
    (probe,) = fabric.wait_for_request("imds", "/metadata/instance?")
    assert probe.path == "/metadata/instance?api-version=2018-02-01"
    assert (probe.header("Metadata"), probe.header("User-Agent")) == ("true", "WALinuxAgent/3.0.0.0+health")
    assert len(fabric.wait_for_request("hostplugin", "/health")) == 1
    assert fabric.violations == []


def test_a_metadata_service_that_never_answers_holds_nothing_up(
    fabric: Fabric, agent_root: Path, running_agent: Any
) -> None:
    silent = fabric.inject(Fault("drop", server="imds", path="/metadata/instance?"))
    running_agent(agent_root, fabric)
    fabric.wait_for(lambda: silent.hits, 30)
    polls = len(fabric.wait_for_request("wireserver", "comp=goalstate"))
    statuses = len(fabric.statuses)
    fabric.wait_for_request("wireserver", "comp=goalstate", count=polls + 4, timeout=8)
    fabric.publish([])
    fabric.wait_for(lambda: len(fabric.statuses) > statuses, 8)
