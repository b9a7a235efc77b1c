"""How a failure that goes on is told: three times, then every six hours (wireserver §15.6)."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from waagent.log import Log

TOLD = 3
AGAIN_AFTER = 6 * 3600.0


class Troubles:
    """Counts the failures in a row of one thing, and says little about them.

    Args:
        log: where lines go.
        first: begins each of the first lines: ``Error fetching the goal state``.
        later: begins the line of every six hours: ``Fetching the goal state is still failing``.
    """

    def __init__(self, log: Log, first: str, later: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._first = first
        self._later = later
        self._clock = clock
        self._told_at = 0.0
        self._began = 0.0
        self.in_a_row = 0
        self.total = 0
        self.last = ""

    @property
    def seconds(self) -> float:
        """How long it has been failing; 0 when it does not."""
        return self._clock() - self._began if self.in_a_row else 0.0

    def failed(self, problem: str) -> bool:
        """Note a failure; returns whether a line was written."""
        now = self._clock()
        if not self.in_a_row:
            self._began = now
        self.in_a_row += 1
        self.total += 1
        self.last = problem
        if self.in_a_row <= TOLD:
            self._log.error(f"{self._first}: {problem}")
        elif now - self._told_at >= AGAIN_AFTER:
            self._log.error(f"{self._later}: {problem} [{self.in_a_row} times in {self.seconds / 3600:.1f} h]")
        else:
            return False
        self._told_at = now
        return True

    def succeeded(self) -> int:
        """Note a success; returns how many failures it ended."""
        ended, self.in_a_row = self.in_a_row, 0
        return ended
