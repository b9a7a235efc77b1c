"""Launches commands in units of their own and keeps the limits that handlers ask for (extensions §19, ruling 50).

Nothing here may make an extension fail: whatever systemd refuses, the command runs. When starting through systemd-run
itself fails, units and limits are off until the agent is started again: a handler that shared the agent's own group
with limits on others would be worse off than with none.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any

from waagent import CommandResult, HandlerCommand, Launch, ensure_dir
from waagent_scopes import own, prefixes, units
from waagent_scopes.systemd import Refused, Silent, Systemd, find

if TYPE_CHECKING:
    from waagent import Agent

LAUNCHER, ENFORCE, EXCLUDED = "Extensions.Launcher", "CGroups.EnforceLimits", "CGroups.Excluded"
OWN_QUOTA, OWN_THRESHOLD = "Debug.AgentCpuQuota", "Debug.AgentCpuThrottledTimeThreshold"
HEED_STRANGERS, HEED_THROTTLING = "Debug.CgroupDisableOnProcessCheckFailure", "Debug.CgroupDisableOnQuotaCheckFailure"
AGENT = "WALinuxAgent"
SCOPE, SERVICE, PROCESS = "scope", "service", "process"
_STATE = "scopes"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Governor:
    """What is known of units and limits; used from the lanes of extensions and hooks, read by the status lane.

    Args:
        agent: the worker's agent.
    """

    def __init__(self, agent: Agent) -> None:
        self.off = ""
        """Why commands are plain processes although the configuration wants units; empty when they are not."""
        self.own_off = ""
        """Why the agent itself has no quota until it is started again; empty when it may have one."""
        self._agent = agent
        self._work = threading.RLock()
        self._lock = threading.Lock()
        self._systemd: Systemd | None = None
        self._sought = False
        self._boot = _boot_id()
        self._limited = self._load()
        self._launched: dict[str, str] = {}
        self._own = own.find(agent.paths)
        self._throttled: float | None = None

    @property
    def mode(self) -> str:
        """How commands are started now: ``scope``, ``service`` or ``process``."""
        wanted = self._agent.config.text(LAUNCHER) or SCOPE
        return PROCESS if self.off or (wanted != PROCESS and self._tools() is None) else wanted

    @property
    def limited(self) -> dict[str, float]:
        """The units that have a quota of ours, in percent of a processor."""
        return {unit: quota for unit, (_, quota) in self._limited.items()}

    # -- before and after a command ---------------------------------------------------------------------------------

    def launch(self, command: HandlerCommand) -> Launch | None:
        """Return how to start *command*; ``None`` as a plain process."""
        with self._work:
            launch = self._launch(command)
            systemd = self._tools()
            if launch is None and systemd is not None:
                self._free_own(systemd)  # it would be held by what is meant for the agent
            return launch

    def _launch(self, command: HandlerCommand) -> Launch | None:
        mode = self.mode
        systemd = self._tools()
        if mode == PROCESS or systemd is None:
            return None
        parent = units.slice_of(command.handler_name)
        self._limit_slice(systemd, command, parent)
        if self.off:
            return None
        unit = units.unit_for(command.operation)
        if mode == SCOPE:
            launch = Launch(prefixes.scope(systemd.run, unit, parent), f"{unit}.scope")
        else:
            try:
                file = self._script(unit)
            except OSError as problem:
                self._warn(f"{command.operation} of {command.handler_name} gets no service of its own: {problem}")
                return None
            words = prefixes.service(systemd.run, unit, parent, command.handler_name, file)
            launch = Launch(words, f"{unit}.service")
        self._launched[command.run_dir] = unit
        return launch

    def ended(self, command: HandlerCommand, result: CommandResult) -> None:
        """Take note of a command's end: limits of services after enable, none after uninstall, off after a failure."""
        with self._work:
            self._ended(command, result)

    def _ended(self, command: HandlerCommand, result: CommandResult) -> None:
        unit = self._launched.pop(command.run_dir, None)
        if unit is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._script(unit))  # it deletes itself, unless its service was never started
            if result.launch_problem:
                self._switch_off(f"systemd-run failed: {result.launch_problem}")
                return
        systemd = self._tools()
        if self.off or systemd is None or self.mode == PROCESS:
            return
        handler = command.handler_name
        if command.operation == "uninstall":
            self._free(systemd, [unit for unit, (owner, _) in self._limited.items() if owner == handler])
        elif command.operation == "enable" and result.ok:
            self._limit_services(systemd, command)
        if unit is not None and result.exit_code is not None and not self.off:
            self._limit_own(systemd)

    def begin(self) -> None:
        """Take back the limits of an earlier process where the configuration wants none any more."""
        with self._work:
            systemd = self._tools()
            if systemd is not None and (not self._agent.config.boolean(ENFORCE) or self.mode == PROCESS):
                self._free(systemd, list(self._limited))
        self.attend()

    def attend(self) -> None:
        """Take back the agent's own quota when it holds others, or the agent too much."""
        with self._work:
            systemd = self._tools()
            if systemd is None or self._own is None or self._own.unit not in self._limited:
                return
            before, self._throttled = self._throttled, own.throttled(self._agent.paths, self._own)
            config = self._agent.config
            if before is not None and self._throttled is not None and config.boolean(HEED_THROTTLING):
                seconds = self._throttled - before
                if seconds > config.integer(OWN_THRESHOLD):
                    self.own_off = f"the agent was held back for {seconds:.0f} s"
            if self.own_off or self._has_strangers():
                self._free_own(systemd)

    # -- limits -----------------------------------------------------------------------------------------------------

    def _is_limited(self, handler: str) -> bool:
        config = self._agent.config
        return config.boolean(ENFORCE) and not units.is_excluded(handler, config.text(EXCLUDED) or "")

    def _limit_slice(self, systemd: Systemd, command: HandlerCommand, parent: str) -> None:
        quota = units.cpu_quota(command.resource_limits) if self._is_limited(command.handler_name) else None
        known = self._limited.get(parent)
        if quota is None:
            if known is not None:
                self._free(systemd, [parent])
        elif known is None or known[1] != quota or command.operation == "enable":
            self._apply(systemd, parent, command.handler_name, quota)

    def _limit_services(self, systemd: Systemd, command: HandlerCommand) -> None:
        handler = command.handler_name
        wanted = units.service_quotas(command.resource_limits) if self._is_limited(handler) else {}
        parent = units.slice_of(handler)
        stale = [unit for unit, (owner, _) in self._limited.items() if owner == handler and unit not in wanted]
        self._free(systemd, [unit for unit in stale if unit != parent])
        for unit, quota in wanted.items():
            if not self.off:
                self._apply(systemd, unit, handler, quota)

    def _limit_own(self, systemd: Systemd) -> None:
        """Give the agent its quota once commands have units of their own, and nobody but the agent is held by it."""
        config = self._agent.config
        if self._own is None or self.own_off or not config.boolean(ENFORCE):
            return
        quota = float(config.integer(OWN_QUOTA))
        if self._has_strangers():
            self._free_own(systemd)
        elif self._limited.get(self._own.unit) != (AGENT, quota):
            self._throttled = None
            self._apply(systemd, self._own.unit, AGENT, quota)

    def _free_own(self, systemd: Systemd) -> None:
        if self._own is None or self._own.unit not in self._limited:
            return
        if self.own_off:
            message = f"The agent has no quota until it is started again: {self.own_off}"
            self._agent.log.warning(f"[CGW] {message}")
            self._agent.events.add("CGroupsDisabled", success=False, message=message, logged=True)
        self._free(systemd, [self._own.unit])

    def _has_strangers(self) -> bool:
        assert self._own is not None
        if not self._agent.config.boolean(HEED_STRANGERS):
            return False
        parent = os.getppid()
        found = own.strangers(self._agent.paths, self._own, parent if parent > 1 else os.getpid())
        if found:
            names = ", ".join(str(pid) for pid in found[:5])
            self._agent.log.periodic(86400, "scopes own", 1, f"[CGI] The agent has no quota beside processes {names}")
        return found is None or bool(found)

    def _apply(self, systemd: Systemd, unit: str, handler: str, quota: float) -> None:
        try:
            changed = systemd.limit(unit, quota)
        except Silent as problem:
            self._switch_off(f"systemd does not answer: {problem}", ask=False)
            return
        except Refused as problem:
            self._warn(f"{unit} of {handler} is not limited: {problem}")
            return
        if changed:
            self._agent.log.info(f"[CGI] {unit} of {handler}: {' '.join(changed)}")
            self._agent.events.add("SetCGroupsLimits", name=handler, message=f"{unit}: {' '.join(changed)}")
        if self._limited.get(unit) != (handler, quota):
            self._remember({**self._limited, unit: (handler, quota)})

    def _free(self, systemd: Systemd, limited: list[str]) -> None:
        for unit in limited:
            try:
                if systemd.limit(unit, None):
                    self._agent.log.info(f"[CGI] {unit} has no limit any more")
            except Silent as problem:
                if not self.off:
                    self._switch_off(f"systemd does not answer: {problem}", ask=False)
                return
            except Refused as problem:
                self._agent.log.info(f"[CGI] The limit of {unit} was not taken back: {problem}")
            self._remember({name: found for name, found in self._limited.items() if name != unit})

    def _switch_off(self, reason: str, ask: bool = True) -> None:
        if self.off:
            return
        self.off = reason
        message = f"Commands of handlers have no units and no limits until the agent is started again: {reason}"
        self._agent.log.warning(f"[CGW] {message}")
        self._agent.events.add("CGroupsDisabled", success=False, message=message, logged=True)
        systemd = self._tools()
        if ask and systemd is not None:
            self._free(systemd, list(self._limited))

    def _warn(self, message: str) -> None:
        self._agent.log.periodic(3600, f"scopes {message[:60]}", 1, f"[CGW] {message}")

    # -- what is remembered -----------------------------------------------------------------------------------------

    def _tools(self) -> Systemd | None:
        with self._lock:
            if not self._sought:
                self._sought = True
                self._systemd = find(self._agent)
            return self._systemd

    def _script(self, unit: str) -> str:
        directory = self._agent.paths.run("launch")
        ensure_dir(directory, 0o700)
        return os.path.join(directory, unit)

    def _load(self) -> dict[str, tuple[str, float]]:
        saved: Any = self._agent.state.load(_STATE, {})
        if not isinstance(saved, dict) or saved.get("boot") != self._boot or not isinstance(saved.get("units"), dict):
            return {}  # limits last until the next boot
        return {
            unit: (pair[0], float(pair[1]))
            for unit, pair in saved["units"].items()
            if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], (int, float))
        }

    def _remember(self, limited: dict[str, tuple[str, float]]) -> None:
        self._limited = limited  # replaced as a whole: the status lane reads it
        pairs = {unit: list(pair) for unit, pair in limited.items()}
        self._agent.state.save(_STATE, {"boot": self._boot, "units": pairs})


def _boot_id() -> str:
    try:
        with open(_BOOT_ID, encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return ""
