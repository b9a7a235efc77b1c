"""The provisioning plugin: its hooks. Everything else is loaded when there is something to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import Command, GoalState, HealthCheck, LogSource, Plan, ProtocolError, Step, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from waagent import Agent
    from waagent_provisioning.lock import Lock

RETRY = 30.0
"""Seconds between two tries of the worker to hand in a report."""


class ProvisioningPlugin:
    """A generic image becomes the machine that its owner asked for."""

    def __init__(self) -> None:
        self._lock: Lock | None = None

    @hookimpl
    def on_boot(self, agent: Agent) -> list[Plan] | None:
        """Provision a machine that is not, and say so to the platform."""
        if not agent.distro.may_change:
            return None  # under another root nobody would do it (ruling 7)
        from waagent_provisioning import progress

        settled = progress.read_marker(agent) and not progress.begun(agent)
        if settled and progress.Owed(agent).report is None and not progress.ready_is_due(agent):
            return None
        from waagent_provisioning.flow import Flow
        from waagent_provisioning.lock import Lock

        lock = Lock(agent)
        if not lock.acquire():
            agent.log.warning("Somebody is running `waagent provision`: the service does not provision beside it")
            return None
        self._lock = lock  # until this process ends
        return Flow(agent).plans()

    @hookimpl
    def on_vm_identity_change(self, agent: Agent, old: str, new: str) -> Plan | None:
        """Let the platform hear that this copy of a machine is ready; users and keys stay as they are."""
        if not agent.distro.may_change:
            return None
        from waagent_provisioning.progress import Owed
        from waagent_provisioning.reporter import READY

        owed = Owed(agent)

        def missing(facts: Mapping[str, Any]) -> list[Step]:
            if facts["owed"]:
                return []
            summary = "remember that the platform is to be told Ready"
            return [Step("owe", summary, lambda: owed.owe(READY), gives={"owed": True})]

        return Plan(f"provisioning of {new}", lambda: {"owed": owed.report is not None}, missing)

    @hookimpl
    def on_goal_state(self, agent: Agent, goal_state: GoalState) -> None:
        """Hand in what the platform did not accept at boot: it answers now."""
        from waagent_provisioning.progress import Owed

        owed = Owed(agent)
        if owed.report is not None or owed.fingerprint:
            agent.lane("provisioning").submit_once("report", lambda: _report(agent), name="provisioning report")

    @hookimpl
    def declare_commands(self) -> Command:
        """Offer to provision by hand."""
        from waagent_provisioning.command import COMMAND

        return COMMAND

    @hookimpl
    def declare_log_files(self, agent: Agent) -> list[LogSource]:
        """Name what tells how provisioning went; the document itself may hold secrets."""
        return [
            LogSource("file", agent.paths.lib("provisioned"), 20),
            LogSource("file", agent.paths.lib("published_hostname"), 40),
            LogSource("file", agent.paths.lib("state", "provisioning-report.json"), 20),
            LogSource("file", agent.paths.lib("journal", "boot.jsonl"), 30),
        ]

    @hookimpl
    def check_health(self, agent: Agent) -> HealthCheck:
        """Tell whether the machine is provisioned, and whether the platform knows."""
        from waagent_provisioning import health

        return health.check(agent)


def _report(agent: Agent) -> None:
    from waagent_provisioning.reporter import Reporter

    reporter = Reporter(agent)
    while reporter.owed.report is not None and not agent.stopping.is_set():
        try:
            reporter.settle()
        except ProtocolError:
            agent.stopping.wait(RETRY)
    if reporter.owed.report is None:
        try:
            reporter.tell_fingerprint()
        except ProtocolError as problem:
            agent.log.warning(f"The platform did not take the fingerprint of the SSH host key: {problem}")


plugin = ProvisioningPlugin()
