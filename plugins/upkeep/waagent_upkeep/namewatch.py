"""Seeing that the machine's name changed: the kernel says so (measured.md §1, ruling 19)."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import TYPE_CHECKING

from waagent_upkeep import publishing
from waagent_upkeep.patience import LANE

if TYPE_CHECKING:
    from typing import Protocol

    from waagent import Agent

    class Timer(Protocol):
        """What the loop hands out."""

        def cancel(self) -> None:
            """Never fire."""


KERNEL_FILE = "/proc/sys/kernel/hostname"
"""Polling it for POLLPRI wakes at every change of a host name, in other namespaces too."""

STABLE = 5.0
"""Seconds that a name has to stay: DHCP clients change it back and forth while a machine starts."""
RETRIES = (30.0, 60.0, 120.0)
"""Seconds before the next tries of a name that could not be published; after them it waits for a restart."""
OPERATION = "HostnamePublishing"


class NameWatch:
    """Watches the name and publishes it when it changed. :meth:`look` and the timers belong to the loop's thread.

    Args:
        agent: the worker's agent.
        name: asks the kernel.

    Attributes:
        attempt: how often the present name was tried before.
    """

    def __init__(self, agent: Agent, name: Callable[[], str] = lambda: os.uname().nodename) -> None:
        self.attempt = 0
        self._agent = agent
        self._name = name
        self._descriptor = -1
        self._published = ""
        self._candidate: str | None = None
        self._timer: Timer | None = None
        self._given_up: str | None = None
        self._busy = False

    def begin(self) -> None:
        """Open the kernel's file before the first look, so that no change falls between the two."""
        agent = self._agent
        try:
            self._descriptor = os.open(KERNEL_FILE, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            agent.log.verbose(f"{KERNEL_FILE} is not there: the host name is looked at now and then")
        else:
            # POLLIN is always there on this file and would make the loop spin.
            agent.loop.watch(self._descriptor, select.POLLPRI | select.POLLERR, lambda _bits: self.look())
        try:
            self._published = publishing.baseline(agent, self._name())
        except OSError as problem:
            agent.log.warning(f"The published host name cannot be noted: {problem}")
            self._published = self._name()

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            self._agent.loop.unwatch(descriptor)
            os.close(descriptor)

    def look(self) -> None:
        """Compare the name with the published one; a new one is looked at again when it has had time to settle."""
        name = self._name()
        if self._busy or name == self._candidate:
            return
        self._forget_candidate()
        if name in (self._published, self._given_up) or publishing.is_placeholder(name):
            return
        self._wait_for(name, STABLE, self._settle)

    def _wait_for(self, name: str, seconds: float, then: Callable[[str], None]) -> None:
        self._candidate = name
        self._timer = self._agent.loop.call_later(seconds, lambda: then(name), "host name")

    def _forget_candidate(self) -> None:
        self._candidate = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _settle(self, name: str) -> None:
        self._forget_candidate()
        if self._name() != name:
            self.look()
            return
        self.attempt = 0
        self._submit(name)

    def _again(self, name: str) -> None:
        self._forget_candidate()
        if self._name() == name:
            self.attempt += 1
            self._submit(name)
        else:
            self.look()

    def _submit(self, name: str) -> None:
        agent = self._agent
        if agent.stopping.is_set():
            return
        self._busy = True
        agent.lane(LANE).submit(
            lambda: self._publish(name),
            name=f"host name {name}",
            on_done=lambda published, _problem: self._after(name, bool(published)),
        )

    def _publish(self, name: str) -> bool:
        """Run what plugins want done (in the lane); return whether the name is published now."""
        agent = self._agent
        old = publishing.published(agent) or self._published
        if self.attempt == 0:
            agent.log.info(f"EnvMonitor: Detected hostname change: {old} -> {name}")
        for _plugin, plan in agent.hooks.on_hostname_change(agent, old, name):
            agent.executor.run(plan, stop=agent.stopping)
        return publishing.published(agent) == name

    def _after(self, name: str, published: bool) -> None:
        """Go on, in the loop's thread."""
        agent = self._agent
        self._busy = False
        if published:
            self._published = name
            agent.events.add(OPERATION, message=f"published {name}")
        elif self._name() == name and not agent.stopping.is_set():
            if self.attempt < len(RETRIES):
                self._wait_for(name, RETRIES[self.attempt], self._again)
                return
            self._given_up = name
            agent.events.add(
                OPERATION, success=False, message=f"{name} could not be published after {self.attempt + 1} tries"
            )
        self.look()
