"""Emptying directories: links are not followed, options that name the system are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from waagent import AgentError, Paths
from waagent_deprovision import emptying


def test_everything_in_a_directory_goes_and_the_directory_stays(tmp_path: Path) -> None:
    place = tmp_path / "place"
    (place / "a" / "b").mkdir(parents=True)
    (place / "a" / "b" / "file").write_text("x")
    (place / ".hidden").write_text("x")
    os.mkfifo(place / "pipe")
    assert len(emptying.remaining(str(place))) >= 1
    assert emptying.empty(str(place)).failed == []
    assert list(place.iterdir()) == []
    assert emptying.remaining(str(place)) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    place, outside = tmp_path / "place", tmp_path / "outside"
    place.mkdir()
    outside.mkdir()
    (outside / "treasure").write_text("x")
    (place / "to-directory").symlink_to(outside)
    (place / "to-file").symlink_to(outside / "treasure")
    (place / "dangling").symlink_to("nowhere")
    emptying.empty(str(place))
    assert list(place.iterdir()) == []
    assert (outside / "treasure").exists()


def test_a_link_in_the_place_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "treasure").write_text("x")
    (tmp_path / "link").symlink_to("outside")
    assert emptying.empty(str(tmp_path / "link")).failed == []
    assert (tmp_path / "outside" / "treasure").exists()


def test_what_is_missing_is_empty(tmp_path: Path) -> None:
    assert emptying.empty(str(tmp_path / "nothing")).failed == []
    assert emptying.remaining(str(tmp_path / "nothing")) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_what_cannot_be_removed_is_told_and_the_rest_goes(tmp_path: Path) -> None:
    place = tmp_path / "place"
    (place / "closed").mkdir(parents=True)
    (place / "closed" / "file").write_text("x")
    (place / "open").write_text("x")
    (place / "closed").chmod(0o500)
    outcome = emptying.empty(str(place))
    (place / "closed").chmod(0o700)
    assert not (place / "open").exists()
    with pytest.raises(AgentError, match="closed/file"):
        outcome.check()


@pytest.mark.parametrize(
    "path", ["/", "/var", "/var/lib", "/etc", "/home", "/usr/lib", "/data", "/var/lib/../..", "/var/log/"]
)
def test_directories_of_the_system_are_refused(tmp_path: Path, path: str) -> None:
    for root in (str(tmp_path), "/"):
        paths = Paths(root)
        with pytest.raises(AgentError, match="no directory of the agent's own"):
            emptying.check_directory(paths, paths.at(path))


def test_a_link_that_leads_to_the_system_is_refused(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/waagent").symlink_to(tmp_path / "etc")
    with pytest.raises(AgentError):
        emptying.check_directory(Paths(str(tmp_path)), str(tmp_path / "var/lib/waagent"))
    (tmp_path / "var/lib/azure").symlink_to("/var/lib/something")
    with pytest.raises(AgentError):
        emptying.check_directory(Paths(str(tmp_path)), str(tmp_path / "var/lib/azure"))


def test_a_link_to_another_disk_is_followed(tmp_path: Path) -> None:
    (tmp_path / "data/waagent").mkdir(parents=True)
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/waagent").symlink_to("../../data/waagent")
    found = emptying.check_directory(Paths(str(tmp_path)), str(tmp_path / "var/lib/waagent"))
    assert found == str(tmp_path / "data/waagent")


def test_patterns_stay_below_the_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "var").mkdir(parents=True)
    outside.mkdir()
    (outside / "dhclient.leases.x").write_text("x")
    (root / "var/db").symlink_to(outside)
    assert emptying.matches(Paths(str(root)), ["/var/db/dhclient.leases.*"]) == []
