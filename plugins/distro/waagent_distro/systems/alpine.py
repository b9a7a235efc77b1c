"""``alpine``: Alpine Linux, and Alpaquita through ``ID_LIKE`` (spec/distro.md §4.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import hookimpl
from waagent_distro.systems.shared import configure_sshd

if TYPE_CHECKING:
    from waagent import Agent

__all__ = ["configure_sshd", "create_user", "delete_user"]


@hookimpl
def create_user(agent: Agent, name: str, comment: str | None, expiration: str | None) -> bool | None:
    """Use busybox's ``adduser`` where the package ``shadow`` is not installed; it knows no last day."""
    from waagent import AgentError
    from waagent_distro.steps import accounts

    if _has(agent, "useradd") or accounts.find_user(agent, name) is not None:
        return None
    accounts.check_name(name)
    if expiration is not None:
        raise AgentError("an account that expires needs useradd: install the package shadow")
    agent.run(("adduser", "-D", "-g", (comment or "").replace(":", " "), name), timeout=60, check=True)
    return True


@hookimpl
def delete_user(agent: Agent, name: str) -> bool | None:
    """Use busybox's ``deluser`` where the package ``shadow`` is not installed."""
    from waagent import AgentError
    from waagent_distro.steps import accounts, sudoers

    if _has(agent, "userdel"):
        return None
    if accounts.is_system_user(agent, name):
        raise AgentError(f"User {name} is a system user, will not delete it.")
    if accounts.find_user(agent, name) is not None:
        agent.run(("deluser", "--remove-home", name), timeout=80, check=True)
    return sudoers.revoke(agent, name)


def _has(agent: Agent, program: str) -> bool:
    return agent.run((program, "--help"), timeout=10).returncode != 127
