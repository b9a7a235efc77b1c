"""The journal survives torn lines, garbage and full disks, stays small, and forgets only what nobody asks for."""

from __future__ import annotations

import errno
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waagent.journal import Attempt, Journal, boot_id


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "journal" / "worker.jsonl")


def journal(path: str, boot: str = "b1") -> Journal:
    return Journal(path, boot=boot)


def test_what_one_process_wrote_the_next_one_knows(path):
    first = journal(path)
    first.started("p", "a", once=True)
    first.done("p", "a", 1.0, once=True)
    first.started("p", "b", once=True)
    first.started("p", "c")
    first.failed("p", "c", 0.5, "error", "OSError: no")
    second = journal(path)
    assert second.attempt("p", "a") == Attempt("done", 0)
    assert second.attempt("p", "b") == Attempt("started", 0)
    assert second.attempt("p", "c") == Attempt("failed", 1)
    assert second.attempt("other", "a") == Attempt()
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700


def test_failures_count_under_their_boot_id_alone(path):
    first = journal(path)
    for _ in range(3):
        first.failed("p", "a", 0, "error", "x")
    assert journal(path).attempt("p", "a").failures == 3
    assert journal(path, "b2").attempt("p", "a").failures == 0


def test_a_record_is_durable_before_a_step_that_must_not_run_twice_and_at_the_end(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_size))
    log = journal(path)
    log.started("p", "a")
    log.done("p", "a", 0)
    assert synced == []
    log.started("p", "b", once=True)
    assert synced == [os.stat(path).st_size]
    log.done("p", "b", 0, once=True)
    assert len(synced) == 1
    log.ended("p", True, 1.0, [("a", "done", 0.0), ("b", "done", 0.0)])
    assert synced[1:] == [os.stat(path).st_size]


def test_a_torn_last_line_is_passed_over_and_spoils_nothing_that_follows(path):
    first = journal(path)
    first.started("p", "a", once=True)
    first.close()
    with open(path, "ab") as stream:
        stream.write(b'{"e":"done","p":"p","s"')
    second = journal(path)
    assert second.attempt("p", "a").last == "started"
    second.done("p", "a", 1.0, once=True)
    third = journal(path)
    assert third.attempt("p", "a").last == "done"
    assert third.passed_over == 1


def test_zeros_left_by_a_power_cut_hide_no_record(path):
    first = journal(path)
    first.started("p", "a", once=True)
    first.close()
    with open(path, "ab") as stream:
        stream.write(b"\0" * 512)
    second = journal(path)
    second.started("p", "b", once=True)
    assert journal(path).attempt("p", "a").last == "started"
    assert journal(path).attempt("p", "b").last == "started"


def test_a_disk_that_is_full_is_an_error_and_the_next_record_is_whole(path, monkeypatch):
    log = journal(path)
    log.started("p", "a", once=True)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:10]))
    with pytest.raises(OSError, match="no room") as caught:
        log.started("p", "b", once=True)
    assert caught.value.errno == errno.ENOSPC
    assert log.attempt("p", "b").last is None  # it did not begin
    monkeypatch.undo()
    log.done("p", "a", 1, once=True)
    assert journal(path).attempt("p", "a").last == "done"
    assert journal(path).attempt("p", "b").last is None


def fill(log: Journal, plans: int) -> None:
    for number in range(plans):
        plan = f"extension {number}"
        for step in ("download", "unpack", "install"):
            log.started(plan, step, once=step == "install")
            log.done(plan, step, 0.1, once=step == "install")
        log.ended(plan, True, 0.3, [("download", "done", 0.1), ("unpack", "done", 0.1), ("install", "done", 0.1)])


def test_the_file_is_compacted_and_what_must_be_known_stays(path):
    log = journal(path)
    log.failed("p", "flaky", 0, "error", "x")
    log.started("p", "flaky")
    log.started("p", "pay", once=True)
    log.ended("p", False, 1.0, [("flaky", "failed", 0.0)])
    fill(log, 400)
    grown = os.stat(path).st_size
    log.compact()
    assert os.stat(path).st_size < grown * 0.7
    for known in (log, journal(path)):
        assert known.attempt("p", "flaky") == Attempt("started", 1)
        assert known.attempt("p", "pay") == Attempt("started", 0)
        assert known.attempt("extension 399", "install") == Attempt("done", 0)
    assert journal(path).runs()[-1]["p"] == "extension 399"
    log.done("p", "pay", 1, once=True)  # the file that is open now is the new one
    assert journal(path).attempt("p", "pay").last == "done"


def test_a_journal_that_is_only_added_to_stays_within_bounds(path):
    log = journal(path)
    for number in range(3000):
        log.started("poll", f"step {number}")
        log.done("poll", f"step {number}", 0.0)
        log.ended("poll", True, 0.0, [(f"step {number}", "done", 0.0)])
    assert os.stat(path).st_size < 160 << 10


def test_no_compaction_while_a_plan_is_open(path):
    log = journal(path)
    log.started("long", "a")
    fill(log, 300)
    before = os.stat(path).st_ino
    log.compact()
    assert os.stat(path).st_ino == before
    log.ended("long", True, 0.0, [])
    assert os.stat(path).st_ino != before


def test_forget_takes_also_what_was_never_to_run_twice(path):
    log = journal(path)
    for plan in ("gone", "stays"):
        log.started(plan, "install", once=True)
        log.done(plan, "install", 1.0, once=True)
        log.ended(plan, True, 1.0, [("install", "done", 1.0)])
    log.forget("gone")
    for known in (log, journal(path)):
        assert known.attempt("gone", "install") == Attempt()
        assert known.attempt("stays", "install").last == "done"
        assert [run["p"] for run in known.runs()] == ["stays"]


def test_the_boot_id_is_the_same_all_the_time():
    assert boot_id()
    assert boot_id() == boot_id()


steps = st.sampled_from(["a", "b"])
records = st.one_of(
    st.tuples(st.just("started"), steps, st.booleans()),
    st.tuples(st.just("done"), steps, st.booleans()),
    st.tuples(st.just("failed"), steps, st.sampled_from(["error", "no effect"])),
    st.tuples(st.just("ended")),
    st.tuples(st.just("compact")),
)


def tell(log: Journal, record) -> None:
    kind = record[0]
    if kind == "started":
        log.started("p", record[1], record[2])
    elif kind == "done":
        log.done("p", record[1], 0.0, record[2])
    elif kind == "failed":
        log.failed("p", record[1], 0.0, record[2], "x")
    elif kind == "ended":
        log.ended("p", True, 0.0, [])
    else:
        log.compact()


def known_of(log: Journal) -> list[tuple[str | None, int]]:
    found = [log.attempt("p", step) for step in "ab"]
    # Of a repeatable step only the failures are remembered for good.
    return [
        (item.last if log._known.get(("p", step)) and log._known["p", step].once else None, item.failures)
        for step, item in zip("ab", found)
    ]


@settings(deadline=None, max_examples=100)
@given(st.lists(records, max_size=25))
def test_a_restart_at_any_moment_knows_the_same(tmp_path_factory, history):
    path = str(tmp_path_factory.mktemp("j") / "journal.jsonl")
    log = journal(path)
    for record in history:
        tell(log, record)
        assert known_of(journal(path)) == known_of(log)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [
                    b'{"e":"done","p":"p","s":"a"}',
                    b'{"e":"end","p":"p"}',
                    b'{"e":[],"p":"p","s":"a"}',
                    b'{"p":1}',
                    b"[]",
                    b'{"e":"failed","p":"p","s":"a","n":"x"}',
                    b'{"e":"started","p":"p","s":["a"]}',
                    b"[" * 100_000,
                ]
            ),
        ),
        max_size=12,
    )
)
def test_no_content_of_the_file_is_an_error(tmp_path_factory, parts):
    path = str(tmp_path_factory.mktemp("j") / "journal.jsonl")
    with open(path, "wb") as stream:
        stream.write(b"\n".join(parts))
    log = journal(path)
    log.attempt("p", "a")
    log.runs()
    log.started("p", "new", once=True)
    log.compact()
    log.ended("p", True, 0.0, [])
    log.compact()
    assert journal(path).attempt("p", "new").last == "started"
    with open(path, "rb") as stream:
        for line in stream.read().splitlines():
            assert isinstance(json.loads(line), dict)
