"""A machine with a policy file, as the policy plugin sees it."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from waagent import Handler, HandlerCommand, Package, Paths, Veto
from waagent.conffile import read_chain
from waagent.config import Config
from waagent.log import Log, Sinks
from waagent.platform.history import History
from waagent_policy.plugin import PolicyPlugin

LEVELS = ("VERBOSE", "INFO", "WARNING", "ERROR")


class Machine:
    """A scratch root with an agent's worker; what the plugin is asked, in short."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "etc").mkdir()
        self.paths = Paths(str(root))
        os.makedirs(self.paths.lib_dir)
        self.lines: list[str] = []
        self.log = Log(Sinks(), "Test")
        self.log.also = lambda level, text: self.lines.append(f"{LEVELS[level]} {text}")
        self.history = History(self.paths.lib("history"), self.log)
        self.platform = self
        self.stopping = threading.Event()
        self.plugin = PolicyPlugin()
        self.configure("")

    @property
    def file(self) -> Path:
        return self.root / "etc" / "waagent_policy.json"

    def configure(self, text: str) -> None:
        (self.root / "etc" / "waagent.conf").write_text(text)
        self.config = Config(read_chain(str(self.root)))

    def policy(self, version: str | None = "0.1.0", **policies: Any) -> None:
        """Write a policy file."""
        self.file.write_text(json.dumps({"policyVersion": version, "extensionPolicies": policies}))

    def directory(self, name: str, version: str, state: str | None = "Enabled", **manifest: Any) -> Path:
        """Make a handler's directory."""
        base = Path(self.paths.lib_dir) / f"{name}-{version}"
        (base / "config").mkdir(parents=True)
        (base / "HandlerManifest.json").write_text(json.dumps([{"handlerManifest": manifest}]))
        if state is not None:
            (base / "config" / "HandlerState").write_text(state)
        return base

    def ask(self, name: str, operation: str = "enable", version: str = "1.0", signature: str = "") -> Veto | None:
        state = {"uninstall": "uninstall", "disable": "disabled"}.get(operation, "enabled")
        handler = Handler(name, version, state, signature=signature)
        return self.plugin.allow_extension(self, handler, operation)  # type: ignore[arg-type]

    def accept(self, directory: Path, name: str, version: str, signature: str = "") -> Veto | None:
        offered = Package(name, version, "/nowhere.zip", signature)
        return self.plugin.accept_package(self, offered, str(directory))  # type: ignore[arg-type]

    def command(self, directory: Path, name: str, version: str, operation: str = "enable") -> Veto | None:
        asked = HandlerCommand(name, version, None, operation, "bin/run", str(directory), {}, 300, "/nowhere")
        return self.plugin.allow_command(self, asked)  # type: ignore[arg-type]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)
