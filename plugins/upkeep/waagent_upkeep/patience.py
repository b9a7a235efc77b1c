"""Plans that are looked at every few seconds: one that fails is left alone for a while (provisioning §17)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from waagent import Agent, Plan

LANE = "upkeep"
"""The lane for what takes longer than a look."""
PAUSE = 3600.0
"""Seconds that a plan rests after it failed: most such errors stay, and each try costs lines in the log."""


class Patience:
    """Runs one plan again and again.

    Args:
        pause: seconds of rest after a failure.
        clock: monotonic seconds.
    """

    def __init__(self, pause: float = PAUSE, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause = pause
        self._clock = clock
        self._round = 0
        self._rests_until = 0.0

    def run(self, agent: Agent, make: Callable[[int], Plan]) -> bool:
        """Run the plan unless it rests; return whether its goal is reached.

        Args:
            agent: whose executor runs it.
            make: makes the plan. It is given a number that goes into the names of its steps: the executor gives a name
                up for good after two failures.
        """
        if self._clock() < self._rests_until:
            return False
        result = agent.executor.run(make(self._round), stop=agent.stopping)
        if result.stopped or (result.ok and all(step.ok for step in result.steps)):
            return True
        self._round += 1
        self._rests_until = self._clock() + self._pause
        return False


def numbered(name: str, number: int) -> str:
    """Return the name of a step in round *number*."""
    return f"{name} ({number + 1})" if number else name
