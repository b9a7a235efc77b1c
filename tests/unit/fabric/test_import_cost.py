"""The pytest plugin is loaded by every test run of whoever has the package: it must cost nothing until it is used."""

from __future__ import annotations

import subprocess
import sys

import waagent_fabric


def loaded(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sorted(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(ran.stdout.split())


def test_the_plugin_imports_neither_server_nor_agent():
    found = loaded("import waagent_fabric.pytest_plugin")
    assert "waagent_fabric.pytest_plugin" in found
    heavy = {name for name in found if name.split(".")[0] in ("aiohttp", "waagent", "cryptography", "asyncio")}
    assert heavy == set()
    assert {name for name in found if name.startswith("waagent_fabric.")} == {"waagent_fabric.pytest_plugin"}


def test_every_public_name_resolves():
    assert [name for name in waagent_fabric.__all__ if getattr(waagent_fabric, name, None) is None] == []


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(waagent_fabric, "Nonsense")
