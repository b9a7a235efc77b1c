"""What was done for the goal state at hand: what no handler's file can tell (an exit code, that a step is behind us).

It lives in the runtime directory and dies at boot. While a goal state is being processed, a restarted agent reads it
and goes on; once the goal state is through, the next start begins anew and every enable runs again (extensions §11.2).
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from typing import Any

import attrs

from waagent import ensure_dir, write_atomic
from waagent_extensions.order import RETRY, Outcome
from waagent_extensions.planner import Ran

_LIMIT = 64 << 20


@attrs.define(eq=False, repr=False)
class Progress:
    """How far one unit is.

    Attributes:
        done: names of finished steps.
        ran: results of commands: (operation, version, extension).
        texts: what failed commands said, by the same key.
        updating_from: the version an update started from.
        version: the chosen version.
    """

    done: set[str] = attrs.field(factory=set)
    ran: dict[tuple[str, str, str | None], Ran] = attrs.field(factory=dict)
    texts: dict[tuple[str, str, str | None], tuple[int, str]] = attrs.field(factory=dict)
    updating_from: str | None = None
    outcome: Outcome | None = None


class Ledger:
    """The record of one pass over one goal state.

    It is kept in memory, and on disk for a later process; a disk that takes no record does not stop the work.

    Args:
        path: the file.
        boot_id: a record of another boot does not count.
    """

    def __init__(self, path: str, boot_id: str = "") -> None:
        self._path = path
        self._boot_id = boot_id
        self._units: dict[str, Progress] = {}
        self.goal_state: str = ""
        self.pass_id: str = ""
        self.began = 0.0
        """When the pass began, monotonic seconds: time limits of a goal state hold across agent processes."""
        self.open = False
        """Whether the pass on record is not through yet."""
        self._load()

    def begin(self, goal_state: str) -> bool:
        """Start a pass for *goal_state*, or go on with the one on record; return whether it goes on."""
        if self.open and self.goal_state == goal_state:
            return True
        self._units = {}
        self.goal_state = goal_state
        self.pass_id = f"{goal_state}.{os.urandom(4).hex()}"
        self.began = time.monotonic()
        self.open = True
        head = {"pass": self.pass_id, "goal_state": goal_state, "boot": self._boot_id, "began": self.began}
        try:
            ensure_dir(os.path.dirname(self._path), 0o755)
            write_atomic(self._path, json.dumps(head) + "\n", 0o600, durable=False)
        except OSError:
            # What is on record belongs to another pass: nothing of this one may be added to it.
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        return False

    def end(self) -> None:
        """Record that the goal state is through."""
        if self.open:
            self.open = False
            self._append({"ended": True})

    def unit(self, name: str) -> Progress:
        """Return how far the unit of that full name is."""
        return self._units.setdefault(name, Progress())

    def units(self) -> dict[str, Progress]:
        """Return all units on record."""
        return self._units

    def did(self, unit: str, step: str) -> None:
        """Record a finished step."""
        self._note({"unit": unit, "did": step})

    def ran(self, unit: str, call: tuple[str, str, str | None], ran: Ran, code: int, text: str) -> None:
        """Record how a command ended; *code* and *text* are what a failure reports."""
        self._note({"unit": unit, "ran": list(call), "ok": ran.ok, "code": ran.code, "error": code, "text": text})

    def updating(self, unit: str, version: str) -> None:
        """Record which version an update starts from."""
        self._note({"unit": unit, "from": version})

    def outcome(self, unit: str, outcome: Outcome) -> None:
        """Record how a unit ended. A retry is not recorded: a restarted agent tries at once."""
        if outcome.kind == RETRY:
            self.unit(unit).outcome = None
            return
        entry = {"unit": unit, "outcome": outcome.kind, "reason": outcome.reason, "code": outcome.code}
        self._note({**entry, "operation": outcome.operation, "began": outcome.began})

    def _note(self, entry: dict[str, Any]) -> None:
        self._apply(entry)
        self._append(entry)

    def _append(self, entry: dict[str, Any]) -> None:
        data = (json.dumps(entry) + "\n").encode()
        with contextlib.suppress(OSError):
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                os.write(descriptor, data)
            finally:
                os.close(descriptor)

    def _apply(self, entry: dict[str, Any]) -> None:
        progress = self.unit(str(entry["unit"]))
        if "did" in entry:
            progress.done.add(str(entry["did"]))
        elif "ran" in entry:
            operation, version, extension = entry["ran"]
            call = (str(operation), str(version), None if extension is None else str(extension))
            progress.ran[call] = Ran(bool(entry["ok"]), str(entry["code"]))
            progress.texts[call] = (int(entry["error"]), str(entry["text"]))
        elif "from" in entry:
            progress.updating_from = str(entry["from"])
        elif "outcome" in entry:
            progress.outcome = Outcome(
                str(entry["outcome"]),
                str(entry["reason"]),
                code=int(entry["code"]),
                operation=str(entry["operation"]),
                began=float(entry["began"]),
            )

    def _load(self) -> None:
        try:
            with open(self._path, "rb") as stream:
                data = stream.read(_LIMIT)
        except OSError:
            return
        # What a kill or a full disk cut off is no line.
        lines = data[: data.rfind(b"\n") + 1]
        for line in lines.splitlines():
            try:
                entry = json.loads(line)
                if "pass" in entry:
                    if entry.get("boot") != self._boot_id:
                        return
                    self.pass_id, self.goal_state = str(entry["pass"]), str(entry["goal_state"])
                    self.began = float(entry.get("began", time.monotonic()))
                    self.open = True
                elif "ended" in entry:
                    self.open = False
                elif self.open:
                    self._apply(entry)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        if len(lines) != len(data):
            with contextlib.suppress(OSError):
                write_atomic(self._path, lines, 0o600, durable=False)
