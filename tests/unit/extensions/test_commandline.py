"""What ``waagent extensions`` prints of what handlers and goal states bring."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from tests.unit.extensions.fakes import Bench, wanted
from waagent_extensions import commandline

NAME = "Contoso.Tools.Sample"
ODD = "th\u00e9 \u001b[2Jgone\u0007 half \ud83d \r\nnext\tline"


def words(**values: object) -> argparse.Namespace:
    return argparse.Namespace(**{"json": False, **values})


def reporting(bench: Bench, message: str) -> None:
    bench.publish(NAME, "1.0")
    bench.apply(wanted(NAME, "1.0"))
    status = {"status": "error", "code": 1, "formattedMessage": {"lang": "en-US", "message": message}}
    (bench.handler_dir(NAME, "1.0") / "status" / "0.status").write_text(json.dumps([{"status": status}]))


def test_a_message_cannot_steer_the_terminal_and_keeps_its_lines(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    reporting(bench, ODD)
    assert commandline.show(bench.agent, words(name=NAME)) == 0  # type: ignore[arg-type]
    shown = capsys.readouterr().out
    assert "th\u00e9 \\x1b[2Jgone\\x07 half \\ud83d \\r\nnext\tline" in shown
    assert commandline.show(bench.agent, words(name=NAME, json=True)) == 0  # type: ignore[arg-type]
    document = json.loads(capsys.readouterr().out)
    assert document["extensions"][0]["message"] == ODD


def test_what_a_handler_says_is_shown_without_secrets(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    reporting(bench, "from https://a.example/b?sv=1&sig=SECRET")
    for as_json in (False, True):
        commandline.show(bench.agent, words(name=NAME, json=as_json))  # type: ignore[arg-type]
        assert "https://a.example/b?<redacted>" in (shown := capsys.readouterr().out)
        assert "SECRET" not in shown


def test_a_name_is_found_whatever_its_case_and_an_unknown_one_is_answered_with_those_there_are(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    reporting(bench, "x")
    assert commandline.show(bench.agent, words(name=NAME.lower())) == 0  # type: ignore[arg-type]
    assert f"handler: {NAME}" in capsys.readouterr().out
    assert commandline.show(bench.agent, words(name="Contoso.Other")) == 1  # type: ignore[arg-type]
    assert capsys.readouterr().err == f"waagent: no extension is called 'Contoso.Other'; there are: {NAME}\n"


def test_a_goal_state_that_cannot_be_read_is_named(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "missing.xml")
    assert commandline.plan(bench.agent, words(file=missing)) == 1  # type: ignore[arg-type]
    assert capsys.readouterr().err == f"waagent: {missing}: No such file or directory\n"
    for content in (b"", b"<x", b"[1]", b"\0\1\2", b"{" * 5000, b"<Extensions/>" * 2):
        (tmp_path / "odd").write_bytes(content)
        assert commandline.plan(bench.agent, words(file=str(tmp_path / "odd"))) == 1  # type: ignore[arg-type]
        assert capsys.readouterr().err.startswith("waagent: ")


def test_a_goal_state_without_extensions_says_so(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.xml").write_text("<Extensions/>")
    assert commandline.plan(bench.agent, words(file=str(tmp_path / "empty.xml"))) == 0  # type: ignore[arg-type]
    assert capsys.readouterr().out.endswith("  nothing to do: there are no extensions in it\n")
