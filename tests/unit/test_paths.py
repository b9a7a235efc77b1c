"""Every place of the agent lies under its root (ruling 7)."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.paths import Paths


def test_the_places_on_the_machine_itself() -> None:
    paths = Paths()
    assert paths.is_real
    assert (paths.lib_dir, paths.run_dir) == ("/var/lib/waagent", "/run/waagent")
    assert (paths.log_file, paths.extension_log_dir) == ("/var/log/waagent.log", "/var/log/azure")
    assert paths.pid_file == "/var/run/waagent.pid"
    assert paths.lib("a", "b") == "/var/lib/waagent/a/b"
    assert paths.run("lock") == "/run/waagent/lock"


def test_configured_places_move_and_empty_ones_do_not() -> None:
    paths = Paths("/", {"Lib.Dir": "/srv/agent/", "Logs.File": "", "Pid.File": "/run/a.pid"})
    assert (paths.lib_dir, paths.log_file, paths.pid_file) == ("/srv/agent", "/var/log/waagent.log", "/run/a.pid")


def test_under_another_root_all_move_with_it() -> None:
    paths = Paths("/scratch/../root", {"Lib.Dir": "/srv/agent"})
    assert not paths.is_real
    assert paths.root == "/root"
    assert paths.lib_dir == "/root/srv/agent"
    assert paths.at("/") == "/root"


@pytest.mark.parametrize("root", ["/", "//", "/.", "/x/.."])
def test_every_spelling_of_the_root_is_the_root(root: str) -> None:
    assert Paths(root).is_real


@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",))))
def test_no_path_leads_out_of_the_root(path: str) -> None:
    placed = Paths("/scratch/root").at(path)
    assert placed == "/scratch/root" or placed.startswith("/scratch/root/")
    assert ".." not in placed.split("/")
    assert os.path.isabs(Paths("/").at(path))
