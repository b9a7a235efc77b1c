"""What an installed wheel holds: exactly our packages, typed, and no entry point that leads nowhere."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def wheel() -> importlib.metadata.Distribution:
    distribution = importlib.metadata.distribution("waagent")
    if any(str(file).endswith(".pth") for file in distribution.files or ()):
        pytest.skip("installed from the source tree, not from a wheel")
    return distribution


def packages() -> set[str]:
    roots = [REPOSITORY / "core", REPOSITORY / "fabric", *(REPOSITORY / "plugins").iterdir()]
    return {path.parent.name for root in roots for path in root.glob("waagent*/__init__.py")}


def test_the_top_level_is_exactly_our_packages(wheel: importlib.metadata.Distribution) -> None:
    names = {file.parts[0] for file in wheel.files or () if file.parts[0] not in ("..", "__pycache__")}
    assert {name for name in names if not name.endswith(".dist-info")} == packages()


def test_every_package_says_that_it_is_typed(wheel: importlib.metadata.Distribution) -> None:
    typed = {file.parts[0] for file in wheel.files or () if file.name == "py.typed"}
    assert typed == packages()


def test_it_brings_the_unit_that_registering_writes(wheel: importlib.metadata.Distribution) -> None:
    assert "waagent_distro/steps/waagent.service" in {str(file) for file in wheel.files or ()}


def test_every_entry_point_leads_to_something(wheel: importlib.metadata.Distribution) -> None:
    ours = [point for point in wheel.entry_points if re.match(r"waagent\.|console_scripts|pytest11", point.group)]
    assert len(ours) > 5
    for point in ours:
        assert point.load() is not None, point
