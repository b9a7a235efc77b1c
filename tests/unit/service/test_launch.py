"""The command line of a service process, and the module path it is handed (measured.md §2)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from waagent.service import launch, start


def test_the_start_script_reads_what_is_written_here(tmp_path: Path) -> None:
    argv = launch.command("daemon", root=str(tmp_path), conf="/some where/a.conf", verbose=True)
    path, word, options = start.parse(argv[4:])
    assert argv[:3] == [sys.executable, "-I", "-S"]
    assert os.path.samefile(argv[3], start.__file__ or "")
    assert path == launch.module_path()
    assert (word, options.root, options.conf, options.verbose) == ("daemon", str(tmp_path), "/some where/a.conf", True)


def test_the_process_table_shows_what_tools_look_for() -> None:
    argv = launch.command("-daemon")
    assert argv[-1] == "-daemon"
    assert "waagent" in argv[3]
    assert "python" in os.path.basename(argv[0])


def test_a_bare_interpreter_finds_the_agent_and_its_libraries_on_that_path() -> None:
    code = "import sys; sys.path[:] = sys.argv[1].split(':'); import waagent.records, pluggy; print('found')"
    path = os.pathsep.join(launch.module_path())
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, path], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("found\n", "")


def test_the_folder_somebody_stands_in_is_not_handed_on(tmp_path: Path) -> None:
    (tmp_path / "tool.py").write_text("from waagent.service import launch\nprint('\\n'.join(launch.module_path()))\n")
    for argv in (["tool.py"], ["-m", "tool"], [str(tmp_path / "tool.py")]):
        done = subprocess.run([sys.executable, *argv], cwd=tmp_path, capture_output=True, text=True, check=True)
        paths = done.stdout.splitlines()
        assert str(tmp_path) not in paths
        assert all(os.path.isabs(path) for path in paths)


def test_a_folder_that_cannot_be_written_down_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", ["/x", *sys.path, "", "/a:b", "/x"])
    paths = launch.module_path()
    assert "/a:b" not in paths
    assert paths.count("/x") == 1


def test_the_environment_asks_for_one_malloc_arena_and_keeps_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    environment = launch.environment()
    monkeypatch.undo()
    assert environment["MALLOC_ARENA_MAX"] == "1"
    assert environment["https_proxy"] == "http://proxy:3128"
