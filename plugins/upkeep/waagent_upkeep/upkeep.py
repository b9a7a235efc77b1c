"""The plugin ``upkeep``: disks' timeouts, persistent network rules, the host's randomness (provisioning §17, §22)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import Periodic, Plan, hookimpl
from waagent_upkeep.patience import Patience

if TYPE_CHECKING:
    from waagent import Agent
    from waagent_upkeep.chores import Chores


class UpkeepPlugin:
    """The hooks."""

    def __init__(self) -> None:
        self._chores: Chores | None = None
        self._timeout = Patience()
        self._rules = Patience()

    @hookimpl
    def on_boot(self, agent: Agent) -> Plan:
        """Do all of it before anything else: the first disk error and the first new network card come early."""
        return self._of(agent).boot_plan()

    @hookimpl
    def declare_periodic(self, agent: Agent) -> list[Periodic]:
        """Look again: disks are added and udev writes its rules while the machine runs."""
        duties = [Periodic("network rules", "OS.RemovePersistentNetRulesPeriod", self._look_at_rules)]
        if self._of(agent).timeout:
            duties.append(Periodic("disk timeouts", "OS.RootDeviceScsiTimeoutPeriod", self._look_at_timeouts))
        return duties

    def _look_at_rules(self, agent: Agent) -> None:
        self._rules.run(agent, self._of(agent).rules_plan)

    def _look_at_timeouts(self, agent: Agent) -> None:
        self._timeout.run(agent, self._of(agent).timeout_plan)

    def _of(self, agent: Agent) -> Chores:
        if self._chores is None:
            from waagent_upkeep.chores import Chores

            self._chores = Chores(agent)
        return self._chores


plugin = UpkeepPlugin()
