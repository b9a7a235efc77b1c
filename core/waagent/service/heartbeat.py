"""The worker's end of its two pipes: it beats, sees its supervisor die, and sees boot end (rulings 11, 19a, 19c)."""

from __future__ import annotations

import os
import select

from waagent.service.beats import BEAT, HANDOVER, STATUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from waagent.loop import Loop

PERIOD = 10.0


class Heartbeat:
    """Beats on the inherited pipe; without one (a worker started by hand) every call does nothing.

    Args:
        loop: beats come from its thread alone, so that a stuck loop falls silent.
        descriptor: the write end, or ``None``.
        on_broken: called when nobody holds the read end any more: the supervisor is gone.
        period: seconds between beats.
    """

    def __init__(
        self, loop: Loop, descriptor: int | None, on_broken: Callable[[], object], period: float = PERIOD
    ) -> None:
        self._loop = loop
        self._descriptor = -1 if descriptor is None else descriptor
        self._on_broken = on_broken
        self._period = period
        self._said = b""

    def start(self) -> None:
        """Send the first beat and go on by the period."""
        if self._descriptor < 0:
            return
        os.set_blocking(self._descriptor, False)
        # No events wanted: poll always reports the error condition, which is how a write end sees its reader go.
        self._loop.watch(self._descriptor, 0, self._on_event)
        self._loop.every(self._period, self.beat, "heartbeat")
        self.beat()

    def beat(self) -> None:
        """Send one beat now."""
        self._write(BEAT)

    def say(self, text: str) -> None:
        """Show *text* as the service's status line; repeats are left out."""
        line = STATUS + text.encode("ascii", "replace").replace(b"\n", b" ")[:180]
        if line != self._said:
            self._said = line
            self._write(line)

    def hand_over(self) -> None:
        """Tell that this worker ends on purpose, for another version; it has to end with code 0 soon."""
        self._write(HANDOVER)

    def _write(self, line: bytes) -> None:
        if self._descriptor < 0:
            return
        try:
            os.write(self._descriptor, line + b"\n")
        except BlockingIOError:
            pass  # the supervisor is slow, not gone; the pipe holds thousands of beats
        except OSError:
            self._broken()

    def _on_event(self, events: int) -> None:
        if events & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
            self._broken()

    def _broken(self) -> None:
        self._loop.unwatch(self._descriptor)
        self._descriptor = -1
        self._on_broken()


def watch_boot(loop: Loop, descriptor: int | None, over: Callable[[], object]) -> None:
    """Call *over* on the loop once the boot pipe is at its end; at once when there is no pipe.

    Only the end of the pipe counts, never bytes (ruling 19a).
    """
    if descriptor is None:
        loop.call_soon(over)
        return
    read_end = descriptor

    def look(_events: int) -> None:
        try:
            if os.read(read_end, 512):
                return
        except BlockingIOError:
            return
        loop.unwatch(read_end)
        os.close(read_end)
        over()

    os.set_blocking(read_end, False)
    loop.watch(read_end, select.POLLIN, look)
