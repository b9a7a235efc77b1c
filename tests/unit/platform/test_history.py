"""The history of goal states: bounded, zipped, and never in the way (wireserver §15.7)."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from tests.unit.platform.memoryworld import Clock, Lines
from waagent.log import Log
from waagent.platform.history import KEPT, History


class Kept:
    def __init__(self, root: Path) -> None:
        self.clock = Clock()
        self.clock.now = 1_700_000_000.0
        self.sinks = Lines()
        self.path = root / "history"
        self.history = History(str(self.path), Log(self.sinks, "X"), self.clock)

    def goal_state(self, tag: str) -> None:
        self.clock.now += 1
        self.history.begin(tag)
        self.history.save("GoalState.xml", f"<GoalState {tag}/>")
        self.history.archive()

    @property
    def names(self) -> list[str]:
        return sorted(os.listdir(self.path))


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_directories_are_private_and_named_by_time_and_tag(kept: Kept) -> None:
    kept.history.begin("7-etag/../../x")
    kept.history.save("ExtensionsConfig.xml", b"<x/>")
    (name,) = kept.names
    assert name == "2023-11-14T22-13-20__7-etag_.._.._x"
    assert os.stat(kept.path).st_mode & 0o777 == 0o700
    assert os.stat(kept.path / name).st_mode & 0o777 == 0o700
    assert os.stat(kept.path / name / "ExtensionsConfig.xml").st_mode & 0o777 == 0o600


def test_older_ones_are_zipped_and_the_newest_stays_a_directory(kept: Kept) -> None:
    for number in range(3):
        kept.goal_state(str(number))
    assert kept.names == ["2023-11-14T22-13-21__0.zip", "2023-11-14T22-13-22__1.zip", "2023-11-14T22-13-23__2"]
    with zipfile.ZipFile(kept.path / kept.names[0]) as archive:
        assert archive.namelist() == ["GoalState.xml"]
        assert archive.read("GoalState.xml") == b"<GoalState 0/>"
    assert os.stat(kept.path / kept.names[0]).st_mode & 0o777 == 0o600


def test_fifty_items_are_kept(kept: Kept) -> None:
    for number in range(KEPT + 20):
        kept.goal_state(str(number))
    assert len(kept.names) == KEPT
    assert kept.names[-1].endswith(f"__{KEPT + 19}")
    assert kept.names[0].endswith("__20.zip")


def test_a_clock_that_goes_back_does_not_lose_the_present_one(kept: Kept) -> None:
    for number in range(KEPT + 5):
        kept.goal_state(str(number))
    kept.clock.now = 0
    kept.goal_state("past")
    assert "1970-01-01T00-00-01__past" in kept.names
    kept.history.save("Certificates.json", "[]")
    assert (kept.path / "1970-01-01T00-00-01__past" / "Certificates.json").exists()


def test_strangers_are_left_alone(kept: Kept) -> None:
    kept.path.mkdir()
    (kept.path / "notes.txt").write_text("mine")
    (kept.path / "2020-01-01T00-00-00__1").symlink_to("/etc")
    kept.goal_state("1")
    kept.goal_state("2")
    assert (kept.path / "notes.txt").read_text() == "mine"
    assert (kept.path / "2020-01-01T00-00-00__1").is_symlink()
    assert os.path.isdir("/etc")


def test_what_a_killed_agent_left_half_done_is_done_again(kept: Kept) -> None:
    kept.goal_state("1")
    (kept.path / "2023-11-14T22-13-21__1.zip.tmp").write_bytes(b"half")
    kept.goal_state("2")
    assert kept.names == ["2023-11-14T22-13-21__1.zip", "2023-11-14T22-13-22__2"]


def test_nothing_is_saved_before_the_first_goal_state(kept: Kept) -> None:
    kept.history.save("GoalState.xml", "x")
    kept.history.archive()
    assert not kept.path.exists()
    assert kept.sinks.lines == []


def test_a_place_that_cannot_be_written_is_one_warning(kept: Kept) -> None:
    kept.path.write_text("a file where the directory should be")
    for number in range(100):
        kept.goal_state(str(number))
    assert 0 < len(kept.sinks.lines) <= 3
    assert all("history: cannot" in line for _, line in kept.sinks.lines)
