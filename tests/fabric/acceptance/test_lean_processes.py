"""What the two resident processes hold: no module that is needed now and then, little memory (architecture §3, §12)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fabric.acceptance import tools
from waagent_fabric import Fabric, HandlerSpec, SettingsSpec, sample_package

pytestmark = pytest.mark.fabric

NAME = "Contoso.Sample"
WITNESS = """\
import json, sys
from waagent import hookimpl, write_atomic

class Witness:
    @hookimpl
    def report_status(self, agent):
        write_atomic(agent.paths.at("/modules"), json.dumps(sorted(sys.modules)), durable=False)

plugin = Witness()
"""
RARE = """\
    argparse asyncio base64 bz2 calendar concurrent.futures configparser cryptography ctypes dataclasses datetime
    decimal email hashlib http importlib.metadata importlib.resources ipaddress logging lzma multiprocessing optparse
    pathlib pkg_resources pkgutil random requests runpy secrets shutil site sqlite3 ssl stevedore string subprocess
    tarfile tempfile traceback urllib.parse urllib.request urllib3 uuid xml.dom xml.etree zipfile zoneinfo"""
SUPERVISOR_KIB = 3 << 10
"""Above a bare interpreter."""
WORKER_KIB = 16 << 10


def bare(modules: str) -> dict[str, Any]:
    """Return modules and resident memory of an interpreter that imported *modules* alone."""
    script = (
        "import sys, json; sys.path[:] = json.loads(sys.argv[1])\n"
        f"import {modules}\n"
        "with open('/proc/self/status') as stream: kib = [l.split()[1] for l in stream if l.startswith('VmRSS:')]\n"
        "print(json.dumps({'modules': sorted(sys.modules), 'kib': int(kib[0])}))"
    )
    argv = [sys.executable, "-I", "-S", "-c", script, json.dumps(sys.path)]
    found: dict[str, Any] = json.loads(subprocess.run(argv, capture_output=True, check=True, timeout=60).stdout)
    return found


def test_what_is_rarely_needed_is_not_resident(
    fabric: Fabric, agent_root: Path, running_agent: Any, tmp_path: Path
) -> None:
    tools.install_plugin(tmp_path / "site", "witness", WITNESS)
    # Not ours to choose: what attrs and pluggy load depends on their versions and on Python's.
    given = set(bare("attrs, pluggy, json, xml.parsers.expat")["modules"])
    seen = agent_root / "modules"

    def rare() -> list[str]:
        modules = set(json.loads(seen.read_text())) - given
        assert {"waagent.service.worker", "waagent_extensions.plugin"} <= modules
        return sorted(name for name in RARE.split() if name in modules)

    agent = running_agent(agent_root, fabric, environment={"PYTHONPATH": str(tmp_path / "site")})
    fabric.wait_for_status(timeout=30)
    assert rare() == []

    fabric.add_package(NAME, "1.0.0", sample_package(NAME, "1.0.0"))
    fabric.publish([HandlerSpec(NAME, "1.0.0", settings=[SettingsSpec({"a": 1}, {"secret": "x"})])])
    fabric.wait_for_extension(NAME, timeout=30)
    seen.unlink()
    tools.wait_for(seen.exists, "another status")
    assert rare() == [], "left behind by a download, an expansion, or certificates"

    processes = agent.pids()
    floor = bare("os")["kib"]
    supervisor, worker = (tools.resident_kib(processes[role]) - floor for role in ("supervisor", "worker"))
    print(f"\n{floor} KiB bare; supervisor {supervisor} KiB more, worker {worker} KiB more")
    assert supervisor <= SUPERVISOR_KIB
    assert worker <= WORKER_KIB
