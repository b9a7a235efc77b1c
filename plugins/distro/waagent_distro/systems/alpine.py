"""``alpine``: Alpine Linux, and Alpaquita through ``ID_LIKE`` (spec/distro.md §4.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import hookimpl
from waagent_distro.systems.shared import configure_sshd

if TYPE_CHECKING:
    from waagent import Agent

__all__ = ["configure_sshd", "create_user"]


@hookimpl
def create_user(agent: Agent, name: str, comment: str | None, expiration: str | None) -> bool | None:
    """Use busybox's ``adduser`` where the package ``shadow`` is not installed; it knows no last day."""
    from waagent import AgentError
    from waagent_distro.steps import accounts

    if agent.run(("useradd", "--help"), timeout=10).returncode != 127 or accounts.find_user(agent, name) is not None:
        return None
    accounts.check_name(name)
    if expiration is not None:
        raise AgentError("an account that expires needs useradd: install the package shadow")
    agent.run(("adduser", "-D", "-g", (comment or "").replace(":", " "), name), timeout=60, check=True)
    return True
