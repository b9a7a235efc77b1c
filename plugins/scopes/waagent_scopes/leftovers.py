"""Unit files that agents of old wrote: their limits would go on holding handlers (extensions §19)."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from waagent import Plan, StateError, Step, read_limited
from waagent_scopes.systemd import Refused, find

if TYPE_CHECKING:
    from waagent import Agent

_DIRECTORIES = ("/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system")
_FILES = (
    # pattern, what the agents of old wrote into it (in lower case)
    ("azure-vmextensions-*.slice", "description=slice for azure vm extension"),
    ("*.service.d/11-CPUAccounting.conf", "created by the azure vm agent"),
    ("*.service.d/12-CPUQuota.conf", "created by the azure vm agent"),
    ("*.service.d/13-MemoryAccounting.conf", "created by the azure vm agent"),
    ("system-walinuxagent.extensions.slice", "[unit]"),
)
_LIMIT = 1 << 16


def find_files(agent: Agent) -> list[str]:
    """Return the unit files of old that can be removed."""
    found: dict[str, str] = {}
    for directory in _DIRECTORIES:
        place = agent.paths.at(directory)
        if not os.access(place, os.W_OK):
            continue  # a file system that is read-only keeps what it has
        for pattern, mark in _FILES:
            for path in glob.glob(os.path.join(glob.escape(place), pattern)):
                if _has(path, mark):
                    found.setdefault(os.path.realpath(path), path)  # /lib is /usr/lib on most systems
    return sorted(found.values())


def plan(agent: Agent) -> Plan:
    """Return the plan that removes them."""

    def remove(paths: list[str]) -> None:
        for path in paths:
            os.unlink(path)
            agent.log.info(f"[CGI] Removed a unit file of an agent of old: {path}")
        systemd = find(agent)
        if systemd is not None:
            try:
                systemd.reload()
            except Refused as problem:
                agent.log.info(f"[CGI] systemd did not read its unit files again: {problem}")

    def missing(facts: Mapping[str, Any]) -> list[Step]:
        paths = facts["files"]
        if not paths:
            return []
        names = ", ".join(os.path.basename(path) for path in paths)
        return [
            Step(
                "remove",
                f"remove unit files of agents of old: {names}",
                lambda: remove(paths),
                gives={"files": []},
                optional=True,
            )
        ]

    return Plan("unit files of old", lambda: {"files": find_files(agent)}, missing, phase="early")


def _has(path: str, mark: str) -> bool:
    if os.path.islink(path):
        return False
    try:
        return mark in read_limited(path, _LIMIT).decode("utf-8", "replace").lower()
    except (OSError, StateError):
        return False
