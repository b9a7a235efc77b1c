"""Services, whoever manages them here: systemd, OpenRC, procd or scripts in ``/etc/init.d``; found by looking."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waagent import AgentError

if TYPE_CHECKING:
    from waagent import Agent

SYSTEMD, OPENRC, PROCD, SYSV = "systemd", "openrc", "procd", "sysv"

ACTIONS = ("start", "stop", "restart", "reload", "enable", "disable", "mask", "unmask")
_TIMEOUT = 90.0
_IN_SCRIPTS = ("start", "stop", "restart", "reload")


def manager(agent: Agent) -> str:
    """Return who manages services on this machine."""
    at = agent.paths.at
    if os.path.isdir(at("/run/systemd/system")):
        return SYSTEMD
    if os.path.exists(at("/run/openrc")) or os.path.exists(at("/lib/rc/sh/openrc-run.sh")):
        return OPENRC
    if os.path.exists(at("/sbin/procd")):
        return PROCD
    return SYSV


def act(agent: Agent, service: str, action: str) -> bool:
    """Do *action* (one of :data:`ACTIONS`) with *service*, a name without suffix.

    Raises:
        AgentError: there is no such action, here or at all.
        CommandError: the manager of services refused.
    """
    if action not in ACTIONS:
        raise AgentError(f"{action!r} is no action on a service")
    if not service or "/" in service or service.startswith("-"):
        raise AgentError(f"{service!r} is no name of a service")
    kind = manager(agent)
    agent.run(_COMMANDS[kind](agent, service, action), timeout=_TIMEOUT, check=True)
    return True


def exists(agent: Agent, service: str) -> bool:
    """Return whether the manager of services knows *service*, a name without suffix."""
    if manager(agent) == SYSTEMD:
        return is_loaded(agent, service + ".service")
    return os.path.exists(agent.paths.at(f"/etc/init.d/{service}"))


def is_loaded(agent: Agent, unit: str) -> bool:
    """Return whether systemd has the unit's file (and it is not masked)."""
    done = agent.run(("systemctl", "show", "--property=LoadState", unit))
    return done.ok and done.stdout.strip() == "LoadState=loaded"


def is_enabled(agent: Agent, unit: str) -> bool:
    """Return whether systemd starts the unit at boot, by whatever way (ruling 42)."""
    done = agent.run(("systemctl", "is-enabled", unit), timeout=10)
    return done.stdout.strip() in ("enabled", "enabled-runtime", "static", "alias", "generated")


def _systemd(agent: Agent, service: str, action: str) -> tuple[str, ...]:
    unit = service + ".service"
    if action in ("start", "stop", "restart", "reload") and _is_inside(agent, unit):
        return ("systemctl", "--no-block", action, unit)  # waiting for one's own end never ends
    return ("systemctl", action, unit)


def _openrc(agent: Agent, service: str, action: str) -> tuple[str, ...]:
    if action in _IN_SCRIPTS:
        return ("rc-service", service, action)
    if action in ("enable", "disable"):
        return ("rc-update", "add" if action == "enable" else "del", service, "default")
    raise AgentError(f"OpenRC cannot {action} a service")


def _procd(agent: Agent, service: str, action: str) -> tuple[str, ...]:
    if action in ("mask", "unmask"):
        raise AgentError(f"procd cannot {action} a service")
    return (f"/etc/init.d/{service}", action)


def _sysv(agent: Agent, service: str, action: str) -> tuple[str, ...]:
    if action in _IN_SCRIPTS:
        return ("service", service, action)
    if action not in ("enable", "disable"):
        raise AgentError(f"init scripts cannot {action} a service")
    if os.path.exists(agent.paths.at("/usr/sbin/update-rc.d")):
        return ("update-rc.d", service, "defaults" if action == "enable" else "remove")
    if os.path.exists(agent.paths.at("/sbin/chkconfig")):
        return ("chkconfig", "--add" if action == "enable" else "--del", service)
    raise AgentError(f"there is neither update-rc.d nor chkconfig to {action} {service}")


_COMMANDS = {SYSTEMD: _systemd, OPENRC: _openrc, PROCD: _procd, SYSV: _sysv}


def _is_inside(agent: Agent, unit: str) -> bool:
    """Return whether this very process belongs to *unit*."""
    if not agent.paths.is_real:
        return False
    try:
        with open("/proc/self/cgroup", encoding="ascii", errors="replace") as stream:
            return any(f"/{unit}" in line for line in stream)
    except OSError:
        return False
