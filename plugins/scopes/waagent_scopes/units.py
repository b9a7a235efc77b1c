"""Names and limits of the units that commands run in: pure functions (extensions §12.3, §19)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

PARENT = "azure-vmextensions"
"""The slice of all handlers, without its ending; that of a handler lies in it by its name."""
INFINITY = "infinity"
_MOST = 100_000.0

_ODD = re.compile(r"[^A-Za-z0-9:_.]")
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|min)")
_MICROSECONDS = {"us": 1.0, "ms": 1e3, "s": 1e6, "min": 6e7}


def slice_of(handler: str) -> str:
    """Return the slice of a handler: without its version, and without what a unit's name cannot hold."""
    return f"{PARENT}-{_ODD.sub('_', handler)}.slice"


def unit_for(operation: str) -> str:
    """Return a name for one command's unit, without its ending; no other has it."""
    raw = bytearray(os.urandom(16))
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{operation}_{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_excluded(handler: str, excluded: str) -> bool:
    """Whether a part of the handler's name is in the comma-separated list *excluded* (``CGroups.Excluded``)."""
    words = (word.strip().lower() for word in excluded.split(","))
    return any(word in handler.lower() for word in words if word)


def cpu_quota(limits: Any) -> float | None:
    """Return ``cpuQuotaPercentage`` of a manifest's limits, 100 for one processor; ``None`` when there is no good one.

    Args:
        limits: ``resourceLimits``, or one of its ``services``.
    """
    if not isinstance(limits, Mapping):
        return None
    value = limits.get("cpuQuotaPercentage")
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= _MOST:
        return None
    return float(value)


def service_quotas(limits: Mapping[str, Any]) -> dict[str, float]:
    """Return the quota of each service that a manifest names (``resourceLimits.services``)."""
    listed = limits.get("services")
    found: dict[str, float] = {}
    for item in listed if isinstance(listed, list) else ():
        quota = cpu_quota(item)
        name = item.get("name") if isinstance(item, Mapping) else None
        if quota is not None and isinstance(name, str) and _is_service(name):
            found[name] = quota
    return found


def _is_service(name: str) -> bool:
    return name.endswith(".service") and 8 < len(name) < 256 and re.fullmatch(r"[A-Za-z0-9:_.@\\-]+", name) is not None


def percent(quota: float | None) -> str:
    """Return a quota as ``CPUQuota=`` takes it; empty for none."""
    return "" if quota is None else f"{quota:g}%"


def parse_quota(text: str) -> float | None:
    """Return what ``CPUQuotaPerSecUSec`` says (``400ms``, ``1.5s``, ``infinity``) in percent of a processor."""
    if text == INFINITY or not text:
        return None
    parts = _SPAN.findall(text)
    if not parts:
        return None
    return sum(float(number) * _MICROSECONDS[unit] for number, unit in parts) / 1e4
