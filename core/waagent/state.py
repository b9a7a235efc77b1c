"""Small state of ours that outlives the process: one JSON file per name, written whole (architecture §11)."""

from __future__ import annotations

import os
import threading

from waagent.errors import StateError
from waagent.files import ensure_dir, move_aside, read_json, write_json

TYPE_CHECKING = False  # the resident worker does without the typing module
if TYPE_CHECKING:
    from typing import Any

    from waagent.log import Log

SCHEMA = 1


class State:
    """Named JSON values in a directory. A file that cannot be used is moved aside and the default counts.

    A value that the disk refuses is kept in memory and offered to the disk again (:meth:`retry`), so a full disk stops
    nothing.

    Args:
        directory: made when the first value is saved.
        log: gets one warning per file that was moved aside, and one when the disk refuses and one when it takes again.

    Attributes:
        problems: one line per file that could not be used, for the status.
    """

    def __init__(self, directory: str, log: Log | None = None) -> None:
        self._directory = directory
        self._log = log
        self._lock = threading.Lock()
        self._unsaved: dict[str, Any] = {}
        self._refused = ""
        self.problems: list[str] = []

    def path(self, name: str) -> str:
        """Return the file that holds *name*."""
        return os.path.join(self._directory, name + ".json")

    def load(self, name: str, default: Any = None) -> Any:
        """Return the value saved under *name*, or *default*; never raises."""
        with self._lock:
            if name in self._unsaved:
                return self._unsaved[name]
            path = self.path(name)
            try:
                content = read_json(path)
            except StateError as problem:
                self._set_aside(path, str(problem))
                return default
            if content is None:
                return default
            if isinstance(content, dict) and content.get("schema") == SCHEMA and "value" in content:
                return content["value"]
            self._set_aside(path, f"{path}: not of schema {SCHEMA}")
            return default

    def save(self, name: str, value: Any) -> bool:
        """Keep *value* (anything JSON takes) under *name*; ``False`` when it is in memory only for now.

        Raises:
            TypeError, ValueError: *value* is no JSON.
        """
        with self._lock:
            return self._save(name, value)

    def retry(self) -> bool:
        """Offer the disk what it refused; returns whether nothing is left."""
        with self._lock:
            return all(self._save(name, value) for name, value in list(self._unsaved.items()))

    @property
    def refused(self) -> str:
        """Why the disk refused the last write; empty when everything is on it."""
        return self._refused if self._unsaved else ""

    def _save(self, name: str, value: Any) -> bool:
        path = self.path(name)
        try:
            ensure_dir(self._directory)
            if os.path.isdir(path) and not os.path.islink(path):
                self._set_aside(path, f"{path}: is a directory")
            write_json(path, {"schema": SCHEMA, "value": value})
        except OSError as problem:
            if not self._unsaved and self._log:
                self._log.warning(f"{path} cannot be written ({problem}); it is kept in memory and tried again")
            self._unsaved[name] = value
            self._refused = f"{path}: {problem}"
            return False
        if self._unsaved.pop(name, None) is not None and not self._unsaved and self._log:
            self._log.info("State files can be written again")
        return True

    def _set_aside(self, path: str, reason: str) -> None:
        try:
            reason += f"; moved to {move_aside(path)}"
        except OSError as problem:
            reason += f"; cannot be moved aside: {problem}"
        if reason not in self.problems:
            self.problems.append(reason)
            if self._log:
                self._log.warning(f"State file {reason}")
