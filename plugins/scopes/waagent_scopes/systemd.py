"""The few words of ours to systemd, through its own tools."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waagent import AgentError, StateError, read_limited
from waagent_scopes import units

if TYPE_CHECKING:
    from waagent import Agent

_PLACES = ("/usr/bin", "/bin", "/run/current-system/sw/bin")
_RUNNING = "/run/systemd/system"
_SECONDS = 5.0
_PROPERTIES = ("LoadState", "CPUAccounting", "MemoryAccounting", "CPUQuotaPerSecUSec", "DropInPaths")
_OF_ADMIN = "/etc/systemd/"
_DROP_IN_LIMIT = 1 << 16


class Refused(AgentError):
    """systemd did not do what it was asked for."""


class Silent(Refused):
    """systemd does not answer in time: nothing else should be asked of it."""


class Systemd:
    """systemd under the agent's root.

    Args:
        agent: runs the tools.
        run: path of ``systemd-run``.
        control: path of ``systemctl``.
    """

    def __init__(self, agent: Agent, run: str, control: str) -> None:
        self.run = run
        self._agent = agent
        self._control = control

    def show(self, unit: str) -> dict[str, str]:
        """Return the properties of *unit* that matter here.

        Raises:
            Refused: they cannot be had.
        """
        said = self._ask("show", unit, *(f"--property={name}" for name in _PROPERTIES))
        pairs = (line.partition("=") for line in said.split("\n"))
        return {name: value.strip() for name, equals, value in pairs if equals}

    def limit(self, unit: str, quota: float | None) -> list[str]:
        """Give *unit* a share of the processors until the next boot, ``None`` for all it can get.

        What is so already is not set again, and a quota that the administrator wrote for the unit stays.

        Returns:
            The properties that were set.

        Raises:
            Refused: it was not done; also when the unit is not loaded and no slice.
        """
        properties = self.show(unit)
        if not unit.endswith(".slice") and properties.get("LoadState") != "loaded":
            raise Refused(f"{unit} is not loaded")
        wanted = []
        if quota is not None:
            # Newer ones (258) always account and no longer know the word.
            names = ("CPUAccounting", "MemoryAccounting")
            wanted = [f"{name}=yes" for name in names if properties.get(name, "yes") != "yes"]
        present = units.parse_quota(properties.get("CPUQuotaPerSecUSec", ""))
        differs = (present is None) != (quota is None) or (
            present is not None and quota is not None and abs(present - quota) > 0.01
        )
        if differs and not self._is_admins(properties.get("DropInPaths", "")):
            wanted.append(f"CPUQuota={units.percent(quota)}")
        if wanted:
            self._ask("set-property", unit, *wanted, "--runtime")
        return wanted

    def reload(self) -> None:
        """Have unit files read again.

        Raises:
            Refused: it was not done.
        """
        self._ask("daemon-reload", seconds=30.0)

    def _is_admins(self, drop_ins: str) -> bool:
        for path in drop_ins.split():
            if not path.startswith(_OF_ADMIN):
                continue
            try:
                text = read_limited(self._agent.paths.at(path), _DROP_IN_LIMIT).decode("utf-8", "replace")
            except (OSError, StateError):
                continue
            if any(line.strip().startswith("CPUQuota") for line in text.split("\n")):
                return True
        return False

    def _ask(self, *words: str, seconds: float = _SECONDS) -> str:
        done = self._agent.run((self._control, *words), timeout=seconds)
        if done.timed_out:
            raise Silent(done.describe())
        if not done.ok:
            raise Refused(done.describe())
        return done.stdout


def find(agent: Agent) -> Systemd | None:
    """Return systemd when it runs under the agent's root and its tools are there, else ``None``.

    Under a scratch root its tools have to lie there too: the machine's own systemd is not asked on its behalf.
    """
    if not os.path.isdir(agent.paths.at(_RUNNING)):
        return None
    tools = []
    for name in ("systemd-run", "systemctl"):
        paths = (agent.paths.at(f"{place}/{name}") for place in _PLACES)
        found = next((path for path in paths if os.access(path, os.X_OK)), None)
        if found is None:
            return None
        tools.append(found)
    return Systemd(agent, *tools)
