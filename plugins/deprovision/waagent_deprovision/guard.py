"""Not sawing off the branch: a deprovision stops the service, which must not be what runs it (provisioning §18.6)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from waagent import Agent

LOCKS = ("daemon.lock", "boot.lock", "worker.lock")
"""Held by the processes of the service as long as they live (ruling 19c)."""


def service_name(agent: Agent, names: Sequence[str]) -> str:
    """Return by which of *names* the service that runs goes, the first when systemd does not tell.

    A package calls it as the distribution does, somebody who installed it otherwise may not.
    """
    if agent.paths.is_real:
        for lock in LOCKS:
            if _is_held(agent.paths.run(lock)):
                unit = _unit(_text(f"/proc/{_holder(agent, lock)}/cgroup"), names)
                if unit:
                    return unit
    return names[0]


def inside_service(agent: Agent, names: Sequence[str]) -> str | None:
    """Return in a few words how this process belongs to the agent's own service, ``None`` when it does not.

    Args:
        names: what the service may be called.
    """
    if agent.paths.is_real:
        unit = _unit(_text("/proc/self/cgroup"), names)
        if unit:
            return f"it runs inside {unit}.service"
        if os.path.isdir("/run/systemd/system"):
            return None
    # Without systemd there is no unit to look at; the processes above this one tell as much.
    holders = {_holder(agent, name) for name in LOCKS if _is_held(agent.paths.run(name))}
    pid = os.getpid()
    for _ in range(64):
        pid = _parent(pid)
        if pid in holders:
            return f"it was started by process {pid} of the service"
        if pid <= 1:
            break
    return None


def running(agent: Agent) -> str:
    """Return which process of the service runs, in a few words; empty when none does."""
    for name in LOCKS:
        if _is_held(agent.paths.run(name)):
            return f"process {_holder(agent, name) or '?'} holds {agent.paths.run(name)}"
    return ""


def _unit(groups: str, names: Sequence[str]) -> str:
    """Return which of *names* is that of the unit in a process's control groups, empty for none of them."""
    parts = {part for line in groups.split("\n") for part in line.split("/")}
    return next((name for name in names if f"{name}.service" in parts), "")


def _is_held(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _holder(agent: Agent, name: str) -> int:
    word = _text(agent.paths.run(name)).split(" ", 1)[0].strip()
    return int(word) if word.isdigit() else 0


def _parent(pid: int) -> int:
    words = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def _text(path: str) -> str:
    try:
        with open(path, "rb") as stream:
            return stream.read(65536).decode("utf-8", "replace")
    except OSError:
        return ""
