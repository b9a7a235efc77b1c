"""What the worker carries in memory for its plugins: neither stevedore nor the machinery of discovery."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from waagent.plugins import PluginHost

PLUGIN = "from waagent import hookimpl\n\n@hookimpl\ndef on_start(agent):\n    agent.append('called')\n"

WORKER = """
import json, sys
root = sys.argv[1]
import attrs, pluggy  # what these need themselves is not ours to save
before = set(sys.modules)
from waagent.conffile import read_chain
from waagent.config import Config
from waagent.log import Log, Sinks
from waagent.paths import Paths
from waagent.plugins import PluginHost
host = PluginHost.from_list(Log(Sinks()), Config(read_chain(root)), Paths(root))
called = []
host.hooks.on_start(called)
print(json.dumps([called, sorted(set(sys.modules) - before)]))
"""
HEAVY = {
    "argparse", "asyncio", "cryptography", "email", "importlib.metadata", "logging", "pathlib", "pkg_resources",
    "requests", "ssl", "stevedore", "subprocess", "tempfile", "waagent.discovery",
}  # fmt: skip


def test_the_worker_loads_plugins_without_the_machinery_of_discovery(machine):
    machine.install("acme", {"acme": "acme_lean"}, {"acme_lean.py": PLUGIN})
    PluginHost.boot(machine.log, machine.config(), machine.paths)
    import waagent

    places = [str(machine.site), os.path.dirname(os.path.dirname(waagent.__file__))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(machine.root)],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    called, loaded = json.loads(done.stdout)
    assert called == ["called"]
    assert "acme_lean" in loaded
    assert not HEAVY & set(loaded)
