"""What ``waagent doctor`` finds about extensions."""

from __future__ import annotations

import os

from waagent import HealthCheck
from waagent_extensions import outcomes, records
from waagent_extensions.layout import Layout


def checks(lib_dir: str, log_root: str) -> list[HealthCheck]:
    """Return the checks: may packages be executed, is there an interpreter, is every handler ready."""
    found = []
    mount = outcomes.no_exec_mount(lib_dir)
    if mount:
        remedy = f"mount {mount} without noexec, or set Lib.Dir to a directory on another file system"
        found.append(HealthCheck("extensions.noexec", "failed", f"{mount} is mounted with noexec", remedy))
    else:
        found.append(HealthCheck("extensions.noexec", "ok", f"programs under {lib_dir} may be executed"))
    missing = outcomes.missing_interpreters(os.environ.get("PATH", ""))
    if missing:
        detail = f"no {' or '.join(missing)} in PATH: many extensions are Python programs"
        found.append(HealthCheck("extensions.python", "warning", detail, "install the distribution's python3 package"))
    failing = []
    installed = Layout(lib_dir, log_root).installed()
    for handler in installed:
        status = records.read_status(handler)
        if status is not None and status.code != 0:
            failing.append(f"{handler.name}-{handler.version} ({status.code})")
    if failing:
        remedy = f"see CommandExecution.log under {log_root}"
        found.append(HealthCheck("extensions.handlers", "warning", f"not ready: {', '.join(failing)}", remedy))
    else:
        found.append(HealthCheck("extensions.handlers", "ok", f"{len(installed)} handlers, none failed"))
    return found
