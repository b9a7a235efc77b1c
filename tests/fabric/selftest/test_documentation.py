"""The examples of ``docs/fabric.md`` do what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from waagent_fabric import Fabric
from waagent_fabric.faults import KINDS
from waagent_fabric.scenario import load

pytestmark = pytest.mark.fabric

PAGE = Path(__file__).resolve().parents[3] / "docs" / "fabric.md"


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert found, language
    return found.group(1)


def test_the_test(fabric: Fabric, agent_root: Path, running_agent: Any) -> None:
    names: dict[str, Any] = {}
    exec(block("python"), names)
    names["test_my_extension"](fabric, agent_root, running_agent)


def test_the_scenario(tmp_path: Path, fabric: Fabric) -> None:
    path = tmp_path / "scenario.json"
    path.write_text(block("json"))
    later = load(str(path)).begin(fabric)
    assert [seconds for seconds, _ in later] == [30]
    assert fabric.platform.current.incarnation == 2


def test_every_fault_and_record_is_named() -> None:
    words = set(re.findall(r"`(\w+)", PAGE.read_text()))
    assert set(KINDS) <= words
    records = {"requests", "statuses", "health_reports", "role_properties", "telemetry", "observations", "log_uploads"}
    assert records | {"violations"} <= words
    assert all(hasattr(Fabric, name) for name in records)
