"""``waagent -start``: run the daemon in the background, for init systems that want that (cli §4.9)."""

from __future__ import annotations

import sys

from waagent.cli.service import command
from waagent.service import launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from waagent.cli.session import Session

PROBATION = 1.0
"""Seconds in which a daemon that cannot run is noticed."""


def run(session: Session, arguments: argparse.Namespace) -> int:
    """Start the daemon in a session of its own and return; exit 1 when it dies within :data:`PROBATION`."""
    import subprocess

    child = subprocess.Popen(
        command("daemon", session),
        env=launch.environment(),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = child.wait(PROBATION)
    except subprocess.TimeoutExpired:
        child.returncode = 0  # it is on its own now: nobody here waits for it
        return 0
    if code == 0:
        return 0  # another daemon runs already (cli §4.8)
    sys.stderr.write(f"waagent: the daemon ended at once (exit status {code}); see the log\n")
    return 1
