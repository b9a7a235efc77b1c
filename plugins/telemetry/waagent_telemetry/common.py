"""What every event says of this machine: from the system, the goal state, the metadata service (wireserver §19.1)."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from waagent import AgentError, TelemetryEvent, timestamp
from waagent_telemetry.eventfile import AGENT, OF_THE_MOMENT

if TYPE_CHECKING:
    from waagent import Agent

    Value = str | int | float | bool

NULL_GUID = "00000000-0000-0000-0000-000000000000"
ASK_AGAIN = 300.0
"""Seconds between two questions to a metadata service that does not answer."""
_UNKNOWN = "_UNINITIALIZED"
_FROM_METADATA = (
    ("Location", "location"),
    ("SubscriptionId", "subscriptionId"),
    ("ResourceGroupName", "resourceGroupName"),
    ("VMId", "vmId"),
)


class Common:
    """The parameters that all events share.

    Args:
        agent: the worker's agent.
        clock: monotonic seconds.
    """

    def __init__(self, agent: Agent, clock: Callable[[], float] = time.monotonic) -> None:
        self._agent = agent
        self._clock = clock
        self._machine: dict[str, Value] | None = None
        self._metadata: dict[str, Value] | None = None
        self._asked = float("-inf")

    def refresh(self) -> None:
        """Ask the metadata service for what is not known yet; blocks while it does, and is quick most of the time."""
        platform = self._agent.platform
        if self._metadata is not None or platform is None or self._clock() - self._asked < ASK_AGAIN:
            return
        compute = platform.imds_compute()
        self._asked = self._clock()
        if compute is None:
            return
        found: dict[str, Value] = {name: str(compute.get(key) or "") or name + _UNKNOWN for name, key in _FROM_METADATA}
        found["ImageOrigin"] = platform.telemetry.image_origin(compute)
        self._metadata = found

    def complete(self, event: TelemetryEvent) -> TelemetryEvent:
        """Return *event* with all common parameters behind its own."""
        given = dict(event.parameters)
        common: dict[str, Value] = {
            "GAVersion": f"{AGENT}-{self._agent.version}",
            "ContainerId": NULL_GUID,
            "OpcodeName": timestamp(),
            "EventTid": threading.get_native_id(),
            "EventPid": os.getpid(),
            "TaskName": threading.current_thread().name,
        }
        common.update((name, given[name]) for name in OF_THE_MOMENT if name in given)
        common.update(self._of_machine())
        common.update(self._of_goal_state())
        common.update(self._metadata or {**{name: name + _UNKNOWN for name, _ in _FROM_METADATA}, "ImageOrigin": 0})
        own = ((name, value) for name, value in event.parameters if name not in common)
        return TelemetryEvent(event.provider, event.id, (*own, *common.items()))

    def _of_machine(self) -> dict[str, Value]:
        if self._machine is None:
            agent = self._agent
            kernel = os.uname()
            facts = agent.distro.facts
            system = f"{kernel.sysname}:{facts.legacy_id}-{facts.version}-{facts.codename}:{kernel.release}"
            size: dict[str, Value] = {}
            try:
                size = agent.distro.read_machine()
            except AgentError:
                pass  # no plugin knows better than the C library
            memory = size.get("memory_mib") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
            self._machine = {
                "OSVersion": system,
                "ExecutionMode": "IAAS",
                "RAM": memory,
                "Processors": size.get("processors") or os.cpu_count() or 0,
                "KeywordName": json.dumps({"CpuArchitecture": str(size.get("architecture") or kernel.machine)}),
            }
        return self._machine

    def _of_goal_state(self) -> dict[str, Value]:
        platform = self._agent.platform
        state = platform.goal_state if platform is not None else None
        if state is None:
            return {name: name + _UNKNOWN for name in ("TenantName", "RoleName", "RoleInstanceName")}
        hosting = state.hosting
        names = (
            ("TenantName", hosting.deployment_name),
            ("RoleName", hosting.role_name),
            ("RoleInstanceName", hosting.vm_name),
        )
        found: dict[str, Value] = {name: value or name + _UNKNOWN for name, value in names}
        found["ContainerId"] = state.container_id or NULL_GUID
        return found
