"""How long to wait before a worker is started again, and when a version has failed too often (service §1.4).

Standard library alone. All times are seconds of one monotonic clock.
"""

from __future__ import annotations

FIRST = 1.0
LONGEST = 300.0
HEALTHY_AFTER = 900.0
WINDOW = 300.0
EXITS_TO_BAN = 3


class BackOff:
    """Delays 1, 2, 4 … 300 s, from the beginning again after 15 minutes of health."""

    def __init__(self, first: float = FIRST, longest: float = LONGEST, healthy_after: float = HEALTHY_AFTER) -> None:
        self._first = first
        self._longest = longest
        self._healthy_after = healthy_after
        self._next = first

    def exited(self, lived: float) -> float:
        """Return the seconds to wait after an exit that nobody wanted; *lived* is how long the process ran."""
        if lived >= self._healthy_after:
            self.reset()
        delay = self._next
        self._next = min(self._next * 2, self._longest)
        return delay

    def reset(self) -> None:
        """Begin again with the shortest delay."""
        self._next = self._first


class ExitWindow:
    """Counts the unintended exits of each version within the sliding last five minutes."""

    def __init__(self, window: float = WINDOW) -> None:
        self._window = window
        self._exits: dict[str, list[float]] = {}

    def note(self, version: str, now: float) -> int:
        """Record an exit of *version* and return how many the window holds, this one included."""
        recent = [moment for moment in self._exits.get(version, ()) if now - moment < self._window]
        recent.append(now)
        self._exits[version] = recent
        return len(recent)

    def forget(self, version: str) -> None:
        """Drop what is known of *version*: it was banned, and starts afresh when the ban ends."""
        self._exits.pop(version, None)
