"""Telling the platform how provisioning goes (provisioning §11, ruling 27).

The first word (``NotReady``, "Starting") is told beside the work, so that a network that is not there yet keeps nobody
from getting an account. What was not accepted stays owed, and the worker tells it when the platform answers.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from waagent import ProtocolError, report_to_pool, timestamp
from waagent_provisioning.progress import Owed

if TYPE_CHECKING:
    from collections.abc import Callable

    from waagent import Agent

READY, NOT_READY = "Ready", "NotReady"
PROVISIONING, FAILED = "Provisioning", "ProvisioningFailed"
STARTING = "Starting"
DOCUMENTATION = "https://aka.ms/linuxprovisioningerror"

BUDGET = 300.0
"""Seconds that the boot stage tries to hand in one report."""
PAUSE = 10.0
QUICK_PAUSE, QUICK = 1.0, 30.0
"""At first the pauses are short, for as many seconds: the network may just be coming up."""
GOAL_STATE_PATIENCE = 60.0
"""Seconds without a readable goal state after which the report goes the way that needs none."""


class Reporter:
    """Reports of one process, one after the other.

    Args:
        agent: whose platform it is.
        clock: monotonic seconds.
        sleep: waits; returns whether the agent is being stopped.
    """

    def __init__(
        self,
        agent: Agent,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], bool] | None = None,
    ) -> None:
        self._agent = agent
        self._clock = clock
        self._sleep = sleep or agent.stopping.wait
        self._first: threading.Thread | None = None
        self._outdated = threading.Event()
        self.owed = Owed(agent)

    @property
    def begun(self) -> bool:
        """Whether the first word was said in this process."""
        return self._first is not None

    def begin(self) -> None:
        """Say that provisioning starts; returns at once."""
        self._first = threading.Thread(target=self._say_starting, name="Report", daemon=True)
        self._first.start()

    def settle(self, budget: float = BUDGET) -> None:
        """Hand in what is owed, after the first word.

        Raises:
            ProtocolError: it was not accepted; it stays owed.
        """
        if self._first is not None:
            self._outdated.set()
            self._first.join()  # the order counts: the platform keeps the last word
        report = self.owed.report
        if report is None:
            return
        try:
            self._send(report["state"], report.get("substatus", ""), report.get("description", ""), budget, self._sleep)
        except ProtocolError as problem:
            self._failed(report["state"], problem)
            raise
        self.owed.settled(self._agent.executor.journal.boot)
        self._agent.log.info(f"Reported {report['state']} to the platform")

    def tell_fingerprint(self) -> None:
        """Tell the platform the fingerprint of the SSH host key; one attempt, as nobody waits for it.

        Raises:
            ProtocolError: it was not taken.
        """
        fingerprint = self.owed.fingerprint
        if fingerprint:
            self.owed.note_fingerprint("")
            self._agent.connect().report_role_properties(fingerprint.replace(":", ""))  # the platform's way to write it

    def to_pool(self, result: str, vm_id: str, reason: str = "") -> None:
        """Leave the outcome where the host finds it without a network; never raises."""
        fields = {"reason": reason} if reason else {}
        fields.update(agent=f"WALinuxAgent/{self._agent.version}", pps_type="None", vm_id=vm_id.lower())
        fields["timestamp"] = timestamp()
        if reason:
            fields["documentation_url"] = DOCUMENTATION
        try:
            report_to_pool(self._agent.paths, result, fields)
        except (OSError, ValueError) as problem:
            self._agent.log.warning(f"The host's key-value pool cannot be written: {problem}")

    def _say_starting(self) -> None:
        try:
            self._send(NOT_READY, PROVISIONING, STARTING, BUDGET, self._wait_for_better)
        except ProtocolError as problem:
            self._failed(NOT_READY, problem)
        except Exception as problem:
            self._agent.log.warning(f"{NOT_READY} could not be reported: {type(problem).__name__}: {problem}")

    def _wait_for_better(self, seconds: float) -> bool:
        """Wait; return whether there is something better to say by now."""
        return self._outdated.wait(seconds) or self._agent.stopping.is_set()

    def _send(
        self, state: str, substatus: str, description: str, budget: float, sleep: Callable[[float], bool]
    ) -> None:
        platform = self._agent.connect()
        begun = self._clock()
        unread_since: float | None = None
        while True:
            try:
                platform.report_health(state, substatus, description)
                return
            except ProtocolError as problem:
                reason = problem
            try:
                platform.prefetch()  # the machine may have got another container; and is the platform there at all?
                unread_since = None
            except ProtocolError:
                unread_since = self._clock() if unread_since is None else unread_since
            pause = QUICK_PAUSE if self._clock() - begun < QUICK else PAUSE
            late = self._clock() - begun + pause > budget
            unreadable = unread_since is not None and self._clock() - unread_since >= GOAL_STATE_PATIENCE
            if (unreadable or late) and platform.endpoint is not None:
                self._agent.log.warning(f"{state} is reported without a goal state: {reason}")
                platform.report_provisioning_health(state, substatus, description)
                return
            if late or sleep(pause):
                raise reason

    def _failed(self, state: str, problem: Exception) -> None:
        message = f"{state} was not accepted by the platform: {problem}"
        self._agent.log.error(message)
        self._agent.events.add("ReportStatus", success=False, message=message, logged=True)
