"""``waagent analyze [blame]``: where the time went, from what the journals hold of the latest run of each plan."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from waagent.journal import Journal
from waagent.paths import Paths

if TYPE_CHECKING:
    import argparse

    from waagent.cli.session import Session

ROLES = ("boot", "worker", "cli")
DONE, FAILED, NOT_ROOT = 0, 1, 77


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("what", nargs="?", choices=("blame",), help="blame: single steps, the slowest first")
    parser.add_argument("--role", choices=ROLES, default="boot", help="whose plans; default: those of the boot stage")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(session: Session, arguments: argparse.Namespace) -> int:
    """Print the plans of a role with what each took, or single steps, the slowest first."""
    from waagent.conffile import values_for_paths

    paths = Paths(session.invocation.root, values_for_paths(session.raw))
    path = paths.lib("journal", arguments.role + ".jsonl")
    try:
        os.close(os.open(path, os.O_RDONLY))
    except PermissionError:
        sys.stderr.write(f"waagent: {os.path.dirname(path)} is for root alone\n")
        return NOT_ROOT
    except OSError:
        pass  # nothing has run yet
    plans = [_plan(record) for record in Journal(path).runs()]
    if arguments.json:
        print(json.dumps({"role": arguments.role, "plans": plans}, indent=2))
        return DONE
    if not plans:
        print(f"No plan of the role {arguments.role} has run yet (there is nothing in {path}).")
        return DONE
    for line in _blame(plans) if arguments.what == "blame" else _overview(plans):
        print(line)
    return DONE


def _plan(record: dict[str, Any]) -> dict[str, Any]:
    steps = [
        {"name": str(name), "outcome": str(outcome), "seconds": float(taken)} for name, outcome, taken in _steps(record)
    ]
    return {
        "name": record["p"],
        "ok": bool(record.get("ok")),
        "seconds": float(record.get("sec") or 0.0),
        "ended": float(record.get("t") or 0.0),
        "steps": steps,
    }


def _steps(record: dict[str, Any]) -> list[list[Any]]:
    found = record.get("steps")
    return [step for step in found if isinstance(step, list) and len(step) == 3] if isinstance(found, list) else []


def _overview(plans: list[dict[str, Any]]) -> list[str]:
    lines = []
    for plan in plans:
        ended = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(plan["ended"]))
        how = "" if plan["ok"] else ", did not reach its goal"
        lines.append(f"{plan['name']}: {plan['seconds']:.3f} s, ended {ended} UTC{how}")
        inside = 0.0
        for step in plan["steps"]:
            inside += step["seconds"]
            note = "" if step["outcome"] == "done" else f"  ({step['outcome']})"
            lines.append(f"{step['seconds']:10.3f} s  {step['name']}{note}")
        lines.append(f"{max(0.0, plan['seconds'] - inside):10.3f} s  looking at the machine between the steps")
    return lines


def _blame(plans: list[dict[str, Any]]) -> list[str]:
    rows = [(step["seconds"], plan["name"], step["name"]) for plan in plans for step in plan["steps"]]
    return [f"{seconds:10.3f} s  {plan}: {step}" for seconds, plan, step in sorted(rows, reverse=True)]
