"""The supervisor's view of the boot stage and the key helper: both at once (rulings 15, 19a, 19c).

Standard library alone.
"""

from __future__ import annotations

import os

from waagent.service import children, launch
from waagent.service.beats import BOOT_FD, DONE, PLUGIN_LIST, list_identity
from waagent.service.lock import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from waagent.log import Log
    from waagent.paths import Paths
    from waagent.service.reactor import Reactor, Timer

    Starter = Callable[[str, dict[int, int]], children.Child]

KEY_SECONDS = 120.0
LOCK_POLL = 0.5
TRIES = 2


class BootWatch:
    """Runs boot stage and key helper and holds the pipe that workers look at.

    Every worker gets the pipe's read end (:attr:`reader`); its end of file says that the boot stage has ended and that
    nobody but the worker writes to ``Lib.Dir`` from then on. Only the supervisor holds the write end, so that a boot
    stage that dies can be started once more before workers hear of it. :attr:`stale_list` names the plugin list that
    was there before.
    """

    def __init__(self, reactor: Reactor, log: Log, paths: Paths, start: Starter) -> None:
        self._reactor = reactor
        self._log = log
        self._start = start
        self._lock = Lock(paths.run("boot.lock"))
        self.reader, self._writer = children.pipe()
        self._list = paths.run(PLUGIN_LIST)
        self.stale_list = list_identity(self._list)
        self.stage: children.Child | None = None
        self.key_helper: children.Child | None = None
        self._report = -1
        self._tries = 0
        self._reported = False
        self._stage_over = False
        self._key_over = False
        self._waiting_told = False
        self._timer: Timer | None = None
        self._again = False

    @property
    def ended(self) -> bool:
        """Whether workers have been told that boot is over."""
        return self._writer < 0

    def begin(self) -> None:
        """Start the boot stage and the key helper; the former waits for one that another supervisor left behind."""
        self._start_stage()
        self._start_key_helper()

    def begin_again(self) -> int:
        """Start over for a reload with a new pipe; returns the read end that later workers get.

        A boot stage that is still at work is not disturbed: the new one follows it.

        Raises:
            OSError: there is no new pipe to be had; everything stays as it was.
        """
        reader, writer = children.pipe()
        os.close(self.reader)
        if self._writer >= 0:
            os.close(self._writer)
        self.reader, self._writer = reader, writer
        self.stale_list = list_identity(self._list)
        self._tries = 0
        self._reported = self._stage_over = False
        self._key_over = self.key_helper is None
        if self.stage is not None:
            self._again = True
        else:
            self._start_stage()
        return self.reader

    def cancel(self) -> None:
        """Start nothing any more: the service stops."""
        self._tries = TRIES
        self._again = False
        if self._timer is not None:
            self._timer.cancel()

    def alive(self) -> list[children.Child]:
        """Return the children that run."""
        return [child for child in (self.stage, self.key_helper) if child is not None]

    def reaped(self, child: children.Child, status: int) -> None:
        """Take note that *child* ended with wait status *status*."""
        if child is self.key_helper:
            self.key_helper = None
            self._key_over = True
            if status:
                self._log.warning(f"The transport key helper ended with {children.describe(status)}")
        elif child is self.stage:
            self._read_report()
            self.stage = None
            self._stage_ended(status)
        self._release()

    def _start_key_helper(self) -> None:
        try:
            child = self._start(launch.KEY_HELPER, {})
        except OSError as problem:
            self._log.error(f"The transport key helper cannot be started: {problem}")
            self._key_over = True
            return
        self.key_helper = child
        self._reactor.after(KEY_SECONDS, lambda: self._end_key_helper(child))

    def _end_key_helper(self, child: children.Child) -> None:
        if self.key_helper is child:
            self._log.warning(f"The transport key helper has run for {KEY_SECONDS:.0f} s and is killed")
            child.signal(9)

    def _start_stage(self) -> None:
        self._timer = None
        try:
            free = self._lock.free()
        except OSError as problem:
            self._log.warning(f"{self._lock.path} cannot be used: {problem}")
            free = True
        if not free:
            if not self._waiting_told:
                self._waiting_told = True
                self._log.info(f"Waiting for the boot stage of an earlier start: {self._lock.holder()}")
            self._timer = self._reactor.after(LOCK_POLL, self._start_stage)
            return
        self._tries += 1
        self._close_report()
        reader = writer = -1
        try:
            reader, writer = children.pipe()
            self.stage = self._start(launch.BOOT, {BOOT_FD: writer})
        except OSError as problem:
            if reader >= 0:
                os.close(reader)
            self._log.error(f"The boot stage cannot be started: {problem}")
            self._failed()
            return
        finally:
            if writer >= 0:
                os.close(writer)
        os.set_blocking(reader, False)
        self._report = reader
        self._reactor.watch(reader, self._on_report)

    def _on_report(self) -> None:
        self._read_report()
        self._release()

    def _read_report(self) -> None:
        if self._report < 0:
            return
        try:
            data = os.read(self._report, 64)
        except BlockingIOError:
            return
        if DONE in data:
            self._reported = True
        self._close_report()

    def _close_report(self) -> None:
        if self._report >= 0:
            self._reactor.unwatch(self._report)
            os.close(self._report)
            self._report = -1

    def _stage_ended(self, status: int) -> None:
        self._close_report()
        if self._again:
            self._again = False
            self._reported = False
            self._start_stage()
        elif self._reported:
            if status:
                self._log.warning(f"The boot stage ended with {children.describe(status)} after its work was done")
        elif status == 0:
            self._stage_over = True
        else:
            self._log.warning(f"The boot stage ended before its work was done: {children.describe(status)}")
            self._failed()

    def _failed(self) -> None:
        if self._tries < TRIES:
            self._log.info("The boot stage is started once more")
            self._timer = self._reactor.after(1.0, self._start_stage)
            return
        self._log.error(f"The boot stage failed {self._tries} times; the worker goes on without it")
        self._stage_over = True
        self._release()

    def _release(self) -> None:
        if self._writer >= 0 and self._key_over and (self._stage_over or (self._reported and not self._again)):
            os.close(self._writer)
            self._writer = -1
            self._log.verbose("Boot is over")
