"""``Extensions.WaitForCloudInit=y``: the first extension waits until cloud-init is through (extensions §18)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from waagent import Agent

_DONE_WITH_ERRORS = 2
"""Recent versions of cloud-init end so when they completed in spite of recoverable errors."""


class CloudInitWait:
    """Waits once per agent process; whatever comes of it, extensions are processed afterwards."""

    def __init__(self) -> None:
        self._waited = False

    def wait(self, agent: Agent) -> None:
        """Wait for cloud-init if the configuration says so and it was not waited for yet."""
        if self._waited or not agent.config.boolean("Extensions.WaitForCloudInit"):
            return
        self._waited = True
        timeout = agent.config.integer("Extensions.WaitForCloudInitTimeout")
        agent.log.info("Waiting for cloud-init to complete...")
        began = time.monotonic()
        ended = agent.run(["cloud-init", "status", "--wait"], timeout=timeout)
        said = (ended.stdout + ended.stderr).strip()
        if not ended.timed_out and ended.returncode in (0, _DONE_WITH_ERRORS):
            agent.log.info(f"cloud-init completed\n{said}")
            return
        reason = f"after {timeout} s" if ended.timed_out else f"with exit code {ended.returncode}"
        message = f"Waiting for cloud-init failed {reason}; extensions are processed all the same: {said[:1000]}"
        agent.events.add(
            "CloudInit", success=False, message=message, duration_ms=int((time.monotonic() - began) * 1000)
        )
