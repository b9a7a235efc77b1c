"""``waagent config show``: every option with its value, and on demand where the value comes from."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from waagent.cli.session import Session
    from waagent.config import Config


def configure(parser: argparse.ArgumentParser) -> None:
    """Take what to show."""
    parser.add_argument("name", nargs="*", help="only these options (default: all)")
    parser.add_argument("--origin", action="store_true", help="say where each value comes from")
    parser.add_argument("--json", action="store_true", help="print one JSON object with everything")


def run(session: Session, arguments: argparse.Namespace) -> int:
    """Print the options; unknown names among those asked for end it with a hint."""
    config = session.config
    for name in arguments.name:
        if name not in config.options:
            near = config.nearest(name)
            hint = f"; did you mean {near}?" if near else ""
            sys.stderr.write(f"waagent: no option is called {name!r}{hint}\n")
            return 1
    names = arguments.name or list(config.options)
    states = session.plugin_states()
    if arguments.json:
        import json

        json.dump(_document(config, names, states), sys.stdout, indent=2)
        sys.stdout.write("\n")
        return 0
    for name in names:
        remark = f"  # {_remark(config, name, states)}" if arguments.origin else ""
        sys.stdout.write(f"{name} = {config.value(name)}{remark}\n")
    return 0


def _remark(config: Config, name: str, states: dict[str, str]) -> str:
    ignored = config.options[name].ignored
    parts = [str(config.origin(name))]
    if ignored:
        parts.append(f"accepted and ignored: {ignored}")
    standing = config.standing(name, states)
    if standing:
        parts.append(standing)
    return "; ".join(parts)


def _document(config: Config, names: list[str], states: dict[str, str]) -> dict[str, object]:
    options = {}
    for name in names:
        option, origin = config.options[name], config.origin(name)
        options[name] = {
            "value": config.value(name),
            "kind": option.kind,
            "default": config.default(name),
            "help": option.help,
            "since": option.since,
            "ignored": option.ignored,
            "plugin": config.plugin(name),
            "remark": config.standing(name, states) or None,
            "origin": {"kind": origin.kind, "file": origin.file, "line": origin.line, "plugin": origin.plugin},
        }
    problems = [
        {"level": problem.level, "message": problem.message, "file": problem.file, "line": problem.line}
        for problem in config.problems
    ]
    return {"files": list(config.files), "options": options, "problems": problems}
