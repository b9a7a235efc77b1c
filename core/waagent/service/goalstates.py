"""The goal-state duty of the worker: one poll per period, news handed on (wireserver §15)."""

from __future__ import annotations

import os
import time

from waagent.errors import ProtocolError
from waagent.log import ERROR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from waagent.agent import Agent
    from waagent.loop import Timer
    from waagent.platform.models import GoalState

DISABLED_PERIOD = 300.0
POLL_DEADLINE = 120.0
TIDY_AFTER = 10.0
"""Seconds from a new goal state until the history is zipped: neither a start nor extensions wait for that."""
INITIAL_MARKER = "initial_goal_state"
LANE = "platform"


class GoalStates:
    """Polls the platform for the desired state.

    One try per period whatever happened before (ruling 26): what is throttled or unreachable is the platform client's
    to know. An extensions goal state is handed on when its id is new, and once after the start (service §3).

    Args:
        agent: the worker's agent, with a platform.
        act: called on the loop with a goal state that plugins have to see.
        polled: called on the loop after a poll, with whether it worked; not after one that found all as it was.
        ended: called after every poll, in its lane or on the loop.

    Attributes:
        last_poll: seconds since the epoch of the last attempt, ``None`` before the first.
        last_success: likewise of the last one that worked.
        failures: failed polls in a row.
        failed_polls: failed polls since the start.
        error: why the last poll failed, ``None`` when it did not.
    """

    def __init__(
        self,
        agent: Agent,
        act: Callable[[GoalState], object],
        polled: Callable[[bool], object],
        ended: Callable[[], object] = lambda: None,
    ) -> None:
        self._agent = agent
        self._act = act
        self._polled = polled
        self._ended = ended
        self._timer: Timer | None = None
        self._acted_on: str | None = None
        self._acting = False
        self._force = False
        self._tidied: GoalState | None = None
        self._settled: GoalState | None = None
        self._marker = agent.paths.lib(INITIAL_MARKER)
        self._is_marked = False
        self.last_poll: float | None = None
        self.last_success: float | None = None
        self.failures = 0
        self.failed_polls = 0
        self.error: str | None = None

    def period(self) -> float:
        """Return the seconds between two polls (wireserver §15.1); asked anew each time."""
        config = self._agent.config
        if not config.boolean("Extensions.Enabled"):
            return DISABLED_PERIOD
        self._is_marked = self._is_marked or os.path.lexists(self._marker)
        first = None if self._is_marked else config.optional_integer("Extensions.InitialGoalStatePeriod")
        return float(first or config.integer("Extensions.GoalStatePeriod"))

    def start(self) -> None:
        """Poll now and from now on."""
        self._agent.log.info(
            f"Goal State Period: {self.period():g} sec. This indicates how often the agent checks for new goal states "
            f"and reports status."
        )
        self._timer = self._agent.loop.every(self.period, self.poll, "goal state poll")
        self.poll()

    def stop(self) -> None:
        """Poll no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def running(self) -> bool:
        """Whether polls go on by themselves."""
        return self._timer is not None

    def act_from_now(self) -> None:
        """Hand goal states on, from the next poll that works: plugins are there and boot is over."""
        self._acting = True

    def poll(self, force: bool = False) -> None:
        """Ask the platform once; with *force* fetch everything anew. A poll that is still waiting is not doubled."""
        self._force = self._force or force
        self._agent.lane(LANE).submit_once("poll", self._poll_once, name="goal state poll", deadline=POLL_DEADLINE)

    def _poll_once(self) -> None:
        """Run in the platform lane."""
        error = self._fetch()
        platform = self._agent.platform
        if error is None and not self.failures and platform is not None and platform.goal_state is self._settled:
            self.last_success = time.time()  # as nearly always: the loop sleeps on
            self._ended()
        else:
            self._agent.loop.call_soon(lambda: self._done(error), "goal state poll")

    def _fetch(self) -> str | None:
        """Return the error, so that an outage fills no log."""
        platform = self._agent.platform
        force, self._force = self._force, False
        self.last_poll = time.time()
        try:
            assert platform is not None
            platform.update_goal_state(force=force)
        except Exception as problem:
            self._force = self._force or force
            text = " ".join(str(problem).split()) or type(problem).__name__
            if not isinstance(problem, ProtocolError):
                # The client tells of the others, sparsely; this one is a fault of ours.
                text = f"{type(problem).__name__}: {text}"
                self._agent.log.periodic(3600, f"poll {text}", ERROR, f"The goal state poll failed: {text}")
            return text
        return None

    def _done(self, error: str | None) -> None:
        self._account(error)
        self._ended()

    def _account(self, error: str | None) -> None:
        if error is not None:
            self.failures += 1
            self.failed_polls += 1
            self.error = error
            self._polled(False)
            return
        self.last_success = time.time()
        self.failures = 0
        self.error = None
        self._hand_on()
        self._polled(True)
        self._tidy_later()

    def _tidy_later(self) -> None:
        platform = self._agent.platform
        if platform is None or platform.goal_state is self._tidied:
            return
        self._tidied = platform.goal_state
        lane = self._agent.lane(LANE)
        self._agent.loop.call_later(
            TIDY_AFTER,
            lambda: lane.submit_once("tidy", platform.tidy, name="history", deadline=POLL_DEADLINE),
            "history",
        )

    def _hand_on(self) -> None:
        platform = self._agent.platform
        goal_state = platform.goal_state if platform is not None else None
        if goal_state is None or not self._acting:
            return
        self._settled = goal_state
        extensions = goal_state.extensions
        if extensions.id == self._acted_on or extensions.outdated:
            return
        # Remembered before anybody works on it: a goal state that fails is not retried until a new one comes.
        self._acted_on = extensions.id
        self._act(goal_state)
