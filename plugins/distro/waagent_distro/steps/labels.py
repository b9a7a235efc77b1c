"""Security labels of SELinux."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waagent import AgentError
from waagent_distro.steps import textfiles

if TYPE_CHECKING:
    from waagent import Agent

_ENFORCE = "/sys/fs/selinux/enforce"


def label(agent: Agent, path: str) -> bool:
    """Give *path* the label of its place; nothing to do where SELinux is off.

    Raises:
        AgentError: SELinux is enforcing and the label cannot be set.
    """
    enforce = agent.paths.at(_ENFORCE)
    if not os.path.exists(enforce):
        return True
    done = agent.run(("restorecon", path))
    if not done.ok and textfiles.first_line(enforce) == "1":
        raise AgentError(f"the label of {path} cannot be set: {done.describe()}")
    return True
