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
    "http.cookiejar",
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


def test_others_still_get_a_complete_http_client() -> None:
    """A plugin in the worker that imports urllib.request can speak HTTPS."""
    script = (
        "import sys, json; import waagent.platform.channel as ours; before = 'ssl' in sys.modules; "
        "import urllib.request, http.client; "
        "print(json.dumps({'before': before, 'https': hasattr(http.client, 'HTTPSConnection'), "
        "'handler': hasattr(urllib.request, 'HTTPSHandler'), 'own': ours.http_client is not http.client}))"
    )
    assert run(script) == {"before": False, "https": True, "handler": True, "own": True}
