"""What the parts of the engine share: places, records, the agent, and what goes on at this moment."""

from __future__ import annotations

import binascii
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from waagent import ExtensionsGoalState, GoalStateReport, HandlerReport, Log, ProtocolError
from waagent_extensions.commands import Runner, Running
from waagent_extensions.history import NAME as HISTORY
from waagent_extensions.history import History
from waagent_extensions.layout import HandlerDir, Layout
from waagent_extensions.ledger import Ledger
from waagent_extensions.order import Outcome
from waagent_extensions.watch import Wake

if TYPE_CHECKING:
    from waagent import Agent

WIRE_ADDRESS = "168.63.129.16"
STATUS_EVERY, STATUS_FORM_EVERY = 1800.0, 86400.0
"""Seconds between two lines with the same text about a status file (extensions §8)."""
_STATE = "extensions"
_WARNING = 2
_TEXT = 2500


@attrs.frozen(eq=False, repr=False)
class Activity:
    """What is being done for a unit besides a command.

    Attributes:
        unit: full name.
        words: for people.
        since: seconds since the epoch.
    """

    unit: str
    words: str
    since: float


@attrs.frozen(eq=False, repr=False)
class View:
    """What the status lane may know of the engine's work: replaced as a whole, never changed.

    Attributes:
        goal_state: the newest one; ``None`` before the first.
        processed: work on it has begun: what is recorded as failed belongs to it.
        versions: chosen version by handler name.
        outcomes: by full name of the unit.
        aggregate: how the last goal state ended.
        unknown: handlers that cannot be recorded on disk, by name, as they are reported.
        waiting: by full name, what a unit waits for.
        from_disk: the goal state cannot be understood: report what is on disk (extensions §11.3).
    """

    goal_state: ExtensionsGoalState | None = None
    processed: bool = False
    versions: Mapping[str, str] = attrs.field(factory=dict)
    outcomes: Mapping[str, Outcome] = attrs.field(factory=dict)
    aggregate: GoalStateReport | None = None
    unknown: Mapping[str, tuple[HandlerReport, ...]] = attrs.field(factory=dict)
    waiting: Mapping[str, str] = attrs.field(factory=dict)
    running: Running | None = None
    running_unit: str = ""
    activity: Activity | None = None
    busy: bool = False
    from_disk: bool = False


class Site:
    """The engine's surroundings.

    Args:
        agent: the worker's agent.
        boot_id: of this boot; what lies in the runtime directory from another one does not count.
    """

    def __init__(self, agent: Agent, boot_id: str = "") -> None:
        self.agent = agent
        self.layout = Layout(agent.paths.lib_dir, agent.paths.extension_log_dir)
        self.runner = Runner(agent.paths.run("commands"), agent.log, boot_id)
        self.ledger = Ledger(agent.paths.run("extensions.jsonl"), boot_id)
        self.history = History(agent.paths.lib("state", HISTORY))
        self.wake = Wake()
        self.stopping = False
        self.newer = threading.Event()
        """A newer goal state waits: downloads for the present one are given up."""
        self._lock = threading.Lock()
        self._view = View()
        self._status_events: dict[str, float] = {}
        self._certificates_asked = ""

    @property
    def log(self) -> Log:
        """The agent's log."""
        return self.agent.log

    @property
    def view(self) -> View:
        """What the status lane may know."""
        return self._view

    def show(self, **changes: Any) -> None:
        """Change the view, and have status reported soon."""
        with self._lock:
            self._view = attrs.evolve(self._view, **changes)
        self.agent.request_status()

    def doing(self, unit: str, words: str) -> None:
        """Show what is being done for a unit."""
        self.show(activity=Activity(unit, words, time.time()))

    def leave(self) -> bool:
        """Return whether the engine has to go; commands run on."""
        return self.stopping or self.agent.stopping.is_set()

    @property
    def wire_address(self) -> str:
        """The WireServer's address, for handlers."""
        platform = self.agent.platform
        endpoint = platform.endpoint if platform is not None else None
        return str(endpoint or WIRE_ADDRESS)

    def event(
        self,
        operation: str,
        handler: HandlerDir,
        message: str,
        *,
        name: str | None = None,
        success: bool = True,
        started: float | None = None,
        logged: bool = False,
    ) -> None:
        """Send an event about *handler*; *started* (monotonic seconds) gives its duration.

        With *logged* a failure stands in the log already.
        """
        duration = 0 if started is None else int((time.monotonic() - started) * 1000)
        self.agent.events.add(
            operation,
            name=name or handler.name,
            version=handler.version,
            success=success,
            message=message,
            duration_ms=duration,
            logged=logged,
        )

    def status_problem(self, handler: HandlerDir, full_name: str, text: str, of_form: bool) -> None:
        """Say that a status file is not as it should be: each text at most every half an hour, or once a day.

        Args:
            handler: whose.
            full_name: of the extension.
            text: what is wrong.
            of_form: its form or its size is: that is said once a day.
        """
        mark = binascii.crc32(text.encode("utf-8", "replace"))
        period = STATUS_FORM_EVERY if of_form else STATUS_EVERY
        self.log.periodic(period, f"status of {full_name} {mark}", _WARNING, f"[{full_name}] {text[:_TEXT]}")
        now = time.monotonic()
        if now - self._status_events.get(full_name, -STATUS_EVERY) < STATUS_EVERY:
            return
        if len(self._status_events) > 1000:
            self._status_events.clear()
        self._status_events[full_name] = now
        self.event("StatusProcessing", handler, text[:_TEXT], name=full_name, success=False, logged=True)

    def certificates_again(self, pass_id: str) -> bool:
        """Have the platform send its certificates again, once in a goal state; return whether it was asked.

        Args:
            pass_id: of the pass over the goal state.
        """
        platform = self.agent.platform
        if platform is None or self._certificates_asked == pass_id:
            return False
        self._certificates_asked = pass_id
        try:
            platform.update_goal_state(force=True)
        except ProtocolError as problem:
            self.log.warning(f"The certificates cannot be fetched again: {problem}")
        return True

    def failed_disables(self, handler: str) -> int:
        """Return in how many goal states in a row disabling *handler* failed."""
        return failed_disables(self.agent).get(handler, 0)

    def count_disable(self, handler: str, failed: bool) -> None:
        """Note that disabling *handler* failed once more, or that it needs no counting any more."""
        counts = failed_disables(self.agent)
        if failed:
            counts[handler] = counts.get(handler, 0) + 1
        elif counts.pop(handler, None) is None:
            return
        self.agent.state.save(_STATE, {"failed_disables": counts})


def failed_disables(agent: Agent) -> dict[str, int]:
    """Return in how many goal states in a row disabling failed, by handler."""
    saved = agent.state.load(_STATE, {})
    counts = saved.get("failed_disables") if isinstance(saved, dict) else None
    if not isinstance(counts, dict):
        return {}
    return {str(name): count for name, count in counts.items() if isinstance(count, int)}
