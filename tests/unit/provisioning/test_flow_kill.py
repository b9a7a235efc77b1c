"""Killed before any change to the disk, provisioning ends as if nothing had happened (§29.2, §29.4)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.provisioning.bench import KEY, VM_ID

REPOSITORY = Path(__file__).resolve().parents[3]
STEP = 8


@pytest.mark.parametrize("first", range(STEP))
def test_killed_before_each_change(tmp_path: Path, first: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.provisioning.flow_victim", str(tmp_path), str(STEP), str(first)],
        cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True, timeout=110,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) > 10, "the points are too few to mean anything"
    assert [line["killed"] for line in lines] == [True] * (len(lines) - 1) + [False]
    # It is told in one attempt: only one kill in the middle of that keeps it from the platform.
    assert sum(not line["fingerprints"] for line in lines) <= 1
    for line in lines:
        assert all(line.pop("fingerprints"))
        # A script that was killed together with its start is not run again: nobody knows how far it was.
        assert line.pop("ran") in (0, 1)
        # What an interrupted write leaves is swept later, and is never read.
        line.pop("left")
        line.pop("killed")
        point = line.pop("point")
        assert line == {
            "users": 1,
            "sudo": "ops ALL=(ALL) ALL\n",
            "keys": KEY + "\n",
            "shadow": 2,
            "marker": VM_ID,
            "published": "node7",
            "medium": False,
            "leaks": [],
            "last word": "('Ready', '', '')",
        }, point
