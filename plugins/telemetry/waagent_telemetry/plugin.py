"""The telemetry plugin: what happens to the agent and to extensions reaches the platform (wireserver §19)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import HealthCheck, Option, Periodic, StatusReport, hookimpl

if TYPE_CHECKING:
    from waagent import Agent, Event, GoalState
    from waagent_telemetry.collector import Collector

ENABLED = "Telemetry.Enabled"
EXTENSION_PERIOD = "Debug.EtpCollectionPeriod"
LOOK_PERIOD = 60.0
"""Seconds between two looks for event files of handlers."""
ERRORS_PERIOD = 1800.0


class TelemetryPlugin:
    """The hooks. What they need is loaded when the worker starts."""

    def __init__(self) -> None:
        self._collector: Collector | None = None

    @hookimpl
    def declare_options(self) -> Option:
        """Name the switch for those who want the plugin to delete what handlers leave, and send nothing."""
        return Option(
            ENABLED, "bool", True, "send events of the agent and of extensions to the platform; n: delete them"
        )

    @hookimpl
    def on_boot(self, agent: Agent) -> None:
        """Keep what happens in the boot stage; the worker sends it."""
        if not agent.config.boolean(ENABLED):
            return
        from waagent_telemetry import eventfile
        from waagent_telemetry.queue import Queue

        queue = Queue(agent.paths.lib("events"), agent.log)

        def keep(event: Event) -> None:
            content = eventfile.from_event(event, agent.version)
            if content is not None:
                queue.put(content)

        agent.events.subscribe(keep)

    @hookimpl
    def on_start(self, agent: Agent) -> None:
        """Begin to keep events and to send them."""
        if agent.platform is None:
            return
        from waagent_telemetry import collector

        self._collector = collector.make(agent)
        if agent.config.boolean(ENABLED):
            agent.events.subscribe(self._collector.add)

    @hookimpl
    def on_goal_state(self, agent: Agent, goal_state: GoalState) -> None:
        """Send what had to wait for the first goal state."""
        self._look(agent)

    @hookimpl
    def declare_periodic(self, agent: Agent) -> list[Periodic]:
        """Collect what handlers leave, and report losses."""
        if not agent.config.boolean(ENABLED):
            return [Periodic("discard", EXTENSION_PERIOD, self._discard)]
        return [
            Periodic("event-files", LOOK_PERIOD, self._look),
            Periodic("extension-events", EXTENSION_PERIOD, self._sweep),
            Periodic("errors", ERRORS_PERIOD, self._report_errors),
        ]

    @hookimpl
    def report_status(self, agent: Agent) -> StatusReport | None:
        """Show for people how many events wait, went and were lost."""
        if self._collector is None:
            return None
        return StatusReport(details={"enabled": agent.config.boolean(ENABLED), **self._collector.details()})

    @hookimpl
    def check_health(self, agent: Agent) -> HealthCheck:
        """Look whether events pile up."""
        if not agent.config.boolean(ENABLED):
            return HealthCheck("telemetry.queue", "ok", f"telemetry is off ({agent.config.origin(ENABLED)})")
        import os

        from waagent_telemetry.queue import LIMIT, SUFFIX

        directory = agent.paths.lib("events")
        try:
            count = sum(name.endswith(SUFFIX) for name in os.listdir(directory))
        except FileNotFoundError:
            count = 0
        except OSError as problem:
            return HealthCheck("telemetry.queue", "warning", f"{directory}: {problem.strerror}", "run as root")
        if count >= LIMIT - 1:
            return HealthCheck(
                "telemetry.queue", "warning", f"{count} events wait: the platform does not take them",
                "see the line 'Telemetry is not taken' in the agent's log",
            )  # fmt: skip
        return HealthCheck("telemetry.queue", "ok", f"{count} events wait to be sent")

    def _look(self, agent: Agent) -> None:
        if self._collector is not None and agent.config.boolean(ENABLED):
            self._collector.look()

    def _sweep(self, agent: Agent) -> None:
        if self._collector is not None:
            self._collector.sweep()

    def _discard(self, agent: Agent) -> None:
        if self._collector is not None:
            self._collector.discard()

    def _report_errors(self, agent: Agent) -> None:
        if self._collector is not None:
            self._collector.report_errors()


plugin = TelemetryPlugin()
