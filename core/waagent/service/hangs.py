"""What the worker does about work that never ends: stacks on request, an end when status itself hangs (ruling 11)."""

from __future__ import annotations

import faulthandler
import os
import threading

from waagent.files import ensure_dir
from waagent.service.beats import DUMP_SIGNAL, STACKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waagent.agent import Agent

WATCHED = ("platform", "status")
OVERDUE = 300.0
"""Seconds over its deadline after which the work of a watched lane is given up, and the worker with it."""
LOOK = 30.0
EXIT_CODE = 75


def look_at_lanes(agent: Agent) -> None:
    """End the process when a lane that status depends on is stuck for good; the supervisor starts another one."""
    for name in WATCHED:
        lane = agent.lanes.get(name)
        if lane is not None and lane.overdue_seconds > OVERDUE:
            busy = lane.busy
            what = busy[0] if busy else "its work"
            agent.log.error(
                f"Lane {name} is stuck in {what}: more than {OVERDUE:g} s over its deadline. The worker "
                f"ends and is started again; commands of extensions go on"
            )
            for line in all_stacks():
                agent.log.error("  " + line)
            os._exit(EXIT_CODE)


def all_stacks() -> list[str]:
    """Return the present stack of every thread, one call per line."""
    from waagent.lanes import thread_stack

    lines = []
    for thread in threading.enumerate():
        lines.append(f"Thread {thread.name}:")
        lines.extend("  " + line for line in thread_stack(thread.ident).splitlines())
    return lines


def prepare_dumps(agent: Agent) -> None:
    """Let every thread's stack be written when the supervisor asks for it, or when the interpreter crashes."""
    path = agent.paths.run(STACKS)
    try:
        ensure_dir(os.path.dirname(path), 0o755)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as problem:
        agent.log.warning(f"{path} cannot be written, a hang will leave no stacks: {problem}")
        return
    faulthandler.enable(descriptor)
    faulthandler.register(DUMP_SIGNAL, descriptor, all_threads=True)
