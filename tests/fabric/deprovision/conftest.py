from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fabric.upkeep.sandbox import Sandbox
from waagent_fabric import Fabric, RunningAgent


@pytest.fixture
def sandbox(agent_root: Path, fabric: Fabric, running_agent: Callable[..., RunningAgent]) -> Sandbox:
    return Sandbox(agent_root, fabric, running_agent)
