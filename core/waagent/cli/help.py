"""``waagent help``: one line per command, from the table and the plugins (cli §4.3)."""

from __future__ import annotations

import sys

from waagent.cli import table
from waagent.cli.grammar import LEGACY

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from waagent.cli.session import Session

_FLAGS = """
Flags:
  -verbose                     more on standard error and in the log
  -force                       do not ask for confirmation
  --dry-run                    with a command that changes the machine: only show what would be done
  -full                        with -collect-logs: everything
  -debug                       with -run-exthandlers: run without the daemon
  -configuration-path:FILE     read FILE instead of the usual configuration files
  --root DIR                   put every path of the agent under DIR (also: WAAGENT_ROOT)
  --help                       with a command: its options
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Take the command that help is wanted for."""
    parser.add_argument("command", nargs="*", help="a command, one word or two")


def run(session: Session, arguments: argparse.Namespace) -> int:
    """Print the help, or that of one command."""
    words = list(arguments.command)
    if not words:
        sys.stdout.write(text(session))
        return 0
    found = table.find(words, session)
    if found is None:
        listing = family(words[0], session)
        (sys.stdout if listing else sys.stderr).write(listing or f"waagent: unknown command {words[0]!r}\n")
        return 0 if listing else 2
    sys.stdout.write(parser_of(found[0]).format_help())
    return 0


def parser_of(entry: table.Entry) -> argparse.ArgumentParser:
    """Return the parser of the command's own arguments."""
    import argparse

    name = "-" + entry.name if entry.name in LEGACY else entry.name
    parser = argparse.ArgumentParser(prog=f"waagent {name}", description=entry.summary)
    if entry.configure is not None:
        entry.configure(parser)
    return parser


def text(session: Session | None) -> str:
    """Return the whole help; without a *session* the commands of plugins are left out."""
    entries = table.everything(session) if session is not None else table.own()
    lines = [_line(entry) for entry in entries if not entry.hidden]
    return "Usage: waagent [FLAG...] COMMAND [ARGUMENT...]\n\nCommands:\n" + "".join(lines) + _FLAGS


def family(word: str, session: Session) -> str:
    """Return one line per command that begins with *word* and takes another, empty when there is none."""
    entries = [entry for entry in table.everything(session) if entry.name.startswith(word + " ")]
    return "Commands:\n" + "".join(_line(entry) for entry in entries) if entries else ""


def _line(entry: table.Entry) -> str:
    name = "-" + entry.name if entry.name in LEGACY else entry.name
    source = f" (plugin {entry.plugin})" if entry.plugin else ""
    return f"  {name:<28} {entry.summary}{source}\n"
