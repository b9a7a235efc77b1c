"""The goal states that were seen, for people who look for a fault (wireserver §15.7). Nothing here fails an update."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from waagent.files import ensure_dir, write_atomic
from waagent.log import WARNING, Log
from waagent.platform.names import as_file_name, history_directory, is_history_item

KEPT = 50
"""Items, directories and zips together."""
WARN_EVERY = 3600.0


class History:
    """The directory ``<lib>/history``: one directory per goal state, older ones zipped, the newest fifty kept.

    Texts are redacted by whoever hands them in.

    Args:
        directory: created with the first goal state, 0700.
        log: failures are one warning an hour.
        now: seconds since 1970.
    """

    def __init__(self, directory: str, log: Log, now: Callable[[], float] = time.time) -> None:
        self.directory = directory
        self.current: str | None = None
        self._log = log
        self._now = now

    def begin(self, tag: str) -> None:
        """Open the directory of a new goal state; what is saved from now on lies there."""
        name = history_directory(as_file_name(tag), self._now())
        path = os.path.join(self.directory, name)
        self.current = None
        with self._contained("open", path):
            ensure_dir(self.directory)
            ensure_dir(path)
            self.current = path

    def save(self, name: str, text: str | bytes) -> None:
        """Write one document of the current goal state; no goal state, nothing written."""
        if self.current is None:
            return
        path = os.path.join(self.current, as_file_name(name))
        with self._contained("write", path):
            write_atomic(path, text, durable=False)

    def archive(self) -> None:
        """Zip every directory but the newest and delete the oldest items above the limit."""
        with self._contained("archive", self.directory):
            items = sorted(name for name in os.listdir(self.directory) if is_history_item(name))
            newest = os.path.basename(self.current) if self.current else items[-1] if items else ""
            for name in items[: max(0, len(items) - KEPT)]:
                if name != newest:
                    self._delete(os.path.join(self.directory, name))
            for name in items[max(0, len(items) - KEPT) :]:
                path = os.path.join(self.directory, name)
                if name != newest and not name.endswith(".zip") and os.path.isdir(path) and not os.path.islink(path):
                    self._zip(path)

    def _zip(self, path: str) -> None:
        import zipfile  # costs 1 MB with all it brings; only when there is something to zip

        temporary = f"{path}.zip.tmp"
        with self._contained("zip", path):
            try:
                descriptor = os.open(
                    temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
                )
                with open(descriptor, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
                    for name in sorted(os.listdir(path)):
                        member = os.path.join(path, name)
                        if not name.startswith(".") and os.path.isfile(member) and not os.path.islink(member):
                            # A clock before 1980 is no reason to lose the document.
                            info = zipfile.ZipInfo(name, time.gmtime(max(os.path.getmtime(member), 315_532_800))[:6])
                            info.compress_type = zipfile.ZIP_DEFLATED
                            info.external_attr = 0o600 << 16
                            with open(member, "rb") as source:
                                archive.writestr(info, source.read())
                os.rename(temporary, f"{path}.zip")
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
            _remove(path)

    def _delete(self, path: str) -> None:
        with self._contained("delete", path):
            if os.path.isdir(path) and not os.path.islink(path):
                _remove(path)
            else:
                os.unlink(path)

    @contextlib.contextmanager
    def _contained(self, what: str, path: str):  # type: ignore[no-untyped-def]
        try:
            yield
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as problem:
            self._log.periodic(WARN_EVERY, f"history {what}", WARNING, f"history: cannot {what} {path}: {problem}")


def _remove(directory: str) -> None:
    """Delete a directory of ours: it holds files alone."""
    for name in os.listdir(directory):
        os.unlink(os.path.join(directory, name))
    os.rmdir(directory)
