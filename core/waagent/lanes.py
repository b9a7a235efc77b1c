"""Lanes: one daemon thread each, for work that may block (architecture §4)."""

from __future__ import annotations

import sys
import threading
from queue import Empty, SimpleQueue

TYPE_CHECKING = False  # the resident worker does without the typing module
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Any

    from waagent.log import Log
    from waagent.loop import Loop, Timer


def log_failure(log: Log, what: str, problem: BaseException) -> None:
    """Log one warning that names *what* failed and how; the traceback goes to the verbose log."""
    import traceback

    text = " ".join(str(problem).split())
    log.warning(f"{what} failed: {type(problem).__name__}{': ' + text if text else ''}")
    try:
        log.verbose("".join(traceback.format_exception(type(problem), problem, problem.__traceback__)).rstrip())
    except RecursionError:
        log.verbose("the traceback is too deep to be shown")


def thread_stack(ident: int | None) -> str:
    """Return the present stack of the thread *ident*, innermost call last; empty when it has ended."""
    import traceback

    frame = sys._current_frames().get(ident or 0)
    return "".join(traceback.format_stack(frame)).rstrip() if frame is not None else ""


class _Task:
    __slots__ = ("deadline", "fn", "key", "name", "on_done", "started")

    def __init__(
        self,
        fn: Callable[[], Any],
        name: str,
        deadline: float | None,
        on_done: Callable[[Any, BaseException | None], object] | None,
        key: Hashable | None,
    ) -> None:
        self.fn = fn
        self.name = name
        self.deadline = deadline
        self.on_done = on_done
        self.key = key
        self.started = 0.0


class Lane:
    """One daemon thread that runs tasks in the order of their submission; it starts with the first.

    A task that raises is logged. A task over its deadline cannot be ended; it is reported once, with the stack of
    the thread, and :attr:`overdue_seconds` grows until it returns.

    Args:
        name: of the lane and of its thread: what the log shows.
        loop: runs ``on_done`` callbacks and watches deadlines.
        log: gets failures and overruns.
    """

    def __init__(self, name: str, loop: Loop, log: Log) -> None:
        self.name = name
        self._loop = loop
        self._log = log
        self._lock = threading.Lock()
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._waiting = 0
        self._keys: set[Hashable] = set()
        self._current: _Task | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(
        self,
        fn: Callable[[], Any],
        *,
        name: str,
        deadline: float | None = None,
        on_done: Callable[[Any, BaseException | None], object] | None = None,
    ) -> bool:
        """Queue *fn*.

        Args:
            fn: runs in the lane's thread.
            name: for messages.
            deadline: seconds from its start after which it is reported; ``None``: never.
            on_done: called on the loop's thread with ``(result, None)`` or ``(None, error)``.

        Returns:
            ``False`` when the lane is closed and *fn* will not run.
        """
        return self._put(_Task(fn, name, deadline, on_done, None))

    def submit_once(
        self,
        key: Hashable,
        fn: Callable[[], Any],
        *,
        name: str = "",
        deadline: float | None = None,
        on_done: Callable[[Any, BaseException | None], object] | None = None,
    ) -> bool:
        """Queue *fn* unless a task with the same *key* is still waiting; return whether it was queued.

        A task that has begun does not count: what happened since it began may need another run.
        """
        return self._put(_Task(fn, name or str(key), deadline, on_done, key))

    @property
    def busy(self) -> tuple[str, float] | None:
        """Name and age in seconds of the running task, ``None`` when the lane is idle."""
        task = self._current
        return None if task is None else (task.name, self._loop.clock() - task.started)

    @property
    def waiting(self) -> int:
        """The number of tasks that have not begun."""
        return self._waiting

    @property
    def overdue_seconds(self) -> float:
        """By how much the running task is over its deadline, in seconds; 0.0 when it is not."""
        task = self._current
        if task is None or task.deadline is None:
            return 0.0
        return max(0.0, self._loop.clock() - task.started - task.deadline)

    def close(self, timeout: float = 0.0) -> bool:
        """Drop the waiting tasks, take no more, and wait up to *timeout* seconds for the running one.

        Returns:
            Whether the lane is idle now.
        """
        with self._lock:
            self._closed = True
            self._waiting = 0
            self._keys.clear()
            try:
                while True:
                    self._tasks.get_nowait()
            except Empty:
                self._tasks.put(None)
        if self._thread is not None and timeout > 0:
            self._thread.join(timeout)
        return self._current is None

    def _put(self, task: _Task) -> bool:
        with self._lock:
            if self._closed:
                return False
            if task.key is not None:
                if task.key in self._keys:
                    return False
                self._keys.add(task.key)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name=self.name, daemon=True)
                self._thread.start()
            self._waiting += 1
            self._tasks.put(task)
        return True

    def _serve(self) -> None:
        while True:
            task = self._tasks.get()
            with self._lock:
                if task is None or self._closed:
                    return
                self._waiting -= 1
                if task.key is not None:
                    self._keys.discard(task.key)
                task.started = self._loop.clock()
                self._current = task
            self._run(task)
            del task  # what it holds is not kept until the next one

    def _run(self, task: _Task) -> None:
        timer: Timer | None = None
        if task.deadline is not None:
            timer = self._loop.call_later(task.deadline, lambda: self._report(task), f"deadline of {task.name}")
        result: Any = None
        error: BaseException | None = None
        try:
            result = task.fn()
        except BaseException as problem:  # a lane outlives whatever its tasks throw, SystemExit included
            error = problem
        finally:
            if timer is not None:
                timer.cancel()
            self._current = None
        if error is not None:
            log_failure(self._log, task.name, error)
        done = task.on_done
        if done is not None:
            self._loop.call_soon(lambda: done(result, error), f"after {task.name}")

    def _report(self, task: _Task) -> None:
        if self._current is not task:
            return
        stack = thread_stack(self._thread.ident if self._thread is not None else None)
        self._log.warning(
            f"{task.name} in lane {self.name} is over its deadline of {task.deadline:g} s; it is here now:\n{stack}"
        )
