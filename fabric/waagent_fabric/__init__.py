"""An embedded platform: WireServer, host plugin, IMDS and blob store for tests, demos and benchmarks.

Names resolve lazily: the pytest plugin of this package is loaded by every test run of its users, and must cost nothing
until a fixture is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from waagent_fabric.agentprocess import RunningAgent, write_conf
    from waagent_fabric.api import Fabric
    from waagent_fabric.faults import Fault
    from waagent_fabric.packages import Call, build_zip, read_calls, sample_package
    from waagent_fabric.records import (
        FamilySpec,
        HandlerSpec,
        HealthRecord,
        RemoteUserSpec,
        RequestRecord,
        SettingsSpec,
        StatusRecord,
        TelemetryRecord,
        Violation,
        VirtualMachine,
    )
    from waagent_fabric.sites import install_module

_HOMES = {
    "Call": "packages",
    "Fabric": "api",
    "FamilySpec": "records",
    "Fault": "faults",
    "HandlerSpec": "records",
    "HealthRecord": "records",
    "RemoteUserSpec": "records",
    "RequestRecord": "records",
    "RunningAgent": "agentprocess",
    "SettingsSpec": "records",
    "StatusRecord": "records",
    "TelemetryRecord": "records",
    "Violation": "records",
    "VirtualMachine": "records",
    "build_zip": "packages",
    "install_module": "sites",
    "read_calls": "packages",
    "sample_package": "packages",
    "write_conf": "agentprocess",
}

__all__ = [
    "Call",
    "Fabric",
    "FamilySpec",
    "Fault",
    "HandlerSpec",
    "HealthRecord",
    "RemoteUserSpec",
    "RequestRecord",
    "RunningAgent",
    "SettingsSpec",
    "StatusRecord",
    "TelemetryRecord",
    "Violation",
    "VirtualMachine",
    "build_zip",
    "install_module",
    "read_calls",
    "sample_package",
    "write_conf",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
