"""Noticing that this machine is not the one that was provisioned: copied, moved (cli §5.3, provisioning §12).

It belongs to the boot stage and not to a feature: whatever provisioned the machine and whichever plugins are on, state
of another machine must be gone before anybody acts on it.
"""

from __future__ import annotations

import os
import re

from waagent.errors import NoAnswer, StateError
from waagent.files import read_limited, write_atomic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from waagent.agent import Agent
    from waagent.plan import Plan

MARKER = "provisioned"
"""File in the state directory: the machine is provisioned; holds its unique id, or nothing (agent 2.0)."""

_LIMIT = 4096
_GUID = re.compile(r"([0-9A-Fa-f]{8})-([0-9A-Fa-f]{4})-([0-9A-Fa-f]{4})-([0-9A-Fa-f]{4}-[0-9A-Fa-f]{12})\Z")


def swapped(vm_id: str) -> str:
    """Return *vm_id* with the bytes of its first three groups in the other order; what is no GUID stays.

    Firmware of the first generation and agents disagree about that order, so both mean one machine.
    """
    match = _GUID.match(vm_id)
    if match is None:
        return vm_id
    head = [bytes.fromhex(group)[::-1].hex() for group in match.groups()[:3]]
    text = "-".join([*head, match.group(4)])
    return text.upper() if vm_id.upper() == vm_id else text.lower()


def same_machine(recorded: str, present: str) -> bool:
    """Return whether two unique ids mean one machine (provisioning §12)."""
    return recorded.lower() in (present.lower(), swapped(present).lower())


class VmIdentity:
    """Fires ``on_vm_identity_change`` when the recorded id is not this machine's, and records the new one afterwards.

    Args:
        agent: the boot stage's agent, plugins loaded.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._marker = agent.paths.lib(MARKER)

    def look(self, run: Callable[[list[tuple[str, Plan]]], object]) -> bool:
        """Compare, and let *run* run the plugins' plans when it is another machine; return whether it is.

        The new id is recorded also when a plan failed, which is told elsewhere: plans that forget what extensions did
        would make them do it again at every start. Killed before that, all of it happens again.
        """
        recorded = self._recorded()
        if not recorded or not self._agent.distro.may_change:
            return False  # the machine outside says nothing about a directory (ruling 7)
        present = self._present()
        if not present:
            self._agent.log.warning(
                f"The machine does not tell its unique id: it counts as the one that was provisioned, {recorded}"
            )
            return False
        if same_machine(recorded, present):
            return False
        message = (
            f"VM identity changed from {recorded} to {present}: the image was made of a machine that was not "
            f"deprovisioned, or the machine was moved"
        )
        self._agent.log.warning(message)
        self._agent.events.add("Provision", success=False, message=message, logged=True)
        run(self._agent.hooks.on_vm_identity_change(self._agent, recorded.upper(), present))
        if self._agent.stopping.is_set():
            return True  # the plans may not have run to their end; the next start sees the change again
        try:
            write_atomic(self._marker, present)
        except OSError as problem:
            self._agent.log.error(f"{self._marker} cannot be written: {problem}")
        return True

    def _recorded(self) -> str:
        if not os.path.lexists(self._marker):
            return ""
        try:
            return read_limited(self._marker, _LIMIT).decode("ascii", "replace").strip()
        except (OSError, StateError) as problem:
            self._agent.log.warning(f"{self._marker} cannot be read: {problem}")
            return ""

    def _present(self) -> str:
        try:
            return str(self._agent.distro.read_vm_id()).strip().upper()
        except NoAnswer as problem:
            self._agent.log.verbose(str(problem))
            return ""
