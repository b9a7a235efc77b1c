"""The queue on disk: bounded, newest kept, everything that went wrong counted."""

from __future__ import annotations

import os
import stat
import threading
import time
from pathlib import Path

import pytest

from tests.unit.telemetry.fakes import Bench
from waagent import StateError
from waagent_telemetry.queue import FILE_LIMIT, LIMIT, Queue


def contents(bench: Bench) -> list[int]:
    return sorted(int(path.read_bytes()) for path in bench.directory.iterdir())


def test_of_too_many_the_newest_are_kept(bench: Bench) -> None:
    for number in range(1500):
        assert bench.queue.put(str(number).encode())
        assert bench.queue.count <= LIMIT
    assert len(bench.files()) == LIMIT
    assert contents(bench) == list(range(500, 1500))
    assert bench.queue.dropped == 500
    assert len([line for line in bench.agent.lines if "the oldest are dropped" in line]) == 1


def test_those_of_other_processes_count(bench: Bench) -> None:
    bench.directory.mkdir(parents=True)
    for number in range(LIMIT):
        (bench.directory / f"{1600000000000000 + number}.tld").write_text(str(number))
    assert bench.queue.put(b"5000")
    assert contents(bench) == [*range(1, LIMIT), 5000]


def test_what_piled_up_while_nobody_looked_is_cut(bench: Bench) -> None:
    bench.directory.mkdir(parents=True)
    for number in range(1500):
        (bench.directory / f"{1600000000000000 + number}.tld").write_text(str(number))
    assert len(bench.queue.names()) == LIMIT
    assert contents(bench) == list(range(500, 1500))


def test_names_tell_when_it_happened_and_never_meet(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1700000000.5)
    other = Queue(bench.queue.directory, bench.agent.log)
    for _ in range(3):
        assert bench.queue.put(b"1")
        assert other.put(b"2")
    assert bench.files() == [f"{1700000000500000 + number}.waagent.tld" for number in range(6)]
    assert stat.S_IMODE(os.stat(bench.directory / bench.files()[0]).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(bench.directory).st_mode) == 0o700


def test_a_directory_that_refuses_costs_the_event_and_one_line(bench: Bench) -> None:
    bench.directory.parent.mkdir(parents=True)
    bench.directory.write_text("in the way")
    assert not bench.queue.put(b"1")
    assert not bench.queue.put(b"2")
    assert bench.queue.failed == 2
    assert len(bench.agent.lines) == 1
    os.unlink(bench.directory)
    assert bench.queue.put(b"3")


def test_half_written_files_of_long_ago_go(bench: Bench) -> None:
    bench.directory.mkdir(parents=True)
    for name, age in (("1.tmp", 7200), ("2.tmp", 10), ("3.tld", 7200)):
        (bench.directory / name).write_text("")
        os.utime(bench.directory / name, (time.time() - age, time.time() - age))
    bench.queue.prepare()
    assert bench.files() == ["2.tmp", "3.tld"]


@pytest.mark.parametrize("size", [FILE_LIMIT, FILE_LIMIT + 1])
def test_a_file_too_large_for_any_event_is_not_read(bench: Bench, size: int) -> None:
    bench.queue.prepare()
    (bench.directory / "1.tld").write_bytes(b"x" * size)
    if size > FILE_LIMIT:
        with pytest.raises(StateError):
            bench.queue.read("1.tld")
    else:
        assert len(bench.queue.read("1.tld")[0]) == size


def test_many_threads_and_a_reader_lose_nothing_below_the_limit(bench: Bench, tmp_path: Path) -> None:
    def write(first: int) -> None:
        for number in range(first, first + 50):
            bench.queue.put(str(number).encode())

    threads = [threading.Thread(target=write, args=(first,)) for first in range(0, 400, 50)]
    for thread in threads:
        thread.start()
    seen: set[bytes] = set()
    while any(thread.is_alive() for thread in threads) or bench.queue.names():
        for name in bench.queue.names():
            seen.add(bench.queue.read(name)[0])
            bench.queue.remove(name)
    for thread in threads:
        thread.join()
    assert seen == {str(number).encode() for number in range(400)}
    assert (bench.queue.count, bench.queue.dropped) == (0, 0)
