"""Fixtures of the extensions' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.extensions.fakes import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a machine with an agent."""
    return Bench(tmp_path)
