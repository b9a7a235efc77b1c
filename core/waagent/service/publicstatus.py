"""The status copy that anybody may read: ``/run/waagent/status.json``, 0644, nothing secret (ruling 6)."""

from __future__ import annotations

import json
import os
import time

from waagent.files import ensure_dir, move_aside, write_atomic
from waagent.log import timestamp
from waagent.redaction import redact

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from waagent.agent import Agent
    from waagent.platform.models import StatusReport
    from waagent.pluginlist import PluginInfo
    from waagent.service.goalstates import GoalStates

NAME = "status.json"
SCHEMA = 1
_OLDEST = 30.0
"""Seconds after which the copy is written again although only moments changed in it."""


class PublicStatus:
    """Writes the copy when something in it changed, and now and then for its moments.

    Args:
        agent: the worker's agent.
        goal_states: what is known of the polls.
    """

    def __init__(self, agent: Agent, goal_states: GoalStates) -> None:
        self._agent = agent
        self._goal_states = goal_states
        self._started = timestamp()
        self._written: dict[str, Any] | None = None
        self._details: dict[str, Any] = {}
        self._details_text = ""
        self._listing: list[PluginInfo] = []
        self._plugins: list[dict[str, Any]] = []
        self._written_at = 0.0
        self.path = agent.paths.run(NAME)

    def write(
        self,
        parts: list[tuple[str, StatusReport]],
        report: dict[str, Any],
        problems: list[str],
        *,
        disabled: str | None = None,
        is_same: bool = False,
    ) -> None:
        """Write the copy; a directory that refuses it costs a line a day and nothing else.

        Args:
            parts: (plugin, its part of the status).
            report: how the uploads go.
            problems: one line each.
            disabled: why the agent does nothing, ``None`` when it works.
            is_same: the parts are known to be what they were the last time.
        """
        content = self._content(report, problems, disabled)
        if not is_same:
            self._look_at(parts)
        content["details"] = self._details_text
        now = time.monotonic()
        if content == self._written and now - self._written_at < _OLDEST:
            return
        text = redact(_text({**content, "details": self._details, "moments": self._moments(report)})) + "\n"
        try:
            ensure_dir(os.path.dirname(self.path), 0o755)
            if os.path.isdir(self.path) and not os.path.islink(self.path):
                move_aside(self.path)
            write_atomic(self.path, text, 0o644, durable=False)
        except OSError as problem:
            self._agent.log.periodic(86400, "public status", 2, f"{self.path} cannot be written: {problem}")
            return
        self._written, self._written_at = content, now

    def _look_at(self, parts: list[tuple[str, StatusReport]]) -> None:
        details = {plugin: part.details for plugin, part in parts if part.details is not None}
        try:
            text = _text(details)
        except Exception:  # details are whatever a plugin hands out
            details = {plugin: _shown(one) for plugin, one in details.items()}
            text = _text(details)
        # A plugin may go on changing what it handed out: the text is what can be compared with later.
        self._details, self._details_text = details, text

    def _content(self, report: dict[str, Any], problems: list[str], disabled: str | None) -> dict[str, Any]:
        agent, polls = self._agent, self._goal_states
        platform = agent.platform
        goal_state = platform.goal_state if platform is not None else None
        return {
            "schema": SCHEMA,
            "version": agent.version,
            "pid": os.getpid(),
            "started": self._started,
            "disabled": disabled,
            "goal_state": None
            if goal_state is None
            else {
                "id": goal_state.extensions.id,
                "incarnation": goal_state.incarnation,
                "source": goal_state.extensions.source,
                "handlers": len(goal_state.extensions.handlers),
            },
            "poll": {"period": polls.period(), "failures": polls.failures, "error": polls.error},
            "report": {name: value for name, value in report.items() if not name.startswith("last_")},
            "plugins": self._of_plugins(),
            "bans": self._bans(),
            "problems": problems,
        }

    def _moments(self, report: dict[str, Any]) -> dict[str, Any]:
        polls = self._goal_states
        return {
            "written": timestamp(),
            "last_poll": _moment(polls.last_poll),
            "last_successful_poll": _moment(polls.last_success),
            "last_report": _moment(report.get("last_attempt")),
            "last_successful_report": _moment(report.get("last_success")),
            "suppressed_messages": sum(count for _, count in list(self._agent.log.sinks.periodic.values())),
        }

    def _of_plugins(self) -> list[dict[str, Any]]:
        listing = self._agent.plugins.listing() if self._agent.plugins_loaded else []
        if listing == self._listing:  # nearly always the very same
            return self._plugins
        self._listing = listing
        self._plugins = [
            {
                "name": info.name,
                "distribution": info.distribution,
                "version": info.version,
                "state": info.state,
                "reason": info.reason,
                "file": info.file,
                "line": info.line,
                "failures": info.failures,
                "last_error": info.last_error,
            }
            for info in listing
        ]
        return self._plugins

    def _bans(self) -> list[dict[str, Any]]:
        directory = self._agent.paths.lib("agents")
        if not os.path.isdir(directory):
            return []
        from waagent.service.versions import BAN_SECONDS, Bans

        return [
            {
                "version": ban.version,
                "reason": ban.reason,
                "since": timestamp(ban.since),
                "until": timestamp(ban.since + BAN_SECONDS),
                "file": ban.path,
            }
            for ban in Bans(directory).in_force(time.time())
        ]


def _text(content: Any) -> str:
    return json.dumps(content, sort_keys=True, default=str)


def _shown(details: Any) -> Any:
    try:
        _text(details)
    except Exception as problem:
        return f"cannot be shown: {type(problem).__name__}: {problem}"[:200]
    return details


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else timestamp(seconds)
