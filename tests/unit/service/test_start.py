from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from waagent.errors import ConfigError
from waagent.paths import Paths
from waagent.service import launch, osfacts, start
from waagent.service.settings import Settings


def test_the_command_line_that_is_written_is_the_one_that_is_read(tmp_path: Path) -> None:
    argv = launch.command(
        launch.WORKER,
        root=str(tmp_path),
        conf="/x.conf",
        verbose=True,
        code="/agents/3.1",
        extra=("--beat-fd=3", "--boot-fd=4", "--stale-list=none"),
    )
    assert argv[1:4] == ["-I", "-S", "/agents/3.1/waagent/service/start.py"]
    path, word, options = start.parse(argv[4:])
    assert path[0] == "/agents/3.1"
    assert word == "run-exthandlers"
    assert (options.root, options.conf, options.verbose) == (str(tmp_path), "/x.conf", True)
    assert (options.beat_fd, options.boot_fd, options.stale_list) == (3, 4, "none")


def test_tools_find_the_daemon_by_its_word() -> None:
    argv = launch.command(launch.DAEMON)
    assert argv[-1] == "-daemon"
    assert "waagent" in argv[3]
    assert start.parse(argv[4:])[2].root == "/"


@pytest.mark.parametrize(
    "argv", [[], ["-daemon"], ["--path=/x"], ["--path=/x", "-daemon", "--what"], ["--path=/x", "x"]]
)
def test_a_command_line_that_is_none(argv: list[str]) -> None:
    with pytest.raises(ValueError, match=r"needs|unknown"):
        start.parse(argv)
    process = subprocess.run(
        [sys.executable, "-I", "-S", start.__file__, *argv], capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert process.stderr.startswith("waagent: ")


def test_a_process_without_standard_descriptors_puts_nothing_in_their_place(tmp_path: Path) -> None:
    """A lock that got number 2 would be written into by the first stray message."""
    script = tmp_path / "closed.py"
    script.write_text(
        f"import os, sys\nargv = {launch.command('no-such-role')!r}\nos.closerange(0, 3)\nos.execv(argv[0], argv)\n"
    )
    assert subprocess.run([sys.executable, str(script)], check=False).returncode == 2


def test_what_the_supervisor_takes_from_the_configuration(tmp_path: Path) -> None:
    conf = tmp_path / "etc/waagent.conf"
    conf.parent.mkdir()

    def read(text: str) -> Settings:
        conf.write_text(text)
        return Settings(str(tmp_path), None)

    assert read("Lib.Dir=/srv/x\nPid.File=/run/w.pid\n").paths.lib_dir == str(tmp_path / "srv/x")
    assert read("Logs.Verbose=Y\n").verbose_file
    assert not read("Logs.Verbose=maybe\n").verbose_file
    assert read("OS.EnableFIPS=y\n").fips


@pytest.mark.parametrize(
    ("text", "packaged"),
    [
        ("", False),
        ("AutoUpdate.Enabled=y\n", False),
        ("AutoUpdate.Enabled=n\n", True),
        ("AutoUpdate.UpdateToLatestVersion=y\nAutoUpdate.Enabled=n\n", False),
        ("AutoUpdate.UpdateToLatestVersion=n\nAutoUpdate.Enabled=n\n", False),
    ],
)
def test_which_version_runs(tmp_path: Path, text: str, packaged: bool) -> None:
    """The table of configuration §4.7, column "Version that runs"."""
    conf = tmp_path / "waagent.conf"
    conf.write_text(text)
    assert Settings(str(tmp_path), str(conf)).packaged_only is packaged


def test_a_named_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Settings(str(tmp_path), str(tmp_path / "absent"))


def test_the_operating_systems_two_words(tmp_path: Path) -> None:
    paths = Paths(str(tmp_path))
    kernel = os.uname()
    assert osfacts.describe(paths) == f"{kernel.sysname.lower()} {kernel.release}"
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_bytes(b'NAME="X"\nID=\'opensuse-leap\'\nVERSION_ID="15.6"\n\xff\n')
    assert osfacts.describe(paths) == "opensuse-leap 15.6"


def test_the_supervisor_imports_nothing_but_the_standard_library_and_its_own(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path[:] = sys.argv[1].split(':')\n"
        "import waagent.service.supervisor\n"
        "print('\\n'.join(name for name in sys.modules))"
    )
    output = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, ":".join(launch.module_path())],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    heavy = {"json", "typing", "subprocess", "socket", "logging", "selectors", "asyncio", "attr", "pathlib", "tempfile"}
    assert heavy & set(output) == set()
    allowed = {"paths", "files", "log", "redaction", "conffile", "errors", "version", "service"}
    ours = {name.split(".")[1] for name in output if name.startswith("waagent.")}
    assert ours <= allowed
