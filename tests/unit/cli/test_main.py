"""The command line as a user meets it: what goes where, with which exit code (cli §4, §6, §9)."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import waagent.agent
from waagent.cli import main, table
from waagent.conffile import read_chain
from waagent.config import Config
from waagent.errors import CommandError
from waagent.records import Command, Option
from waagent.service import launch


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a scratch root with a small configuration."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/waagent.conf").write_text("Logs.Verbose=n\n")
    return tmp_path


@pytest.fixture
def unprivileged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as anybody but root."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


class FakePlugins:
    """What commands ask of the plugins, without any."""

    def __init__(self, **states: str) -> None:
        self._states = states

    def listing(self) -> list[argparse.Namespace]:
        return [argparse.Namespace(name=name, state=state) for name, state in self._states.items()]


def plugins_are(monkeypatch: pytest.MonkeyPatch, commands: list[Command], **states: str) -> None:
    """Let the agent of the command line have these commands and plugin states."""

    def make_agent(role: str, root: str, conf: str | None, verbose: bool) -> object:
        config = Config(read_chain(root, conf))
        config.declare("acme", [Option("Acme.Interval", "int", 60, "seconds")])
        hooks = argparse.Namespace(declare_commands=lambda: [("acme", command) for command in commands])
        return argparse.Namespace(hooks=hooks, config=config, plugins=FakePlugins(**states))

    monkeypatch.setattr(waagent.agent, "make_agent", make_agent)


@pytest.fixture(autouse=True)
def _no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    plugins_are(monkeypatch, [])


# ---- help and mistakes ----


@pytest.mark.parametrize("words", [[], ["help"], ["-?"], ["--help"]])
def test_help_lists_one_command_per_line_on_standard_output(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    out, err = capsys.readouterr()
    listed = re.findall(r"^  (\S+(?: \S+)?)  +\S", out, re.MULTILINE)
    assert {"-version", "-daemon", "-start", "-show-configuration", "config show", "config check"} <= set(listed)
    assert {"-force", "-verbose", "-configuration-path:FILE"} <= set(out.split())
    assert "-run-boot" not in out
    assert err == ""


def test_help_names_the_commands_of_plugins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins_are(monkeypatch, [Command("acme sync", "synchronise", lambda agent, arguments: 0)])
    assert main(["help"]) == 0
    assert re.search(r"^  acme sync +synchronise \(plugin acme\)$", capsys.readouterr().out, re.MULTILINE)


def test_help_works_when_plugins_cannot_be_had(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**arguments: object) -> None:
        raise RuntimeError("no plugins today")

    monkeypatch.setattr(waagent.agent, "make_agent", broken)
    assert main(["help"]) == 0
    out, err = capsys.readouterr()
    assert "-version" in out
    assert err.count("no plugins today") == 1


@pytest.mark.parametrize("words", [["help", "-deprovision"], ["-deprovision", "--help"], ["deprovision", "-h"]])
@pytest.mark.usefixtures("unprivileged")
def test_help_for_a_command_of_a_plugin_runs_nothing(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def configure(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true")

    command = Command("deprovision", "clean", lambda agent, arguments: pytest.fail("it ran"), configure)
    plugins_are(monkeypatch, [command])
    assert main(words) == 0
    assert "usage: waagent -deprovision" in (out := capsys.readouterr().out)
    assert "--dry-run" in out


def test_help_for_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "config", "show"]) == 0
    assert "--origin" in capsys.readouterr().out
    assert main(["help", "config"]) == 0
    assert "config check" in capsys.readouterr().out
    assert main(["help", "nonsense"]) == 2


@pytest.mark.parametrize("words", [["nonsense"], ["-versionfoo"], ["-v"], ["-daemon", "nonsense"], ["-"]])
def test_an_unknown_word_gets_the_usage_on_standard_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("waagent: unknown ")
    assert "Usage: waagent" in err


def test_half_a_command_gets_its_family(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["config"], ["config", "nonsense"]):
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "config check" in err
        assert "-daemon" not in err
    assert main(["config", "--help"]) == 0
    assert "config check" in capsys.readouterr().out


def test_a_wrong_option_of_a_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--nonsense"]) == 2
    assert "--nonsense" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["install", "setup", "-uninstall"])
def test_commands_of_the_package_manager_are_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    assert "package manager" in capsys.readouterr().err


def test_an_old_command_whose_plugin_is_missing_says_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-serialconsole", "--root", str(root)]) == 2
    assert "belongs to a plugin" in capsys.readouterr().err


# ---- who may, and what comes back ----


@pytest.mark.parametrize("word", ["-daemon", "-start", "-run-exthandlers", "-run-boot"])
@pytest.mark.usefixtures("unprivileged")
def test_only_root_runs_the_service_on_the_machine_itself(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 77
    assert capsys.readouterr() == ("", "waagent: this command must be run as root\n")


def command_of(run: Callable[[object, argparse.Namespace], int], **more: bool) -> Command:
    return Command("deprovision", "clean", run, **more)


@pytest.mark.usefixtures("unprivileged")
def test_a_plugins_command_needs_root_unless_it_says_otherwise(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins_are(monkeypatch, [command_of(lambda agent, arguments: 0)])
    assert main(["-deprovision"]) == 77
    assert main(["-deprovision", "--root", str(root)]) == 0
    plugins_are(monkeypatch, [command_of(lambda agent, arguments: 0, root=False)])
    assert main(["-deprovision"]) == 0


def test_a_plugins_command_gets_the_agent_its_arguments_and_the_flags(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, bool, str]] = []

    def configure(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("address")

    def run(agent: object, arguments: argparse.Namespace) -> int:
        seen.append((hasattr(agent, "config"), arguments.force, arguments.address))
        return 3

    plugins_are(monkeypatch, [Command("setup-firewall", "rules", run, configure)])
    assert main(["-force", "--setup-firewall=168.63.129.16", "--root", str(root)]) == 3
    assert seen == [(True, True, "168.63.129.16")]


def test_a_plugin_cannot_take_a_command_of_the_core(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins_are(monkeypatch, [Command("version", "mine", lambda agent, arguments: 9)])
    assert main(["-version", "--root", str(root)]) == 0
    assert main(["help"]) == 0
    assert "mine" not in capsys.readouterr().out


def test_of_two_plugins_with_one_command_the_first_in_order_has_it(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Third parties come after ours: none of them takes over what removes a machine's secrets."""
    plugins_are(
        monkeypatch,
        [command_of(lambda agent, arguments: 0), Command("deprovision", "hijack", lambda agent, arguments: 9)],
    )
    assert main(["-deprovision", "--root", str(root)]) == 0
    assert main(["help"]) == 0
    assert "hijack" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("problem", "code", "text"),
    [
        (CommandError("mkfs failed on /dev/sdb1"), 1, "waagent: deprovision: mkfs failed on /dev/sdb1\n"),
        (OSError(30, "Read-only file system", "/etc/x"), 1, "Read-only file system: '/etc/x'"),
        (ValueError("bad"), 1, "waagent: Failed to run 'deprovision': ValueError: bad\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_command_that_fails_says_so_in_one_line(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    problem: BaseException,
    code: int,
    text: str,
) -> None:
    def run(agent: object, arguments: argparse.Namespace) -> int:
        raise problem

    plugins_are(monkeypatch, [command_of(run)])
    assert main(["-deprovision", "--root", str(root)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert err.count("\n") == (1 if text else 0)


def test_a_reader_that_goes_away_is_no_traceback(root: Path) -> None:
    command = [sys.executable, "-m", "waagent", "-show-configuration", "--root", str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        err = child.stderr.read()
    assert b"Traceback" not in err
    assert child.returncode == 1


@pytest.mark.parametrize(("word", "code"), [("help", 0), ("-version", 0), ("nonsense", 2), ("-show-configuration", 0)])
def test_standard_streams_that_are_closed_change_nothing(root: Path, word: str, code: int) -> None:
    """As cron jobs and init scripts run it; no file of the root gets what was for a terminal."""
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    command = [sys.executable, "-m", "waagent", word, "--root", str(root)]
    done = subprocess.run(["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command], check=False)
    assert done.returncode == code
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_standard_output_is_a_failure(root: Path, unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "waagent", "-show-configuration", "--root", str(root)]
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "No space left on device" in done.stderr


# ---- configuration ----


@pytest.mark.usefixtures("unprivileged")
def test_show_configuration_prints_every_option_sorted_and_creates_nothing(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "etc/waagent.conf").write_text("HttpProxy.Host=None\nExtensions.Enabled=n\nLogs.Verbose=maybe\n")
    before = tree(root)
    assert main(["-show-configuration", "--root", str(root)]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    names = [line.split(" = ")[0] for line in lines]
    assert names == sorted(names)
    assert names.index("AutoUpdate.Enabled") < names.index("Autoupdate.Frequency") < names.index("DVD.MountPoint")
    assert {"AutoUpdate.Enabled = True", "Autoupdate.Frequency = 3600", "HttpProxy.Host = None"} <= set(lines)
    assert {"OS.SshDir = /etc/ssh", "Extensions.Enabled = False"} <= set(lines)
    assert "Logs.Verbose=maybe" in err
    assert tree(root) == before


def test_show_configuration_prints_the_options_of_plugins(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-show-configuration", "--root", str(root)]) == 0
    assert "Acme.Interval = 60\n" in capsys.readouterr().out


def test_values_beyond_ascii_break_no_plain_locale(root: Path) -> None:
    (root / "etc/waagent.conf").write_bytes("ResourceDisk.MountPoint=/mnt/\u017e\n".encode() + b"OS.HomeDir=/\xff\n")
    done = subprocess.run(
        [sys.executable, "-m", "waagent", "config", "show", "ResourceDisk.MountPoint", "--root", str(root)],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"ResourceDisk.MountPoint = /mnt/\\u017e\n")


def test_config_show_tells_origins(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "etc/waagent.conf.d").mkdir()
    (root / "etc/waagent.conf.d/a.conf").write_text("\nOS.SshDir=/srv/ssh\nLBProbeResponder=y\n")
    assert main(["config", "show", "--origin", "--root", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"Logs.Verbose = False  # {root}/etc/waagent.conf:1" in lines
    assert f"OS.SshDir = /srv/ssh  # {root}/etc/waagent.conf.d/a.conf:2" in lines
    assert "OS.PasswordPath = /etc/shadow  # default" in lines
    (ignored,) = [line for line in lines if line.startswith("LBProbeResponder")]
    assert "accepted and ignored" in ignored


def test_an_option_of_a_plugin_that_is_off_says_whose_it_is(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins_are(monkeypatch, [], extensions="on", resourcedisk="off", acme="on")
    assert main(["config", "show", "--origin", "--root", str(root)]) == 0
    out = capsys.readouterr().out
    assert "ResourceDisk.Format = True  # default; owned by disabled plugin resourcedisk\n" in out
    assert "Extensions.Enabled = True  # default\n" in out
    assert "OS.EnableFirewall = False  # default; owned by plugin firewall, which is not installed\n" in out


def test_config_show_as_json_has_everything(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "etc/waagent.conf").write_text("Logs.Collect=off\nOS.SshDir=/srv/ssh\n")
    assert main(["config", "show", "--json", "--root", str(root)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["files"] == [f"{root}/etc/waagent.conf"]
    assert document["options"]["OS.SshDir"]["value"] == "/srv/ssh"
    assert document["options"]["OS.SshDir"]["origin"] == {
        "kind": "file",
        "file": f"{root}/etc/waagent.conf",
        "line": 2,
        "plugin": None,
    }
    assert document["options"]["HttpProxy.Port"]["value"] is None
    assert [(problem["level"], problem["line"]) for problem in document["problems"]] == [("warning", 1)]


def test_config_show_of_some_names(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "OS.SshDir", "--root", str(root)]) == 0
    assert capsys.readouterr().out == "OS.SshDir = /etc/ssh\n"
    assert main(["config", "show", "OS.SSHDir", "--root", str(root)]) == 1
    assert "did you mean OS.SshDir?" in capsys.readouterr().err


def test_config_check_of_a_clean_configuration(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "etc/waagent.conf").write_text("Logs.Verbose=n\nLBProbeResponder=y\n")
    assert main(["config", "check", "--root", str(root)]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"0 problems in {root}/etc/waagent.conf"
    assert f"{root}/etc/waagent.conf:2: info: LBProbeResponder" in out


def test_config_check_tells_keys_of_plugins_that_are_off_from_mistakes(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins_are(monkeypatch, [], telemetry="off", resourcedisk="off", extensions="on")
    (root / "etc/waagent.conf").write_text("Telemetry.Enabled=n\nResourceDisk.Format=n\nOS.EnableFirewall=y\n")
    assert main(["config", "check", "--root", str(root)]) == 0
    file = f"{root}/etc/waagent.conf"
    lines = capsys.readouterr().out.splitlines()
    assert f"{file}:1: info: Telemetry.Enabled has no effect: owned by disabled plugin telemetry" in lines
    assert f"{file}:2: info: ResourceDisk.Format has no effect: owned by disabled plugin resourcedisk" in lines
    text = "OS.EnableFirewall has no effect: owned by plugin firewall, which is not installed"
    assert f"{file}:3: info: {text}" in lines
    assert lines[-1] == f"0 problems in {file}"


def test_config_check_names_place_default_and_nearest_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "etc/waagent.conf").write_text("Logs.Colect=n\nLogs.Verbose=1\n\nHome.Dir=/x\n")
    assert main(["config", "check", "--root", str(root)]) == 1
    file = f"{root}/etc/waagent.conf"
    lines = capsys.readouterr().out.splitlines()
    assert f"{file}:1: warning: unknown key Logs.Colect; did you mean Logs.Collect?" in lines
    assert f"{file}:2: warning: Logs.Verbose=1: is neither y nor n; the default n is used" in lines
    assert f"{file}:4: warning: Home.Dir is taken as OS.HomeDir; write that instead" in lines
    assert lines[-1] == f"3 problems in {file}"


@pytest.mark.parametrize("words", [["-show-configuration"], ["config", "check"], ["-daemon"], ["-start"]])
def test_a_missing_file_on_the_command_line_ends_it_with_1(
    root: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"-configuration-path:{root}/none.conf", "--root", str(root), *words]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{root}/none.conf" in err


def test_a_missing_default_file_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-show-configuration", "--root", str(tmp_path)]) == 0
    assert f"{tmp_path}/etc/waagent.conf: does not exist" in capsys.readouterr().err


# ---- the service ----


@pytest.mark.parametrize("role", ["-daemon", "-run-exthandlers", "-run-boot"])
def test_a_role_of_the_service_is_handed_over_whole(root: Path, monkeypatch: pytest.MonkeyPatch, role: str) -> None:
    calls: list[tuple[str, list[str], dict[str, str]]] = []

    def execve(path: str, argv: list[str], environment: dict[str, str]) -> None:
        calls.append((path, argv, environment))
        raise SystemExit(0)

    monkeypatch.setattr(os, "execve", execve)
    with pytest.raises(SystemExit):
        main([role, "-verbose", "--root", str(root), "-configuration-path", str(root / "etc/waagent.conf")])
    ((path, argv, environment),) = calls
    assert argv == launch.command(role, root=str(root), conf=str(root / "etc/waagent.conf"), verbose=True)
    assert path == argv[0] == sys.executable
    assert environment["MALLOC_ARENA_MAX"] == "1"


def child_that(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(launch, "command", lambda *arguments, **more: [sys.executable, "-I", "-S", "-c", code])


def test_start_leaves_a_daemon_in_a_session_of_its_own(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = root / "note"
    child_that(
        monkeypatch,
        f"import os,time; f=open({str(note)!r},'w'); f.write(f'{{os.getpid()}} {{os.getsid(0)}}'); f.close();"
        "time.sleep(60)",
    )
    assert main(["-start", "--root", str(root)]) == 0
    pid, session = map(int, note.read_text().split())
    try:
        assert pid == session
        assert session != os.getsid(0)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_start_notices_a_daemon_that_dies_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    child_that(monkeypatch, "raise SystemExit(7)")
    assert main(["-start", "--root", str(root)]) == 1
    assert "exit status 7" in capsys.readouterr().err
    child_that(monkeypatch, "raise SystemExit(0)")  # "already running" is no failure
    assert main(["-start", "--root", str(root)]) == 0


# ---- as a program ----


def test_every_module_of_the_table_offers_what_it_says() -> None:
    entries = table.own()
    assert [entry.name for entry in entries if not callable(entry.run) or not entry.summary] == []
    assert len({entry.name for entry in entries}) == len(entries)


def test_version_imports_nothing_heavy_and_needs_no_file(tmp_path: Path) -> None:
    code = (
        "import sys; from waagent.cli import main; code = main(['-version']);"
        "names = 'pluggy stevedore requests cryptography ssl importlib.metadata argparse'.split();"
        "print([name for name in names[:5] if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "WAAGENT_ROOT": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == "[]\n"
    assert re.fullmatch(
        r"WALinuxAgent-3(\.\d+){3} running on \S+ .*\nPython: \d+\.\d+\.\d+\S*\nGoal state agent: 3(\.\d+){3}\n",
        done.stdout,
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [["-show-configuration"], ["config", "show", "--json"], ["config", "check"], ["help"]]
)
def test_reading_commands_with_the_installed_plugins_create_nothing(root: Path, words: list[str]) -> None:
    before = tree(root)
    done = subprocess.run(
        [sys.executable, "-m", "waagent", *words, "--root", str(root)],
        env={**os.environ, "HOME": str(root), "XDG_CACHE_HOME": str(root / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    assert tree(root) == before


def test_the_package_runs_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "waagent", "nonsense"], capture_output=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
