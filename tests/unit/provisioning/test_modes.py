"""Who provisions: configuration, plugins, cloud-init's switches in their order (provisioning §1, ruling 42; §29.7)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.provisioning.bench import Bench
from waagent import hookimpl
from waagent.commands import Completed
from waagent_provisioning import modes


class Machine:
    """The real root as far as the detection looks at it."""

    def __init__(self, agent: Any, root: Path) -> None:
        self.config, self.hooks = agent.config, agent.hooks
        self.root = root
        self.asked: list[str] = []
        self.systemd = ""
        self.sysv = 1
        self.paths = self

    is_real = True

    def at(self, path: str) -> str:
        return str(self.root) + path

    def run(self, argv: tuple[str, ...], timeout: float = 0) -> Completed:
        assert timeout == 10
        self.asked.append(" ".join(argv))
        if argv[0] == "systemctl":
            return Completed(argv, 0 if self.systemd else 1, self.systemd + "\n", "")
        return Completed(argv, self.sysv, "", "")


@pytest.fixture
def machine(bench: Bench) -> Machine:
    (bench.root / "proc").mkdir()
    return Machine(bench.agent, bench.root)


def put(machine: Machine, path: str, text: str = "") -> None:
    place = machine.root / path[1:]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)


@pytest.mark.parametrize(
    ("said", "enabled"),
    [
        *((word, True) for word in ("enabled", "enabled-runtime", "static", "alias", "generated")),
        *((word, False) for word in ("disabled", "masked", "masked-runtime", "not-found", "indirect", "")),
    ],
)
def test_what_systemd_says_of_the_unit(machine: Machine, said: str, enabled: bool) -> None:
    machine.systemd = said
    assert modes.cloud_init_enabled(machine) is enabled  # type: ignore[arg-type]
    assert machine.asked[0] == "systemctl is-enabled cloud-init-local.service"


def test_without_systemd_the_init_script_is_asked(machine: Machine) -> None:
    machine.sysv = 0
    assert modes.cloud_init_enabled(machine)  # type: ignore[arg-type]
    assert machine.asked == ["systemctl is-enabled cloud-init-local.service", "service cloud-init status"]


SWITCHES = [
    ("disabled by the command line", "ro cloud-init=disabled quiet", (), False),
    ("disabled by file", "ro", ("/etc/cloud/cloud-init.disabled",), False),
    ("disabled by the generator", "ro", ("/run/cloud-init/disabled",), False),
    ("switched on over everything", "cloud-init=enabled", ("/etc/cloud/cloud-init.disabled",), True),
    ("another word", "not-cloud-init=disabled", (), True),
]


@pytest.mark.parametrize(("line", "files", "enabled"), [row[1:] for row in SWITCHES], ids=[row[0] for row in SWITCHES])
def test_cloud_inits_own_switches(machine: Machine, line: str, files: tuple[str, ...], enabled: bool) -> None:
    """§29.7: disabled by cmdline, by file."""
    machine.systemd = "enabled"
    put(machine, "/proc/cmdline", line + "\n")
    for path in files:
        put(machine, path)
    assert modes.cloud_init_enabled(machine) is enabled  # type: ignore[arg-type]
    assert bool(machine.asked) is enabled, "a switch that says no is enough"


class Chooser:
    """A plugin that knows who provisions."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    @hookimpl
    def select_provisioner(self, agent: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("conf", "enabled", "answer", "mode", "problem"),
    [
        ("", False, None, "waagent", ""),
        ("", True, None, "cloud-init", ""),
        ("Provisioning.Agent=auto", True, None, "cloud-init", ""),
        ("Provisioning.Agent=waagent", False, None, "waagent", ""),
        ("Provisioning.Agent=waagent", True, None, "waagent", "cloud-init is enabled and unexpected"),
        ("Provisioning.Agent=cloud-init", False, None, "cloud-init", ""),
        ("Provisioning.Agent=disabled", True, None, "disabled", ""),
        ("Provisioning.Agent=Auto", False, None, "disabled", ""),
        ("Provisioning.Agent=somebody", False, None, "disabled", ""),
        ("", False, "cloud-init", "cloud-init", ""),
        ("", True, "disabled", "disabled", ""),
        ("", False, "waagent", "waagent", ""),
        ("", True, "waagent", "waagent", "cloud-init is enabled and unexpected"),
        ("", False, "ignition", "waagent", "A plugin chose 'ignition'"),
        ("", False, OSError("no answer today"), "waagent", "no answer today"),
        ("Provisioning.Agent=waagent", False, "disabled", "waagent", ""),
    ],
)
def test_who_provisions(tmp_path: Path, conf: str, enabled: bool, answer: object, mode: str, problem: str) -> None:
    plugins = {} if answer is None else {"chooser": Chooser(answer)}
    bench = Bench(tmp_path, conf + "\n", **plugins)
    if enabled:
        (tmp_path / "run/cloud-init").mkdir(parents=True)
        (tmp_path / "run/cloud-init/enabled").write_text("")
    found = modes.choose(bench.agent)
    assert found.mode == mode
    assert problem in found.problem
    assert bool(found.problem) is bool(problem)
