"""A state directory without room: the platform is told so, nothing half-written stays, and room is enough to go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
REPOSITORY = Path(__file__).resolve().parents[3]

# Runs in a mount namespace of its own, on file systems of a size of its own.
SCRIPT = """
import json, os, subprocess, sys
from pathlib import Path
from tests.unit.extensions.fakes import Bench, wanted
from waagent_extensions import engine

engine.RETRY_AFTER = ()
root = Path(sys.argv[1])
lib = root / "var/lib/waagent"
lib.mkdir(parents=True)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(lib)], check=True)
bench = Bench(root)
bench.publish("A", "1.0")


def look(sequence):
    ran = bench.apply(wanted("A", "1.0", sequence=sequence))
    (item,) = bench.reporter.build().handlers
    states = [path.read_text() for path in lib.glob("*/config/HandlerState")]
    files = sorted(entry.name for entry in lib.iterdir() if entry.name not in ("state", "journal", "filler"))
    said = item.extension
    return {"ran": ran, "status": item.status, "extension": said.status, "sequence": said.sequence_number,
            "message": said.message, "states": states, "files": files}


found = [look(0)]  # room for the records alone
filler = lib / "filler"
with filler.open("wb", buffering=0) as stream:
    try:
        while stream.write(bytes(4096)):
            pass
    except OSError:
        pass
found.append(look(1))  # not a byte
filler.unlink()
subprocess.run(["mount", "-o", "remount,size=200m", str(lib)], check=True)
found.append(look(2))
print(json.dumps(found))
"""


def test_a_full_disk_is_reported_and_survived(tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", SCRIPT, str(tmp_path / "root")],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    small, full, large = json.loads(done.stdout.splitlines()[-1])
    for sequence, found in enumerate((small, full)):
        assert found["ran"] == []
        assert (found["status"], found["extension"], found["sequence"]) == ("NotReady", "error", sequence), found
        assert "no space left" in found["message"].lower()
        assert set(found["states"]) <= {"NotInstalled"}
        assert set(found["files"]) <= {"A-1.0"}, "nothing half-written stays"
    assert large["ran"] == ["install 1.0", "enable 1.0"]
    assert (large["status"], large["extension"]) == ("Ready", "success")
    assert large["states"] == ["Enabled"]
