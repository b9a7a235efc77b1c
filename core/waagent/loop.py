"""The event loop of the worker: timers, descriptors, signals and child exits on one ``select.poll`` (architecture §4).

Nothing here blocks but the one ``poll``; work that may block belongs in a :class:`waagent.lanes.Lane`, which is
also reachable under its name here. Every method may be called from any thread, except :meth:`Loop.run`,
:meth:`Loop.turn` and :meth:`Loop.on_signal`: the main thread calls those.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import os
import select
import signal
import threading
import time
from collections import deque

from waagent.lanes import Lane, log_failure

TYPE_CHECKING = False  # the resident worker does without the typing module
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from waagent.log import Log

__all__ = ["Lane", "Loop", "Timer"]

_LONGEST_WAIT = 3600.0
_STRANGER_PERIOD = 1.0
_RETRY_FIRST, _RETRY_LAST = 0.1, 60.0


class Timer:
    """A callback that is due at a moment of the loop's clock; made by :meth:`Loop.call_later` and :meth:`Loop.every`.

    Attributes:
        name: for messages.
        due: when it fires next, in seconds of the loop's clock.
        cancelled: whether it will fire no more.
    """

    __slots__ = ("_loop", "cancelled", "due", "fn", "name", "period")

    def __init__(
        self, loop: Loop, due: float, fn: Callable[[], object], name: str, period: Callable[[], float] | None
    ) -> None:
        self._loop = loop
        self.due = due
        self.fn = fn
        self.name = name
        self.period = period
        self.cancelled = False

    def cancel(self) -> None:
        """Never fire again; harmless when it has fired or was cancelled before."""
        if not self.cancelled:
            self.cancelled = True
            self._loop._forget_timer()


class _Watcher:
    """What to call for one descriptor; its identity tells a reused descriptor number from the old one."""

    __slots__ = ("failures", "fn", "mask")

    def __init__(self, mask: int, fn: Callable[[int], object]) -> None:
        self.mask = mask
        self.fn = fn
        self.failures = 0


class Loop:
    """One ``select.poll`` over everything that can happen; a callback that raises is logged and the loop goes on.

    Args:
        log: gets the failures of callbacks.
        clock: seconds that only grow; default the monotonic clock. A clock that a test moves by hand needs a
            :meth:`wake` after each move.
    """

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self.log = log
        self.clock = clock
        self._began = clock()
        self._code: int | None = None
        self._lock = threading.Lock()
        self._soon: deque[tuple[Callable[[], object], str]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._cancelled = 0
        self._watchers: dict[int, _Watcher] = {}
        self._poll = select.poll()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._poll.register(self._wake_read, select.POLLIN)
        self._woken = False
        self._serving = 0
        self._signals: set[int] = set()
        self._signal_callbacks: dict[int, Callable[[], object]] = {}
        self._signals_before: dict[int, Any] = {}
        self._wakeup_before: int | None = None
        self._children: dict[int, Callable[[int | None], object]] = {}
        self._closed = False

    # What others ask for

    def call_soon(self, fn: Callable[[], object], name: str = "") -> None:
        """Run *fn* on the loop's thread at the next turn, in the order of the calls."""
        self._soon.append((fn, name))
        self.wake()

    def call_later(self, seconds: float, fn: Callable[[], object], name: str = "", grid: float = 0.0) -> Timer:
        """Run *fn* once, *seconds* from now.

        With a *grid*, and at least two of it away: at the nearest multiple of *grid* since the loop was made, so that
        what happens by :meth:`every` with that period and this wake the machine together.
        """
        due = self.clock() + max(0.0, seconds)
        if grid > 0 and seconds >= 2 * grid:
            due = self._due_after(due - grid, grid)
        return self._add_timer(Timer(self, due, fn, name or _name_of(fn), None))

    def every(self, period: float | Callable[[], float], fn: Callable[[], object], name: str = "") -> Timer:
        """Run *fn* each *period* seconds, for the first time about one period from now (half of one to one and a half).

        Due times are multiples of the period since the loop was made: periods that have a common multiple wake the
        machine together, and slow callbacks cause no drift. What was missed while the machine was suspended or the
        loop was late runs once, not once for each period. A callable *period* is asked after each run, so a changed
        option holds from the next time on. A period of zero or less counts as one second.
        """
        ask: Callable[[], float] = period if callable(period) else (lambda: period)
        name = name or _name_of(fn)
        due = self._due_after(self.clock(), self._period(ask, name))
        return self._add_timer(Timer(self, due, fn, name, ask))

    def watch(self, fd: int, mask: int, fn: Callable[[int], object]) -> None:
        """Call *fn* with the event bits whenever *fd* is ready for *mask* (``select.POLLIN``, ``POLLPRI`` …).

        Like ``poll`` itself it also reports ``POLLERR`` and ``POLLHUP``. Unwatch before closing the descriptor.
        A callback that raises is not called again for a moment (0.1 s, doubled each time, at most a minute), so a
        broken one cannot make the loop spin.
        """
        watcher = _Watcher(mask, fn)
        with self._lock:
            self._watchers[fd] = watcher
            self._poll.register(fd, mask)
        self.wake()

    def unwatch(self, fd: int) -> None:
        """Stop watching *fd*; harmless when it is not watched."""
        with self._lock:
            if self._watchers.pop(fd, None) is not None:
                with contextlib.suppress(KeyError):
                    self._poll.unregister(fd)

    def on_signal(self, signum: int, fn: Callable[[], object]) -> None:
        """Run *fn* on the loop when *signum* arrives; several arrivals before a turn count as one.

        Raises:
            ValueError: not called from the main thread.
        """
        if self._wakeup_before is None:
            self._wakeup_before = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        before = signal.signal(signum, self._note_signal)
        self._signals_before.setdefault(signum, before)
        self._signal_callbacks[signum] = fn

    def on_exit(self, pid: int, fn: Callable[[int | None], object]) -> None:
        """Call *fn* once when process *pid* has ended.

        A child of this process is reaped and *fn* gets its exit code (negative: the signal that ended it). Of any
        other process only the end can be seen: *fn* gets ``None``. The caller sees to it that *pid* is still the
        process it means. Uses a pidfd, or else SIGCHLD for children (install it in the main thread with
        :meth:`reap_on_sigchld`) and a look once a second for all others.
        """
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self.call_soon(lambda: fn(None))
            return
        except (AttributeError, OSError):
            self._children[pid] = fn
            self._add_timer(Timer(self, self.clock(), lambda: self._look_at(pid), f"end of {pid}", None))
            return

        def ended(_events: int) -> None:
            self.unwatch(descriptor)
            os.close(descriptor)
            fn(_reap(pid)[1])

        self.watch(descriptor, select.POLLIN, ended)

    def reap_on_sigchld(self) -> None:
        """Look at children without a pidfd as soon as SIGCHLD comes, instead of once a second (main thread)."""

        def look() -> None:
            for pid in list(self._children):
                self._look_at(pid, again=False)

        self.on_signal(signal.SIGCHLD, look)

    def wake(self) -> None:
        """Make a waiting :meth:`run` take another turn."""
        if not self._woken:
            self._woken = True
            with contextlib.suppress(OSError):
                os.write(self._wake_write, b"\0")

    def stop(self, code: int = 0) -> None:
        """Let :meth:`run` return *code* after the present callback; the first code stands."""
        if self._code is None:
            self._code = code
        self.wake()

    # The loop itself

    def run(self) -> int:
        """Serve until :meth:`stop` is called; return its code."""
        while self._code is None:
            self.turn()
        return self._code

    def turn(self, block: bool = True) -> None:
        """Take one turn: wait for the first event (not at all without *block*) and run what is due."""
        self._serving = threading.get_ident()
        timeout = self._timeout() if block else 0
        try:
            events = self._poll.poll(timeout)
        except InterruptedError:
            events = []
        with self._lock:
            ready = [(fd, bits, self._watchers.get(fd)) for fd, bits in events if fd != self._wake_read]
        if len(ready) != len(events):
            with contextlib.suppress(OSError):
                while os.read(self._wake_read, 4096):
                    pass
        # The flag falls after the pipe is empty and before the queues are read: who comes later wakes the next turn.
        self._woken = False
        while self._signals and self._code is None:
            self._call(self._signal_callbacks[self._signals.pop()], "signal")
        self._run_timers()
        for fd, bits, watcher in ready:
            if watcher is not None and self._code is None and self._watchers.get(fd) is watcher:
                self._serve(fd, bits, watcher)
        for _ in range(len(self._soon)):
            if self._code is not None:
                break
            self._call(*self._soon.popleft())

    def close(self) -> None:
        """Give the signals and descriptors back; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        for signum, before in self._signals_before.items():
            signal.signal(signum, signal.SIG_DFL if before is None else before)
        if self._wakeup_before is not None:
            signal.set_wakeup_fd(self._wakeup_before)
        self._woken = True  # no more writes
        os.close(self._wake_read)
        os.close(self._wake_write)

    # Inside

    def _note_signal(self, signum: int, _frame: FrameType | None) -> None:
        # Runs between two bytecodes of the main thread; the wake-up descriptor has already ended the poll.
        self._signals.add(signum)

    def _timeout(self) -> int:
        if self._soon or self._signals or self._code is not None:
            return 0
        with self._lock:
            while self._timers and self._timers[0][2].cancelled:
                heapq.heappop(self._timers)
                self._cancelled -= 1
            wait = self._timers[0][0] - self.clock() if self._timers else _LONGEST_WAIT
        # Rounded up: a poll that returns a little early would find nothing due and spin.
        return -int(-min(max(wait, 0.0), _LONGEST_WAIT) * 1000 // 1)

    def _add_timer(self, timer: Timer) -> Timer:
        with self._lock:
            heapq.heappush(self._timers, (timer.due, next(self._numbers), timer))
            is_first = self._timers[0][2] is timer
        # A poll that waits will look at the timers in time, unless this one comes before all that it knew; and on the
        # loop's own thread none waits.
        if is_first and threading.get_ident() != self._serving:
            self.wake()
        return timer

    def _forget_timer(self) -> None:
        with self._lock:
            self._cancelled += 1
            if self._cancelled > 64 and self._cancelled * 2 > len(self._timers):
                self._timers = [entry for entry in self._timers if not entry[2].cancelled]
                heapq.heapify(self._timers)
                self._cancelled = 0

    def _run_timers(self) -> None:
        now = self.clock()
        due: list[Timer] = []
        with self._lock:
            while self._timers and self._timers[0][0] <= now:
                timer = heapq.heappop(self._timers)[2]
                if timer.cancelled:
                    self._cancelled -= 1
                else:
                    due.append(timer)
        for index, timer in enumerate(due):
            if self._code is not None:
                for later in due[index:]:
                    self._add_timer(later)
                return
            if timer.cancelled:
                continue
            if timer.period is None:
                timer.cancelled = True  # a later cancel() has nothing to take off the heap
                self._call(timer.fn, timer.name)
            else:
                self._call(timer.fn, timer.name)
                if not timer.cancelled:
                    self._again(timer, timer.period)

    def _again(self, timer: Timer, ask: Callable[[], float]) -> None:
        period = self._period(ask, timer.name)
        timer.due = self._due_after(max(timer.due, self.clock() - period / 2), period)
        self._add_timer(timer)

    def _due_after(self, moment: float, period: float) -> float:
        """Return the first multiple of *period* that is more than half a period after *moment*."""
        return self._began + period * ((moment - self._began + period / 2) // period + 1)

    def _period(self, ask: Callable[[], float], name: str) -> float:
        try:
            period = float(ask())
        except Exception as problem:
            log_failure(self.log, f"period of {name}", problem)
            return 60.0
        return period if period > 0 else 1.0

    def _serve(self, fd: int, bits: int, watcher: _Watcher) -> None:
        if bits & select.POLLNVAL:
            self.log.error(f"descriptor {fd} was closed while it was watched; it is not watched any more")
            self.unwatch(fd)
            return
        if self._call(lambda: watcher.fn(bits), _name_of(watcher.fn)):
            watcher.failures = 0
            return
        with self._lock:
            if self._watchers.get(fd) is not watcher:
                return
            self._poll.unregister(fd)
        pause = min(_RETRY_FIRST * 2**watcher.failures, _RETRY_LAST)
        watcher.failures = min(watcher.failures + 1, 10)

        def resume() -> None:
            with self._lock:
                if self._watchers.get(fd) is watcher:
                    self._poll.register(fd, watcher.mask)

        self.call_later(pause, resume, f"descriptor {fd} again")

    def _look_at(self, pid: int, again: bool = True) -> None:
        fn = self._children.get(pid)
        if fn is None:
            return
        ended, code = _reap(pid, wait=False)
        if ended:
            del self._children[pid]
            fn(code)
        elif again:
            self.call_later(_STRANGER_PERIOD, lambda: self._look_at(pid), f"end of {pid}")

    def _call(self, fn: Callable[[], object], name: str = "") -> bool:
        try:
            fn()
        except (Exception, SystemExit) as problem:
            log_failure(self.log, name or _name_of(fn), problem)
            return False
        return True


def _name_of(fn: object) -> str:
    return str(getattr(fn, "__qualname__", None) or type(fn).__name__)


def _reap(pid: int, wait: bool = True) -> tuple[bool, int | None]:
    """Return whether *pid* has ended, and the exit code when it was our child."""
    try:
        found, status = os.waitpid(pid, 0 if wait else os.WNOHANG)
    except ChildProcessError:
        if wait:
            return True, None
        return not _alive(pid), None
    return (True, os.waitstatus_to_exitcode(status)) if found else (False, None)


def _alive(pid: int) -> bool:
    """Return whether *pid*, which is no child of ours, runs; one that only nobody has reaped yet does not."""
    try:
        os.kill(pid, 0)
    except OSError as problem:
        return problem.errno != errno.ESRCH
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            return stream.read().rpartition(b")")[2].split()[:1] not in ([b"Z"], [b"X"])
    except OSError:
        return True
