"""The log: the line that shippers parse, its sinks, nothing secret and nothing that harms a terminal (cli §7)."""

from __future__ import annotations

import io
import os
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent import log as log_module
from waagent.log import ERROR, INFO, VERBOSE, Log, Sinks, ascii_text, journal_stream, make_log, timestamp

LINE = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z (VERBOSE|INFO|WARNING|ERROR) \S+ ")


def log_to(path: Path, prefix: str = "Daemon", thread: str | None = "Daemon") -> Log:
    sinks = Sinks()
    sinks.path = str(path)
    return Log(sinks, prefix, thread)


def test_every_level_writes_the_line_that_tools_parse(tmp_path: Path) -> None:
    log = log_to(tmp_path / "log")
    log.sinks.level = VERBOSE
    log.verbose("one")
    log.info("two")
    log.warning("three")
    log.error("four")
    lines = (tmp_path / "log").read_text().splitlines()
    assert all(LINE.match(line) for line in lines)
    assert [line.split(" ", 1)[1] for line in lines] == [
        "VERBOSE Daemon Daemon one",
        "INFO Daemon Daemon two",
        "WARNING Daemon Daemon three",
        "ERROR Daemon Daemon four",
    ]


def test_verbose_lines_are_written_on_demand_only(tmp_path: Path) -> None:
    log = log_to(tmp_path / "log")
    log.verbose("hidden")
    assert not (tmp_path / "log").exists()


def test_the_thread_word_is_the_threads_name_without_blanks(tmp_path: Path) -> None:
    log = log_to(tmp_path / "log", prefix="ExtHandler", thread=None)
    thread = threading.Thread(target=log.info, args=("hello",), name="Monitor Handler")
    thread.start()
    thread.join()
    assert " INFO Monitor_Handler ExtHandler hello\n" in (tmp_path / "log").read_text()


def test_lines_of_a_handler_carry_its_name_and_no_thread(tmp_path: Path) -> None:
    log_to(tmp_path / "log").bind("[Acme.Handler-1.2.3]").info("Enable")
    text = (tmp_path / "log").read_text()
    assert LINE.match(text)
    assert text.endswith(" INFO [Acme.Handler-1.2.3] Enable\n")


def test_signatures_are_not_written_anywhere(tmp_path: Path) -> None:
    stream = io.StringIO()
    log = log_to(tmp_path / "log")
    log.sinks.stream = stream
    heard: list[str] = []
    log.also = lambda level, text: heard.append(text)
    log.info("GET https://host/c?sv=1&sig=abc done")
    for text in ((tmp_path / "log").read_text(), stream.getvalue(), *heard):
        assert "abc" not in text
        assert "https://host/c?<redacted> done" in text


def test_a_log_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    log = log_to(tmp_path / "log")
    log.info("before")
    os.rename(tmp_path / "log", tmp_path / "log.1")
    log.info("after")
    assert "before" in (tmp_path / "log.1").read_text()
    assert "after" in (tmp_path / "log").read_text()
    assert "after" not in (tmp_path / "log.1").read_text()


def test_sinks_that_cannot_be_written_stop_nobody(tmp_path: Path) -> None:
    log = log_to(tmp_path / "nowhere" / "log")
    closed = io.StringIO()
    closed.close()
    log.sinks.stream = closed
    log.sinks.console = str(tmp_path)
    log.info("lost")
    log.sinks.path = str(tmp_path / "log")
    log.info("kept")
    assert "kept" in (tmp_path / "log").read_text()


def test_a_fifo_that_nobody_reads_holds_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "console")
    log = log_to(tmp_path / "log")
    log.sinks.console = str(tmp_path / "console")
    log.info("through")
    assert "through" in (tmp_path / "log").read_text()


def test_the_console_gets_the_same_lines(tmp_path: Path) -> None:
    log = log_to(tmp_path / "log")
    log.sinks.console = str(tmp_path / "console")
    (tmp_path / "console").touch()
    log.info("hello")
    assert (tmp_path / "console").read_text() == (tmp_path / "log").read_text()


@given(st.text())
def test_any_message_becomes_printable_ascii_lines(text: str) -> None:
    shown = ascii_text(text)
    assert shown.isascii()
    assert all(character.isprintable() or character in "\n\t" for character in shown)


def test_terminal_escapes_and_carriage_returns_are_shown_as_such() -> None:
    assert ascii_text("a\x1b[2Jb\rc\r\nd é") == "a\\x1b[2Jb\\x0dc\nd \\xe9"


def test_the_journal_gets_priorities_on_every_line_and_no_time(tmp_path: Path) -> None:
    log = log_to(tmp_path / "log")
    stream = io.StringIO()
    log.sinks.stream, log.sinks.stream_is_journal = stream, True
    log.error("first\n<0>second")
    assert stream.getvalue() == "<3>ERROR Daemon Daemon first\n<3><0>second\n"


def test_the_journal_is_told_by_device_and_inode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "stream", "w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert journal_stream(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", "1:1")
        assert not journal_stream(stream.fileno())
        monkeypatch.undo()
    assert not journal_stream(9999)


def test_repeats_within_a_period_are_counted_and_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(log_module.time, "monotonic", lambda: now[0])
    log = log_to(tmp_path / "log")
    for _ in range(3):
        log.periodic(60, "key", INFO, "down")
    log.periodic(60, "other", ERROR, "else")
    now[0] += 61
    log.periodic(60, "key", INFO, "down")
    lines = [line.split(" ", 4)[4] for line in (tmp_path / "log").read_text().splitlines()]
    assert lines == ["down", "else", "down [2 like this not shown]"]


def test_keys_of_repeats_do_not_pile_up(tmp_path: Path) -> None:
    log = log_to(tmp_path / "log")
    for number in range(2500):
        log.periodic(60, str(number), INFO, "x")
    assert len(log.sinks.periodic) <= 1000


def test_a_log_that_nothing_rotates_keeps_its_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "SIZE_GUARD", 20000)
    monkeypatch.setattr(log_module, "SIZE_KEPT", 5000)
    log = log_to(tmp_path / "log")
    for number in range(400):
        log.info(f"line {number:04d} {'x' * 20}")
    lines = (tmp_path / "log").read_text().splitlines()
    assert (tmp_path / "log").stat().st_size <= 20100
    assert all(LINE.match(line) for line in lines)
    assert "line 0399" in lines[-1]


@pytest.mark.parametrize("umask", [0o022, 0o077])
@pytest.mark.parametrize(
    ("groups", "mode", "given"),
    [
        ("root:x:0:\nadm:x:4:syslog\n", 0o640, [4]),
        ("root:x:0:\nadmin:x:5:\nadm\nadm:x:no:\n", 0o600, []),
        (None, 0o600, []),
    ],
)
def test_a_new_log_is_for_its_owner_and_the_group_that_reads_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str | None, mode: int, given: list[int], umask: int
) -> None:
    if groups is not None:
        (tmp_path / "group").write_text(groups)
    monkeypatch.setattr(log_module, "GROUPS", str(tmp_path / "group"))
    told: list[int] = []
    monkeypatch.setattr(os, "fchown", lambda descriptor, user, group: told.append(group))
    before = os.umask(umask)
    try:
        log_to(tmp_path / "log").info("hello")
        log_to(tmp_path / "log").info("again")
    finally:
        os.umask(before)
    assert (tmp_path / "log").stat().st_mode & 0o7777 == mode
    assert told == given


def test_a_log_that_nobody_may_give_away_is_for_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "group").write_text("adm:x:4:\n")
    monkeypatch.setattr(log_module, "GROUPS", str(tmp_path / "group"))

    def refuse(descriptor: int, user: int, group: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    log_to(tmp_path / "log").info("hello")
    assert (tmp_path / "log").stat().st_mode & 0o7777 == 0o600
    assert "hello" in (tmp_path / "log").read_text()


def test_the_mode_that_a_package_gave_the_log_stays(tmp_path: Path) -> None:
    (tmp_path / "log").touch(mode=0o644)
    (tmp_path / "log").chmod(0o644)
    log_to(tmp_path / "log").info("hello")
    assert (tmp_path / "log").stat().st_mode & 0o7777 == 0o644


def test_a_console_that_went_away_is_not_made(tmp_path: Path) -> None:
    log = log_to(tmp_path / "log")
    log.sinks.console = str(tmp_path / "console")
    log.info("hello")
    assert not (tmp_path / "console").exists()


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1769847342.25, "2026-01-31T08:15:42.250000Z"),
        (-0.25, "1969-12-31T23:59:59.750000Z"),
    ],
)
def test_timestamps_have_six_digits_and_are_utc(now: float, text: str) -> None:
    assert timestamp(now) == text


@given(st.floats(min_value=0, max_value=4e9))
def test_every_timestamp_has_the_contracts_form(now: float) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", timestamp(now))


def test_made_for_a_process_it_writes_to_file_and_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = make_log("ExtHandler", "ExtHandler", path=str(tmp_path / "log"), verbose=True)
    log.verbose("detail")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (tmp_path / "log").read_text()
    assert " VERBOSE ExtHandler ExtHandler detail\n" in captured.err


def test_the_option_for_verbose_lines_is_about_the_file_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = make_log("ExtHandler", "ExtHandler", path=str(tmp_path / "log"), verbose_file=True)
    log.verbose("detail")
    log.info("news")
    assert " detail\n" in (tmp_path / "log").read_text()
    assert "detail" not in capsys.readouterr().err
