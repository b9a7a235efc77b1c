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
from waagent_scopes import prefixes, units
from waagent_scopes.systemd import Refused, Silent, Systemd, find

if TYPE_CHECKING:
    from waagent import Agent

LAUNCHER, ENFORCE, EXCLUDED = "Extensions.Launcher", "CGroups.EnforceLimits", "CGroups.Excluded"
SCOPE, SERVICE, PROCESS = "scope", "service", "process"
_STATE = "scopes"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Governor:
    """What is known of units and limits; used from the lane of extensions, read by the status lane.

    Args:
        agent: the worker's agent.
    """

    def __init__(self, agent: Agent) -> None:
        self.off = ""
        """Why commands are plain processes although the configuration wants units; empty when they are not."""
        self._agent = agent
        self._lock = threading.Lock()
        self._systemd: Systemd | None = None
        self._sought = False
        self._boot = _boot_id()
        self._limited = self._load()
        self._launched: dict[str, str] = {}

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

    def begin(self) -> None:
        """Take back the limits of an earlier process where the configuration wants none any more."""
        systemd = self._tools()
        if systemd is not None and (not self._agent.config.boolean(ENFORCE) or self.mode == PROCESS):
            self._free(systemd, list(self._limited))

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
