"""The status duty of the worker: its own lane and rhythm, whatever else runs (ruling 28, architecture §4)."""

from __future__ import annotations

import os
import time

from waagent.platform.statusblob import build_status, timeless
from waagent.service.troubles import Troubles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from waagent.agent import Agent
    from waagent.loop import Timer
    from waagent.platform.models import StatusReport
    from waagent.service.goalstates import GoalStates
    from waagent.service.publicstatus import PublicStatus

LANE = "status"
DEADLINE = 120.0
_SHORTEST_GAP, _LONGEST_GAP = 0.1, 2.0


class StatusDuty:
    """Collects the plugins' parts each period and uploads them when it is time.

    An idle machine collects after its poll and not beside it: two threads at once cost a fifth more than one after the
    other. Nothing waits for a poll while work runs, nor for one that hangs.

    It is time when anything but moments changed, while a plugin says that work runs, after ``Status.MaxInterval``
    seconds without an upload (0: always), after a failed upload, and when the platform answers polls again. A request
    collects at once; a stream of requests is thinned out, from 0.1 s apart to 2 s.

    Args:
        agent: the worker's agent.
        goal_states: sets the period, and knows of failures.
        public: the copy for people.
    """

    def __init__(self, agent: Agent, goal_states: GoalStates, public: PublicStatus) -> None:
        self._agent = agent
        self._goal_states = goal_states
        self._public = public
        self._tick: Timer | None = None
        self._pending: Timer | None = None
        self._gap = _SHORTEST_GAP
        self._answered_at = float("-inf")
        self._uploaded_at = float("-inf")
        self._uploaded: dict[str, Any] | None = None
        self._known: tuple[Any, ...] | None = None
        self._is_news = True
        self._is_busy = True
        self._has_polled = True
        self._was_out = False
        self._last_attempt: float | None = None
        self._last_success: float | None = None
        self._troubles = Troubles(agent.log, "Error reporting the status", "Reporting the status is still failing")
        self.problems: list[str] = []
        """Lines of the core's own for the status, besides what plugins and state files bring."""

    def start(self) -> None:
        """Report now and from now on."""
        self._tick = self._agent.loop.every(self._goal_states.period, self._on_tick, "status")
        self.collect_now()

    def stop(self) -> None:
        """Report no more, except through :meth:`report_once`."""
        for timer in (self._tick, self._pending):
            if timer is not None:
                timer.cancel()
        self._tick = self._pending = None

    @property
    def running(self) -> bool:
        """Whether the rhythm has begun."""
        return self._tick is not None

    def request(self) -> None:
        """Collect soon: somebody says that the status changed. Any thread may call."""
        self._agent.call_soon(self._on_request)

    def collect_now(self) -> None:
        """Queue one collection; one that waits already is enough."""
        self._agent.lane(LANE).submit_once("status", self.report_once, name="status report", deadline=DEADLINE)

    def after_poll(self) -> None:
        """Collect what an idle machine has not collected at the tick. Any thread may call."""
        self._has_polled = True
        if self._tick is not None and not self._is_busy:
            self.collect_now()

    def _on_tick(self) -> None:
        if self._agent.loop.clock() - self._answered_at >= _LONGEST_GAP:
            self._gap = _SHORTEST_GAP
        if self._is_busy or not self._has_polled:
            self.collect_now()
        self._has_polled = False

    def _on_request(self) -> None:
        if self._tick is None or self._pending is not None:
            return
        wait = self._answered_at + self._gap - self._agent.loop.clock()
        self._gap = min(self._gap * 2, _LONGEST_GAP)
        if wait > 0:
            self._pending = self._agent.loop.call_later(wait, self._answer, "requested status")
        else:
            self._answer()

    def _answer(self) -> None:
        self._pending = None
        self._answered_at = self._agent.loop.clock()
        self.collect_now()

    def report_once(self, *, final: bool = False) -> None:
        """Collect, upload if it is time or *final*, write the public copy. Runs in the status lane."""
        agent = self._agent
        parts: list[tuple[str, StatusReport]] = agent.hooks.report_status(agent) if agent.plugins_loaded else []
        self._is_busy = any(part.busy for _, part in parts)
        problems = self.all_problems()
        self._was_out = self._was_out or self._goal_states.failures > 0
        known = (parts, problems, self._machine())
        # What a third party hands out it may change later, and what it is like when compared is its own affair.
        is_same = (not parts or agent.plugins.are_ours(name for name, _ in parts)) and known == self._known
        self._known = known
        platform = agent.platform
        if platform is not None and platform.goal_state is not None:
            if not is_same:
                self._is_news = timeless(self._build(*known)) != self._uploaded
            if final or self._is_time():
                self._upload(self._build(*known))
        self._public.write(parts, self.state(), problems, is_same=is_same)

    def write_disabled(self, reason: str) -> None:
        """Tell people, in the public copy alone, that the agent does nothing and why."""
        self._agent.lane(LANE).submit(
            lambda: self._public.write([], self.state(), self.all_problems(), disabled=reason), name="status copy"
        )

    def all_problems(self) -> list[str]:
        """Return every line that the status shows besides the plugins' own."""
        agent = self._agent
        lines = list(self.problems)
        if agent.plugins_loaded:
            lines += agent.hooks.problems()
            lines += [
                f"plugin {info.name} is not loaded: {info.reason}"
                for info in agent.plugins.listing()
                if info.state not in ("on", "off", "other-distribution", "absent")
            ]
        lines += agent.state.problems
        if agent.state.refused:
            lines.append(f"cannot be written: {agent.state.refused}")
        return lines

    def state(self) -> dict[str, Any]:
        """Return how the uploads go, for the public copy."""
        failures = self._troubles.in_a_row
        outcome = "failed" if failures else "none yet" if self._last_success is None else "uploaded"
        return {
            "outcome": outcome,
            "failures": failures,
            "error": self._troubles.last if failures else None,
            "last_attempt": self._last_attempt,
            "last_success": self._last_success,
        }

    def _machine(self) -> dict[str, Any]:
        agent = self._agent
        system = os.uname()
        distribution = agent.plugins.distribution if agent.plugins_loaded else None
        is_fast = agent.platform is not None and agent.platform.supports_fast_track
        return {
            "computer_name": system.nodename,
            "os_name": system.sysname.lower() if distribution is None else distribution.id,
            "os_version": system.release if distribution is None else distribution.version,
            "features": ("FastTrack",) if is_fast else (),
        }

    def _build(
        self, parts: list[tuple[str, StatusReport]], problems: list[str], machine: dict[str, Any]
    ) -> dict[str, Any]:
        return build_status([part for _, part in parts], problems=problems, version=self._agent.version, **machine)

    def _is_time(self) -> bool:
        if self._is_news or self._is_busy or self._troubles.in_a_row:
            return True
        if self._was_out and not self._goal_states.failures:
            return True  # after an outage the platform hears at once that all is well
        longest = self._agent.config.integer("Status.MaxInterval")
        # Half a period early rather than half a period late: ticks are never exact.
        early = self._goal_states.period() / 2
        return longest <= 0 or self._agent.loop.clock() - self._uploaded_at + early >= longest

    def _upload(self, document: dict[str, Any]) -> None:
        agent = self._agent
        platform = agent.platform
        assert platform is not None
        self._last_attempt = time.time()
        try:
            taken = platform.upload_status(document)
        except Exception as problem:
            self._failed(" ".join(str(problem).split()) or type(problem).__name__)
            return
        if taken is False:
            return  # the host did not know this machine under its old name; the next upload uses the new one
        self._last_success = time.time()
        self._uploaded_at = agent.loop.clock()
        self._uploaded = timeless(document)
        self._is_news = False
        self._was_out = False
        failures = self._troubles.succeeded()
        if failures:
            agent.log.info(f"Reporting the status works again after {failures} failures")
        try:
            platform.save_status_copy(document)
        except Exception as problem:
            agent.log.periodic(86400, "status copy", 2, f"The status copy for the history cannot be kept: {problem}")

    def _failed(self, problem: str) -> None:
        if self._troubles.failed(problem):
            self._agent.events.add("ReportStatus", success=False, message=problem, logged=True)
