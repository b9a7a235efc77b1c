"""The plugin that starts handlers' commands in units of systemd; elsewhere it has nothing to do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waagent import HealthCheck, Periodic, StatusReport, hookimpl

if TYPE_CHECKING:
    from waagent import Agent, CommandResult, HandlerCommand, Launch, Plan
    from waagent_scopes.governor import Governor


class ScopesPlugin:
    """The hooks; what they need is loaded with the first command."""

    def __init__(self) -> None:
        self._governor: Governor | None = None

    @hookimpl
    def on_boot(self, agent: Agent) -> Plan | None:
        """Remove unit files that agents of old wrote."""
        from waagent_scopes import leftovers

        return leftovers.plan(agent)

    @hookimpl
    def on_start(self, agent: Agent) -> None:
        """Take back limits that nobody wants any more."""
        if os.path.isdir(agent.paths.at("/run/systemd/system")):
            self._made(agent).begin()

    @hookimpl
    def launch(self, agent: Agent, command: HandlerCommand) -> Launch | None:
        """Start the command in a unit of its own, in its handler's slice."""
        return self._made(agent).launch(command)

    @hookimpl
    def after_handler_command(self, agent: Agent, command: HandlerCommand, result: CommandResult) -> None:
        """Limit services after enable, nothing after uninstall; go without units when they do not work here."""
        self._made(agent).ended(command, result)

    @hookimpl
    def declare_periodic(self, agent: Agent) -> Periodic | None:
        """Look whether the agent's own quota does harm."""
        if not os.path.isdir(agent.paths.at("/run/systemd/system")):
            return None
        return Periodic("own-quota", "Debug.CgroupCheckPeriod", lambda agent: self._made(agent).attend())

    @hookimpl
    def report_status(self, agent: Agent) -> StatusReport | None:
        """Show for people how commands start and what is limited."""
        governor = self._governor
        if governor is None:
            return None
        return StatusReport(details={"launcher": governor.mode, "off": governor.off, "limits": governor.limited})

    @hookimpl
    def check_health(self, agent: Agent) -> HealthCheck:
        """Say how commands would be started."""
        from waagent_scopes import systemd
        from waagent_scopes.governor import LAUNCHER, PROCESS

        wanted = agent.config.text(LAUNCHER)
        if wanted == PROCESS:
            text = f"commands of handlers are plain processes ({agent.config.origin(LAUNCHER)})"
        elif systemd.find(agent) is None:
            text = "systemd does not run here: commands of handlers are plain processes"
        else:
            text = f"each command of a handler starts in a {wanted} of its own"
        return HealthCheck("scopes.launcher", "ok", text)

    def _made(self, agent: Agent) -> Governor:
        if self._governor is None:
            from waagent_scopes.governor import Governor

            self._governor = Governor(agent)
        return self._governor


plugin = ScopesPlugin()
