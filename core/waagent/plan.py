"""Plans and their executor: everything that changes the machine is reconciliation (architecture §5, measured.md §7).

A plan's *probe* turns the machine into facts, its pure *planner* turns facts into the steps that are missing. The
:class:`Executor` runs the first of them, probes and asks again, until nothing is missing. So a plan that was killed
goes on from the facts, and a dry run is the same planner walked over what the steps promise.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import attrs

from waagent.journal import DONE, FAILED, STARTED, Journal
from waagent.lanes import log_failure, thread_stack
from waagent.values import Checked

TYPE_CHECKING = False  # the resident worker does without the typing module
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Protocol

    from waagent.log import Log

    class Stop(Protocol):
        """Anything that can say it is time to stop, like ``threading.Event``."""

        def is_set(self) -> bool:
            """Return whether to stop before the next step."""


FAILURE_LIMIT = 2
"""How often one step may fail under one boot id before it is left alone and reported (ruling 14)."""
MOST_STEPS = 1000
"""A planner that still wants steps after so many is broken."""


@attrs.frozen(eq=False, repr=False)
class Step(Checked):
    """One change of the machine.

    Attributes:
        name: unique within the plan; the journal knows the step by plan and name. A step that may legitimately be
            done again later (the next sequence number, another instance) needs another name each time.
        summary: one line for people, in the imperative, without secrets.
        run: makes the change; raises when it could not. Runs twice unless ``once`` when a kill cut it short.
        gives: the facts that hold afterwards, laid over the old ones in a dry run.
        once: it must never run twice. The journal is asked: done means never again, begun means ask ``settle``.
        settle: for ``once``: finds out what became of an attempt whose end is unknown, or that failed: ``done``,
            ``redo`` or ``failed``. Without it such an attempt counts as failed and is not repeated.
        optional: a failure does not keep the rest of the plan from running.
        warning: shown to a person who is asked before the plan runs.
        deadline: seconds; a step that takes longer is abandoned (its thread goes on) and counts as failed.
    """

    TYPES = {
        "name": (str,),
        "summary": (str,),
        "run": (Callable,),
        "gives": (Mapping, type(None)),
        "settle": (Callable, type(None)),
        "warning": (str, type(None)),
        "deadline": (int, float, type(None)),
    }
    name: str
    summary: str
    run: Callable[[], object]
    gives: Mapping[str, Any] | None = None
    once: bool = False
    settle: Callable[[], str] | None = None
    optional: bool = False
    warning: str | None = None
    deadline: float | None = None


@attrs.frozen(eq=False, repr=False)
class Plan(Checked):
    """A goal for one part of the machine.

    Attributes:
        name: unique among plans of a process; words may be joined by blanks.
        probe: looks at the machine and returns facts by name; cheap, changes nothing.
        planner: pure: facts to the steps that are missing, in order; none when the goal is reached.
        phase: of ``on_boot`` plans: ``early``, ``disk``, ``provision``, ``after`` or ``background``.
    """

    TYPES = {"name": (str,), "probe": (Callable,), "planner": (Callable,), "phase": (str, type(None))}
    name: str
    probe: Callable[[], Mapping[str, Any]]
    planner: Callable[[Mapping[str, Any]], Sequence[Step]]
    phase: str | None = None


@attrs.frozen(eq=False, repr=False)
class StepResult:
    """How one step ended.

    Attributes:
        name: the step's.
        outcome: ``done``; ``settled`` (an earlier attempt turned out done); ``done before`` (never runs twice);
            ``failed``; ``no effect`` (done, but the next probe wants it again); ``left`` (failed too often since
            the machine started).
        seconds: how long it took.
        error: what went wrong, ``""`` when nothing did.
    """

    name: str
    outcome: str
    seconds: float = 0.0
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether the step's goal is reached."""
        return self.outcome in ("done", "settled", "done before")


@attrs.frozen(eq=False, repr=False)
class PlanResult:
    """How a run of a plan ended.

    Attributes:
        name: the plan's.
        steps: one result per step, in the order in which they were looked at.
        ok: nothing failed but optional steps, and nothing is missing.
        error: why it ended early, ``""`` when it did not.
        stopped: it was asked to stop before it was through.
    """

    name: str
    steps: list[StepResult]
    ok: bool
    error: str = ""
    stopped: bool = False


class _Run:
    """The state of one run of one plan."""

    def __init__(self, plan: Plan, quiet: bool) -> None:
        self.plan = plan
        self.quiet = quiet
        self.results: dict[str, StepResult] = {}
        self.error = ""
        self.stopped = False
        self.recorded = False

    def next(self, steps: Sequence[Step]) -> Step | None:
        """Return the first step that is open: one that is still wanted after it was done is open once more."""
        for step in steps:
            known = self.results.get(step.name)
            if known is None or known.outcome in ("done", "settled"):
                return step
        return None


class Executor:
    """Runs plans; one for a process, usable from several lanes at once (each plan from one at a time).

    Args:
        journal: remembers across restarts.
        log: gets a line per step and per failure.
        clock: monotonic seconds.
    """

    def __init__(self, journal: Journal, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self.journal = journal
        self._log = log
        self._clock = clock
        self._abandoned: dict[tuple[str, str], threading.Thread] = {}

    def run(self, plan: Plan, *, stop: Stop | None = None, quiet: bool = False) -> PlanResult:
        """Bring the machine to the plan's goal, as far as that goes; never raises for what a plan does.

        Args:
            plan: what to reach.
            stop: looked at before each step.
            quiet: the steps themselves tell people what they do; the line per step is for the verbose log.
        """
        run = _Run(plan, quiet)
        begun = self._clock()
        while len(run.results) <= MOST_STEPS:
            if stop is not None and stop.is_set():
                run.stopped = True
                run.error = "stopped"
                break
            step = self._missing(run)
            if step is None:
                break
            result = self._settle_or_run(run, step)
            run.results[step.name] = result
            if not result.ok and not step.optional:
                run.error = f"{step.name}: {result.error}"
                break
        else:
            run.error = f"still steps missing after {MOST_STEPS}"
        results = list(run.results.values())
        if run.recorded:
            steps = [(result.name, result.outcome, result.seconds) for result in results]
            self._note(lambda: self.journal.ended(plan.name, not run.error, self._clock() - begun, steps))
        return PlanResult(plan.name, results, not run.error, run.error, run.stopped)

    def dry_run(self, plan: Plan) -> list[Step]:
        """Return the steps that :meth:`run` would take if each one gave what it promises; nothing is changed.

        Steps that were done and never run twice are left out; whatever a step does not promise stays as probed.

        Raises:
            Exception: whatever probe or planner raise.
        """
        facts = dict(plan.probe())
        chosen: dict[str, Step] = {}
        while len(chosen) <= MOST_STEPS:
            step = next((s for s in _checked(plan, facts) if s.name not in chosen), None)
            if step is None:
                break
            chosen[step.name] = step
            facts.update(step.gives or {})
        return [s for s in chosen.values() if not (s.once and self.journal.attempt(plan.name, s.name).last == DONE)]

    def _missing(self, run: _Run) -> Step | None:
        try:
            return run.next(_checked(run.plan, run.plan.probe()))
        except (Exception, SystemExit) as problem:
            log_failure(self._log, f"{run.plan.name}: finding out what is missing", problem)
            run.error = f"finding out what is missing: {_text(problem)}"
            return None

    def _settle_or_run(self, run: _Run, step: Step) -> StepResult:
        plan = run.plan.name
        earlier = run.results.get(step.name)
        if earlier is not None:
            error = "had no effect: it was done, and is wanted again"
            return self._fail(run, step, earlier.seconds, "no effect", error, outcome="no effect")
        attempt = self.journal.attempt(plan, step.name)
        if step.once and attempt.last == DONE:
            return StepResult(step.name, "done before")
        if attempt.failures >= FAILURE_LIMIT:
            error = f"left alone: it failed {attempt.failures} times since the machine started"
            self._log.warning(f"{plan}: {step.name} is {error}")
            return StepResult(step.name, "left", 0.0, error)
        thread = self._abandoned.get((plan, step.name))
        if thread is not None and thread.is_alive():
            return StepResult(step.name, "failed", 0.0, "an attempt that was over its deadline still runs")
        if step.once and attempt.last in (STARTED, FAILED):
            settled = self._settle(run, step)
            if settled is not None:
                return settled
        return self._run_step(run, step)

    def _settle(self, run: _Run, step: Step) -> StepResult | None:
        """Return how an earlier attempt ended, ``None`` when the step is to run again."""
        if step.settle is None:
            error = "an earlier attempt did not end well, and it must not run twice"
            return self._fail(run, step, 0.0, "unknown end", error)
        try:
            answer = step.settle()
        except (Exception, SystemExit) as problem:
            log_failure(self._log, f"{run.plan.name}: finding out about {step.name}", problem)
            return self._fail(run, step, 0.0, "unknown end", f"finding out what became of it: {_text(problem)}")
        if answer == "redo":
            return None
        if answer == "done":
            run.recorded = True
            self._note(lambda: self.journal.done(run.plan.name, step.name, 0.0, True))
            return StepResult(step.name, "settled")
        return self._fail(run, step, 0.0, "unknown end", "an earlier attempt did not succeed")

    def _run_step(self, run: _Run, step: Step) -> StepResult:
        plan = run.plan.name
        run.recorded = True
        try:
            self.journal.started(plan, step.name, step.once)
        except OSError as problem:
            if step.once:
                # Without the record a restart could not know that it ran.
                error = f"not begun, as the journal cannot be written: {_text(problem)}"
                self._log.error(f"{plan}: {step.name} {error}")
                return StepResult(step.name, "failed", 0.0, error)
            self._journal_trouble(problem)
        (self._log.verbose if run.quiet else self._log.info)(f"{plan}: {step.summary}")
        begun = self._clock()
        why, problem_or_none = "error", None
        if step.deadline is None:
            problem_or_none = _call(step.run)
        else:
            ended, problem_or_none = self._run_within(plan, step, step.deadline)
            if not ended:
                why = "deadline"
        seconds = self._clock() - begun
        if problem_or_none is not None:
            if why == "error":
                log_failure(self._log, f"{plan}: {step.name}", problem_or_none)
            return self._fail(run, step, seconds, why, _text(problem_or_none))
        self._note(lambda: self.journal.done(plan, step.name, seconds, step.once))
        return StepResult(step.name, "done", seconds)

    def _run_within(self, plan: str, step: Step, deadline: float) -> tuple[bool, BaseException | None]:
        """Run *step* in a daemon thread of its own; return whether it ended in time, and its error."""
        box: list[BaseException | None] = []  # of this call alone: a late end can touch no other
        ended = threading.Event()

        def work() -> None:
            box.append(_call(step.run))
            ended.set()

        thread = threading.Thread(target=work, name=threading.current_thread().name, daemon=True)
        thread.start()
        if ended.wait(deadline):
            return True, box[0]
        self._abandoned[plan, step.name] = thread
        error = f"took longer than {deadline:g} s and was abandoned"
        self._log.warning(f"{plan}: {step.name} {error}; it is here now:\n{thread_stack(thread.ident)}")
        return False, TimeoutError(error)

    def _fail(self, run: _Run, step: Step, seconds: float, why: str, error: str, outcome: str = "failed") -> StepResult:
        run.recorded = True
        if why != "error":
            self._log.warning(f"{run.plan.name}: {step.name} failed: {error}")
        self._note(lambda: self.journal.failed(run.plan.name, step.name, seconds, why, error, step.once))
        return StepResult(step.name, outcome, seconds, error)

    def _note(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as problem:
            self._journal_trouble(problem)

    def _journal_trouble(self, problem: OSError) -> None:
        self._log.periodic(3600, "journal", 2, f"the journal {self.journal.path} cannot be written: {_text(problem)}")


def _checked(plan: Plan, facts: Mapping[str, Any]) -> Sequence[Step]:
    steps = plan.planner(facts)
    names = [step.name for step in steps]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the planner names step {twice!r} twice")
    return steps


def _call(fn: Callable[[], object]) -> BaseException | None:
    try:
        fn()
    except (Exception, SystemExit) as problem:
        return problem
    return None


def _text(problem: BaseException) -> str:
    text = " ".join(str(problem).split())
    if isinstance(problem, TimeoutError) and text:
        return text
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__
