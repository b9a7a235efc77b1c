"""``devuan``: Debian without systemd (spec/distro.md §4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import hookimpl

if TYPE_CHECKING:
    from waagent import Agent


@hookimpl
def restart_ssh(agent: Agent) -> bool:
    """Reload it through whatever init system was chosen at installation."""
    from waagent_distro.steps import sshd

    return sshd.restart(agent)
