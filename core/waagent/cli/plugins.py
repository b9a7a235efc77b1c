"""``waagent plugins …``: what is installed, what is on, and who said no, with file and line (architecture §6)."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from waagent import pluginlist
from waagent.conffile import ABSENT, parse_line, place, read_chain
from waagent.errors import StateError
from waagent.files import ensure_dir, read_limited, write_atomic
from waagent.records import Command
from waagent.switchboard import DISABLED, ENABLED, Switchboard, split

if TYPE_CHECKING:
    import argparse

    from waagent.agent import Agent
    from waagent.pluginlist import PluginInfo

DONE, FAILED, DEGRADED, NOT_ROOT = 0, 1, 3, 77

DROP_IN = "99-plugins.conf"
"""The administrator's drop-in that ``enable`` and ``disable`` write; it is read last but for names after it."""

_HEAD = "# Written by `waagent plugins enable` and `waagent plugins disable`; other lines are kept.\n"
_LIMIT = 1 << 20
_EFFECT = "It takes effect when the service is reloaded or restarted."


def list_plugins(agent: Agent, arguments: argparse.Namespace) -> int:
    """Print every installed plugin with its state."""
    found = agent.plugins.listing()
    if arguments.json:
        return _print_json({"plugins": [_document(agent, info) for info in found]})
    if not found:
        _say("no plugins are installed")
        return DONE
    rows = [("NAME", "STATE", "FROM", "WHY")]
    rows += [(info.name, info.state, _source(info), _reason(info)) for info in found]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        _say("  ".join([*(text.ljust(width) for text, width in zip(row, widths)), row[3]]).rstrip())
    return DONE


def show(agent: Agent, arguments: argparse.Namespace) -> int:
    """Print everything about one plugin."""
    info = agent.plugins.plugin(arguments.name)
    if info is None:
        return _unknown(agent, arguments.name)
    document = _document(agent, info)
    if arguments.json:
        return _print_json(document)
    for key, value in document.items():
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        if text not in ("", None):
            _say(f"{key.replace('_', ' ')}: {_word(text)}")
    return DONE


def why(agent: Agent, arguments: argparse.Namespace) -> int:
    """Print who said what about one plugin, in the order of reading, and what came of it."""
    info = agent.plugins.plugin(arguments.name)
    if info is None:
        return _unknown(agent, arguments.name)
    said = agent.plugins.switchboard.about(info.name)
    if arguments.json:
        statements = [
            {"key": ENABLED if one.on else DISABLED, "names": one.patterns, "file": one.file, "line": one.line}
            for one in said
        ]
        return _print_json({**_document(agent, info), "statements": statements})
    for one in said:
        _say(f"{one.file}:{one.line}: {ENABLED if one.on else DISABLED}={','.join(one.patterns)}")
    _say(f"{info.name} is {info.state}: {_reason(info)}")
    source = _source(info)
    if source:
        _say(f"It comes with {source}.")
    for hook in info.hooks:
        order = [found.plugin for found in agent.hooks.implementations(hook)]
        if len(order) > 1 and info.name in order:
            _say(f"{hook} is asked of: {', then '.join(order)}.")
    return DONE


def enable(agent: Agent, arguments: argparse.Namespace) -> int:
    """Switch a plugin on for good."""
    return _switch(agent, arguments, on=True)


def disable(agent: Agent, arguments: argparse.Namespace) -> int:
    """Switch a plugin off for good."""
    return _switch(agent, arguments, on=False)


def _switch(agent: Agent, arguments: argparse.Namespace, *, on: bool) -> int:
    if agent.paths.is_real and os.geteuid() != 0:
        return _complain("this command must be run as root", NOT_ROOT)
    info = agent.plugins.plugin(arguments.name)
    if info is None:
        return _unknown(agent, arguments.name)
    file = os.path.join(place(agent.paths.root)[1], DROP_IN)
    write_switch(file, info.name, on)
    after = Switchboard(read_chain(agent.paths.root).lines).about(info.name)
    winner = after[-1] if after else None
    obeyed = winner is not None and winner.on is on
    remark = "" if obeyed or winner is None else f"overruled by {winner}"
    if arguments.json:
        _print_json({"name": info.name, "on": on is obeyed, "file": file, "overruled_by": remark or None})
    elif obeyed:
        _say(f"{info.name} is switched {'on' if on else 'off'} in {file}. {_EFFECT}")
        if on and info.state not in (pluginlist.ON, pluginlist.OFF):
            _say(f"It is still {info.state}: {info.reason}")
    if not obeyed:
        return _complain(f"{file} is written, but {info.name} stays {'off' if on else 'on'}: {remark}", DEGRADED)
    return DONE


def write_switch(file: str, name: str, on: bool) -> None:
    """Switch the plugin *name* in the drop-in *file*, whole and in one step; lines about other things are kept.

    Raises:
        OSError: the file cannot be read or written.
        StateError: it is too large to be a configuration.
    """
    try:
        text = read_limited(file, _LIMIT).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        text = _HEAD
    names: dict[str, list[str]] = {ENABLED: [], DISABLED: []}
    kept = []
    for line in text.split("\n"):
        key, value = parse_line(line) or ("", "")
        words = [] if value == ABSENT else split(value)
        if key in names and not words:
            names[key].clear()  # an empty value takes back what was said before it, in other files too
        if words and key in names:
            names[key] += [word for word in words if word != name]
        else:
            kept.append(line)
    names[ENABLED if on else DISABLED].append(name)
    while kept and not kept[-1]:
        kept.pop()
    # What is named last counts: the line with this change comes after the other one.
    order = (DISABLED, ENABLED) if on else (ENABLED, DISABLED)
    kept += [f"{key}={','.join(dict.fromkeys(names[key]))}" for key in order if names[key]]
    ensure_dir(os.path.dirname(file), 0o755)
    write_atomic(file, ("\n".join(kept) + "\n").encode("utf-8", "surrogateescape"), 0o644)


def _document(agent: Agent, info: PluginInfo) -> dict[str, Any]:
    document = info.as_json()
    for name in ("level", "beside", "fingerprint", "loaded"):
        del document[name]
    try:
        running = pluginlist.read(agent.paths.run("plugins.json"))
    except StateError:
        running = None
    there = [one for one in running[1] if one.name == info.name] if running is not None else []
    document["in_the_service"] = there[0].state if there else None
    return document


def _source(info: PluginInfo) -> str:
    return f"{info.distribution} {info.version}".strip()


def _reason(info: PluginInfo) -> str:
    text = info.reason
    if info.file and info.file not in text:
        text += f" ({info.file}{f':{info.line}' if info.line else ''})"
    return f"{text}; {info.last_error}" if info.last_error and info.last_error not in text else text


def _word(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _unknown(agent: Agent, name: str) -> int:
    names = ", ".join(info.name for info in agent.plugins.listing()) or "none"
    return _complain(f"no plugin is called {name!r}; installed: {names}", FAILED)


def _print_json(document: dict[str, Any]) -> int:
    import json

    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write("\n")
    return DONE


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"waagent: {message}\n")
    return code


def _takes_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _takes_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a plugin, as `waagent plugins list` calls it")
    _takes_json(parser)


COMMANDS: tuple[Command, ...] = (
    Command("plugins list", "print every installed plugin, its state and why", list_plugins, _takes_json, root=False),
    Command("plugins show", "print everything about one plugin", show, _takes_name, root=False),
    Command("plugins why", "print who switched a plugin on or off, with file and line", why, _takes_name, root=False),
    Command("plugins enable", "switch a plugin on for good", enable, _takes_name),
    Command("plugins disable", "switch a plugin off for good", disable, _takes_name),
)
