"""What the worker says of itself at start and every half hour (service §3, §19.2)."""

from __future__ import annotations

import os
import sys

from waagent.version import NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waagent.agent import Agent

HEARTBEAT_PERIOD = 1800.0
_SWITCHES = ("OS.EnableFirewall", "Extensions.Enabled", "AutoUpdate.Enabled", "AutoUpdate.UpdateToLatestVersion")
_PERIODS = ("Extensions.GoalStatePeriod", "Extensions.InitialGoalStatePeriod")


def configuration_changes(agent: Agent) -> list[str]:
    """Return one line per setting that support wants to know of, because it differs from what most machines have."""
    config = agent.config
    known = config.options
    lines = []

    def number(name: str, usual: int) -> None:
        value = config.optional_integer(name) if name in known else None
        if value is not None and value != usual:
            lines.append(f"{name} is {value}; usual is {usual} ({config.origin(name)})")

    for name in _PERIODS:
        number(name, 6)
    # Only what somebody set: a switch that is off by default is no news.
    lines += [
        f"{name} is off ({config.origin(name)})"
        for name in _SWITCHES
        if name in known and config.given(name) and not config.boolean(name)
    ]
    if config.given("AutoUpdate.UpdateToLatestVersion") and config.given("AutoUpdate.Enabled"):
        latest, enabled = config.boolean("AutoUpdate.UpdateToLatestVersion"), config.boolean("AutoUpdate.Enabled")
        if latest != enabled:
            lines.append(
                f"AutoUpdate.UpdateToLatestVersion is {'on' if latest else 'off'} and AutoUpdate.Enabled is "
                f"{'on' if enabled else 'off'}: the first one counts"
            )
    if config.boolean("OS.EnableFirewall"):
        number("OS.EnableFirewallPeriod", 300)
    number("Autoupdate.Frequency", 3600)
    lines += [
        f"{name} is off ({config.origin(name)})"
        for name in ("Debug.EnableFastTrack", "Debug.EnableGAVersioning")
        if name in known and not config.boolean(name)
    ]
    if agent.paths.lib_dir != agent.paths.at("/var/lib/waagent"):
        lines.append(f"Lib.Dir is {agent.paths.lib_dir}; usual is /var/lib/waagent")
    return lines


def report_configuration(agent: Agent) -> None:
    """Log each change between rows of ``*`` and make it an event (configuration §11)."""
    for line in configuration_changes(agent):
        agent.log.info(f"******** {line} ********")
        agent.events.add("ConfigurationChange", message=line)


def report_start(agent: Agent) -> None:
    """Log who runs, on what."""
    kernel = os.uname()
    python = ".".join(str(part) for part in sys.version_info[:3])
    agent.log.info(f"{NAME}-{agent.version} is running as the goal state agent")
    agent.log.info(f"Python: {python}; Arch: {kernel.machine}; Kernel: {kernel.sysname} {kernel.release}")


class HalfHourly:
    """The line that shows in a log that the agent was alive, and in what shape."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._count = 0
        self._id = "-".join(os.urandom(size).hex().upper() for size in (4, 2, 2, 2, 6))

    def report(self, fetch_errors: int) -> None:
        """Write the line; *fetch_errors* is how many polls failed since the last one."""
        updates = self._agent.config.boolean("AutoUpdate.UpdateToLatestVersion")
        text = (
            f"HeartbeatCounter: {self._count};HeartbeatId: {self._id};UpdateGSErrors: {fetch_errors};"
            f"AutoUpdate: {int(updates)};UpdateMode: SelfUpdate;"
        )
        self._count += 1
        name = f"{NAME}-{self._agent.version}"
        self._agent.log.info(f"[HEARTBEAT] Agent {name} is running as the goal state agent [DEBUG {text}]")
        self._agent.events.add("HeartBeat", message=text)
