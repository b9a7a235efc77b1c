"""How a process of the service is started: one place knows its command line and environment. Standard library alone.

A service process runs as ``python -I -S …/service/start.py --path=… -ROLE [--root=…] [--conf=…] [--verbose]``: without
the site module (every ``.pth`` costs memory for good) and with the module path of the process that starts it, so that
editable and virtual environments keep working (measured.md §2). :mod:`waagent.service.start` reads that command line.
"""

from __future__ import annotations

import os
import sys

DAEMON = "daemon"
BOOT = "run-boot"
WORKER = "run-exthandlers"
KEY_HELPER = "make-transport-key"


def module_path() -> list[str]:
    """Return the absolute ``sys.path`` of this process without what only its own start put there.

    The first entry of a process that was not started with ``-I`` is the folder of its script, or the current folder:
    a root service must not import whatever lies there, unless the package itself does (a checkout).
    """
    entries = []
    own = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    first_is_ours = not (sys.flags.isolated or getattr(sys.flags, "safe_path", False))
    for number, entry in enumerate(sys.path):
        path = os.path.abspath(entry)
        stray = number == 0 and first_is_ours and path in _start_folders() and path != own
        # A separator in a folder's name cannot be told from the next entry.
        if entry and not stray and os.pathsep not in path and path not in entries:
            entries.append(path)
    if own not in entries:
        entries.insert(0, own)
    return entries


def command(
    role: str,
    *,
    root: str = "/",
    conf: str | None = None,
    verbose: bool = False,
    code: str | None = None,
    extra: tuple[str, ...] = (),
) -> list[str]:
    """Return the argv that starts the service process *role*.

    Args:
        role: one of the words above, which :func:`waagent.service.start.run` knows. It stands with one dash, as tools
            look for ``waagent … -daemon`` in the process table (cli §8).
        root: the root that every path lies under (ruling 7).
        conf: a configuration file that replaces the chain.
        verbose: log VERBOSE lines.
        code: a directory with another version of the agent, which runs instead of this one (ruling 17).
        extra: further options for the role.
    """
    path = module_path()
    start = os.path.join(os.path.dirname(os.path.abspath(__file__)), "start.py")
    if code is not None:
        path.insert(0, code)
        start = os.path.join(code, "waagent", "service", "start.py")
    argv = [sys.executable, "-I", "-S", start, "--path=" + os.pathsep.join(path), "-" + role.lstrip("-")]
    if os.path.abspath(root) != "/":
        argv.append("--root=" + os.path.abspath(root))
    if conf is not None:
        argv.append("--conf=" + os.path.abspath(conf))
    if verbose:
        argv.append("--verbose")
    return [*argv, *extra]


def environment() -> dict[str, str]:
    """Return the environment of a service process: ours, with one malloc arena (0.6 MB less, measured.md §2)."""
    return {**os.environ, "MALLOC_ARENA_MAX": "1"}


def _start_folders() -> tuple[str, ...]:
    script = os.path.abspath(sys.argv[0]) if sys.argv and sys.argv[0] else ""
    try:
        here = os.getcwd()
    except OSError:
        here = ""  # deleted under us
    return (here, os.path.dirname(script), os.path.dirname(os.path.realpath(script)))
