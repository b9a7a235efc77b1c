"""Calls into plugins that cannot hurt the agent (models.md 2.4, 2.5; ruling 23). No plugin code runs elsewhere.

Each call has a deadline and runs in a daemon thread: a third party's has one to itself, ours share one. What the
plugin raises stays in the call; a call over its deadline is abandoned with its thread, its stack is written once, and
the plugin gets no further call until that thread has returned. ``KeyboardInterrupt`` alone goes through, to the main
thread: whoever presses Ctrl-C means the agent. In a lane nobody presses anything, and it is a failure like others.
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
_TICK = 0.001
"""Seconds of the shortest wait for a call: so short a deadline lets it begin at all."""


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


class Call:
    """One call of a plugin; it owns its result, so that a late one cannot land in a later call."""

    __slots__ = ("began", "finished", "function", "hook", "plugin", "problem", "seconds", "value")

    def __init__(self, plugin: str, hook: str, function: Callable[[], Any]) -> None:
        self.plugin = plugin
        self.hook = hook
        self.function = function
        self.value: Any = None
        self.problem: BaseException | None = None
        self.began = time.monotonic()
        self.seconds = 0.0
        self.finished = False
        """Whether the plugin has returned."""

    def run(self) -> None:
        """Make the call; runs in a thread that may be lost with it."""
        try:
            self.value = self.function()
        except BaseException as problem:  # SystemExit and what else a plugin finds to raise
            self.problem = problem
        finally:
            self.seconds = time.monotonic() - self.began
            self.finished = True


class _Round:
    """Calls of one hook that a thread makes one after the other while somebody waits for all of them.

    To hand each over by itself would wake two threads for each.
    """

    __slots__ = ("_at", "_deadline", "_given_up", "_lock", "_over", "caller", "calls", "is_main")

    def __init__(self, calls: list[Call], deadline: float | None, caller: _Caller | None) -> None:
        self.calls = calls
        self.is_main = threading.current_thread() is threading.main_thread()
        self._deadline = deadline
        self._at = 0
        self._given_up = False
        self._lock = _thread.allocate_lock()
        self._over = _thread.allocate_lock()
        self._over.acquire()
        self.caller: _Caller | None = None
        try:
            self.caller = caller or _Caller()
        except RuntimeError as problem:
            # No more threads: the machine is in trouble, and these calls are just failed ones.
            for call in calls:
                call.problem, call.finished = problem, True
            self._over.release()
        else:
            self.caller.make(self)

    def run(self) -> None:
        """Make the calls until one of them was given up; runs in the caller's thread."""
        thread = threading.current_thread()
        try:
            for at, call in enumerate(self.calls):
                with self._lock:
                    if self._given_up:
                        break
                    self._at = at
                    call.began = time.monotonic()
                thread.name = f"{call.plugin}.{call.hook}"
                call.run()
                sys.settrace(None)
                if self.is_main and isinstance(call.problem, KeyboardInterrupt):
                    break
            thread.name = "plugins"
        finally:
            self._over.release()

    def wait(self) -> int:
        """Wait until all calls have returned, or one of them is late and given up; return how many that makes."""
        while not self._over.acquire(timeout=self._left()):
            with self._lock:
                if not self.calls[self._at].finished and self._left() <= _TICK:
                    self._given_up = True
                    return self._at + 1
        return len(self.calls)

    def _left(self) -> float:
        if self._deadline is None:
            return -1.0
        return max(_TICK, self.calls[self._at].began + self._deadline - time.monotonic())


class _Caller:
    """A daemon thread that makes the calls of one round after the other: to start one costs more than most calls."""

    __slots__ = ("_rounds", "thread")

    def __init__(self) -> None:
        self._rounds: SimpleQueue[_Round | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def make(self, calls: _Round) -> None:
        """Make *calls* after those before."""
        self._rounds.put(calls)

    def leave(self) -> None:
        """End the thread, once the calls that it was given have returned."""
        self._rounds.put(None)

    def _serve(self) -> None:
        while True:
            calls = self._rounds.get()
            if calls is None:
                return
            calls.run()
            del calls  # what they returned is not kept until the next ones


class Containment:
    """Calls plugins and keeps the books on them. One per process; any thread may call.

    Args:
        log: gets one line per failure (the 1st, 10th, 100th … of the same).
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._troubled: dict[tuple[str, str], Tally] = {}
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
            KeyboardInterrupt: in the main thread: somebody, or the plugin, wants the agent to end.
        """
        return self.call_in_turn([(plugin, function)], hook, deadline=deadline, periodic=periodic)[0]

    def call_in_turn(
        self,
        calls: Iterable[tuple[str, Callable[[], Any]]],
        hook: str,
        *,
        deadline: float | None,
        periodic: bool = False,
    ) -> list[Outcome]:
        """Call several plugins, each once, one after the other, and return how each call ended, in their order.

        Args:
            calls: names and calls.
            hook, deadline, periodic: see :meth:`call`; the deadline is each call's own.

        Raises:
            KeyboardInterrupt: as :meth:`call`; what comes after is not called.
        """
        outcomes: dict[str, Outcome] = {}
        rounds: list[list[Call]] = []
        names = []
        for plugin, function in calls:
            names.append(plugin)
            refused = self._refuse(plugin, hook, periodic)
            if refused is not None:
                outcomes[plugin] = refused
            elif rounds and plugin in self.ours and rounds[-1][0].plugin in self.ours:
                rounds[-1].append(Call(plugin, hook, function))
            else:
                rounds.append([Call(plugin, hook, function)])
        while rounds:
            together = rounds.pop(0)
            made = _Round(together, deadline, self._idle_caller(together[0].plugin))
            count = made.wait()
            for outcome in self._ended(made, count, deadline, periodic):
                outcomes[outcome.plugin] = outcome
            if count < len(together):
                rounds.insert(0, together[count:])
        return [outcomes[plugin] for plugin in names]

    def call_all(
        self, calls: Iterable[tuple[str, Callable[[], Any]]], hook: str, *, deadline: float
    ) -> dict[str, Outcome]:
        """Call several plugins at once, each in its own thread, and return how each ended, by name."""
        running = [
            _Round([Call(plugin, hook, function)], deadline, self._idle_caller(plugin)) for plugin, function in calls
        ]
        ended = [outcome for made in running for outcome in self._ended(made, made.wait(), deadline, periodic=False)]
        return {outcome.plugin: outcome for outcome in ended}

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
            for (plugin, hook), tally in self._troubled.items():
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
                for (name, tallied), tally in self._troubled.items()
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

    def _ended(self, made: _Round, count: int, deadline: float | None, periodic: bool) -> list[Outcome]:
        calls = made.calls[:count]
        all_returned = all(call.finished for call in made.calls)
        if made.caller is not None:
            self._dismiss(made.caller, all_returned and calls[0].plugin in self.ours)
        for call in calls:
            if made.is_main and isinstance(call.problem, KeyboardInterrupt):
                raise call.problem
        return [self._finish(call, made.caller, deadline, periodic) for call in calls]

    def _finish(self, call: Call, caller: _Caller | None, deadline: float | None, periodic: bool) -> Outcome:
        with self._lock:
            returned = call.finished
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
        thread = caller.thread.ident if caller is not None else None
        return self._failed(call, tally, "" if returned else f"no answer within {deadline:g} s", thread, periodic)

    def _failed(self, call: Call, tally: Tally, late: str, thread: int | None, periodic: bool) -> Outcome:
        problem = None if late else call.problem
        if problem is not None:
            state, error, trail = FAILED, describe(problem), trail_of(problem.__traceback__)
            signature = f"{type(problem).__name__} {trail[-1:]}"
        else:
            state, error = LATE, late
            signature, trail = "late", stack_of(thread)
        with self._lock:
            self._troubled[call.plugin, call.hook] = tally
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
