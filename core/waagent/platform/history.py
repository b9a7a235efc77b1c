"""The goal states that were seen, for people who look for a fault (wireserver §15.7). Nothing here fails an update."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from waagent.errors import AgentError
from waagent.files import ensure_dir, write_atomic
from waagent.log import WARNING, Log
from waagent.platform.names import as_file_name, history_directory, is_history_item

Apart = Callable[[str, "dict[str, Any]"], Iterable[Any]]
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

    def save(self, name: str, text: str | bytes) -> bool:
        """Write one document of the current goal state; return whether it is there: not without a goal state."""
        if self.current is None:
            return False
        path = os.path.join(self.current, as_file_name(name))
        with self._contained("write", path):
            write_atomic(path, text, durable=False)
            return True
        return False

    def archive(self, apart: Apart | None = None) -> None:
        """Zip every directory but the newest and delete the oldest items above the limit.

        Args:
            apart: runs a function in another process, as :meth:`waagent.platform.client.Platform.apart` does: what
                zips is 1.5 MB of modules that the resident worker does without.
        """
        with self._contained("archive", self.directory):
            items = sorted(name for name in os.listdir(self.directory) if is_history_item(name))
            newest = os.path.basename(self.current) if self.current else items[-1] if items else ""
            surplus = [name for name in items[: max(0, len(items) - KEPT)] if name != newest]
            plain = [
                name
                for name in items[max(0, len(items) - KEPT) :]
                if name != newest and not name.endswith(".zip") and self._is_directory(name)
            ]
            if not surplus and not plain:
                return
            wanted: dict[str, Any] = {"directory": self.directory, "surplus": surplus, "plain": plain}
            for what, path, reason in apart(f"{__name__}:tidy", wanted) if apart is not None else tidy(**wanted):
                self._complain(what, path, reason)

    def _is_directory(self, name: str) -> bool:
        path = os.path.join(self.directory, name)
        return os.path.isdir(path) and not os.path.islink(path)

    @contextlib.contextmanager
    def _contained(self, what: str, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            pass
        except (OSError, ValueError, AgentError) as problem:
            self._complain(what, path, str(problem))

    def _complain(self, what: str, path: str, reason: str) -> None:
        self._log.periodic(WARN_EVERY, f"history {what}", WARNING, f"history: cannot {what} {path}: {reason}")


def tidy(directory: str, surplus: list[str], plain: list[str]) -> list[tuple[str, str, str]]:
    """Delete *surplus* and zip *plain*, names in *directory*; return what could not be done: what, path, why."""
    problems = []
    for what, names, do in (("delete", surplus, _delete), ("zip", plain, _zip)):
        for name in names:
            path = os.path.join(directory, name)
            try:
                do(path)
            except FileNotFoundError:
                pass
            except (OSError, ValueError) as problem:
                problems.append((what, path, str(problem)))
    return problems


def _delete(path: str) -> None:
    import shutil

    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def _zip(path: str) -> None:
    import shutil
    import zipfile

    temporary = f"{path}.zip.tmp"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
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
    shutil.rmtree(path)
