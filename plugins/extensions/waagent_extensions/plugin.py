"""The extensions plugin: what the platform wants installed and enabled becomes so (architecture §9)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from waagent import GoalState, HealthCheck, LogSource, Option, Periodic, Plan, StatusReport, Step, hookimpl

if TYPE_CHECKING:
    from waagent import Agent, Command
    from waagent_extensions.convergence import Convergence
    from waagent_extensions.engine import Engine
    from waagent_extensions.report import Reporter

SWEEP_PERIOD = 300.0
"""Seconds between two looks at output files that commands left open behind them."""
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@attrs.frozen(eq=False, repr=False)
class _Parts:
    engine: Engine
    reporter: Reporter
    convergence: Convergence


class ExtensionsPlugin:
    """The hooks. Everything else is loaded when the worker starts, not when the plugin is listed."""

    def __init__(self) -> None:
        self._parts: _Parts | None = None

    @hookimpl
    def on_start(self, agent: Agent) -> None:
        """Get ready, and look after the commands that an earlier worker left running."""
        engine = self._assembled(agent).engine
        agent.lane("extensions").submit(engine.attend, name="commands left running")

    @hookimpl
    def on_stop(self, agent: Agent) -> None:
        """Leave at once; commands run on and are taken up by the next worker."""
        if self._parts is not None:
            self._parts.engine.stop()

    @hookimpl
    def on_goal_state(self, agent: Agent, goal_state: GoalState) -> None:
        """Hand the extension part to the engine's lane."""
        self._assembled(agent).engine.offer(goal_state.extensions)

    @hookimpl
    def report_status(self, agent: Agent) -> StatusReport | None:
        """Report handlers, extensions and how the goal state ended."""
        if self._parts is None:
            return None
        report = self._parts.reporter.build()
        view = self._parts.engine.site.view
        if view.goal_state is not None and view.processed:
            self._parts.convergence.look(view.goal_state, report.handlers, through=not view.busy)
        return report

    @hookimpl
    def on_vm_identity_change(self, agent: Agent, old: str, new: str) -> Plan:
        """Forget the sequence numbers that another machine left in the image: they would suppress this one's work."""
        from waagent_extensions import cleanup
        from waagent_extensions.layout import Layout

        layout = Layout(agent.paths.lib_dir, agent.paths.extension_log_dir)

        def missing(facts: Mapping[str, Any]) -> list[Step]:
            if not facts["files"]:
                return []
            summary = "delete status, settings and sequence numbers that extensions kept of another machine"
            return [Step("forget", summary, lambda: cleanup.forget_instance(layout), gives={"files": []})]

        return Plan(f"extensions of {old}", lambda: {"files": cleanup.instance_files(layout)}, missing)

    @hookimpl
    def declare_options(self) -> Option:
        """Let administrators name directories that look like handlers and are to stay."""
        text = "names (globs, commas between) of directories in Lib.Dir that clean-up leaves alone"
        return Option("Extensions.KeepDirectories", "text", None, text)

    @hookimpl
    def declare_commands(self) -> list[Command]:
        """Bring ``waagent extensions list``, ``show`` and ``plan``."""
        from waagent_extensions.commandline import COMMANDS

        return list(COMMANDS)

    @hookimpl
    def check_health(self, agent: Agent) -> list[HealthCheck]:
        """Look for what keeps extensions from running at all, and for handlers that are not ready."""
        from waagent_extensions import health

        return health.checks(agent.paths.lib_dir, agent.paths.extension_log_dir)

    @hookimpl
    def declare_periodic(self, agent: Agent) -> list[Periodic]:
        """Keep the output of detached processes small."""
        return [Periodic("extensions-output", SWEEP_PERIOD, self._sweep)]

    @hookimpl
    def declare_log_files(self, agent: Agent) -> list[LogSource]:
        """Name the files that tell how extensions went."""
        logs, lib = agent.paths.extension_log_dir, agent.paths.lib_dir
        return [
            LogSource("file", os.path.join(logs, "*", "CommandExecution*.log"), 20),
            LogSource("file", os.path.join(logs, "*", "*.log"), 60),
            LogSource("file", os.path.join(lib, "*", "config", "HandlerState"), 30),
            LogSource("file", os.path.join(lib, "*", "config", "*.HandlerState"), 30),
            LogSource("file", os.path.join(lib, "*", "config", "HandlerStatus"), 30),
            LogSource("file", os.path.join(lib, "*", "status", "*.status"), 40),
            LogSource("file", os.path.join(lib, "*", "HandlerEnvironment.json"), 50),
            LogSource("file", os.path.join(lib, "initial_goal_state"), 50),
            LogSource("listing", lib, 30),
            LogSource("listing", logs, 40),
        ]

    def _sweep(self, agent: Agent) -> None:
        if self._parts is not None:
            self._parts.engine.site.runner.sweep()

    def _assembled(self, agent: Agent) -> _Parts:
        if self._parts is None:
            from waagent_extensions.convergence import Convergence
            from waagent_extensions.engine import Engine
            from waagent_extensions.report import Reporter
            from waagent_extensions.site import Site

            site = Site(agent, _boot_id())
            engine = Engine(site)

            def changed(handler: str, extension: str | None, status: str) -> None:
                # Hooks have a lane of their own: this is called while status is being collected.
                agent.lane("hooks").submit(
                    lambda: agent.hooks.on_extension_status(agent, handler, extension, status),
                    name="on_extension_status",
                )

            self._parts = _Parts(
                engine, Reporter(site, engine.reader), Convergence(agent.paths.lib_dir, agent.log, changed)
            )
        return self._parts


def _boot_id() -> str:
    try:
        with open(_BOOT_ID, encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return ""


plugin = ExtensionsPlugin()
