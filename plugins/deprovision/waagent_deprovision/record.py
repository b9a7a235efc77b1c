"""What a deprovision found, kept until it is through: what tells the user is removed half-way (ruling 44)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import attrs

from waagent import StateError, ensure_dir, read_json, write_json

if TYPE_CHECKING:
    from waagent import Agent

NAME = "deprovision.json"
_SCHEMA = 1


@attrs.frozen(eq=False, repr=False)
class Record:
    """The facts of a deprovision that was begun.

    Attributes:
        users: names of the provisioned users.
        ovf: what became of reading ``ovf-env.xml``: ``read``, ``missing`` or ``unreadable``.
        resolver: the resolver files.
        warnings: what was shown before the first step.
    """

    users: tuple[str, ...] = ()
    ovf: str = "missing"
    resolver: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def path(agent: Agent) -> str:
    """Return where it lies: it dies with the machine's start at the latest."""
    return agent.paths.run(NAME)


def load(agent: Agent) -> Record | None:
    """Return what an interrupted or failed run noted, ``None`` when there was none, or it cannot be read."""
    try:
        content: Any = read_json(path(agent), 1 << 20)
        if content is None or content["schema"] != _SCHEMA:
            return None
        return Record(
            tuple(map(str, content["users"])),
            str(content["ovf"]),
            tuple(map(str, content["resolver"])),
            tuple(map(str, content["warnings"])),
        )
    except (StateError, KeyError, TypeError) as problem:
        agent.log.warning(f"What an earlier deprovision noted cannot be used: {problem}")
        return None


def save(agent: Agent, record: Record) -> None:
    """Note *record*.

    Raises:
        OSError: it cannot be written.
    """
    ensure_dir(agent.paths.run_dir, 0o755)
    write_json(path(agent), {"schema": _SCHEMA, **attrs.asdict(record)})


def forget(agent: Agent) -> None:
    """Remove it: everything is done."""
    try:
        os.unlink(path(agent))
    except FileNotFoundError:
        pass
    except OSError as problem:
        agent.log.warning(f"{path(agent)} cannot be removed: {problem.strerror}")
