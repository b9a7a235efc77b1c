"""A scratch root with fake installed distributions, and a log that can be read."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from waagent.conffile import read_chain
from waagent.config import Config
from waagent.log import Log, Sinks
from waagent.paths import Paths
from waagent.plugins import PluginHost

LEVELS = ("VERBOSE", "INFO", "WARNING", "ERROR")


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """Files are written as root writes them, whatever the umask of whoever runs the tests."""
    before = os.umask(0o022)
    yield
    os.umask(before)


class Lines(list):
    """What was logged, as ``LEVEL text``."""

    def having(self, *parts: str) -> list[str]:
        return [line for line in self if all(part in line for part in parts)]


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
def log(lines: Lines) -> Log:
    log = Log(Sinks(), "Test")
    log.also = lambda level, text: lines.append(f"{LEVELS[level]} {text}")
    return log


class Machine:
    """A scratch root, its configuration, and what is installed there."""

    def __init__(self, tmp_path: Path, log: Log) -> None:
        self.root = tmp_path / "root"
        self.site = tmp_path / "site"
        self.log = log
        for directory in (self.root / "etc", self.site):
            directory.mkdir(parents=True)
        self.write("etc/os-release", 'ID=acmeos\nID_LIKE="ubuntu debian"\nPRETTY_NAME="Acme OS 1"\n')
        self.write("etc/waagent.conf", "")

    @property
    def paths(self) -> Paths:
        return Paths(str(self.root))

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def install(
        self,
        distribution: str,
        plugins: dict[str, str],
        files: dict[str, str] | None = None,
        *,
        version: str = "1.0",
        group: str = "waagent.plugins",
        site: Path | None = None,
    ) -> Path:
        """Put a distribution on disk as pip would; return its metadata directory."""
        site = site or self.site
        site.mkdir(exist_ok=True)
        metadata = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        entries = "\n".join(f"{name} = {value}" for name, value in plugins.items())
        (metadata / "entry_points.txt").write_text(f"[{group}]\n{entries}\n")
        for name, text in (files or {}).items():
            path = site / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return metadata

    def config(self) -> Config:
        return Config(read_chain(str(self.root)))

    def host(self) -> PluginHost:
        """Return a host that has looked at what is installed and imported nothing."""
        importlib.invalidate_caches()  # files come and go faster than directory times tell
        host = PluginHost(self.log, self.config(), self.paths)
        host.discover()
        return host

    def loaded(self) -> PluginHost:
        host = self.host()
        host.load()
        return host


@pytest.fixture
def machine(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A machine where nothing is installed yet; what this test's interpreter has installed is out of sight."""
    import stevedore.named  # noqa: F401  - it could not be found once the path is short

    machine = Machine(tmp_path, log)
    before = set(sys.modules)
    path = [entry for entry in sys.path if "site-packages" not in entry and "dist-packages" not in entry]
    monkeypatch.setattr(sys, "path", [str(machine.site), *path])
    yield machine
    for name in set(sys.modules) - before:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What a hanging plugin waits for (``import acme_gate``); it is let go at the end of the test."""
    module = types.ModuleType("acme_gate")
    module.event = threading.Event()
    monkeypatch.setitem(sys.modules, "acme_gate", module)
    yield module.event
    module.event.set()


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], None]:
    """Return a function that waits until something holds, for at most ten seconds."""

    def wait(condition: Callable[[], object]) -> None:
        pause = threading.Event()
        for _ in range(1000):
            if condition():
                return
            pause.wait(0.01)
        raise AssertionError("it never came true")

    return wait
