"""Is the resource disk mounted (``waagent doctor``)?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import HealthCheck
from waagent_resourcedisk import finder
from waagent_resourcedisk.system import System

if TYPE_CHECKING:
    from waagent import Agent

_ID = "resourcedisk.mounted"


def check(agent: Agent) -> HealthCheck:
    """Return the answer; no command is run and nothing is mounted."""
    system = System(agent.paths)
    found = finder.survey(system)
    if found.refusal:
        return HealthCheck(_ID, "warning", found.refusal, "look at `waagent resourcedisk`")
    if found.candidate is None:
        return HealthCheck(_ID, "ok", "this VM has no resource disk")
    numbers = set(system.numbers(found.candidate.name))
    for mount in system.mounts():
        if mount.numbers & numbers:
            return HealthCheck(_ID, "ok", f"{found.candidate.device} is mounted at {mount.point}")
    return HealthCheck(
        _ID, "warning", f"{found.candidate.device} is not mounted", "`waagent resourcedisk` says why, `--apply` tries"
    )
