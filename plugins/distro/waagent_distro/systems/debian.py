"""``debian``: Debian, and with it Ubuntu, Kali, Devuan and all that name it in ``ID_LIKE`` (spec/distro.md §4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import hookimpl

if TYPE_CHECKING:
    from waagent import Agent


@hookimpl
def service_name() -> str:
    """``walinuxagent``: the name of Debian's and Ubuntu's packages, which administrators' drop-ins go by."""
    return "walinuxagent"


@hookimpl
def restart_ssh(agent: Agent) -> bool:
    """Reload it without waiting for what it is ordered after: that may be the agent itself at boot."""
    from waagent_distro.steps import sshd

    return sshd.restart(agent, ("--job-mode=ignore-dependencies",))


@hookimpl
def move_persistent_net_rules() -> bool:
    """Nothing: Debian's rules are none of those that pin names to another machine's addresses."""
    return True


@hookimpl
def restore_persistent_net_rules() -> bool:
    """Nothing was moved."""
    return True
