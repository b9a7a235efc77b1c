"""Fixtures of the telemetry plugin's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.telemetry.fakes import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return the plugin's parts on a machine that does nothing by itself."""
    return Bench(tmp_path)
