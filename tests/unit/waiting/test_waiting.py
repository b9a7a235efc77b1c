"""What extensions wait for, and that no wait outlasts its time or keeps them from running."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from waagent import HandlerCommand, NoAnswer, Paths, commands
from waagent.log import Log, Sinks
from waagent_distro.steps import packagelock as system
from waagent_waiting.plugin import WaitingPlugin

HOLD = """
import fcntl, sys
lock = open(sys.argv[1], "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""

LOCK_AGAIN_AND_AGAIN = """
import fcntl, sys, time
end = time.monotonic() + 0.4
while time.monotonic() < end:
    with open(sys.argv[1], "w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
"""


class FakeAgent:
    """A worker's agent whose commands are real and whose root is not."""

    def __init__(self, root: Path) -> None:
        self.paths = Paths(str(root))
        self.values: dict[str, Any] = {
            "Extensions.Enabled": True,
            "Extensions.WaitForCloudInit": True,
            "Extensions.WaitForCloudInitTimeout": 20,
            "Extensions.WaitForPackageLock": 20,
        }
        self.config = SimpleNamespace(boolean=self.values.__getitem__, integer=self.values.__getitem__)
        self.lines: list[str] = []
        self.log = Log(Sinks(), "Test")
        self.log.also = lambda level, text: self.lines.append(f"{level} {text}")
        self.stopping = threading.Event()
        self.seen: list[tuple[str, bool]] = []
        self.events = self
        self.distro = SimpleNamespace(read_package_lock=lambda: system.holder(self))  # type: ignore[arg-type]
        self.requests = 0

    def run(self, argv: tuple[str, ...], **options: Any) -> Any:
        return commands.run(argv, **options)

    def add(self, operation: str, *, success: bool = True, **more: Any) -> None:
        self.seen.append((operation, success))

    def request_status(self) -> None:
        self.requests += 1

    def having(self, text: str) -> list[str]:
        return [line for line in self.lines if text in line]


@pytest.fixture
def agent(tmp_path: Path) -> FakeAgent:
    for directory in ("usr/bin", "var/lib/dpkg", "proc/4711"):
        (tmp_path / directory).mkdir(parents=True)
    return FakeAgent(tmp_path)


@pytest.fixture
def plugin() -> WaitingPlugin:
    return WaitingPlugin()


def cloud_init(tmp_path: Path, script: str) -> None:
    path = tmp_path / "usr/bin/cloud-init"
    path.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\n{script}\n')
    path.chmod(0o755)


def calls(tmp_path: Path) -> list[str]:
    path = tmp_path / "calls"
    return path.read_text().splitlines() if path.exists() else []


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class InBackground:
    """Runs a hook in a thread, as the engine's lane does."""

    def __init__(self, fn: Callable[[], None]) -> None:
        self.thread = threading.Thread(target=fn, daemon=True)
        self.thread.start()

    def ended(self) -> bool:
        return not self.thread.is_alive()

    def join(self) -> None:
        self.thread.join(15)
        assert self.ended()


# -- cloud-init


@pytest.mark.parametrize(
    ("script", "success", "line"),
    [
        ("echo 'status: done'", True, "cloud-init completed\nstatus: done"),
        ("echo 'status: done'; exit 2", True, "cloud-init completed with errors that it recovered from\nstatus: done"),
        ("echo 'status: error' >&2; exit 1", False, "ended with 1: status: error"),
        ("kill -9 $$", False, "was ended by signal 9"),
    ],
)
def test_how_cloud_init_ends(
    agent: FakeAgent, plugin: WaitingPlugin, tmp_path: Path, script: str, success: bool, line: str
) -> None:
    cloud_init(tmp_path, script)
    plugin.before_extensions(agent)  # type: ignore[arg-type]
    assert calls(tmp_path) == ["status --wait"]
    assert agent.lines[0] == "1 Waiting for cloud-init to complete..."
    assert line in agent.lines[-1]
    assert agent.lines[-1].startswith("1 " if success else "3 ")
    assert agent.seen == [("CloudInit", success)]
    assert plugin.report_status(agent) is None  # type: ignore[arg-type]


def test_it_is_waited_for_once(agent: FakeAgent, plugin: WaitingPlugin, tmp_path: Path) -> None:
    cloud_init(tmp_path, "exit 1")
    for _ in range(3):
        plugin.before_extensions(agent)  # type: ignore[arg-type]
    assert calls(tmp_path) == ["status --wait"]


@pytest.mark.parametrize("key", ["Extensions.WaitForCloudInit", "Extensions.Enabled"])
def test_nobody_waits_unless_told_to(agent: FakeAgent, plugin: WaitingPlugin, tmp_path: Path, key: str) -> None:
    agent.values[key] = False
    cloud_init(tmp_path, "exit 0")
    plugin.before_extensions(agent)  # type: ignore[arg-type]
    assert not calls(tmp_path)
    assert not agent.lines


def test_without_cloud_init_extensions_go_on(agent: FakeAgent, plugin: WaitingPlugin) -> None:
    plugin.before_extensions(agent)  # type: ignore[arg-type]
    assert agent.having("there is no cloud-init on this machine")
    assert agent.seen == [("CloudInit", False)]


def test_one_that_hangs_is_given_up(agent: FakeAgent, plugin: WaitingPlugin, tmp_path: Path) -> None:
    agent.values["Extensions.WaitForCloudInitTimeout"] = 1
    cloud_init(tmp_path, "exec sleep 100")
    plugin.before_extensions(agent)  # type: ignore[arg-type]
    assert agent.having("it was not done after 1 s")
    assert agent.seen == [("CloudInit", False)]


def test_status_says_what_is_waited_for(agent: FakeAgent, plugin: WaitingPlugin, tmp_path: Path) -> None:
    cloud_init(tmp_path, f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done")
    waiting = InBackground(lambda: plugin.before_extensions(agent))  # type: ignore[arg-type]
    until(lambda: calls(tmp_path))
    report = plugin.report_status(agent)  # type: ignore[arg-type]
    assert report is not None
    assert report.problems == ("Extensions wait for cloud-init to complete",)
    assert agent.requests == 1
    (tmp_path / "go").touch()
    waiting.join()
    assert plugin.report_status(agent) is None  # type: ignore[arg-type]
    assert agent.requests == 2


def test_an_agent_that_stops_does_not_wait(agent: FakeAgent, plugin: WaitingPlugin, tmp_path: Path) -> None:
    cloud_init(tmp_path, "exec sleep 100")
    waiting = InBackground(lambda: plugin.before_extensions(agent))  # type: ignore[arg-type]
    until(lambda: calls(tmp_path))
    agent.stopping.set()
    waiting.join()
    assert not agent.seen, "a stop is no failure of cloud-init"


# -- the package manager


def command(operation: str = "install") -> HandlerCommand:
    return HandlerCommand("Contoso.Tool", "1.0", None, operation, "bin/run", "/", {}, 300.0, "/run/x")


@pytest.fixture
def dpkg(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Return a function that starts a process which holds dpkg's lock, in dpkg's way, until its input ends."""
    started = []

    def hold() -> subprocess.Popen[str]:
        path = str(tmp_path / "var/lib/dpkg/lock-frontend")
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        (tmp_path / f"proc/{process.pid}").mkdir(exist_ok=True)
        (tmp_path / f"proc/{process.pid}/comm").write_text("unattended-upgr\n")
        return process

    yield hold
    for process in started:
        process.communicate("")


@pytest.mark.parametrize("operation", ["install", "enable"])
def test_a_command_waits_for_the_lock(
    agent: FakeAgent, plugin: WaitingPlugin, dpkg: Callable[[], subprocess.Popen[str]], operation: str
) -> None:
    process = dpkg()
    waiting = InBackground(lambda: plugin.before_handler_command(agent, command(operation)))  # type: ignore[arg-type]
    until(lambda: plugin.report_status(agent))  # type: ignore[arg-type]
    report = plugin.report_status(agent)  # type: ignore[arg-type]
    assert report is not None
    holder = f"unattended-upgr ({process.pid}), /var/lib/dpkg/lock-frontend"
    assert report.problems == (f"{operation} of Contoso.Tool waits for the package manager: {holder}",)
    assert agent.having(f"1 Waiting for the package manager: {holder}")
    assert not waiting.ended()
    process.communicate("")
    waiting.join()
    assert agent.having("1 The package manager is free after")
    assert plugin.report_status(agent) is None  # type: ignore[arg-type]


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg here")
def test_dpkg_itself_is_waited_for(agent: FakeAgent, plugin: WaitingPlugin, tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "DEBIAN").mkdir(parents=True)
    package.chmod(0o755)
    (package / "DEBIAN").chmod(0o755)
    (package / "DEBIAN/control").write_text(
        "Package: slow\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@example.com>\nDescription: slow\n"
    )
    script = package / "DEBIAN/preinst"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/begun\nwhile [ ! -e {tmp_path}/go ]; do sleep 0.05; done\n")
    script.chmod(0o755)
    database = tmp_path / "var/lib/dpkg"
    for name in ("info", "updates", "triggers"):
        (database / name).mkdir()
    for name in ("status", "available"):
        (database / name).touch()
    archive = str(tmp_path / "slow.deb")
    subprocess.run(["dpkg-deb", "-b", str(package), archive], check=True, capture_output=True, timeout=60)
    dpkg = subprocess.Popen(
        ["dpkg", f"--root={tmp_path}", "--force-script-chrootless,not-root", "-i", archive],
        stdout=subprocess.PIPE,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},  # it looks for ldconfig and its like, whoever runs it
    )
    try:
        until(lambda: (tmp_path / "begun").exists())
        waiting = InBackground(lambda: plugin.before_handler_command(agent, command()))  # type: ignore[arg-type]
        until(lambda: plugin.report_status(agent))  # type: ignore[arg-type]
        assert agent.having(f"({dpkg.pid}), /var/lib/dpkg/lock-frontend")
        assert not waiting.ended()
    finally:
        (tmp_path / "go").touch()
        dpkg.communicate(timeout=60)
    assert dpkg.returncode == 0
    waiting.join()
    assert agent.having("1 The package manager is free after")


def test_a_lock_that_is_never_given_back_holds_up_nothing_for_ever(
    agent: FakeAgent, plugin: WaitingPlugin, dpkg: Callable[[], subprocess.Popen[str]]
) -> None:
    agent.values["Extensions.WaitForPackageLock"] = 1
    dpkg()
    began = time.monotonic()
    plugin.before_handler_command(agent, command())  # type: ignore[arg-type]
    assert 1 <= time.monotonic() - began < 5
    assert agent.having("2 The package manager is still at work after 1 s (unattended-upgr")


def test_looking_does_not_take_the_lock(agent: FakeAgent, tmp_path: Path) -> None:
    path = tmp_path / "var/lib/dpkg/lock-frontend"
    path.touch()
    # Record locks are a process's own, so the package manager has to be another one.
    manager = subprocess.Popen([sys.executable, "-c", LOCK_AGAIN_AND_AGAIN, str(path)])
    while manager.poll() is None:
        system.holder(agent)  # type: ignore[arg-type]
    assert manager.returncode == 0


@pytest.mark.parametrize(("operation", "seconds"), [("disable", 20), ("uninstall", 20), ("update", 20), ("install", 0)])
def test_other_commands_do_not_wait(
    agent: FakeAgent,
    plugin: WaitingPlugin,
    dpkg: Callable[[], subprocess.Popen[str]],
    operation: str,
    seconds: int,
) -> None:
    agent.values["Extensions.WaitForPackageLock"] = seconds
    dpkg()
    plugin.before_handler_command(agent, command(operation))  # type: ignore[arg-type]
    assert not agent.lines


def test_a_free_lock_costs_no_word(agent: FakeAgent, plugin: WaitingPlugin, tmp_path: Path) -> None:
    (tmp_path / "var/lib/dpkg/lock-frontend").touch()
    plugin.before_handler_command(agent, command())  # type: ignore[arg-type]
    assert not agent.lines
    assert agent.requests == 0


def test_where_nobody_knows_of_locks_nobody_waits(agent: FakeAgent, plugin: WaitingPlugin) -> None:
    def nobody() -> str:
        raise NoAnswer("read_package_lock: no plugin implements it here")

    agent.distro.read_package_lock = nobody
    plugin.before_handler_command(agent, command())  # type: ignore[arg-type]
    assert agent.having("2 Nobody knows whether the package manager is at work")


def test_a_stopping_agent_does_not_wait_for_the_lock(
    agent: FakeAgent, plugin: WaitingPlugin, dpkg: Callable[[], subprocess.Popen[str]]
) -> None:
    dpkg()
    waiting = InBackground(lambda: plugin.before_handler_command(agent, command()))  # type: ignore[arg-type]
    until(lambda: plugin.report_status(agent))  # type: ignore[arg-type]
    agent.stopping.set()
    waiting.join()
