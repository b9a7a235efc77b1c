"""The plugin that waits before extensions run. Both waits are off unless the configuration asks for them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from waagent import StatusReport, hookimpl

if TYPE_CHECKING:
    from waagent import Agent, HandlerCommand

EXTENSIONS = "Extensions.Enabled"
CLOUD_INIT = "Extensions.WaitForCloudInit"
CLOUD_INIT_TIMEOUT = "Extensions.WaitForCloudInitTimeout"
PACKAGE_LOCK = "Extensions.WaitForPackageLock"
INSTALLING = ("install", "enable")
"""The commands that use the package manager."""
_STOP_SECONDS = 7.0


class WaitingPlugin:
    """The hooks."""

    def __init__(self) -> None:
        self._asked = False
        self._waiting = ""
        self._idle = threading.Event()
        self._idle.set()

    @hookimpl
    def before_extensions(self, agent: Agent) -> None:
        """Wait for cloud-init, once in the life of this process; not where no extension runs anyway."""
        if self._asked or not agent.config.boolean(CLOUD_INIT) or not agent.config.boolean(EXTENSIONS):
            return
        self._asked = True
        from waagent_waiting import cloudinit

        self._show(agent, "Extensions wait for cloud-init to complete")
        try:
            cloudinit.wait(agent, agent.config.integer(CLOUD_INIT_TIMEOUT))
        finally:
            self._show(agent, "")

    @hookimpl
    def before_handler_command(self, agent: Agent, command: HandlerCommand) -> None:
        """Wait for the package manager before a command that is likely to use it."""
        timeout = agent.config.integer(PACKAGE_LOCK)
        if timeout <= 0 or command.operation not in INSTALLING:
            return
        from waagent_waiting import packagelock

        what = f"{command.operation} of {command.handler_name} waits for the package manager"
        try:
            packagelock.wait(agent, timeout, lambda holder: self._show(agent, f"{what}: {holder}"))
        finally:
            self._show(agent, "")

    @hookimpl
    def on_stop(self, agent: Agent) -> None:
        """Let a wait end what it started before the process does."""
        self._idle.wait(_STOP_SECONDS)

    @hookimpl
    def report_status(self, agent: Agent) -> StatusReport | None:
        """Say what is waited for."""
        waiting = self._waiting
        return StatusReport(problems=(waiting,), details={"waiting": waiting}) if waiting else None

    def _show(self, agent: Agent, waiting: str) -> None:
        if waiting != self._waiting:
            self._waiting = waiting
            self._idle.clear() if waiting else self._idle.set()
            agent.request_status()


plugin = WaitingPlugin()
