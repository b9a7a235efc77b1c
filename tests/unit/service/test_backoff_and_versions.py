from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from waagent.service.backoff import BackOff, ExitWindow
from waagent.service.versions import BAN_SECONDS, Bans, Candidate, choose, downloaded, parse

NOW = 1_800_000_000.0


def add(agents: Path, version: str) -> Candidate:
    entry = agents / version / "waagent/service/start.py"
    entry.parent.mkdir(parents=True)
    entry.write_text("")
    for path in (entry, *list(entry.parents)[:3]):
        path.chmod(0o755)
    return Candidate(version, str(agents / version))


def chosen(agents: Path, now: float = NOW, installed: str = "3.0.0.0", **options: bool) -> str:
    return choose(str(agents), installed, Bans(str(agents)).in_force(now), **options).version


def test_delays_double_up_to_five_minutes() -> None:
    back_off = BackOff()
    assert [back_off.exited(1.0) for _ in range(11)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_fifteen_minutes_of_health_begin_again() -> None:
    back_off = BackOff()
    for _ in range(5):
        back_off.exited(899.9)
    assert back_off.exited(900.0) == 1
    assert back_off.exited(10.0) == 2


def test_at_most_twenty_starts_in_the_first_hour_of_a_crash_loop() -> None:
    back_off, moment, starts = BackOff(), 0.0, 0
    while moment < 3600:
        starts += 1
        moment += back_off.exited(0.0)
    assert starts <= 20


def test_exits_are_counted_in_a_sliding_window() -> None:
    window = ExitWindow()
    assert [window.note("3.1", moment) for moment in (0.0, 160.0, 320.0, 480.0)] == [1, 2, 2, 2]
    assert window.note("3.1", 500.0) == 3
    assert window.note("3.2", 500.0) == 1
    window.forget("3.1")
    assert window.note("3.1", 501.0) == 1


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("3.1", (3, 1, 0, 0)),
        ("3.10.2", (3, 10, 2, 0)),
        ("3.1.2.3", (3, 1, 2, 3)),
        ("3", None),
        ("3.1.2.3.4", None),
        ("3.x", None),
        ("3.-1", None),
        ("３.1", None),
        ("3." + "9" * 12, None),
        ("", None),
    ],
)
def test_version_numbers(text: str, numbers: tuple[int, ...] | None) -> None:
    assert parse(text) == numbers


def test_the_highest_download_above_the_installed_one_runs(tmp_path: Path) -> None:
    for version in ("3.9.0.0", "3.10.0.0", "2.0.0.0"):
        add(tmp_path, version)
    assert chosen(tmp_path) == "3.10.0.0"
    assert chosen(tmp_path, installed="3.10.0.0") == "3.10.0.0"
    assert choose(str(tmp_path), "3.10.0.0", []).directory is None
    assert chosen(tmp_path, packaged_only=True) == "3.0.0.0"
    assert chosen(tmp_path / "absent") == "3.0.0.0"


def test_what_is_incomplete_or_open_to_others_does_not_count(tmp_path: Path) -> None:
    add(tmp_path, "3.1.0.0")
    (tmp_path / "3.2.0.0").mkdir()
    add(tmp_path, "3.3.0.0")
    (tmp_path / "3.3.0.0/waagent").chmod(0o777)
    (tmp_path / "3.4.0.0").symlink_to(tmp_path / "3.1.0.0")
    (tmp_path / "3.5.0.0").write_text("a file")
    (tmp_path / "WALinuxAgent-9.9.9.9").mkdir()
    assert [candidate.version for candidate in downloaded(str(tmp_path))] == ["3.1.0.0"]


def test_a_ban_rolls_back_and_expires_after_a_day(tmp_path: Path) -> None:
    add(tmp_path, "3.1.0.0")
    bad = add(tmp_path, "3.2.0.0")
    ban = Bans(str(tmp_path)).add(bad, "signal 11", NOW)
    assert json.loads(Path(ban.path).read_text())["reason"] == "signal 11"
    assert chosen(tmp_path, NOW + BAN_SECONDS - 1) == "3.1.0.0"
    assert chosen(tmp_path, NOW + BAN_SECONDS + 1) == "3.2.0.0"
    assert not Path(ban.path).exists()


@pytest.mark.parametrize("shift", [-366 * 86400.0, 366 * 86400.0])
def test_a_clock_that_jumps_makes_no_ban_eternal(tmp_path: Path, shift: float) -> None:
    Bans(str(tmp_path)).add(add(tmp_path, "3.2.0.0"), "x", NOW)
    assert chosen(tmp_path, NOW + shift) == "3.2.0.0"


def test_a_newer_package_ends_a_ban(tmp_path: Path) -> None:
    Bans(str(tmp_path)).add(add(tmp_path, "3.2.0.0"), "x", NOW)
    add(tmp_path, "3.3.0.0")
    assert Bans(str(tmp_path)).in_force(NOW) == []


def test_the_same_version_unpacked_anew_ends_its_ban(tmp_path: Path) -> None:
    bad = add(tmp_path, "3.2.0.0")
    Bans(str(tmp_path)).add(bad, "x", NOW)
    assert chosen(tmp_path) == "3.0.0.0"
    os.utime(str(bad.directory), ns=(1, 1))
    assert chosen(tmp_path) == "3.2.0.0"


def test_deleting_the_file_ends_a_ban_at_once(tmp_path: Path) -> None:
    bans = Bans(str(tmp_path))
    ban = bans.add(add(tmp_path, "3.2.0.0"), "x", NOW)
    os.unlink(ban.path)
    assert bans.in_force(NOW) == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": 1}', b"\xff" * 100, b'{"reason":1,"since":"x"}'])
def test_a_corrupt_ban_is_moved_aside_and_does_not_hold(tmp_path: Path, content: bytes) -> None:
    add(tmp_path, "3.2.0.0")
    path = tmp_path / "3.2.0.0.ban.json"
    path.write_bytes(content)
    assert chosen(tmp_path) == "3.2.0.0"
    assert (tmp_path / "3.2.0.0.ban.json.bad").read_bytes() == content


@pytest.mark.parametrize("since", ["NaN", "Infinity", "-1e300", "1" + "0" * 400])
def test_a_ban_of_no_time_does_not_hold(tmp_path: Path, since: str) -> None:
    """A moment that nobody can compare or print must not keep the supervisor from choosing a version."""
    bans = Bans(str(tmp_path))
    ban = bans.add(add(tmp_path, "3.2.0.0"), "x", NOW)
    text = Path(ban.path).read_text()
    Path(ban.path).write_text(text.replace(json.dumps(NOW), since))
    assert since in Path(ban.path).read_text()
    assert chosen(tmp_path) == "3.2.0.0"


def test_a_ban_that_cannot_be_written_holds_in_memory(tmp_path: Path) -> None:
    bad = add(tmp_path, "3.2.0.0")
    (tmp_path / "3.2.0.0.ban.json").mkdir()
    bans = Bans(str(tmp_path))
    with pytest.raises(OSError, match="directory"):
        bans.add(bad, "x", NOW)
    assert [ban.version for ban in bans.in_force(NOW)] == ["3.2.0.0"]
