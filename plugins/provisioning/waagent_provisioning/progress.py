"""What outlives the process: how far provisioning is, and what the platform has not been told yet."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from waagent import StateError, read_limited
from waagent_provisioning import modes

if TYPE_CHECKING:
    from waagent import Agent

MARKER = "provisioned"
"""File in the state directory: the machine is provisioned; holds its unique id (provisioning §12)."""

_PROGRESS = "provisioning"
_REPORT = "provisioning-report"


class Progress:
    """Which steps of this machine's provisioning are done, from the first one until the medium is ejected.

    What another machine left in an image counts for nothing, nor does anything on a machine that does not tell who it
    is: then all steps are taken again, which harms nothing.

    Args:
        agent: whose state it is kept in.
        vm_id: of this machine, may be empty.
    """

    def __init__(self, agent: Agent, vm_id: str) -> None:
        self._agent = agent
        self._vm_id = vm_id
        found = agent.state.load(_PROGRESS)
        mine = isinstance(found, dict) and vm_id and found.get("vm_id") == vm_id and isinstance(found.get("done"), list)
        self._value: dict[str, Any] = found if mine else {"vm_id": vm_id, "done": []}

    @property
    def open(self) -> bool:
        """Whether provisioning was begun and is not through."""
        return bool(self._value["done"])

    def is_done(self, step: str) -> bool:
        """Return whether *step* was done."""
        return step in self._value["done"]

    def mark(self, *steps: str) -> None:
        """Record that *steps* are done; on the disk when this returns."""
        self._value["done"] = [*self._value["done"], *(step for step in steps if not self.is_done(step))]
        self._agent.state.save(_PROGRESS, self._value)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value of this machine's provisioning."""
        return self._value.get(name, default)

    def set(self, name: str, value: Any) -> None:
        """Keep a value (JSON, no secret)."""
        self._value[name] = value
        self._agent.state.save(_PROGRESS, self._value)

    def close(self) -> None:
        """Provisioning is through: forget how far it was."""
        self._value = {"vm_id": self._vm_id, "done": []}
        self._agent.state.save(_PROGRESS, None)


def read_marker(agent: Agent) -> str | None:
    """Return what the marker of a provisioned machine holds, ``None`` when there is none."""
    path = agent.paths.lib(MARKER)
    if not os.path.lexists(path):
        return None
    try:
        return read_limited(path, 4096).decode("ascii", "replace").strip()
    except (OSError, StateError):
        return "unreadable"  # it is there: the machine is provisioned


def ready_is_due(agent: Agent) -> bool:
    """Return whether Ready is to be said although nothing was done: at each boot where nobody provisions (§14.1)."""
    if modes.configured(agent) != modes.DISABLED:
        return False
    return Owed(agent).last_boot != agent.executor.journal.boot


def begun(agent: Agent) -> bool:
    """Return whether any provisioning was begun and not ended: a look that needs nothing but one file."""
    found = agent.state.load(_PROGRESS)
    return isinstance(found, dict) and bool(found.get("done"))


class Owed:
    """The report that the platform has not accepted yet; at most one, the newest.

    Args:
        agent: whose state it is kept in.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    @property
    def report(self) -> dict[str, str] | None:
        """``state``, ``substatus`` and ``description``; ``None`` when nothing is owed."""
        found = self._load().get("owed")
        return found if isinstance(found, dict) and isinstance(found.get("state"), str) else None

    def owe(self, state: str, substatus: str = "", description: str = "") -> None:
        """Remember that this is to be reported."""
        self._save(owed={"state": state, "substatus": substatus, "description": description})

    def settled(self, boot: str) -> None:
        """The platform has accepted it, under this boot id."""
        self._save(owed=None, boot=boot)

    @property
    def fingerprint(self) -> str:
        """Of the SSH host key, as people read it; empty when the platform has been told."""
        return str(self._load().get("fingerprint") or "")

    def note_fingerprint(self, fingerprint: str) -> None:
        """Remember that the platform is to be told; an empty text when it was."""
        if self.fingerprint != fingerprint:
            self._save(fingerprint=fingerprint)

    @property
    def last_boot(self) -> str:
        """The boot id under which the platform accepted the last report."""
        return str(self._load().get("boot") or "")

    @property
    def failure(self) -> str:
        """Why the last attempt failed, empty when it did not."""
        return str(self._load().get("failure") or "")

    def note_failure(self, reason: str) -> None:
        """Keep why provisioning failed, for people; an empty text when it did not."""
        if self.failure != reason:
            self._save(failure=reason)

    def _load(self) -> dict[str, Any]:
        found = self._agent.state.load(_REPORT)
        return found if isinstance(found, dict) else {}

    def _save(self, **changes: Any) -> None:
        self._agent.state.save(_REPORT, {**self._load(), **changes})
