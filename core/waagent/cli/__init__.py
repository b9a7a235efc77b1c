"""The command line: a table of commands, one small module each (spec/cli.md).

Standard output holds results, standard error everything else; exit codes are those of ruling 5.
"""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

from waagent.cli.grammar import LEGACY, REFUSED, UsageError, parse

TYPE_CHECKING = False  # the way to the daemon does without the typing module
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from waagent.cli.session import Session
    from waagent.cli.table import Entry

DONE, FAILED, USAGE, NOT_ROOT, INTERRUPTED = 0, 1, 2, 77, 130


def main(argv: list[str] | None = None) -> int:
    """Run the command that *argv* (default: the process's own) asks for and return the exit code."""
    # Without 0, 1 or 2 the next file that is opened would take their place, and what is printed would go into it.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="ascii"))  # noqa: SIM115 - for good
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a value in a file must not break a C locale
    try:
        code = _main(sys.argv[1:] if argv is None else argv)
        if sys.stdout is not None:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as problem:
        # The reader has gone (`waagent … | head`), or the disk is full. What is flushed at the end must go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FAILED if isinstance(problem, BrokenPipeError) else _say(f"standard output: {problem.strerror}", FAILED)
    return code


def _main(argv: list[str]) -> int:
    from waagent.cli.session import Session
    from waagent.errors import AgentError

    try:
        invocation = parse(argv)
    except UsageError as problem:
        return _usage(str(problem))
    words = invocation.words or ["help"]
    session = Session(invocation)
    try:
        return _run(words, session)
    except (AgentError, OSError) as problem:
        if isinstance(problem, BrokenPipeError):
            raise
        return _say(f"{words[0]}: {problem}", FAILED)
    except Exception as problem:
        if invocation.verbose:
            sys.excepthook(*sys.exc_info())
        return _say(f"Failed to run {words[0]!r}: {type(problem).__name__}: {problem}", FAILED)


def _run(words: list[str], session: Session) -> int:
    from waagent.cli import table

    if words[0] in REFUSED:
        return _say(f"there is no command {words[0]!r}: use the package manager, or pip", USAGE)
    found = table.find(words, session)
    if found is None:
        return _unknown(words, session)
    entry, rest = found
    arguments = _arguments(entry, rest, session)
    if isinstance(arguments, int):
        return arguments
    if entry.root and session.paths.is_real and os.geteuid() != 0:
        return _say("this command must be run as root", NOT_ROOT)
    return entry.run(session, arguments)


def _arguments(entry: Entry, rest: list[str], session: Session) -> Any:
    """Return the command's own arguments parsed, or the exit code when that ends the run (a mistake, ``--help``)."""
    arguments: argparse.Namespace | SimpleNamespace
    if rest or entry.configure is not None:
        from waagent.cli import help as help_command

        try:
            arguments = help_command.parser_of(entry).parse_args(rest)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else USAGE
    else:
        arguments = SimpleNamespace()  # nothing to parse: the service starts without argparse and what that brings
    for flag in ("force", "full", "debug", "verbose"):
        if not hasattr(arguments, flag):
            setattr(arguments, flag, getattr(session.invocation, flag))
    return arguments


def _unknown(words: list[str], session: Session) -> int:
    from waagent.cli import help as help_command

    family = help_command.family(words[0], session)
    if family:
        ending = f"unknown command {' '.join(words[:2])!r}" if len(words) > 1 else f"{words[0]} needs a word"
        wants_help = words[1:2] in (["--help"], ["-h"])
        stream = sys.stdout if wants_help else sys.stderr
        stream.write(family if wants_help else f"waagent: {ending}\n{family}")
        return DONE if wants_help else USAGE
    if words[0] in LEGACY or words[0] in ("resourcedisk", "setup-firewall"):
        return _say(f"the command {words[0]!r} belongs to a plugin that is not here or not on", USAGE)
    return _usage(f"unknown command {words[0]!r}", session)


def _usage(message: str, session: Session | None = None) -> int:
    from waagent.cli import help as help_command

    sys.stderr.write(f"waagent: {message}\n{help_command.text(session)}")
    return USAGE


def _say(message: str, code: int) -> int:
    sys.stderr.write(f"waagent: {message}\n")
    return code
