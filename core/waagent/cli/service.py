"""``waagent -daemon``, ``-run-exthandlers``, ``-run-boot``: become the process of the service (architecture §3)."""

from __future__ import annotations

import os
import sys

from waagent.service import launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from waagent.cli.session import Session


def daemon(session: Session, arguments: argparse.Namespace) -> int:
    """Become the supervisor."""
    return _become("daemon", session)


def worker(session: Session, arguments: argparse.Namespace) -> int:
    """Become a worker; without a supervisor's pipes it needs no ``-debug`` to stay."""
    return _become("run-exthandlers", session)


def boot(session: Session, arguments: argparse.Namespace) -> int:
    """Become the boot stage."""
    return _become("run-boot", session)


def command(role: str, session: Session) -> list[str]:
    """Return the argv of the service process *role* for this command line.

    Raises:
        ConfigError: the configuration file that was named does not exist.
    """
    invocation = session.invocation
    if invocation.conf is not None:
        session.raw  # noqa: B018  a wrong name is told here, where somebody reads it, and not in a log
    return launch.command(role, root=invocation.root, conf=invocation.conf, verbose=invocation.verbose)


def _become(role: str, session: Session) -> int:
    argv = command(role, session)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(argv[0], argv, launch.environment())  # noqa: S606  our own interpreter, by its absolute path
