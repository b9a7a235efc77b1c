"""Tell people when a goal state is through, and whoever wants to know when an extension changes (extensions §12.4)."""

from __future__ import annotations

import os
from collections.abc import Callable

from waagent import ExtensionsGoalState, HandlerReport, Log, write_atomic

TERMINAL = frozenset({"success", "error", "Ready", "NotReady"})
MARK = "initial_goal_state"


class Convergence:
    """Compare each report with the one before.

    Args:
        lib_dir: where the mark of the first converged goal state lies.
        log: gets the summary lines that support tools look for.
        changed: called with (handler, extension or ``None``, status) for every extension whose status changed.
    """

    def __init__(self, lib_dir: str, log: Log, changed: Callable[[str, str | None, str], None]) -> None:
        self._lib_dir = lib_dir
        self._log = log
        self._changed = changed
        self._last: list[tuple[str, str]] | None = None
        self._statuses: dict[tuple[str, str | None], str] = {}
        self._converged = ""

    def look(self, goal_state: ExtensionsGoalState, handlers: tuple[HandlerReport, ...], through: bool) -> None:
        """Take note of a report.

        Args:
            goal_state: the one it is for.
            handlers: its items.
            through: every unit of the goal state has an outcome.
        """
        summary = sorted((_name(item), _status(item)) for item in handlers)
        self._tell_changes(handlers)
        if summary != self._last:
            self._last = summary
            if summary:
                self._log.info(f"Extension status: {_text(summary)}")
        if not through or self._converged == goal_state.id:
            return
        if all(status in TERMINAL for _, status in summary):
            self._converged = goal_state.id
            text = _text(summary)
            self._log.info(f"All extensions in the goal state have reached a terminal state: {text}")
            self._mark(f"{goal_state.id} {text}\n")

    def _tell_changes(self, handlers: tuple[HandlerReport, ...]) -> None:
        present = {}
        for item in handlers:
            if item.extension is None:
                continue
            key = (item.name, item.extension.name if item.multi_config else None)
            present[key] = item.extension.status
            if self._statuses.get(key) != item.extension.status:
                self._changed(item.name, key[1], item.extension.status)
        self._statuses = present

    def _mark(self, text: str) -> None:
        path = os.path.join(self._lib_dir, MARK)
        if os.path.exists(path):
            return
        try:
            write_atomic(path, text, 0o644)
        except OSError as problem:
            self._log.warning(f"{path} cannot be written: {problem}")


def _name(item: HandlerReport) -> str:
    return f"{item.name}.{item.extension.name}" if item.multi_config and item.extension is not None else item.name


def _status(item: HandlerReport) -> str:
    return item.extension.status if item.extension is not None else item.status


def _text(summary: list[tuple[str, str]]) -> str:
    return "[" + ", ".join(f"('{name}', '{status}')" for name, status in summary) + "]"
