"""SIGKILL at every change of the disk: the next agent reaches the same end; no command runs twice (extensions §23)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
COMMANDS = [
    # removals and disables
    "disable 1.0",
    "uninstall 1.0",
    "disable 4.0",
    # the upgrade of A
    "disable 1.0",
    "update 2.0",
    "uninstall 1.0",
    "install 2.0",
    "enable 2.0",
    # what is new
    "install 3.0",
    "enable 3.0",
    "enable 4.0",
]
AGAIN = ["enable 2.0", "enable 3.0", "enable 4.0"]


@pytest.mark.slow
def test_an_agent_killed_anywhere_in_a_goal_state_is_followed_by_one_that_goes_on(tmp_path: Path) -> None:
    script = Path(__file__).with_name("engine_victim.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "12", str(os.getpid() % 12)],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    points = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(points) > 30
    assert [point["lived"] for point in points] == [False] * (len(points) - 1) + [True]
    for point in points:
        # A goal state that was through before the kill is begun anew, as at every start: every enable runs again.
        assert point["ran"] == COMMANDS + (AGAIN if point["ended"] else []), point
        assert point["lib"] == ["A-2.0", "C-3.0", "M-4.0"], point
        assert point["states"] == {"A-2.0": "Enabled", "C-3.0": "Enabled", "M-4.0": "Enabled"}, point
        assert set(point["reported"]) == {"A", "C", "M.y"}, point
        assert all(status == ["Ready", 0, "success", 0] for status in point["reported"].values()), point
        assert point["runs"] == [], point
