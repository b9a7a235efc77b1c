"""Commands in units of their own: the same command whatever starts it, and plainly when nothing else works."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.unit.scopes.conftest import Machine
from tests.unit.scopes.fakesystemd import environment, is_alive
from waagent import CommandResult, Launch, commands
from waagent_extensions.commands import Order
from waagent_scopes import prefixes

modes = pytest.mark.parametrize("mode", ["scope", "service"])
broken = pytest.mark.parametrize("how", ["refused", "no-bus", "not-found", "killed"])


def launch(machine: Machine, **more: str) -> Launch | None:
    return machine.plugin.launch(machine, machine.command(**more))  # type: ignore[arg-type]


def test_the_words_of_a_scope(machine: Machine) -> None:
    found = launch(machine, operation="install", name="Contoso-Ext.Tool")
    assert found is not None
    assert found.prefix[0] == str(machine.root / "usr/bin/systemd-run")
    assert found.prefix[1:3] == ("--property=CPUAccounting=no", "--property=MemoryAccounting=no")
    assert re.fullmatch(r"--unit=install_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", found.prefix[3])
    assert found.prefix[4:] == ("--scope", "--slice=azure-vmextensions-Contoso_Ext.Tool.slice")
    assert found.scope == found.prefix[3][len("--unit=") :] + ".scope"
    other = launch(machine)
    assert other is not None
    assert other.scope != found.scope


@modes
def test_a_command_is_the_same_in_a_unit(machine: Machine, mode: str) -> None:
    machine.values["Extensions.Launcher"] = mode
    program = (
        "import json, os; "
        "print(json.dumps([dict(os.environ), os.getcwd(), os.path.realpath('/proc/self/fd/0'), os.getsid(0)]))"
    )
    (machine.work / "show.py").write_text(program)
    line = "printf '%s %s\\n' 'a  b' \"$ODD\" | cat >quoted; umask >mask; echo said >&2; "
    line += f"{sys.executable} show.py; exit 7"
    result = machine.handle(line)
    assert result.code == 7
    found, cwd, standard_input, session = json.loads(result.out.head)
    assert {name: found.get(name) for name in environment()} == environment()
    assert (cwd, standard_input) == (str(machine.work), "/dev/null")
    assert session != os.getsid(0)
    assert (machine.work / "quoted").read_text() == f"a  b {environment()['ODD']}\n"
    assert (machine.work / "mask").read_text().strip() in ("0022", "022")
    assert result.err.head == "said\n"
    assert not result.launch_problem
    (options,) = machine.systemd.runs
    assert ("scope" in options) is (mode == "scope")
    assert options["slice"] == "azure-vmextensions-Contoso.Tool.slice"


@modes
def test_no_secret_is_in_a_command_line_or_left_on_disk(machine: Machine, mode: str) -> None:
    machine.values["Extensions.Launcher"] = mode
    assert machine.handle('test "$TOKEN" = SEC"RET"').code == 0
    assert [call["environment_has_secret"] for call in machine.systemd.calls if "options" in call] == [False]
    left = [path for path in (machine.root / "run").rglob("*") if path.is_file() and b"SECRET" in path.read_bytes()]
    assert not left


@modes
def test_what_a_handler_leaves_running_lives_on(machine: Machine, mode: str) -> None:
    machine.values["Extensions.Launcher"] = mode
    result = machine.handle("nohup sleep 60 >/dev/null 2>&1 & echo $! >child")
    assert result.code == 0
    pid = int((machine.work / "child").read_text())
    assert is_alive(pid)
    os.kill(pid, signal.SIGKILL)


@modes
def test_a_command_out_of_time_is_ended_and_not_started_again(machine: Machine, mode: str) -> None:
    machine.values["Extensions.Launcher"] = mode
    result = machine.handle("echo ran >>ran; echo $$ >pid; exec sleep 60", timeout=1.5)
    assert result.timed_out
    assert (machine.work / "ran").read_text() == "ran\n"
    pid = int((machine.work / "pid").read_text())
    deadline = time.monotonic() + 5
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert machine.handle("true").code == 0
    assert len(machine.systemd.runs) == 2, "a handler that is slow is no reason to go without units"


def test_a_launcher_that_hangs_costs_the_time_of_the_command_and_no_second_try(machine: Machine) -> None:
    machine.systemd.mode("hangs")
    began = time.monotonic()
    result = machine.handle("echo ran >>ran", timeout=1.5)
    assert result.timed_out
    assert time.monotonic() - began < 10
    assert not (machine.work / "ran").exists()


@modes
@broken
def test_when_systemd_run_fails_the_command_runs_once_and_units_are_off(machine: Machine, mode: str, how: str) -> None:
    machine.values["Extensions.Launcher"] = mode
    machine.systemd.mode(how)
    result = machine.handle("echo ran >>ran; exit 3")
    assert result.code == 3, "the handler's own code, whatever systemd-run said"
    assert (machine.work / "ran").read_text() == "ran\n"
    assert machine.details["launcher"] == "process"
    assert machine.having("[CGW] Commands of handlers have no units and no limits until the agent is started again")
    assert machine.seen == [("CGroupsDisabled", False)]
    assert not [path for path in (machine.root / "run/waagent").rglob("*") if path.is_file()]
    machine.systemd.mode("")
    assert machine.handle("true").code == 0
    assert len(machine.systemd.runs) == 1, "nobody asks again"
    machine.restart()
    assert machine.handle("true").code == 0
    assert len(machine.systemd.runs) == 2, "until the agent is started again"


def test_a_handler_that_fails_as_systemd_run_does_is_not_taken_for_it(machine: Machine) -> None:
    result = machine.handle("echo ran >>ran; echo 'Unit enable_x.scope not found.' >&2; exit 1")
    assert result.code == 1
    assert (machine.work / "ran").read_text() == "ran\n"
    assert machine.details["off"] == ""


def test_somebody_elses_launcher_that_fails_is_not_systemds_fault(machine: Machine) -> None:
    machine.plugin.after_handler_command(
        machine,
        machine.command(),
        CommandResult(True, 0, launch_problem="nice: no such command"),  # type: ignore[arg-type]
    )
    assert machine.details["off"] == ""


def test_the_configuration_may_want_plain_processes(machine: Machine) -> None:
    machine.values["Extensions.Launcher"] = "process"
    assert machine.handle("exit 4", limits={"cpuQuotaPercentage": 10}).code == 4
    assert not machine.systemd.calls


@pytest.mark.parametrize("missing", ["run/systemd/system", "usr/bin/systemd-run", "usr/bin/systemctl"])
def test_without_systemd_commands_are_plain_processes(machine: Machine, missing: str) -> None:
    path = machine.root / missing
    path.rmdir() if path.is_dir() else path.unlink()
    assert machine.handle("exit 4").code == 4
    assert not machine.systemd.calls
    assert machine.details == {"launcher": "process", "off": "", "limits": {}}
    assert not machine.lines


def test_a_scratch_root_does_not_use_the_machines_systemd(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine.root / "usr/bin/systemd-run").unlink()
    other = machine.root / "elsewhere"
    other.mkdir()
    (other / "systemd-run").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", f"{other}:{os.environ['PATH']}")
    assert launch(machine) is None


def test_a_restarted_agent_takes_up_a_service(machine: Machine, tmp_path: Path) -> None:
    machine.values["Extensions.Launcher"] = "service"
    line = f"echo ran >>ran; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo late; exit 5"
    command = machine.command(line)
    found = machine.plugin.launch(machine, command)  # type: ignore[arg-type]
    assert found is not None
    identity = os.path.basename(command.run_dir)
    order = Order(identity, "Contoso.Tool", "1.0", None, "enable", line, command.cwd, 30.0)
    leave = iter([False, True])
    left = machine.runner.run(
        order, command.environment, prefix=found.prefix, leave=lambda: (machine.work / "ran").exists() and next(leave)
    )
    assert left is None
    machine.restart()
    (tmp_path / "go").touch()
    result = machine.runner.run(order, command.environment)
    assert result is not None
    assert (result.code, result.out.head, result.adopted) == (5, "late\n", True)
    assert (machine.work / "ran").read_text() == "ran\n"


@pytest.mark.parametrize("word", ["", "'", "''", "it's", "a\nb\n", "\\", '$x `y` "z"', "-n", "%s", "*", "é€"])
def test_any_word_reaches_a_service_as_it_is(machine: Machine, word: str) -> None:
    file = str(machine.root / "script")
    run = str(machine.root / "usr/bin/systemd-run")
    words = prefixes.service(run, "u", "s.slice", "N", file)
    out = machine.root / "out"
    done = commands.run([*words, "/bin/sh", "-c", f'printf "[%s]" "$@" >{out}', "sh", word, "end"])
    assert done.returncode == 0, done.stderr
    assert out.read_text() == f"[{word}][end]"
    assert not os.path.exists(file)


def test_what_doctor_says(machine: Machine) -> None:
    def said() -> str:
        return machine.plugin.check_health(machine).detail  # type: ignore[arg-type]

    assert said() == "each command of a handler starts in a scope of its own"
    machine.values["Extensions.Launcher"] = "process"
    assert said() == "commands of handlers are plain processes (/etc/waagent.conf:1)"
    machine.values["Extensions.Launcher"] = "service"
    (machine.root / "run/systemd/system").rmdir()
    assert said().startswith("systemd does not run here")
