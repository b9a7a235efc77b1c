"""``fedora``: Fedora itself; those that name it in ``ID_LIKE`` go their own ways (spec/distro.md §4.4, ruling 22)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import hookimpl

if TYPE_CHECKING:
    from waagent import Agent


@hookimpl
def configure_sshd(
    agent: Agent, password_authentication: bool | None, client_alive_interval: int | None
) -> bool | None:
    """Write a drop-in only, on Fedora itself: the main file belongs to the package."""
    if agent.distro.id != "fedora":
        return None
    from waagent_distro.systems import shared

    return shared.configure_sshd(agent, password_authentication, client_alive_interval)


@hookimpl
def supports_remote_access(agent: Agent) -> bool | None:
    """No, on Fedora itself."""
    return False if agent.distro.id == "fedora" else None
