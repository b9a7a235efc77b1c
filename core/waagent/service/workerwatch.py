"""The supervisor's view of the worker: start, heartbeat, exits, back-off, ban and roll-back (service §1.4).

Standard library alone.
"""

from __future__ import annotations

import os
import signal
import time

from waagent.files import read_limited
from waagent.log import timestamp
from waagent.service import backoff, children, launch, versions
from waagent.service.beats import BEAT_FD, BOOT_FD, DUMP_SIGNAL, HANDOVER, STACKS, STATUS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from waagent.log import Log
    from waagent.paths import Paths
    from waagent.service.reactor import Reactor, Timer

    Starter = Callable[[str, "str | None", dict[int, int]], children.Child]


class Timing:
    """The periods, in seconds; tests compress them."""

    silence = 60.0
    dump = 2.0
    window = backoff.WINDOW
    first_delay = backoff.FIRST
    longest_delay = backoff.LONGEST
    healthy_after = backoff.HEALTHY_AFTER


class WorkerWatch:
    """Keeps one worker running, and a bad version from running.

    Args:
        start: starts the worker's code from a directory (``None``: the installed one) with descriptors.
        boot_reader: returns the read end of the boot pipe that a worker gets.
        status: shows a line in the service manager.
    """

    def __init__(
        self,
        reactor: Reactor,
        log: Log,
        paths: Paths,
        installed: str,
        start: Starter,
        boot_reader: Callable[[], int],
        status: Callable[[str], object],
        timing: Timing,
    ) -> None:
        self._reactor = reactor
        self._log = log
        self._paths = paths
        self._installed = installed
        self._start = start
        self._boot_reader = boot_reader
        self._status = status
        self._timing = timing
        self._agents = paths.lib("agents")
        self._bans = versions.Bans(self._agents)
        self._back_off = backoff.BackOff(timing.first_delay, timing.longest_delay, timing.healthy_after)
        self._exits = backoff.ExitWindow(timing.window)
        self.packaged_only = False
        self.worker: children.Child | None = None
        self.running = versions.Candidate(installed)
        self._pipe = -1
        self._buffer = b""
        self._heard = 0.0
        self._silence: Timer | None = None
        self._delay: Timer | None = None
        self._handover = False
        self._killed_for = ""
        self._stopping = False
        self._told: tuple[str, ...] = ()

    def choose(self) -> versions.Candidate:
        """Return the version that the next worker runs, and say once which ones are banned."""
        bans = self._bans.in_force(time.time())
        names = tuple(ban.version for ban in bans)
        if names != self._told:
            self._told = names
            for ban in bans:
                self._log.warning(
                    f"Version {ban.version} is banned since {timestamp(ban.since)} for 24 h or until a newer package "
                    f"arrives ({ban.reason}); delete {ban.path} to end the ban"
                )
        return versions.choose(self._agents, self._installed, bans, packaged_only=self.packaged_only)

    def begin(self) -> None:
        """Start a worker now."""
        self._delay = None
        if self._stopping or self.worker is not None:
            return
        candidate = self.choose()
        self.running = candidate
        self._handover = False
        self._killed_for = ""
        reader = writer = -1
        try:
            reader, writer = children.pipe()
            self.worker = self._start(
                launch.WORKER, candidate.directory, {BEAT_FD: writer, BOOT_FD: self._boot_reader()}
            )
        except OSError as problem:
            if reader >= 0:
                os.close(reader)
            self._exited(f"cannot be started: {problem}", 0.0)
            return
        finally:
            if writer >= 0:
                os.close(writer)
        os.set_blocking(reader, False)
        self._pipe = reader
        self._buffer = b""
        self._reactor.watch(reader, self._on_beat)
        self._heard = self._reactor.clock()
        self._silence = self._reactor.after(self._timing.silence, self._check_silence)
        self._log.info(f"Worker {candidate.version} started [pid {self.worker.pid}]")
        self._status(f"Worker {candidate.version} starts")

    def begin_again(self) -> None:
        """Start a worker at once and forget about delays: an administrator asked for a reload."""
        self._back_off.reset()
        if self._delay is not None:
            self._delay.cancel()
        self._stopping = False
        self.begin()

    def stop(self, signum: int = signal.SIGTERM) -> None:
        """Ask the worker to end and start no other; its exit is then nobody's fault."""
        self._stopping = True
        if self._delay is not None:
            self._delay.cancel()
            self._delay = None
        if self.worker is not None:
            self.worker.signal(signum)

    def reaped(self, status: int) -> None:
        """Take note that the worker ended with wait status *status*; starts or schedules the next one."""
        worker = self.worker
        if worker is None:
            return
        self._on_beat()
        self.worker = None
        self._close_pipe()
        if self._silence is not None:
            self._silence.cancel()
        lived = self._reactor.clock() - worker.started
        how = children.describe(status)
        if self._stopping:
            self._log.info(f"Worker {self.running.version} stopped [{how}]")
            return
        if self._handover and status == 0 and self.choose().version != self.running.version:
            self._log.info(f"Worker {self.running.version} makes way for another version")
            self.begin()
            return
        self._exited(f"{self._killed_for}; {how}" if self._killed_for else how, lived)

    def _exited(self, how: str, lived: float) -> None:
        version = self.running.version
        count = self._exits.note(version, self._reactor.clock())
        delay = self._back_off.exited(lived)
        self._log.warning(
            f"Worker {version} ended unexpectedly after {lived:.1f} s [{how}]; next start in {delay:g} s "
            f"(exit {count} within the last {self._timing.window:g} s)"
        )
        self._status(f"Worker {version} ended unexpectedly [{how}]; next start in {delay:g} s")
        if count >= backoff.EXITS_TO_BAN and self.running.directory is not None:
            self._ban(how, count)
        self._delay = self._reactor.after(delay, self.begin)

    def _ban(self, how: str, count: int) -> None:
        self._exits.forget(self.running.version)
        reason = f"ended {count} times unexpectedly within {self._timing.window:g} s, at last: {how}"
        try:
            self._bans.add(self.running, reason, time.time())
        except OSError as problem:
            self._log.warning(f"The ban of version {self.running.version} cannot be written: {problem}")
        self._log.warning(f"Rolling back from version {self.running.version} to {self.choose().version}")

    def _on_beat(self) -> None:
        if self._pipe < 0:
            return
        try:
            data = os.read(self._pipe, 65536)
        except BlockingIOError:
            return
        if not data:
            # Closed while the process lives: nothing will ever be heard again, so the silence rule takes over.
            self._close_pipe()
            return
        self._heard = self._reactor.clock()
        *lines, rest = (self._buffer + data).split(b"\n")
        self._buffer = rest[-4096:]
        for line in lines:
            if line[:1] == HANDOVER:
                self._handover = True
            elif line[:1] == STATUS:
                self._status(line[1:200].decode("ascii", "replace"))

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            self._reactor.unwatch(self._pipe)
            os.close(self._pipe)
            self._pipe = -1

    def _check_silence(self) -> None:
        if self.worker is None:
            return
        left = self._heard + self._timing.silence - self._reactor.clock()
        if left > 0:
            self._silence = self._reactor.after(left, self._check_silence)
            return
        self._log.error(
            f"Worker {self.running.version} [pid {self.worker.pid}] has been silent for {self._timing.silence:g} s: "
            f"asking for its stacks, then killing it"
        )
        self._killed_for = f"silent for {self._timing.silence:g} s"
        self.worker.signal(DUMP_SIGNAL)
        hung = self.worker
        self._silence = self._reactor.after(self._timing.dump, lambda: self._kill(hung))

    def _kill(self, hung: children.Child) -> None:
        if self.worker is not hung:
            return
        hung.signal(signal.SIGKILL)
        try:
            stacks = read_limited(self._paths.run(STACKS), 1 << 20).decode("utf-8", "replace")
        except Exception as problem:
            self._log.warning(f"The worker left no stacks: {problem}")
            return
        for line in stacks.splitlines()[:200]:
            self._log.error("  " + line)
