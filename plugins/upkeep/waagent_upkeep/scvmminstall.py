"""Looking for the installer of SCVMM's own agent, starting it, and making room for it (provisioning §4, §20)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from waagent import Plan, Step, ensure_dir

if TYPE_CHECKING:
    from waagent import Agent

MARK_FILE = "linuxosconfiguration.xml"
WAIT = 300.0
"""Seconds for the installer, which stops and replaces this service."""
_DRIVE = re.compile(r"(sr[0-9]|hd[c-z]|cdrom[0-9]?|cd[0-9]+)\Z")
_IN_BACKGROUND = '"$@" </dev/null >/dev/null 2>&1 &'


class Handover:
    """One look at the start of the service.

    Args:
        agent: the boot stage's agent.
        wait: seconds for the installer.
    """

    def __init__(self, agent: Agent, wait: float = WAIT) -> None:
        self._agent = agent
        self._wait = wait
        self._place = agent.paths.at(agent.config.text("DVD.MountPoint") or "/mnt/cdrom/secure")
        self._seen: set[str] = set()
        self._installs = False
        self._waited = False
        self._left = False

    def plan(self) -> Plan:
        """Return the plan; nothing is missing where no drive holds the installer."""
        return Plan("scvmm", self._probe, self._missing, phase="early")

    def _probe(self) -> dict[str, Any]:
        return {
            "drives": tuple(drive for drive in drives(self._agent) if drive not in self._seen),
            "found": os.path.exists(os.path.join(self._place, MARK_FILE)),
            "installs": self._installs,
            "waited": self._waited,
            "left": self._left,
        }

    def _missing(self, facts: Mapping[str, Any]) -> list[Step]:
        steps: list[Step] = []
        if not facts["found"] and not facts["installs"]:
            for drive in facts["drives"]:
                rest = tuple(other for other in facts["drives"] if other != drive)

                def look(drive: str = drive) -> None:
                    self._look(drive)

                summary = f"look for SCVMM's installer on {drive}"
                steps.append(Step(f"look at {drive}", summary, look, gives={"drives": rest}, optional=True))
            return steps
        if not facts["installs"]:
            summary = "start SCVMM's installer"
            steps.append(Step("start", summary, self._start, gives={"installs": True}))
        if not facts["waited"]:
            summary = f"give it {self._wait:.0f} s"
            steps.append(Step("wait", summary, self._let_it_work, gives={"waited": True}))
        if not facts["left"]:
            summary = "stop this service: SCVMM's own agent takes over"
            steps.append(Step("leave", summary, self._leave, gives={"left": True}))
        return steps

    def _look(self, drive: str) -> None:
        agent = self._agent
        self._seen.add(drive)
        ensure_dir(self._place)
        agent.distro.mount_provisioning_media(drive, self._place)
        if not os.path.exists(os.path.join(self._place, MARK_FILE)):
            agent.distro.unmount_provisioning_media(self._place)

    def _start(self) -> None:
        # Through a shell that goes at once: the installer outlives whoever started it.
        command = ("/bin/bash", os.path.join(self._place, "install"), "-p", self._place)
        self._agent.run(("/bin/sh", "-c", _IN_BACKGROUND, "sh", *command), check=True)
        self._installs = True

    def _let_it_work(self) -> None:
        self._agent.log.info("Exiting")
        self._agent.stopping.wait(self._wait)
        self._waited = True

    def _leave(self) -> None:
        agent = self._agent
        self._left = True
        if not agent.stopping.is_set():
            agent.distro.service_action(agent.distro.service_name(), "stop")


def drives(agent: Agent) -> list[str]:
    """Return the optical drives, ``/dev/sr0`` before ``/dev/sr1``."""
    try:
        names = os.listdir(agent.paths.at("/dev"))
    except OSError:
        return []
    return [agent.paths.at(f"/dev/{name}") for name in sorted(filter(_DRIVE.match, names), key=lambda n: (len(n), n))]
