"""Calls into plugins that cannot hurt the agent (models.md 2.4, 2.5; ruling 23). No plugin code runs elsewhere.

Each call has a daemon thread to itself and a deadline. What the plugin raises stays in the call; a call
over its deadline is abandoned, its stack is written once, and the plugin gets no further call until that thread has
returned. ``KeyboardInterrupt`` alone goes through: whoever presses Ctrl-C means the agent.
"""

from __future__ import annotations

import _thread
import sys
import threading
import time
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from types import FrameType, TracebackType
from typing import Any

from waagent.log import Log
from waagent.redaction import redact

ANSWERED, FAILED, LATE, STUCK, SKIPPED = "answered", "failed", "late", "stuck", "skipped"

BREAKER_AFTER = 5
"""Failures in a row after which a plugin is called less often in that periodic hook."""
BREAKER_MOST = 60
"""Most periods that are left out between two tries."""

_DEEPEST = 25


class Tally:
    """How the calls of one plugin in one hook went.

    Attributes:
        calls: how often it was called.
        failures: how often it raised, was late or answered something that is no answer.
        consecutive: the failures since the last success.
        last_error: the last failure in one line, empty when there was none.
        last_success: seconds since the epoch, ``None`` before the first.
        last_seconds: how long the last finished call took.
        skip: calls that are still left out (back-off).
    """

    __slots__ = (
        "calls",
        "consecutive",
        "failures",
        "last_error",
        "last_seconds",
        "last_success",
        "repeats",
        "signature",
        "skip",
    )

    def __init__(self) -> None:
        self.calls = 0
        self.failures = 0
        self.consecutive = 0
        self.last_error = ""
        self.last_success: float | None = None
        self.last_seconds = 0.0
        self.skip = 0
        self.signature = ""
        self.repeats = 0


class Outcome:
    """How one call ended.

    Attributes:
        plugin: the plugin's name.
        state: :data:`ANSWERED`, :data:`FAILED`, :data:`LATE`, :data:`STUCK` (not called: an earlier call still runs) or
            :data:`SKIPPED` (not called: backed off).
        value: what it returned, when it answered.
        error: one line on why it did not, for people.
        problem: what it raised, when it did.
    """

    __slots__ = ("error", "plugin", "problem", "state", "value")

    def __init__(
        self, plugin: str, state: str, value: Any = None, error: str = "", problem: BaseException | None = None
    ) -> None:
        self.plugin = plugin
        self.state = state
        self.value = value
        self.error = error
        self.problem = problem

    @property
    def answered(self) -> bool:
        """Whether the plugin returned a value."""
        return self.state == ANSWERED


class _Caller:
    """A daemon thread that makes one call after the other: to start a thread costs more than most calls."""

    __slots__ = ("_calls", "thread")

    def __init__(self) -> None:
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def make(self, call: Call) -> None:
        """Make *call* after those before."""
        self._calls.put(call)

    def leave(self) -> None:
        """End the thread, once the calls that it was given have returned."""
        self._calls.put(None)

    def _serve(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                return
            self.thread.name = f"{call.plugin}.{call.hook}"
            call.run()
            sys.settrace(None)
            self.thread.name = "plugins"
            del call  # what it returned is not kept until the next one


class Call:
    """One call under way; it owns its result, so that a late one cannot land in a later call."""

    __slots__ = ("_done", "_function", "began", "caller", "deadline", "hook", "plugin", "problem", "seconds", "value")

    def __init__(
        self, plugin: str, hook: str, function: Callable[[], Any], deadline: float | None, caller: _Caller | None
    ) -> None:
        self.plugin = plugin
        self.hook = hook
        self.deadline = deadline
        self.value: Any = None
        self.problem: BaseException | None = None
        self.seconds = 0.0
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self._function = function
        self.began = time.monotonic()
        self.caller: _Caller | None = None
        try:
            self.caller = caller or _Caller()
        except RuntimeError as problem:
            # No more threads: the machine is in trouble, and this call is just a failed one.
            self.problem = problem
            self._done.release()
        else:
            self.caller.make(self)

    def run(self) -> None:
        """Make the call; runs in the caller's thread."""
        try:
            self.value = self._function()
        except BaseException as problem:  # SystemExit and what else a plugin finds to raise
            self.problem = problem
        finally:
            self.seconds = time.monotonic() - self.began
            self._done.release()

    @property
    def finished(self) -> bool:
        """Whether the plugin has returned."""
        return not self._done.locked()

    def wait(self) -> bool:
        """Wait until the plugin returns or its deadline is over; return whether it returned."""
        if self.deadline is None:
            left = -1.0
        else:
            left = max(0.0, self.began + self.deadline - time.monotonic())
        if self._done.acquire(timeout=left):
            self._done.release()
            return True
        return False


class Containment:
    """Calls plugins and keeps the books on them. One per process; any thread may call.

    Args:
        log: gets one line per failure (the 1st, 10th, 100th … of the same).
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._abandoned: dict[str, list[Call]] = {}
        self._idle: list[_Caller] = []
        self.ours: set[str] = set()
        """Our plugins share a thread; what anybody else does to a thread (tracing, context) ends with that thread."""
        self.labels: dict[str, str] = {}
        """How messages name a plugin: ``acme (acme-waagent 1.2)``."""

    def call(
        self, plugin: str, hook: str, function: Callable[[], Any], *, deadline: float | None, periodic: bool = False
    ) -> Outcome:
        """Call *function* on behalf of *plugin* and return how it ended; never raises on the plugin's account.

        Args:
            plugin: the plugin's name.
            hook: what the call is, for tally and messages.
            function: the call, without arguments.
            deadline: seconds; ``None`` waits for as long as it takes.
            periodic: repeated failure backs the plugin off in this hook.

        Raises:
            KeyboardInterrupt: somebody, or the plugin, wants the agent to end.
        """
        refused = self._refuse(plugin, hook, periodic)
        if refused is not None:
            return refused
        return self._finish(Call(plugin, hook, function, deadline, self._idle_caller(plugin)), periodic)

    def call_all(
        self, calls: Iterable[tuple[str, Callable[[], Any]]], hook: str, *, deadline: float
    ) -> dict[str, Outcome]:
        """Call several plugins at once, each in its own thread, and return how each ended, by name."""
        running = [Call(plugin, hook, function, deadline, self._idle_caller(plugin)) for plugin, function in calls]
        return {call.plugin: self._finish(call, periodic=False) for call in running}

    def stuck(self) -> dict[str, str]:
        """Return the plugins that get no calls because an earlier one has not returned, each with that hook's name."""
        with self._lock:
            found = {}
            for plugin in list(self._abandoned):
                calls = self._still_running(plugin)
                if calls:
                    found[plugin] = calls[0].hook
            return found

    def failed(self) -> dict[str, dict[str, Tally]]:
        """Return the tallies with failures, by plugin and hook."""
        found: dict[str, dict[str, Tally]] = {}
        with self._lock:
            for (plugin, hook), tally in self._tallies.items():
                if tally.failures:
                    found.setdefault(plugin, {})[hook] = tally
        return found

    def tallies(self, plugin: str) -> dict[str, Tally]:
        """Return the tally of *plugin* by hook."""
        with self._lock:
            return {hook: tally for (name, hook), tally in self._tallies.items() if name == plugin}

    def failing(self, hook: str | None = None) -> dict[str, str]:
        """Return the plugins whose last call (in *hook*, or in any) failed, each with ``hook: error``."""
        with self._lock:
            return {
                name: f"{tallied}: {tally.last_error}"
                for (name, tallied), tally in self._tallies.items()
                if tally.consecutive and hook in (None, tallied)
            }

    def _refuse(self, plugin: str, hook: str, periodic: bool) -> Outcome | None:
        with self._lock:
            calls = self._still_running(plugin)
            if calls:
                since = time.monotonic() - calls[0].began
                return Outcome(plugin, STUCK, error=f"not called: {calls[0].hook} has not returned for {since:.0f} s")
            tally = self._tallies.get((plugin, hook))
            if periodic and tally is not None and tally.skip > 0:
                tally.skip -= 1
                return Outcome(plugin, SKIPPED, error=f"not called after {tally.consecutive} failures in a row")
        return None

    def _still_running(self, plugin: str) -> list[Call]:
        calls = self._abandoned.get(plugin)
        if not calls:
            return []
        running = [call for call in calls if not call.finished]
        if running:
            self._abandoned[plugin] = running
        else:
            del self._abandoned[plugin]
            self._log.info(f"plugin {self.label(plugin)}: {calls[-1].hook} has returned; it is called again")
        return running

    def _idle_caller(self, plugin: str) -> _Caller | None:
        with self._lock:
            return self._idle.pop() if self._idle and plugin in self.ours else None

    def _dismiss(self, caller: _Caller, is_idle: bool) -> None:
        with self._lock:
            if is_idle and not self._idle:
                self._idle.append(caller)
                return
        caller.leave()

    def _finish(self, call: Call, periodic: bool) -> Outcome:
        returned = call.wait()
        if call.caller is not None:
            self._dismiss(call.caller, returned and call.plugin in self.ours)
        if isinstance(call.problem, KeyboardInterrupt):
            raise call.problem
        with self._lock:
            tally = self._tallies.setdefault((call.plugin, call.hook), Tally())
            tally.calls += 1
            if returned and call.problem is None:
                tally.consecutive = tally.skip = tally.repeats = 0
                tally.last_success = time.time()
                tally.last_seconds = call.seconds
                return Outcome(call.plugin, ANSWERED, call.value)
            if returned:
                tally.last_seconds = call.seconds
            else:
                self._abandoned.setdefault(call.plugin, []).append(call)
        return self._failed(call, tally, returned, periodic)

    def _failed(self, call: Call, tally: Tally, returned: bool, periodic: bool) -> Outcome:
        problem = call.problem if returned else None
        if problem is not None:
            state, error, trail = FAILED, describe(problem), trail_of(problem.__traceback__)
            signature = f"{type(problem).__name__} {trail[-1:]}"
        else:
            state, error = LATE, f"no answer within {call.deadline:g} s"
            signature, trail = "late", stack_of(call.caller.thread.ident if call.caller is not None else None)
        with self._lock:
            tally.failures += 1
            tally.consecutive += 1
            tally.last_error = error
            tally.repeats = tally.repeats + 1 if signature == tally.signature else 1
            tally.signature = signature
            if periodic and tally.consecutive >= BREAKER_AFTER:
                tally.skip = min(BREAKER_MOST, 1 << min(tally.consecutive - BREAKER_AFTER, 16))
            repeats, skip = tally.repeats, tally.skip
        if repeats in (1, 10, 100) or repeats % 1000 == 0:
            count = f" ({repeats} times the same)" if repeats > 1 else ""
            rest = f"; next try after {skip} periods" if skip else ""
            self._log.warning(f"plugin {self.label(call.plugin)} failed in {call.hook}: {error}{count}{rest}")
            lines = "".join(f"\n    {line}" for line in trail)
            if state == LATE:  # the stack is all there is to find the fault by; it is written whatever the level
                self._log.warning(f"plugin {call.plugin} gets no call until {call.hook} returns; it is here:{lines}")
            elif lines:
                self._log.verbose(f"plugin {call.plugin} in {call.hook}:{lines}")
        return Outcome(call.plugin, state, error=error, problem=problem)

    def label(self, plugin: str) -> str:
        """Return *plugin* as messages name it."""
        return self.labels.get(plugin, plugin)


def describe(problem: BaseException) -> str:
    """Return class and text of *problem* in one line of at most 500 characters."""
    try:
        text = " ".join(redact(str(problem)).split())
    except Exception:  # a plugin's own exception may not even have a text
        text = "(its text cannot be read)"
    name = type(problem).__name__
    return f"{name}: {text}"[:500] if text else name


def trail_of(traceback: TracebackType | None) -> list[str]:
    """Return where an exception came from, outermost first (the module ``traceback`` would have to be resident)."""
    lines = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if code.co_filename != __file__:
            lines.append(f"{code.co_filename}:{traceback.tb_lineno} in {code.co_name}")
        traceback = traceback.tb_next
    return lines[-_DEEPEST:]


def stack_of(thread: int | None) -> list[str]:
    """Return the present stack of *thread* (its ident), outermost first; empty when it has ended."""
    frame: FrameType | None = sys._current_frames().get(thread) if thread is not None else None
    lines = []
    while frame is not None:
        lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
        frame = frame.f_back
    return lines[:_DEEPEST][::-1]
