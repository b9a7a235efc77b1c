"""A scratch root whose operating system is the sandbox distribution, with a real agent in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from waagent_fabric import Fabric, RunningAgent, install_module
from waagent_fabric.agentprocess import write_conf

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "sandbox_distribution" / "acme_sandbox.py"


class Sandbox:
    """The machine."""

    def __init__(self, root: Path, fabric: Fabric, start: Callable[..., RunningAgent]) -> None:
        self.root = root
        self.fabric = fabric
        self._start = start
        mask = os.umask(0o022)
        try:
            names = {"waagent.distros": {"sandbox": "acme_sandbox"}}
            self.site = install_module(root.parent / "site", EXAMPLE, names, distribution="acme-sandbox")
        finally:
            os.umask(mask)
        self.write("etc/os-release", 'ID=sandbox\nPRETTY_NAME="Sandbox 1"\n')

    def configure(self, **options: str) -> None:
        """Write the configuration; dots in the names of options are written as double underscores."""
        write_conf(self.root, self.fabric, {name.replace("__", "."): value for name, value in options.items()})

    def boot(self, **options: Any) -> RunningAgent:
        return self._start(self.root, self.fabric, environment={"PYTHONPATH": self.site}, **options)

    def command(self, *words: str, answer: str | None = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "waagent", "--root", str(self.root), *words],
            env={**os.environ, "PYTHONPATH": self.site}, input=answer, capture_output=True, text=True, timeout=60,
            check=False, cwd=self.root,
        )  # fmt: skip

    def write(self, name: str, text: str = "x") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def read(self, name: str) -> str:
        try:
            return (self.root / name).read_text()
        except FileNotFoundError:
            return ""

    def operations(self, *names: str) -> list[dict[str, Any]]:
        """What the operating system was asked to do, in order."""
        lines = map(json.loads, self.read("sandbox.jsonl").splitlines())
        return [line for line in lines if not names or line["operation"] in names]
