"""A real agent as a process under a scratch root, talking to a fabric; always cleaned up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from waagent_fabric.api import Fabric

T = TypeVar("T")

# Provisioning and disk plan nothing under a scratch root; short periods keep tests short.
BASE_CONF = """\
Provisioning.Agent=disabled
Provisioning.Enabled=n
ResourceDisk.Format=n
ResourceDisk.EnableSwap=n
Provisioning.MonitorHostName=n
Logs.Verbose=y
Extensions.GoalStatePeriod=1
Extensions.InitialGoalStatePeriod=1
AutoUpdate.Enabled=n
OS.EnableFirewall=n
"""

# Inherited by everything that an agent starts, handlers and what they leave behind included.
MARK = "FABRIC_AGENT"

_ROLES = {
    "supervisor": ("daemon",),
    "worker": ("run-exthandlers", "worker"),
    "boot": ("run-boot", "boot"),
}


def write_conf(root: str | os.PathLike[str], fabric: Fabric | None, extra: str | Mapping[str, str] = "") -> str:
    """Write ``etc/waagent.conf`` under *root*, leading to *fabric*; later lines win. Return its path."""
    if not isinstance(extra, str):
        extra = "".join(f"{key}={value}\n" for key, value in extra.items())
    path = os.path.join(os.fspath(root), "etc", "waagent.conf")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(BASE_CONF + (fabric.conf() if fabric is not None else "") + extra)
    return path


def _arguments(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return [part.decode(errors="replace") for part in file.read().split(b"\0") if part]
    except OSError:
        return []


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (OSError, IndexError):
        return False


def _processes() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def descendants(pid: int) -> list[int]:
    """Return the living processes below *pid*, parents before children."""
    children: dict[int, list[int]] = {}
    for other in _processes():
        children.setdefault(_parent(other), []).append(other)
    found, queue = [], [pid]
    while queue:
        below = children.get(queue.pop(0), [])
        found.extend(below)
        queue.extend(below)
    return [other for other in found if _alive(other)]


class RunningAgent:
    """``python -m waagent --root ROOT -daemon`` as a process.

    Args:
        root: the scratch root.
        fabric: the platform it is led to; its ``etc/waagent.conf`` is written unless one is there.
        conf: more lines of configuration, or key → value; written after the base, so they win.
        environment: added to the agent's environment; ``None`` as a value removes a variable.
        arguments: instead of ``-daemon``.
        python: the interpreter.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        fabric: Fabric | None = None,
        *,
        conf: str | Mapping[str, str] = "",
        environment: Mapping[str, str | None] | None = None,
        arguments: Sequence[str] = ("-daemon",),
        python: str = sys.executable,
    ) -> None:
        self.root = os.fspath(root)
        self.fabric = fabric
        self.command = [python, "-m", "waagent", "--root", self.root, *arguments]
        self.environment = dict(environment or {})
        self.process: subprocess.Popen[bytes] | None = None
        self._mark = uuid.uuid4().hex
        self._conf_path = os.path.join(self.root, "etc", "waagent.conf")
        if conf or not os.path.exists(self._conf_path):
            write_conf(self.root, fabric, conf)

    # -- life

    def start(self) -> RunningAgent:
        """Start the agent; returns itself. Its own output goes to ``console.log`` under the root.

        Raises:
            RuntimeError: it runs already.
        """
        if self.process is not None and self.process.poll() is None:
            raise RuntimeError("the agent runs already")
        environment = {key: value for key, value in os.environ.items() if not key.startswith("COV_CORE")}
        for key, value in self.environment.items():
            if value is None:
                environment.pop(key, None)
            else:
                environment[key] = value
        environment[MARK] = self._mark
        with open(self.console_path, "ab") as console:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=console, stderr=console, env=environment,
                cwd=self.root, start_new_session=True,
            )  # fmt: skip
        return self

    def stop(self, timeout: float = 20.0) -> int | None:
        """End the agent with SIGTERM, with SIGKILL after *timeout* seconds; return its exit status.

        Nothing that it started survives: neither its children nor what handlers left running.
        """
        status = None
        if self.process is not None:
            if self.process.poll() is None:
                self.process.terminate()
                try:
                    self.process.wait(timeout)
                except subprocess.TimeoutExpired:
                    self.process.kill()
            status = self.process.wait()
            self.process = None
        self._end([pid for pid in _processes() if self._ours(pid)])
        return status

    def kill(self) -> None:
        """End the supervisor with SIGKILL, as a power cut would, and the worker with it."""
        if self.process is None:
            return
        pids = [pid for pid in (self.process.pid, self.worker, self.boot) if pid is not None]
        self._end(pids)
        self.process.wait()
        self.process = None

    def kill_worker(self, *, wait: bool = True, timeout: float = 20.0) -> int:
        """End the worker with SIGKILL; return its pid. With *wait*, come back when another one runs.

        Raises:
            RuntimeError: there is no worker.
            TimeoutError: no other one came.
        """
        pid = self.worker
        if pid is None:
            raise RuntimeError(f"there is no worker\n{self.tail()}")
        os.kill(pid, signal.SIGKILL)
        if wait:
            self.wait_until(lambda: self.worker not in (None, pid), timeout, "a new worker")
        return pid

    def __enter__(self) -> RunningAgent:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ours(self, pid: int) -> bool:
        """Whether a process descends from one that this object started: it carries the mark in its environment."""
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                return f"{MARK}={self._mark}".encode() in file.read().split(b"\0")
        except OSError:
            return False

    @staticmethod
    def _end(pids: Iterable[int]) -> None:
        ended = []
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
                ended.append(pid)
            except (ProcessLookupError, PermissionError):
                pass
        deadline = time.monotonic() + 5
        while any(_alive(pid) for pid in ended) and time.monotonic() < deadline:
            time.sleep(0.01)

    # -- looking

    @property
    def running(self) -> bool:
        """Whether the supervisor lives."""
        return self.process is not None and self.process.poll() is None

    def pids(self) -> dict[str, int]:
        """Return the living processes by role: ``supervisor``, ``worker``, ``boot`` (those there are)."""
        if self.process is None or not _alive(self.process.pid):
            return {}
        found = {"supervisor": self.process.pid}
        for pid in descendants(self.process.pid):
            words = [part.lstrip("-/") for part in _arguments(pid)]
            for role in ("worker", "boot"):
                if _parent(pid) == self.process.pid and any(word in _ROLES[role] for word in words):
                    found.setdefault(role, pid)
        return found

    @property
    def worker(self) -> int | None:
        """The worker's pid."""
        return self.pids().get("worker")

    @property
    def boot(self) -> int | None:
        """The boot stage's pid."""
        return self.pids().get("boot")

    @property
    def console_path(self) -> str:
        """What the agent printed lies here."""
        return os.path.join(self.root, "console.log")

    @property
    def log_path(self) -> str:
        """The agent's log."""
        return os.path.join(self.root, "var", "log", "waagent.log")

    @property
    def lib_dir(self) -> str:
        """The agent's state directory."""
        return os.path.join(self.root, "var", "lib", "waagent")

    def log(self) -> str:
        """Return the agent's log so far."""
        return self._read(self.log_path)

    def console(self) -> str:
        """Return what the agent printed so far."""
        return self._read(self.console_path)

    def tail(self, lines: int = 40) -> str:
        """Return the ends of console and log, for messages."""
        return "\n".join([*self.console().splitlines()[-lines:], "---", *self.log().splitlines()[-lines:]])

    @staticmethod
    def _read(path: str) -> str:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    # -- waiting

    def wait_until(self, condition: Callable[[], T], timeout: float = 30.0, what: str = "the condition") -> T:
        """Wait until *condition* returns something true, and return that.

        Raises:
            TimeoutError: it stayed false; the message holds the end of the log.
        """
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not come true within {timeout} s\n{self.tail()}")
            time.sleep(0.02)

    def wait_for_log(self, text: str, timeout: float = 30.0, *, count: int = 1, start: int = 0) -> str:
        """Wait until *text* stands in the log *count* times after offset *start*; return the last such line.

        Raises:
            TimeoutError: it does not; the message holds the end of the log.
        """

        def found() -> str | None:
            lines = [line for line in self.log()[start:].splitlines() if text in line]
            return lines[-1] if len(lines) >= count else None

        return self.wait_until(found, timeout, f"{text!r} in the log") or ""

    def wait_exit(self, timeout: float = 30.0) -> int:
        """Wait until the supervisor has ended; return its exit status.

        Raises:
            TimeoutError: it still runs.
        """
        if self.process is None:
            raise RuntimeError("the agent was not started")
        process = self.process
        self.wait_until(lambda: process.poll() is not None, timeout, "the agent's end")
        return process.wait()
