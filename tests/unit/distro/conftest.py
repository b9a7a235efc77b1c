"""A scratch machine: a root with files, a transcript instead of commands, and the real plugins in their real order."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from waagent.commands import Completed
from waagent.conffile import read_chain
from waagent.config import Config
from waagent.containment import Containment
from waagent.distro import Distro, DistroFacts, detect
from waagent.errors import CommandError
from waagent.hooks import Hooks
from waagent.log import Log, Sinks
from waagent.paths import Paths
from waagent.registry import DISTROS, Registry, Standing, examine

LEVELS = ("VERBOSE", "INFO", "WARNING", "ERROR")
LINUX = ("Linux", "6.1.0")

Answer = "str | int | tuple[int, str, str] | Callable[[tuple[str, ...], bytes], object]"


def plugins() -> dict[str, str]:
    """Return the distribution plugins of the installed product, by name."""
    found = importlib.metadata.distribution("waagent").entry_points
    return {one.name: one.value for one in found if one.group == DISTROS}


class Pauses:
    """An event that nobody sets: waiting takes no time and is remembered."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def wait(self, seconds: float) -> bool:
        self.slept.append(seconds)
        if len(self.slept) > 500:
            raise AssertionError("it waits for ever")
        return False

    def is_set(self) -> bool:
        return False


class Machine:
    """What operations are handed as ``agent``, and the means to look at what they did."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "root"
        (self.root / "etc").mkdir(parents=True)
        self.paths = Paths(str(self.root))
        self.stopping = Pauses()
        self.lines: list[str] = []
        self.log = Log(Sinks(), "Test")
        self.log.also = lambda level, text: self.lines.append(f"{LEVELS[level]} {text}")
        self.ran: list[tuple[str, ...]] = []
        self.inputs: list[bytes] = []
        self._answers: list[tuple[tuple[str, ...], object]] = []
        self._distro: Distro | None = None

    # ---- What the machine is ----

    def write(self, name: str, text: str | bytes, mode: int = 0o644) -> Path:
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(mode)
        return path

    def read(self, name: str) -> str:
        return (self.root / name.lstrip("/")).read_text()

    def at(self, name: str) -> str:
        return self.paths.at(name)

    def answer(self, command: str | Sequence[str], answer: object = "") -> None:
        """Let commands that begin like *command* answer: text, an exit code, (code, out, err), or a function."""
        words = tuple(command.split()) if isinstance(command, str) else tuple(command)
        self._answers.append((words, answer))

    def become(self, os_release: str, kernel: tuple[str, str] = LINUX) -> Machine:
        """Be the distribution that *os_release* describes, with all plugins that the agent would load for it."""
        self.write("etc/os-release", os_release)
        facts = attrs.evolve(detect(self.paths, kernel), root="/")
        return self.use(facts)

    def use(self, facts: DistroFacts) -> Machine:
        registry = Registry()
        for name, value in sorted(plugins().items()):
            place = facts.level(name)
            if place is not None:
                plugin = importlib.import_module(value)
                registry.register(examine(plugin, name), Standing(name, True, DISTROS, *place))
        self._distro = Distro(facts, Hooks(registry, Containment(self.log)), self)  # type: ignore[arg-type]
        self.registry = registry
        return self

    # ---- What it has as an agent ----

    @property
    def config(self) -> Config:
        return Config(read_chain(str(self.root)))

    @property
    def distro(self) -> Distro:
        assert self._distro is not None, "call become() first"
        return self._distro

    def run(self, argv, *, timeout=30, input=None, env=None, cwd=None, check=False):  # noqa: A002
        command = tuple(argv)
        self.ran.append(command)
        self.inputs.append(input or b"")
        code, out, err = 127, "", "cannot be started: no such command"
        for words, answer in reversed(self._answers):
            if command[: len(words)] == words:
                code, out, err = _outcome(answer, command, input or b"")
                break
        done = Completed(command, code, out, err)
        if check and not done.ok:
            raise CommandError(done.describe(), command, code, err)
        return done

    def commands(self) -> list[str]:
        """Return the commands that were run, each as one line, without those that only look."""
        looks = (
            "systemctl show", "systemctl is-enabled", "ip -4 -o address", "ip -4 route show", "blkid", "sshd -t",
            "/usr/sbin/sshd -t",
        )  # fmt: skip
        return [line for line in map(" ".join, self.ran) if not line.startswith(looks)]


def _outcome(answer: object, command: tuple[str, ...], data: bytes) -> tuple[int, str, str]:
    if callable(answer):
        answer = answer(command, data)
    if isinstance(answer, int):
        return answer, "", "it failed" if answer else ""
    if isinstance(answer, tuple):
        return answer
    return 0, str(answer or ""), ""


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """Files are written as root writes them, whatever the umask of whoever runs the tests."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def bare(tmp_path: Path) -> Machine:
    """A machine that is nothing yet."""
    return Machine(tmp_path)


@pytest.fixture
def machine(bare: Machine) -> Machine:
    """An unknown Linux with systemd: ``linux`` and the network tools alone answer."""
    (bare.root / "run/systemd/system").mkdir(parents=True)
    bare.answer("systemctl")
    bare.answer("systemctl show", "LoadState=loaded\n")
    bare.answer("systemctl is-enabled", (1, "not-found\n", ""))
    return bare.become("ID=acmeos\n")


@pytest.fixture
def networked(machine: Machine) -> Machine:
    """The same with one interface that has address and default route."""
    network(machine)
    return machine


ROUTES = (
    "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    "eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
    "eth0\t0000000A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"
)


def network(machine: Machine) -> None:
    """Give *machine* ``eth0`` with number 2."""
    machine.write("proc/net/route", ROUTES)
    machine.write("sys/class/net/eth0/ifindex", "2\n")
    (machine.root / "sys/class/net/eth0/device").mkdir()
    machine.answer("ip -4 -o address", "2: eth0    inet 10.0.0.4/24 brd 10.0.0.255 scope global eth0\n")
    machine.answer("ip")
    machine.answer("ip -4 -o address", "2: eth0    inet 10.0.0.4/24 brd 10.0.0.255 scope global eth0\n")


def process(machine: Machine, pid: int, name: str, since: int = 100) -> None:
    """Let a process with this name run on *machine*."""
    machine.write(f"proc/{pid}/comm", name + "\n")
    machine.write(f"proc/{pid}/stat", f"{pid} ({name}) S 1 {' '.join('0' * 17)} {since} 0 0\n")
