"""The check of ``waagent doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import HealthCheck
from waagent_provisioning.progress import Owed, begun, read_marker

if TYPE_CHECKING:
    from waagent import Agent

_ID = "provisioning.state"


def check(agent: Agent) -> HealthCheck:
    """Tell whether the machine is provisioned, and whether the platform knows."""
    marker = read_marker(agent)
    owed = Owed(agent)
    if marker is None:
        reason = owed.failure
        if reason:
            remedy = "mend the cause, then restart the service or run: waagent provision"
            return HealthCheck(_ID, "failed", f"provisioning failed: {reason}", remedy)
        if begun(agent):
            return HealthCheck(_ID, "warning", "provisioning was begun and is not through", "see the log")
        return HealthCheck(_ID, "warning", "this machine is not provisioned", "start the service")
    report = owed.report
    if report is not None:
        detail = f"provisioned, and the platform has not accepted the report {report['state']} yet"
        return HealthCheck(_ID, "warning", detail, "look whether the platform can be reached; the agent tries again")
    return HealthCheck(_ID, "ok", f"provisioned as {marker or 'a machine without an id'}")
