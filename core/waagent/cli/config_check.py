"""``waagent config check``: what is wrong with the configuration, each with file and line; exit 1 when anything is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from waagent.cli.session import Session


def run(session: Session, arguments: argparse.Namespace) -> int:
    """Print every problem and every unknown key.

    Keys that are accepted and ignored, and those of plugins that are not on, do not fail the check.
    """
    config = session.config
    warnings = 0
    for problem in config.problems:
        if problem.message.startswith(config.UNKNOWN):
            continue  # one line each, below
        warnings += problem.level == "warning"
        place = f"{problem.file}:{problem.line}: " if problem.file else ""
        sys.stdout.write(f"{place}{problem.level}: {problem.message}\n")
    idle = config.idle(session.plugin_states())
    for setting, reason in idle:
        sys.stdout.write(f"{setting.file}:{setting.line}: info: {setting.key} has no effect: {reason}\n")
    explained = [setting for setting, _ in idle]
    for setting in config.unknown:
        if setting in explained:
            continue
        near = config.nearest(setting.key)
        hint = f"; did you mean {near}?" if near else ""
        sys.stdout.write(f"{setting.file}:{setting.line}: warning: unknown key {setting.key}{hint}\n")
        warnings += 1
    read = ", ".join(config.files) or "no file"
    sys.stdout.write(f"{warnings} {'problem' if warnings == 1 else 'problems'} in {read}\n")
    return 1 if warnings else 0
