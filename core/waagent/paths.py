"""Where every file of the agent lies, under one root (ruling 7). Standard library alone: the supervisor uses it."""

from __future__ import annotations

import os


class Paths:
    """The agent's places, absolute and already under the root.

    Attributes:
        root: ``/``, or the directory given with ``--root`` or ``WAAGENT_ROOT``.
        lib_dir: state, mode 0700 (``Lib.Dir``, default ``/var/lib/waagent``).
        run_dir: what dies at boot, mode 0755 (``/run/waagent``).
        log_file: the agent's log (``Logs.File``, default ``/var/log/waagent.log``).
        extension_log_dir: handlers' logs (``Extension.LogDir``, default ``/var/log/azure``).
        pid_file: the supervisor's pid (``Pid.File``, default ``/var/run/waagent.pid``).
    """

    __slots__ = ("extension_log_dir", "lib_dir", "log_file", "pid_file", "root", "run_dir")

    def __init__(self, root: str = "/", values: dict[str, str] | None = None) -> None:
        self.root = "/" + os.path.abspath(root).lstrip("/")  # "//" is a name of its own to POSIX
        given = values or {}

        def place(key: str, default: str) -> str:
            return self.at(given.get(key) or default)

        self.lib_dir = place("Lib.Dir", "/var/lib/waagent")
        self.run_dir = self.at("/run/waagent")
        self.log_file = place("Logs.File", "/var/log/waagent.log")
        self.extension_log_dir = place("Extension.LogDir", "/var/log/azure")
        self.pid_file = place("Pid.File", "/var/run/waagent.pid")

    @property
    def is_real(self) -> bool:
        """Whether this is the machine itself and not a scratch root."""
        return self.root == "/"

    def at(self, path: str) -> str:
        """Return the absolute *path* placed under the root; ``..`` in it does not lead out."""
        below = os.path.normpath("/" + path.lstrip("/"))[1:]
        return os.path.join(self.root, below) if below else self.root

    def lib(self, *parts: str) -> str:
        """Return a path below the state directory."""
        return os.path.join(self.lib_dir, *parts)

    def run(self, *parts: str) -> str:
        """Return a path below the runtime directory."""
        return os.path.join(self.run_dir, *parts)
