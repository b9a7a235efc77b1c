"""Disk timeouts, persistent network names and the host's randomness (provisioning §22): facts, and what is missing."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from waagent import Plan, StateError, Step, ensure_dir, read_limited, write_atomic
from waagent_upkeep.patience import numbered

if TYPE_CHECKING:
    from waagent import Agent

NET_RULES = ("/lib/udev/rules.d/75-persistent-net-generator.rules", "/etc/udev/rules.d/70-persistent-net.rules")
"""Udev's files that give a network card of this machine a name for good; another machine has another card."""
RANDOM_TABLE = "/sys/firmware/acpi/tables/OEM0"
"""Where Hyper-V hands randomness to its guests."""

LONGEST_TIMEOUT = 86400
_DISKS = "/sys/block"
_RANDOM_BYTES = 4096
_WHOLE_SYSTEM = "every disk"


class Chores:
    """The chores of one process.

    Args:
        agent: its agent.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._kept: dict[str, int] = {}
        self._default_set = False
        self._told = False

    def boot_plan(self) -> Plan:
        """Return all of them as a plan for the start of the service."""

        def missing(facts: Mapping[str, Any]) -> list[Step]:
            return [*self.timeout_steps(facts), *self.rules_steps(facts), *self.random_steps(facts)]

        def probe() -> dict[str, Any]:
            return {**self.timeout_facts(), **self.rules_facts(), **self.random_facts()}

        return Plan("upkeep", probe, missing, phase="early")

    def timeout_plan(self, number: int) -> Plan:
        """Return the disks' timeouts as a plan."""
        return Plan("disk timeouts", self.timeout_facts, lambda facts: self.timeout_steps(facts, number))

    def rules_plan(self, number: int) -> Plan:
        """Return the network rules as a plan."""
        return Plan("network rules", self.rules_facts, lambda facts: self.rules_steps(facts, number))

    # -- SCSI timeouts ---------------------------------------------------------------------------------------------

    @property
    def timeout(self) -> int:
        """Seconds that every ``sd*`` disk is to have; 0 leaves them alone."""
        seconds = self._agent.config.optional_integer("OS.RootDeviceScsiTimeout") or 0
        if seconds > LONGEST_TIMEOUT:
            if not self._told:
                self._told = True
                self._agent.log.warning(
                    f"OS.RootDeviceScsiTimeout is {seconds}; at most {LONGEST_TIMEOUT} s make sense, so it is ignored"
                )
            return 0
        return seconds

    def timeout_facts(self) -> dict[str, Any]:
        """Return ``timeout`` and ``disks``, those whose timeout is another one."""
        seconds = self.timeout
        if not seconds:
            return {"timeout": 0, "disks": ()}
        paths = self._agent.paths
        try:
            disks = sorted(name for name in os.listdir(paths.at(_DISKS)) if name.startswith("sd"))
        except OSError:
            # A BSD: there is one value for the system, which nobody changes behind our back.
            open_ = paths.is_real and self._agent.distro.facts.base == "posix" and not self._default_set
            return {"timeout": seconds, "disks": (_WHOLE_SYSTEM,) if open_ else ()}
        different = []
        for disk in disks:
            try:
                with open(
                    os.path.join(paths.at(_DISKS), disk, "device", "timeout"), encoding="ascii", errors="replace"
                ) as stream:
                    present = stream.readline().strip()
            except OSError:
                continue  # it was taken away in this moment
            if present != str(seconds):
                different.append(disk)
        return {"timeout": seconds, "disks": tuple(different)}

    def timeout_steps(self, facts: Mapping[str, Any], number: int = 0) -> list[Step]:
        """Return what is missing."""
        if not facts["disks"]:
            return []
        seconds = facts["timeout"]

        def run() -> None:
            self._agent.distro.set_scsi_timeout(seconds)
            self._default_set = True

        summary = f"set the timeout of {', '.join(facts['disks'])} to {seconds} s"
        return [Step(numbered("disk timeout", number), summary, run, gives={"disks": ()}, optional=True)]

    # -- persistent network rules ----------------------------------------------------------------------------------

    def rules_facts(self) -> dict[str, Any]:
        """Return ``rules``: the files that are there, without those that this distribution keeps."""
        found = []
        for name in NET_RULES:
            try:
                status = os.stat(self._agent.paths.at(name))
            except OSError:
                continue
            # A link to /dev/null is how administrators keep such rules away.
            if stat.S_ISREG(status.st_mode) and self._kept.get(name) != status.st_mtime_ns:
                found.append(name)
        return {"rules": tuple(found)}

    def rules_steps(self, facts: Mapping[str, Any], number: int = 0) -> list[Step]:
        """Return what is missing."""
        names = facts["rules"]
        if not names:
            return []

        def run() -> None:
            agent = self._agent
            agent.distro.move_persistent_net_rules()
            for name in names:
                try:
                    self._kept[name] = os.stat(agent.paths.at(name)).st_mtime_ns
                except OSError:
                    continue  # it was moved, and the distribution said so
                agent.log.verbose(f"{name} stays: this distribution keeps its network rules")

        summary = f"move {' and '.join(names)} out of the way: they name the network cards of one machine"
        return [Step(numbered("network rules", number), summary, run, gives={"rules": ()}, optional=True)]

    # -- randomness ------------------------------------------------------------------------------------------------

    def random_facts(self) -> dict[str, Any]:
        """Return ``random``: whether the host's randomness was not used yet since the machine started."""
        paths = self._agent.paths
        places = (paths.at(RANDOM_TABLE), paths.at("/dev/urandom"))
        return {"random": all(map(os.path.exists, places)) and not os.path.exists(paths.run("entropy"))}

    def random_steps(self, facts: Mapping[str, Any]) -> list[Step]:
        """Return what is missing."""
        if not facts["random"]:
            return []
        summary = "mix the host's randomness into the kernel's"
        return [Step("entropy", summary, self._mix, gives={"random": False}, optional=True)]

    def _mix(self) -> None:
        paths = self._agent.paths
        try:
            data = read_limited(paths.at(RANDOM_TABLE), 1 << 20)[:_RANDOM_BYTES]
        except StateError as problem:
            raise OSError(str(problem)) from None
        # Writing mixes and credits nothing: bytes that somebody knows do no harm.
        descriptor = os.open(paths.at("/dev/urandom"), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)
        ensure_dir(paths.run_dir, 0o755)
        write_atomic(paths.run("entropy"), "", durable=False)
