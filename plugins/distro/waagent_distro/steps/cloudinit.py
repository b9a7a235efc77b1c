"""Whether cloud-init is in charge of this machine's first boot (spec/provisioning.md §1.1, ruling 42)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waagent_distro.steps import services, textfiles

if TYPE_CHECKING:
    from waagent import Agent

UNIT = "cloud-init-local.service"


def is_enabled(agent: Agent) -> bool:
    """Return whether cloud-init runs at boot; its own switches are asked in its own order, then systemd."""
    words = textfiles.first_line(agent.paths.at("/proc/cmdline")).split()
    if "cloud-init=enabled" not in words:
        switches = ("/etc/cloud/cloud-init.disabled", "/run/cloud-init/disabled")
        if "cloud-init=disabled" in words or any(os.path.exists(agent.paths.at(path)) for path in switches):
            return False
    return services.is_enabled(agent, UNIT)
