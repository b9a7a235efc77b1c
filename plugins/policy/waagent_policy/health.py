"""The policy's part of ``waagent doctor``."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from waagent import HealthCheck

if TYPE_CHECKING:
    from waagent import Agent
    from waagent_policy.source import Found

_ID = "policy.file"


def check(agent: Agent, found: Found | None) -> HealthCheck:
    """Return whether the policy can be used, and whether others than root could change it."""
    if found is None:
        return HealthCheck(_ID, "ok", "there is no extension policy")
    if found.policy is None:
        return HealthCheck(
            _ID,
            "failed",
            f"{found.path} is invalid, so no extension is processed: {found.problem}",
            "correct the file; `waagent policy check` tells when it is right",
        )
    try:
        status = os.stat(found.path)
    except OSError as problem:
        return HealthCheck(_ID, "warning", f"{found.path}: {problem.strerror}")
    trusted = {0} if agent.paths.is_real else {0, os.geteuid()}
    if status.st_uid not in trusted or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return HealthCheck(
            _ID,
            "warning",
            f"others than root may change {found.path}",
            f"chown root {found.path} && chmod go-w {found.path}",
        )
    return HealthCheck(_ID, "ok", f"{found.path} is valid and in force")
