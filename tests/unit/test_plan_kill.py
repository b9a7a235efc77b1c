"""SIGKILL at every line of the journal and every boundary of a step: the resumed run reaches the same end state."""

from __future__ import annotations

import json
import os
import subprocess
import sys

WHOLE = {"hostname": "vm1", "users": "azureuser", "ledger": "paid\n", "receipt": "thank you", "summary": "ledger has 1"}


def test_a_plan_killed_at_any_point_ends_as_if_it_had_not_been(tmp_path):
    script = os.path.join(os.path.dirname(__file__), "plan_victim.py")
    done = subprocess.run([sys.executable, script, str(tmp_path)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(runs) > 35  # 9 records with 3 points each, and the steps' own
    assert [run["killed"] for run in runs] == [None] * (len(runs) - 1) + [0]
    for run in runs:
        assert (run["resumed"], run["again"]) == (0, 0), run
        assert run["state"] == WHOLE, run
