"""``waagent -show-configuration``: one line per known option, sorted by bytes (cli §4.2). Creates nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from waagent.cli.session import Session


def run(session: Session, arguments: argparse.Namespace) -> int:
    """Print ``name = value`` for every option; switches as ``True`` and ``False``, absent as ``None``."""
    config = session.config
    sys.stdout.writelines(f"{name} = {config.value(name)}\n" for name in config.options)
    config.report(session.log, session.plugin_states())
    return 0
