"""``waagent analyze``: where the time of a start went."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from waagent.cli import main
from waagent.journal import Journal


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/waagent.conf").write_text("")
    journal = Journal(str(tmp_path / "var/lib/waagent/journal/boot.jsonl"))
    journal.ended("disk", True, 4.0, [("format", "done", 3.5)])
    journal.ended("provisioning", False, 9.0, [("user", "done", 0.25), ("password", "failed", 8.5)])
    journal.close()
    return tmp_path


def test_plans_with_their_steps(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(root), "analyze"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("disk: 4.000 s, ended 20")
    assert lines[1:3] == ["     3.500 s  format", "     0.500 s  looking at the machine between the steps"]
    assert lines[3].startswith("provisioning: 9.000 s, ended ")
    assert lines[3].endswith(", did not reach its goal")
    assert lines[4:] == [
        "     0.250 s  user",
        "     8.500 s  password  (failed)",
        "     0.250 s  looking at the machine between the steps",
    ]


def test_blame_names_the_slowest_step_first(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(root), "analyze", "blame"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "     8.500 s  provisioning: password",
        "     3.500 s  disk: format",
        "     0.250 s  provisioning: user",
    ]


def test_the_json_form_holds_all_of_it(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(root), "analyze", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["role"] == "boot"
    assert [plan["name"] for plan in document["plans"]] == ["disk", "provisioning"]
    assert document["plans"][1]["steps"][1] == {"name": "password", "outcome": "failed", "seconds": 8.5}


def test_the_journals_are_for_root_alone(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is told that nothing ran when it is only hidden."""
    real = os.open

    def refuse(path: str, *arguments: int, **more: int) -> int:
        if str(path).endswith("boot.jsonl"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *arguments, **more)

    monkeypatch.setattr(os, "open", refuse)
    assert main(["--root", str(root), "analyze"]) == 77
    assert capsys.readouterr() == ("", f"waagent: {root}/var/lib/waagent/journal is for root alone\n")


def test_a_role_that_ran_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(root), "analyze", "--role", "worker"]) == 0
    assert "No plan of the role worker has run yet" in capsys.readouterr().out
