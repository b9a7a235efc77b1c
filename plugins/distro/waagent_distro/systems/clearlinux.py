"""``clear-linux-os``: a stateless system, whose ``/etc`` may be empty (spec/distro.md §4.6)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waagent import hookimpl
from waagent_distro.systems.shared import binary_directory, configure_sshd

if TYPE_CHECKING:
    from waagent import Agent

__all__ = ["binary_directory", "configuration_path", "configure_sshd", "lock_root_password"]


@hookimpl
def configuration_path(agent: Agent) -> str:
    """The administrator's file where there is one, else the defaults of the package."""
    own = agent.paths.at("/etc/waagent.conf")
    return own if os.path.exists(own) else agent.paths.at("/usr/share/defaults/waagent/waagent.conf")


@hookimpl
def lock_root_password(agent: Agent) -> bool:
    """Make the password file where there is none: then root has no password at all."""
    from waagent_distro.steps import accounts

    return accounts.lock_root_password(agent, create=True)
