from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.provisioning.bench import Bench
from waagent import redaction


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(autouse=True)
def _nothing_concealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test's machine conceals, another's may show."""
    monkeypatch.setattr(redaction, "_concealed", ())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)
