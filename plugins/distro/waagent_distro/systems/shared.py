"""Implementations that several distributions share by importing them; none is more special than another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import hookimpl

if TYPE_CHECKING:
    from waagent import Agent


@hookimpl
def binary_directory(agent: Agent) -> str:
    """``/usr/bin``: there is no other directory for programs, or it is a link to this one."""
    return agent.paths.at("/usr/bin")


@hookimpl
def configure_sshd(agent: Agent, password_authentication: bool | None, client_alive_interval: int | None) -> bool:
    """Write a drop-in only: the main file belongs to the package, or is a link into a read-only system."""
    from waagent_distro.steps import sshd

    return sshd.configure(agent, password_authentication, client_alive_interval, edit_main=False)
