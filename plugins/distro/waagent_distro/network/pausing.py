"""A DHCP client stopped while the agent asks for itself, and started again even if the agent was killed meanwhile."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from waagent import Agent


def is_paused(agent: Agent, service: str) -> bool:
    """Return whether *service* was stopped here and not started again, by this process or one before it."""
    return os.path.exists(_mark(agent, service))


def pause(agent: Agent, service: str) -> bool:
    """Stop *service*, once it is noted that it is to be started again.

    Raises:
        AgentError: it does not stop.
    """
    from waagent import ensure_dir, write_atomic

    ensure_dir(agent.paths.run_dir, 0o755)
    write_atomic(_mark(agent, service), "", durable=False)
    try:
        return bool(agent.distro.service_action(service, "stop"))
    except BaseException:
        os.unlink(_mark(agent, service))
        raise


def resume(agent: Agent, service: str) -> bool | None:
    """Start *service* again; nothing when it was not stopped here.

    Raises:
        AgentError: it does not start.
    """
    if not is_paused(agent, service):
        return None
    agent.distro.service_action(service, "start")
    os.unlink(_mark(agent, service))
    return True


def _mark(agent: Agent, service: str) -> str:
    return agent.paths.run(f"paused-{service}")
