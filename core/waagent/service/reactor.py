"""The supervisor's event loop: signals, descriptors and timers on one ``select.poll``. Standard library alone.

The worker has :mod:`waagent.loop`; this one exists because the supervisor must stay small and import nothing.
"""

from __future__ import annotations

import os
import select
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from waagent.log import Log


class Timer:
    """One call in the future; :meth:`cancel` takes it back."""

    __slots__ = ("due", "run")

    def __init__(self, due: float, run: Callable[[], object]) -> None:
        self.due = due
        self.run: Callable[[], object] | None = run

    def cancel(self) -> None:
        """Take the call back; later calls do nothing."""
        self.run = None


class Reactor:
    """Runs callbacks one at a time; one that raises is logged and the next one runs."""

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._log = log
        self._poll = select.poll()
        self._watched: dict[int, Callable[[], object]] = {}
        self._signals: dict[int, Callable[[], object]] = {}
        self._timers: list[Timer] = []
        self._code: int | None = None
        reader, self._writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(self._writer, False)
        self._reader = reader
        self.watch(reader, self._drain)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)

    def on_signal(self, signum: int, run: Callable[[], object]) -> None:
        """Call *run* in the loop after *signum* came."""
        self._signals[signum] = run
        signal.signal(signum, _nothing)

    def watch(self, descriptor: int, run: Callable[[], object]) -> None:
        """Call *run* whenever *descriptor* is readable or its other end is closed."""
        self._watched[descriptor] = run
        self._poll.register(descriptor, select.POLLIN)

    def unwatch(self, descriptor: int) -> None:
        """Stop watching *descriptor*; it stays open."""
        if self._watched.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def after(self, seconds: float, run: Callable[[], object]) -> Timer:
        """Call *run* once after *seconds*."""
        timer = Timer(self.clock() + seconds, run)
        self._timers.append(timer)
        return timer

    def stop(self, code: int) -> None:
        """End :meth:`run` after the present callback."""
        self._code = code

    def run(self) -> int:
        """Run until :meth:`stop`; returns its code."""
        while self._code is None:
            self.turn()
        return self._code

    def turn(self) -> None:
        """Wait for the next event and handle what is due."""
        self._timers = [timer for timer in self._timers if timer.run is not None]
        wait = None
        if self._timers:
            soonest = min(timer.due for timer in self._timers)
            wait = max(0.0, (soonest - self.clock()) * 1000.0 + 1.0)
        for descriptor, _ in self._poll.poll(wait):
            run = self._watched.get(descriptor)
            if run is not None:
                self._call(run)
        now = self.clock()
        for timer in sorted(self._timers, key=lambda timer: timer.due):
            run = timer.run
            if run is not None and timer.due <= now:
                timer.run = None
                self._call(run)

    def _drain(self) -> None:
        try:
            numbers = os.read(self._reader, 512)
        except BlockingIOError:
            return
        for signum in dict.fromkeys(numbers):
            run = self._signals.get(signum)
            if run is not None:
                self._call(run)

    def _call(self, run: Callable[[], object]) -> None:
        try:
            run()
        except Exception as problem:
            place = problem.__traceback__
            while place is not None and place.tb_next is not None:
                place = place.tb_next
            where = f"{os.path.basename(place.tb_frame.f_code.co_filename)}:{place.tb_lineno}" if place else "?"
            self._log.error(f"Supervisor: {type(problem).__name__} at {where}: {problem}")


def _nothing(signum: int, frame: FrameType | None) -> None:
    """Leave the work to the loop: the number has gone through the wake-up pipe already."""
