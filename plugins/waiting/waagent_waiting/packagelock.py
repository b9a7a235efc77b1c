"""Wait until nobody holds the package manager's lock (ruling 37)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from waagent import AgentError

if TYPE_CHECKING:
    from waagent import Agent

LONGEST = 3600
"""Seconds; the hook that waits has a minute more."""
FIRST_LOOK, LAST_LOOK = 0.2, 2.0
"""Seconds between two looks, growing: nothing tells of a lock that is given back but taking it, which would be in the
way of the next package manager."""


def wait(agent: Agent, timeout: int, show: Callable[[str], None]) -> None:
    """Wait for the lock at most *timeout* seconds; whatever comes of it, the command runs.

    Args:
        agent: the worker's agent.
        timeout: seconds.
        show: told who holds the lock whenever that changes.
    """
    began = time.monotonic()
    deadline = began + min(timeout, LONGEST)
    pause = FIRST_LOOK
    shown = ""
    while not agent.stopping.is_set():
        holder = _holder(agent)
        now = time.monotonic()
        if not holder:
            if shown:
                agent.log.info(f"The package manager is free after {now - began:.1f} s")
            return
        if now >= deadline:
            agent.log.warning(
                f"The package manager is still at work after {now - began:.0f} s ({holder}); the command runs all the "
                f"same"
            )
            return
        if holder != shown:
            if not shown:
                agent.log.info(f"Waiting for the package manager: {holder}")
            shown = holder
            show(holder)
        agent.stopping.wait(min(pause, deadline - now))
        pause = min(pause * 1.5, LAST_LOOK)


def _holder(agent: Agent) -> str:
    try:
        return str(agent.distro.read_package_lock() or "")
    except AgentError as problem:
        agent.log.periodic(86400, "package lock", 2, f"Nobody knows whether the package manager is at work: {problem}")
        return ""
