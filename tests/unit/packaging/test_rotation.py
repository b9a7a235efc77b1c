"""The log is rotated as it has always been (cli §7.4)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from waagent.paths import Paths

PACKAGED = Path(__file__).resolve().parents[3] / "packaging/logrotate/waagent"

pytestmark = pytest.mark.skipif(not PACKAGED.exists(), reason="this tree carries no packaging")


def test_the_directives_are_those_of_the_contract() -> None:
    head, *lines, end = PACKAGED.read_text().splitlines()
    assert (head, end) == (f"{Paths().log_file} {{", "}")
    assert {line.strip() for line in lines} == {
        "compress",
        "dateext",
        "dateformat -%Y-%m-%d-%s",
        "missingok",
        "notifempty",
        "rotate 50",
        "size 20M",
    }


def test_logrotate_takes_it(tmp_path: Path) -> None:
    program = shutil.which("logrotate") or "/usr/sbin/logrotate"
    if not Path(program).exists():
        pytest.skip("logrotate is not here")
    rules = tmp_path / "rules"
    rules.write_text(PACKAGED.read_text().replace(Paths().log_file, str(tmp_path / "waagent.log")))
    rules.chmod(0o644)
    (tmp_path / "waagent.log").write_text("one line\n")
    command = [program, "--force", "--state", str(tmp_path / "state"), str(rules)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "waagent.log").exists(), "the next line makes it anew"
    assert len(list(tmp_path.glob("waagent.log-*.gz"))) == 1
