"""The third line of ``-version``: which version handles goal states (cli §4.1, ruling 17)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from waagent.cli import main
from waagent.cli.version import goal_state_agent
from waagent.paths import Paths
from waagent.version import WIRE_VERSION


def process(root: Path, number: str, *argv: str) -> None:
    folder = root / "proc" / number
    folder.mkdir(parents=True)
    (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in argv))


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("python3 -u bin/WALinuxAgent-2.9.1.1-py3.8.egg -run-exthandlers", "2.9.1.1"),
        ("python3 -u /v/WALinuxAgent-2.9.1.1/bin/WALinuxAgent-2.9.1.1.egg -run-exthandlers", "2.9.1.1"),
        ("python3 /usr/lib/waagent/service/start.py --path=/usr/lib -run-exthandlers", None),
        ("python3 /v/agents/3.2.0/waagent/service/start.py --path=/v/agents/3.2.0:/usr -run-exthandlers", "3.2.0"),
        ("python3 /usr/s/start.py --path=/v/agents/3.2.0.0 -run-exthandlers", "3.2.0.0"),
        ("python3 /v/agents/3.2.0/waagent/service/start.py --path=/v/agents/3.2.0 -run-boot", None),
        ("vi WALinuxAgent-1.2.3", None),
        ("", None),
    ],
)
def test_the_running_worker_is_found_by_its_command_line(tmp_path: Path, line: str, version: str | None) -> None:
    process(tmp_path, "1", "/sbin/init")
    process(tmp_path, "77", *line.split())
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/88").mkdir()
    assert goal_state_agent(Paths(str(tmp_path))) == (version or WIRE_VERSION)


def test_without_a_process_table_it_is_this_program(tmp_path: Path) -> None:
    assert goal_state_agent(Paths(str(tmp_path))) == WIRE_VERSION


@pytest.mark.parametrize(
    ("release", "shown"),
    [
        ('ID=ubuntu\nVERSION_ID="24.04"\n', "ubuntu 24.04"),
        ("ID=ol\nVERSION_ID=9.3\n", "oracle 9.3"),
        ("\0\xff", "linux "),
    ],
)
def test_the_first_line_names_the_distribution_under_the_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], release: str, shown: str
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(release)
    assert main(["-version", "--root", str(tmp_path)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert re.fullmatch(rf"WALinuxAgent-{re.escape(WIRE_VERSION)} running on {shown}", first)
