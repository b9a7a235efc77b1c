"""What keeps worker and boot stage running when the system refuses what the supervisor asks of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from waagent.log import Log, Sinks
from waagent.paths import Paths
from waagent.service import children
from waagent.service.bootwatch import BootWatch
from waagent.service.reactor import Timer
from waagent.service.workerwatch import Timing, WorkerWatch


class FakeReactor:
    """Timers that a test lets come due."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []

    def clock(self) -> float:
        return self.now

    def after(self, seconds: float, run: Callable[[], object]) -> Timer:
        self.timers.append(Timer(self.now + seconds, run))
        return self.timers[-1]

    def watch(self, descriptor: int, run: Callable[[], object]) -> None:
        pass

    def unwatch(self, descriptor: int) -> None:
        pass

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for timer in list(self.timers):
            run = timer.run
            if run is not None and timer.due <= self.now:
                timer.run = None
                run()


class World:
    """A supervisor's surroundings; children are numbers only."""

    def __init__(self, root: Path) -> None:
        sinks = Sinks()
        sinks.path = str(root / "log")
        self.log = Log(sinks, "Daemon", "Daemon")
        self.paths = Paths(str(root))
        self.reactor = FakeReactor()
        self.started: list[str] = []
        self.file = root / "log"

    def start(self, role: str, descriptors: dict[int, int]) -> children.Child:
        self.started.append(role)
        return children.Child(role, 4_000_000 + len(self.started), self.reactor.clock())

    def worker_watch(self) -> WorkerWatch:
        return WorkerWatch(
            self.reactor,  # type: ignore[arg-type]
            self.log,
            self.paths,
            "3.0.0.0",
            lambda role, _code, descriptors: self.start(role, descriptors),
            lambda: 0,
            lambda _text: None,
            Timing(),
        )

    def boot_watch(self) -> BootWatch:
        return BootWatch(self.reactor, self.log, self.paths, self.start)  # type: ignore[arg-type]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def descriptors(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """Return what takes all descriptors away from the supervisor's pipes, and gives them back."""
    real = os.pipe

    def none() -> tuple[int, int]:
        raise OSError(errno.ENFILE, "Too many open files in system")

    def there(are: bool) -> None:
        monkeypatch.setattr(os, "pipe", real if are else none)

    yield there
    there(True)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_worker_that_gets_no_pipe_is_tried_again(world: World, descriptors: Callable[[bool], None]) -> None:
    watch = world.worker_watch()
    descriptors(False)
    watch.begin()
    assert world.started == []
    assert "cannot be started: [Errno 23] Too many open files in system]; next start in 1 s" in world.file.read_text()
    world.reactor.pass_time(1.0)
    assert "next start in 2 s" in world.file.read_text()
    descriptors(True)
    world.reactor.pass_time(2.0)
    assert world.started == ["run-exthandlers"]


def test_a_boot_stage_that_gets_no_pipe_is_tried_again(world: World, descriptors: Callable[[bool], None]) -> None:
    watch = world.boot_watch()
    descriptors(False)
    watch.begin()
    assert world.started == ["make-transport-key"]
    descriptors(True)
    world.reactor.pass_time(1.0)
    assert world.started == ["make-transport-key", "run-boot"]


def test_a_reload_without_a_new_pipe_leaves_the_old_one_whole(
    world: World, descriptors: Callable[[bool], None]
) -> None:
    watch = world.boot_watch()
    reader = watch.reader
    descriptors(False)
    with pytest.raises(OSError, match="Too many open files"):
        watch.begin_again()
    assert watch.reader == reader
    os.fstat(reader)
    assert not watch.ended


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_a_pipe_that_is_made_by_half_loses_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_descriptors()
    for possible in (0, 1):
        left = iter(range(possible))

        def duplicate(descriptor: int, command: int, above: int, left: Iterator[int] = left) -> int:
            if next(left, None) is None:
                raise OSError(errno.EMFILE, "Too many open files")
            return os.dup(descriptor)

        monkeypatch.setattr(children.fcntl, "fcntl", duplicate)
        with pytest.raises(OSError, match="Too many open files"):
            children.pipe()
        assert open_descriptors() == before
