"""Captured platform documents, for tests that want real shapes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

CAPTURED = Path(__file__).resolve().parents[3].parent / "shared" / "fixtures" / "walinuxagent"


@pytest.fixture
def captured() -> Callable[[str], bytes]:
    """Return a reader of captured documents by name; the test is skipped where they are not at hand."""

    def read(name: str) -> bytes:
        path = CAPTURED / name
        if not path.is_file():
            pytest.skip(f"the captured document {name} is not at hand ({CAPTURED})")
        return path.read_bytes()

    return read
