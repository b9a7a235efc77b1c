from __future__ import annotations

import json
from pathlib import Path

import pytest

from waagent.files import write_json
from waagent.state import State


def test_values_outlive_the_object(tmp_path: Path) -> None:
    assert State(str(tmp_path / "state")).save("seen", {"a": [1, None, "ä"]})
    assert State(str(tmp_path / "state")).load("seen") == {"a": [1, None, "ä"]}
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state/seen.json").stat().st_mode & 0o777 == 0o600


def test_absent_is_the_default_and_no_problem(tmp_path: Path) -> None:
    state = State(str(tmp_path))
    assert state.load("never", 7) == 7
    assert state.problems == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"schema": 1, "val',
        b"\x00" * 4096,
        b"[]",
        b'{"schema": 99, "value": 1}',
        b'{"value": 1}',
        b"[" * 9999,
    ],
)
def test_a_file_that_cannot_be_used_is_moved_aside_and_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "seen.json"
    path.write_bytes(content)
    state = State(str(tmp_path))
    assert state.load("seen", "default") == "default"
    assert len(state.problems) == 1
    assert str(path) in state.problems[0]
    assert (tmp_path / "seen.json.bad").read_bytes() == content
    assert state.save("seen", 1)
    assert State(str(tmp_path)).load("seen") == 1


def test_a_directory_in_the_files_place(tmp_path: Path) -> None:
    (tmp_path / "seen.json/child").mkdir(parents=True)
    state = State(str(tmp_path))
    assert state.load("seen", 3) == 3
    assert state.save("seen", 4)
    assert State(str(tmp_path)).load("seen") == 4


def test_a_symlink_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    write_json(str(victim), {"schema": 1, "value": "theirs"})
    (tmp_path / "state").mkdir()
    (tmp_path / "state/seen.json").symlink_to(victim)
    assert State(str(tmp_path / "state")).save("seen", "ours")
    assert json.loads(victim.read_text())["value"] == "theirs"


def test_what_the_disk_refuses_is_kept_and_offered_again(tmp_path: Path) -> None:
    place = tmp_path / "state"
    place.write_text("a file where the directory should be")
    state = State(str(place))
    assert not state.save("seen", [1])
    assert state.load("seen") == [1]
    assert str(place) in state.refused
    assert not state.retry()
    place.unlink()
    assert state.retry()
    assert state.refused == ""
    assert State(str(place)).load("seen") == [1]
