"""What importing the client costs the resident worker: no TLS, no cryptography, no requests (ruling 30a)."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = (
    "_ssl",
    "asyncio",
    "cryptography",
    "dataclasses",
    "email",
    "http",
    "importlib.metadata",
    "logging",
    "lzma",
    "pathlib",
    "requests",
    "shutil",
    "ssl",
    "stevedore",
    "subprocess",
    "tempfile",
    "urllib.parse",
    "urllib3",
    "uuid",
    "zipfile",
)


def run(script: str) -> dict[str, object]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_the_client_stays_lean() -> None:
    script = (
        "import sys, json; import attrs; before = set(sys.modules); import waagent.platform.client; "
        "print(json.dumps({'new': sorted(set(sys.modules) - before)}))"
    )
    new = run(script)["new"]
    assert isinstance(new, list)
    assert "waagent.platform.transfers" in new
    assert [name for name in HEAVY if name in new] == []
