from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import waagent

CORE = str(Path(waagent.__file__).parent.parent)

DRIVER = """
import sys
sys.path[:] = {path!r}
from waagent.service import bootwatch, start, supervisor, workerwatch

supervisor.STOP_SECONDS = {stop}
bootwatch.LOCK_POLL = 0.05
timing = workerwatch.Timing()
timing.__dict__.update({timing!r})
scripts = {scripts!r}
options = start.Options()
options.root = {root!r}

def command(role, options, code, extra):
    if scripts[role].startswith("/"):
        return [scripts[role]]
    return ["/bin/sh", "-c", scripts[role], role, options.root, code or "installed"]

sys.exit(supervisor.Supervisor(options, command=command, timing=timing, installed="3.0.0.0").run())
"""

QUIET = {
    "make-transport-key": "exit 0",
    "run-boot": 'echo boot >>"$1/trace"; printf d >&4; exit 0',
    "run-exthandlers": 'echo "worker $2" >>"$1/trace"; echo . >&3; exec sleep 600',
}
"""Children that do what is expected of them. $1 is the root, $2 the directory of the code that runs."""


def wait_for(condition: Callable[[], object], what: str, seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


class Service:
    """A real supervisor under a scratch root, with shell scripts in the place of its children."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.scripts = dict(QUIET)
        self.timing: dict[str, float] = {}
        self.stop_seconds = 3.0
        self.environ = {"PATH": os.environ["PATH"]}
        self.process: subprocess.Popen[str] | None = None
        self.others: list[subprocess.Popen[str]] = []
        root.joinpath("etc").mkdir(parents=True, exist_ok=True)
        root.joinpath("etc/waagent.conf").write_text("# nothing special\n")

    def spawn(self) -> subprocess.Popen[str]:
        path = [CORE, *(entry for entry in sys.path if entry and "site-packages" not in entry and entry != CORE)]
        driver = self.root / "driver.py"
        driver.write_text(
            textwrap.dedent(DRIVER).format(
                path=path, stop=self.stop_seconds, timing=self.timing, scripts=self.scripts, root=str(self.root)
            )
        )
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(driver)],
            env={**self.environ, "MALLOC_ARENA_MAX": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.others.append(process)
        return process

    def start(self) -> Service:
        self.process = self.spawn()
        return self

    def send(self, signum: int) -> None:
        assert self.process is not None
        self.process.send_signal(signum)

    def wait(self, seconds: float = 15.0) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    def stop(self) -> int:
        self.send(signal.SIGTERM)
        return self.wait()

    @property
    def log(self) -> str:
        with contextlib.suppress(OSError):
            return self.root.joinpath("var/log/waagent.log").read_text()
        return ""

    @property
    def trace(self) -> list[str]:
        with contextlib.suppress(OSError):
            return self.root.joinpath("trace").read_text().split("\n")[:-1]
        return []

    def until_traced(self, line: str, times: int = 1) -> None:
        wait_for(lambda: self.trace.count(line) >= times, f"{line} in {self.trace}\n{self.log}")

    def until_logged(self, text: str, times: int = 1) -> None:
        wait_for(lambda: self.log.count(text) >= times, f"{text!r} in the log:\n{self.log}")

    def children(self) -> dict[str, int]:
        """Return role → pid of the supervisor's living children."""
        assert self.process is not None
        found = {}
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    if words[0] == b"sleep":  # what a script became that ends in exec
                        found["run-boot" if words[1] == b"601" else "run-exthandlers"] = int(pid)
                    elif len(words) > 4:  # fewer: it has not become the script yet
                        found[words[3].decode()] = int(pid)
        return found

    def add_version(self, version: str) -> Path:
        """Unpack a downloaded version that has all that is looked at."""
        place = self.root / "var/lib/waagent/agents" / version
        entry = place / "waagent/service/start.py"
        entry.parent.mkdir(parents=True, mode=0o755)
        entry.write_text("")
        for path in (entry, *entry.parents):
            if path == self.root:
                break
            path.chmod(0o755 if path.is_dir() else 0o644)
        return place


class Manager:
    """The service manager's end of the notify socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(15)
        self.path = str(path)

    def until(self, prefix: str) -> list[str]:
        """Return the messages up to and with the first one that starts with *prefix*."""
        found = []
        while True:
            found.append(self.socket.recv(4096).decode())
            if found[-1].startswith(prefix):
                return found


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    yield made
    for process in made.others:
        if process.poll() is None:
            with contextlib.suppress(OSError):
                for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
            process.kill()
            process.wait()
        if process.stderr:
            process.stderr.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path / "notify")
    yield made
    made.socket.close()
