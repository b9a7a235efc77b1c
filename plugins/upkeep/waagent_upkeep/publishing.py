"""Making a host name known: what is known already, and the plan (provisioning §10, §16)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from waagent import Plan, StateError, Step, ensure_dir, read_json, read_limited, write_atomic
from waagent_upkeep.patience import numbered

if TYPE_CHECKING:
    from waagent import Agent

PUBLISHED_FILE = "published_hostname"
CLOUD_INIT_FILE = "/var/lib/cloud/data/set-hostname"
_PLACEHOLDERS = ("", "(none)", "localhost", "localhost.localdomain")
_LIMIT = 64 << 10


def is_placeholder(name: str) -> bool:
    """Return whether *name* is what a machine is called that has no name yet, or no more."""
    return name.lower() in _PLACEHOLDERS


def published(agent: Agent) -> str:
    """Return the name that was published last, empty when none was."""
    return _text(agent.paths.lib(PUBLISHED_FILE))


def baseline(agent: Agent, name: str) -> str:
    """Return the name that counts as published, and note it when nothing was noted before.

    Args:
        agent: its state directory holds the note.
        name: what the machine is called now.

    Raises:
        OSError: the note cannot be written.
    """
    noted = published(agent)
    if noted:
        return noted
    first = _of_cloud_init(agent) or name
    if is_placeholder(first):
        return ""
    note(agent, first)
    return first


def note(agent: Agent, name: str) -> None:
    """Remember that *name* is published.

    Raises:
        OSError: it cannot be written.
    """
    ensure_dir(agent.paths.lib_dir)
    write_atomic(agent.paths.lib(PUBLISHED_FILE), name)


def plan(agent: Agent, name: str, attempt: int = 0, present: Callable[[], str] | None = None) -> Plan:
    """Return the plan that ends with *name* published.

    Args:
        agent: whose distribution does it.
        name: the new name.
        attempt: how often it was tried before.
        present: asks the kernel for the machine's name.
    """
    done: set[str] = set()
    ask = present or (lambda: os.uname().nodename)

    def probe() -> dict[str, Any]:
        return {"name": ask(), "set": "set" in done, "told": "told" in done, "published": published(agent)}

    def set_it() -> None:
        agent.distro.set_hostname(name)
        done.add("set")

    def publish() -> None:
        agent.distro.publish_hostname(name)
        done.add("told")

    def missing(facts: Mapping[str, Any]) -> list[Step]:
        if facts["name"] != name or facts["published"] == name:
            return []
        steps = []
        if not facts["set"]:
            summary = f"give the machine the name {name} for good"
            steps.append(Step(numbered(f"set {name}", attempt), summary, set_it, gives={"set": True}))
        if not facts["told"]:
            summary = f"publish the name {name} through DHCP"
            steps.append(Step(numbered(f"publish {name}", attempt), summary, publish, gives={"told": True}))
        summary = f"note that {name} is published"
        run = lambda: note(agent, name)  # noqa: E731 - one of three, and the shortest
        steps.append(Step(numbered(f"note {name}", attempt), summary, run, gives={"published": name}))
        return steps

    return Plan("host name", probe, missing)


def _of_cloud_init(agent: Agent) -> str:
    try:
        content = read_json(agent.paths.at(CLOUD_INIT_FILE), _LIMIT)
    except StateError:
        return ""
    name = content.get("hostname") if isinstance(content, dict) else None
    return name.strip() if isinstance(name, str) else ""


def _text(path: str) -> str:
    try:
        return read_limited(path, _LIMIT).decode("utf-8", "replace").strip()
    except (OSError, StateError):
        return ""
