"""Whole-file writes: all or nothing, whatever happens on the way (architecture §11)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from waagent import files
from waagent.errors import StateError


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_has_content_and_mode_whatever_the_umask(tmp_path: Path) -> None:
    with files.umask(0o077):
        files.write_atomic(str(tmp_path / "a"), "text é", 0o644)
        files.write_atomic(str(tmp_path / "b"), b"\0bytes")
    assert (tmp_path / "a").read_bytes() == "text é".encode()
    assert (mode_of(tmp_path / "a"), mode_of(tmp_path / "b")) == (0o644, 0o600)


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_failing_write_leaves_the_old_content_and_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    target = tmp_path / "state"
    files.write_atomic(str(target), "old")

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(str(target), "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["state"]


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    dead = os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    stay = [
        "state",
        ".state.tmp",
        f".state.{os.getpid()}.0123abcd.tmp",
        f"state.{dead}.0123abcd.tmp",
        ".a.b.0123abcd.tmp",
    ]
    for name in (*stay, f".state.{dead}.0123abcd.tmp"):
        (tmp_path / name).touch()
    assert files.remove_leftovers(str(tmp_path)) == [f".state.{dead}.0123abcd.tmp"]
    assert sorted(os.listdir(tmp_path)) == sorted(stay)
    assert files.remove_leftovers(str(tmp_path / "missing")) == []


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / "state").symlink_to("victim")
    files.write_atomic(str(tmp_path / "state"), "new")
    assert (tmp_path / "victim").read_text() == "untouched"
    assert not (tmp_path / "state").is_symlink()


def test_the_longest_legal_name_can_be_written(tmp_path: Path) -> None:
    for name in ("n" * 255, "é" * 127):
        files.write_atomic(str(tmp_path / name), "x")
        assert (tmp_path / name).read_text() == "x"


def test_directories_are_made_with_parents_and_left_as_they_are(tmp_path: Path) -> None:
    files.ensure_dir(str(tmp_path / "a/b/c"), 0o700)
    assert (mode_of(tmp_path / "a"), mode_of(tmp_path / "a/b/c")) == (0o755, 0o700)
    (tmp_path / "a/b/c").chmod(0o750)
    files.ensure_dir(str(tmp_path / "a/b/c"), 0o700)
    assert mode_of(tmp_path / "a/b/c") == 0o750


@pytest.mark.parametrize("make", [lambda path: path.write_text(""), lambda path: path.symlink_to("nowhere")])
def test_something_else_in_a_directorys_place_is_an_error(tmp_path: Path, make: object) -> None:
    make(tmp_path / "place")  # type: ignore[operator]
    with pytest.raises(OSError, match="place"):
        files.ensure_dir(str(tmp_path / "place"))


def test_reading_is_limited(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert files.read_limited(str(tmp_path / "a"), 5) == b"12345"
    with pytest.raises(StateError, match="larger than 4 bytes"):
        files.read_limited(str(tmp_path / "a"), 4)


def test_what_is_no_regular_file_is_refused_without_waiting_or_leaking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(StateError, match="no regular file"):
            files.read_limited(str(path), 10)
    after = len(os.listdir("/proc/self/fd")) if before else 0
    assert after == before


def test_json_comes_back_and_absent_is_none(tmp_path: Path) -> None:
    files.write_json(str(tmp_path / "a"), {"é": [1, None]})
    assert files.read_json(str(tmp_path / "a")) == {"é": [1, None]}
    assert files.read_json(str(tmp_path / "b")) is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 200000, b"1e5 x"])
def test_a_corrupt_state_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(StateError, match=r"state\.json"):
        files.read_json(str(tmp_path / "state.json"))


def test_a_corrupt_file_moves_aside_over_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "s.bad").write_text("older")
    (tmp_path / "s").write_text("bad")
    assert files.move_aside(str(tmp_path / "s")) == str(tmp_path / "s.bad")
    assert (tmp_path / "s.bad").read_text() == "bad"
    assert not (tmp_path / "s").exists()


def test_the_umask_comes_back_also_after_an_error() -> None:
    before = os.umask(0o022)
    os.umask(before)
    with pytest.raises(ValueError, match="stop"), files.umask(0o777):
        raise ValueError("stop")
    after = os.umask(before)
    assert after == before
