"""What outlives a kill: that formatting began on which table of partitions, and how it ended (state file, fsynced).

The table that is about to be written has an identifier of our choice, noted before the first byte is written. A disk
that carries it is ours; when the platform has put a fresh disk in its place, the note means nothing any more.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from waagent import Agent

NAME = "resourcedisk"
BEGUN, FAILED, DONE = "begun", "failed", "done"
MOST_TRIES = 3
"""How often formatting is begun since the machine started, when something kills the agent each time."""


class Marker:
    """The note.

    Args:
        agent: holds the state files.
        boot_id: names this run of the kernel.
    """

    def __init__(self, agent: Agent, boot_id: str) -> None:
        self._agent = agent
        self._boot_id = boot_id

    def _load(self) -> dict[str, Any]:
        value = self._agent.state.load(NAME, {})
        return value if isinstance(value, dict) else {}

    def is_ours(self, table_id: str, size: int) -> bool:
        """Return whether formatting began on the disk with this table, and nobody knows that it ended."""
        note = self._load()
        return (
            bool(table_id) and note.get("state") == BEGUN and (note.get("table"), note.get("size")) == (table_id, size)
        )

    def gave_up(self) -> str:
        """Return why formatting is not begun again before the machine starts anew; empty: it may be."""
        note = self._load()
        if note.get("boot") != self._boot_id:
            return ""
        if note.get("state") == FAILED:
            return f"formatting failed since the machine started: {note.get('reason', '')}"
        if note.get("state") == DONE:
            return "the disk was formatted already since the machine started"
        tries = note.get("tries")
        if isinstance(tries, int) and tries >= MOST_TRIES:
            return f"formatting was cut short {tries} times since the machine started"
        return ""

    def begin(self, table: str, size: int) -> str:
        """Note that formatting begins, and return the identifier that the new table has to carry.

        Args:
            table: ``gpt`` or ``dos``.
            size: of the disk in bytes.
        """
        note = self._load()
        tries = note.get("tries", 0) if note.get("boot") == self._boot_id and note.get("state") == BEGUN else 0
        identifier = _new_identifier(table)
        self._save(state=BEGUN, table=identifier, size=size, tries=tries + 1)
        return identifier

    def carries(self, identifier: str) -> None:
        """Note the identifier of the table that was written, where it could not be chosen."""
        self._save(**{**self._load(), "table": identifier})

    def keep(self) -> None:
        """Note that the disk is in use: what an interrupted run left on it was complete, and is never made anew."""
        if self._load().get("state") == BEGUN:
            self.end()

    def end(self, problem: str = "") -> None:
        """Note how it ended."""
        note = self._load()
        self._save(state=FAILED if problem else DONE, table=note.get("table"), size=note.get("size"), reason=problem)

    def _save(self, **values: object) -> None:
        self._agent.state.save(NAME, {**values, "boot": self._boot_id})


def _new_identifier(table: str) -> str:
    digits = os.urandom(16).hex()
    if table != "gpt":
        return digits[:8] if int(digits[:8], 16) else "1" + digits[1:8]
    # A random UUID, version 4.
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:32]}"
