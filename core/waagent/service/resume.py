"""Seeing that the machine slept: boot time goes on in a suspend, the monotonic clock does not (service §17)."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PERIOD = 4.0
"""Seconds between looks: a refresh is under way within five seconds of the resume."""
JUMP = 10.0


def slept_clock() -> Callable[[], float] | None:
    """Return a clock of the seconds that this machine has spent suspended, ``None`` where nobody counts them."""
    identifier = getattr(time, "CLOCK_BOOTTIME", None)
    if identifier is None:
        return None
    return lambda: time.clock_gettime(identifier) - time.monotonic()


class ResumeWatch:
    """Calls *resumed* with the seconds of each suspend that lasted longer than ten seconds.

    Args:
        resumed: called from :meth:`look`.
        slept: total seconds of suspend so far.
    """

    def __init__(self, resumed: Callable[[float], object], slept: Callable[[], float]) -> None:
        self._resumed = resumed
        self._slept = slept
        self._seen = slept()

    def look(self) -> None:
        """Compare the clocks; call this every :data:`PERIOD` seconds."""
        now = self._slept()
        jump, self._seen = now - self._seen, now
        if jump > JUMP:
            self._resumed(jump)
