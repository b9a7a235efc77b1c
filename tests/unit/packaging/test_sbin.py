"""The file for /usr/sbin: any Python can parse it, and handlers can look at it without running it (extensions §21)."""

from __future__ import annotations

import ast
import glob
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "packaging" / "sbin" / "waagent"


def _interpreters() -> list[str]:
    named = [shutil.which(name) for name in ("python2.7", *(f"python3.{minor}" for minor in range(6, 15)))]
    managed = glob.glob(os.path.expanduser("~/.pyenv/versions/*/bin/python"))
    found = {}
    for path in [sys.executable, *managed, *filter(None, named)]:
        done = subprocess.run([path, "-c", "import sys; print(sys.version)"], capture_output=True, check=False)
        if done.returncode == 0:  # a version manager's shim may stand there with nothing behind it
            found.setdefault(done.stdout.split()[0], path)
    return list(found.values())


def _load(name: str) -> ModuleType:
    loader = importlib.machinery.SourceFileLoader(name, str(SCRIPT))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def test_it_parses_on_every_python_that_is_here() -> None:
    for python in _interpreters():
        code = "import sys; compile(open(sys.argv[1]).read(), 'waagent', 'exec'); print('parsed')"
        done = subprocess.run([python, "-c", code, str(SCRIPT)], capture_output=True, text=True, check=False)
        assert done.stdout == "parsed\n", f"{python}: {done.stderr}"


def test_an_older_python_is_told_what_is_needed() -> None:
    old = [
        python
        for python in _interpreters()
        if subprocess.run([python, "-c", "import sys; sys.exit(sys.version_info < (3, 9))"], check=False).returncode
    ]
    for python in old:
        done = subprocess.run([python, str(SCRIPT), "-version"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert "needs Python 3.9 or newer" in done.stderr
    if not old:
        pytest.skip("no Python older than 3.9 is here")


def test_it_imports_the_standard_library_alone_until_it_runs() -> None:
    tree = ast.parse(SCRIPT.read_text())
    top = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    assert top == ["sys"]
    assert not [node for node in tree.body if isinstance(node, ast.ImportFrom)]


def test_looked_at_under_another_name_it_does_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    module = _load("waagent_script")
    assert callable(module.main)
    assert capsys.readouterr() == ("", "")


def test_loaded_as_the_old_module_it_refuses_as_an_import() -> None:
    with pytest.raises(ImportError, match="module interface"):
        _load("waagent")


def test_it_is_a_program(tmp_path: Path) -> None:
    assert os.access(SCRIPT, os.X_OK)
    for flags in ([], ["-u"]):
        done = subprocess.run(
            [sys.executable, *flags, str(SCRIPT), "-version", "--root", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("WALinuxAgent-3.")
