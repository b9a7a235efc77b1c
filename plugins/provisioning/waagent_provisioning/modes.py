"""Who provisions this machine: this agent, cloud-init, or nobody; never two (provisioning §1, ruling 42)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from waagent import NoAnswer, StateError, read_limited

if TYPE_CHECKING:
    from waagent import Agent

OURS, CLOUD_INIT, DISABLED = "waagent", "cloud-init", "disabled"
AUTO = "auto"
MODES = (OURS, CLOUD_INIT, DISABLED)

ENABLED_STATES = ("enabled", "enabled-runtime", "static", "alias", "generated")
"""What systemd says of a unit that is started at boot, by whatever way (ruling 42)."""

_UNIT = "cloud-init-local.service"
_PROBE_TIMEOUT = 10.0
_SWITCHED_OFF = ("/etc/cloud/cloud-init.disabled", "/run/cloud-init/disabled")


@attrs.frozen
class Choice:
    """Who provisions.

    Attributes:
        mode: one of :data:`MODES`.
        problem: why nobody can, for the owner; empty when somebody can.
    """

    mode: str
    problem: str = ""


def configured(agent: Agent) -> str:
    """Return what ``Provisioning.Agent`` says; any word that nobody knows means ``disabled``."""
    word = agent.config.text("Provisioning.Agent") or AUTO
    return word if word in (AUTO, *MODES) else DISABLED


def choose(agent: Agent) -> Choice:
    """Return who provisions this machine; asks plugins and the system where the configuration leaves it open."""
    word = configured(agent)
    if word == AUTO:
        try:
            answer = agent.hooks.select_provisioner(agent)
        except NoAnswer as problem:
            return Choice(OURS, f"It cannot be found out who provisions this machine: {problem}")
        if answer is None:
            return Choice(CLOUD_INIT if cloud_init_enabled(agent) else OURS)
        if answer not in MODES:
            known = ", ".join(MODES)
            return Choice(OURS, f"A plugin chose {answer!r} to provision this machine; known are {known}")
        word = answer
    if word == OURS and cloud_init_enabled(agent):
        return Choice(
            OURS,
            "cloud-init is enabled and unexpected: two would provision this machine. Disable cloud-init, or set "
            "Provisioning.Agent to auto or cloud-init",
        )
    return Choice(word)


def cloud_init_enabled(agent: Agent) -> bool:
    """Return whether cloud-init runs at boot: its own switches in its own order, then the service managers."""
    words = _command_line(agent)
    if "cloud-init=enabled" not in words:
        if os.path.exists(agent.paths.at(_SWITCHED_OFF[0])):
            return False
        if "cloud-init=disabled" in words or os.path.exists(agent.paths.at(_SWITCHED_OFF[1])):
            return False
    if not agent.paths.is_real:
        # Commands would tell of the machine outside; what cloud-init's generator leaves lies under the root.
        return os.path.exists(agent.paths.at("/run/cloud-init/enabled"))
    done = agent.run(("systemctl", "is-enabled", _UNIT), timeout=_PROBE_TIMEOUT)
    if done.stdout.strip() in ENABLED_STATES:
        return True
    return agent.run(("service", "cloud-init", "status"), timeout=_PROBE_TIMEOUT).ok


def _command_line(agent: Agent) -> list[str]:
    try:
        return read_limited(agent.paths.at("/proc/cmdline"), 1 << 16).decode("utf-8", "replace").split()
    except (OSError, StateError):
        return []
