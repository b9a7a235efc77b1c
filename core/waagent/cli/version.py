"""``waagent -version``: three lines that tools parse (cli §4.1). No root, no configuration, no third-party import."""

from __future__ import annotations

import os
import platform
import re

from waagent.version import NAME, WIRE_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from waagent.cli.session import Session
    from waagent.paths import Paths

_VERSION = r"(\d+\.\d+\.\d+(?:\.\d+)*)"
_RUNNING = (
    re.compile(rf"/WALinuxAgent-{_VERSION}\S* .*-run-exthandlers"),  # another agent's worker
    re.compile(rf"/agents/{_VERSION}[/: ].*-run-exthandlers"),  # an updated version of ours (ruling 17)
)


def run(session: Session, arguments: argparse.Namespace) -> int:
    """Print product and distribution, Python, and the version that handles goal states."""
    from waagent.distro import detect

    facts = detect(session.paths)
    print(f"{NAME}-{WIRE_VERSION} running on {facts.legacy_id} {facts.version}")
    print(f"Python: {platform.python_version()}")
    print(f"Goal state agent: {goal_state_agent(session.paths)}")
    return 0


def goal_state_agent(paths: Paths) -> str:
    """Return the version of the worker that runs, found in the process table, else this program's own."""
    process_table = paths.at("/proc")
    try:
        numbers = [name for name in os.listdir(process_table) if name.isdigit()]
    except OSError:
        numbers = []
    for number in numbers:
        try:
            with open(os.path.join(process_table, number, "cmdline"), "rb") as stream:
                line = stream.read(1 << 16).replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue  # it ended meanwhile
        for pattern in _RUNNING:
            match = pattern.search(line)
            if match:
                return match.group(1)
    return WIRE_VERSION
