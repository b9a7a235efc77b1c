from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from waagent.service import identity
from waagent.service.lock import Lock

HOLD = "import fcntl,sys,time; f=open(sys.argv[1],'r+'); fcntl.flock(f,2); print(1,flush=True); time.sleep(600)"


class Holder:
    """Another process that holds the lock and does not go."""

    def __init__(self, path: Path, content: str) -> None:
        path.touch()
        self.process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()
        path.write_text(content.format(pid=self.process.pid, start=identity.start_time(self.process.pid)))

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_one_holder_with_its_name_inside(tmp_path: Path) -> None:
    first, second = Lock(str(tmp_path / "run/x.lock")), Lock(str(tmp_path / "run/x.lock"))
    assert first.acquire()
    assert not second.acquire()
    assert second.holder() == (os.getpid(), identity.start_time(os.getpid()))
    first.release()
    assert second.acquire()
    second.release()


def test_the_lock_is_not_inherited_by_commands(tmp_path: Path) -> None:
    lock = Lock(str(tmp_path / "x.lock"))
    lock.acquire()
    child = subprocess.Popen(["sleep", "600"], close_fds=False)
    try:
        lock.release()
        assert Lock(lock.path).acquire()
    finally:
        child.kill()
        child.wait()


def test_what_a_dead_holder_left_in_the_file_means_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.write_text(f"{os.getpid()} {identity.start_time(os.getpid())}\n")
    assert Lock(str(path)).acquire()


def test_a_holder_that_stays_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with Holder(path, "{pid} {start}\n") as holder:
        told = Lock(str(path)).acquire_or_take_over(0.1)
        assert told is not None
        assert f"killed process {holder.process.pid}" in told
        assert holder.process.wait(5) == -signal.SIGKILL


@pytest.mark.parametrize("content", ["", "junk", "1 1\n", "{pid} 12345\n", "{pid} -\n"])
def test_a_process_is_never_killed_by_its_number_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.lock"
    with Holder(path, content) as holder:
        with pytest.raises(TimeoutError, match="is held by another process"):
            Lock(str(path)).acquire_or_take_over(0.1)
        assert holder.process.poll() is None


def test_a_holder_that_leaves_in_time_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with Holder(path, "{pid} {start}\n") as holder:
        slept = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            holder.process.terminate()
            holder.process.wait(5)

        assert Lock(str(path)).acquire_or_take_over(10.0, sleep=sleep) is None
        assert slept


def test_start_times_tell_processes_apart() -> None:
    child = subprocess.Popen(["sleep", "600"])
    started = identity.start_time(child.pid)
    assert started is not None
    assert not identity.kill(child.pid, "1")
    assert child.poll() is None
    assert identity.kill(child.pid, started, signal.SIGTERM)
    assert child.wait(5) == -signal.SIGTERM
    assert identity.start_time(child.pid) is None
    assert not identity.kill(child.pid, started)


def test_process_one_and_groups_are_out_of_reach() -> None:
    started = identity.start_time(1)
    for pid in (1, 0, -1, -os.getpgrp()):
        assert not identity.kill(pid, started or "0", 0)


def test_flock_is_what_others_see(tmp_path: Path) -> None:
    lock = Lock(str(tmp_path / "x.lock"))
    lock.acquire()
    with open(lock.path) as stream, pytest.raises(BlockingIOError):
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
