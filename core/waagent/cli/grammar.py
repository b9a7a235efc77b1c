"""The spellings of the command line (spec/cli.md §2, ruling 4), as a table and one pass over the words.

A legacy word (``-version``, ``/version``, ``deprovision+user``) takes flags anywhere, and of several words the last one
counts. Any other word begins a new command: what follows belongs to it, apart from the global flags.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

LEGACY = {
    "help": "help",
    "usage": "help",
    "?": "help",
    "version": "version",
    "deprovision": "deprovision",
    "deprovision+user": "deprovision+user",
    "daemon": "daemon",
    "start": "start",
    "serialconsole": "serialconsole",
    "register-service": "register-service",
    "run-exthandlers": "run-exthandlers",
    "run-boot": "run-boot",
    "show-configuration": "show-configuration",
    "collect-logs": "collect-logs",
    "provision": "provision",
}
"""Words that are commands by themselves, with and without leading dashes or slashes."""

REFUSED = ("install", "setup", "uninstall")
"""Commands of agent 2.0 that are the package manager's work now (cli §3)."""

_FLAGS = ("verbose", "force", "full", "debug")
_PASSED_ON = ("dry-run",)
"""Flags that a command's own parser takes or refuses: one that promises to change nothing must not go unheard."""
_FIREWALL = re.compile(r"setup-firewall=([0-9.]{7,})")
_VALUED = re.compile(r"([-/]*)(configuration-path|conf|root)(?:([:=])(.*))?", re.DOTALL)


class UsageError(Exception):
    """The command line cannot be understood; the message says which word (exit 2)."""


class Invocation:
    """A command line, understood.

    Attributes:
        words: the command and what belongs to it; empty for nothing at all (help).
        root: the root that every path lies under, absolute (ruling 7).
        conf: the configuration file named, absolute, or ``None``.
        verbose, force, full, debug: the flags of cli §3.
    """

    __slots__ = ("conf", "debug", "force", "full", "root", "verbose", "words")

    def __init__(self) -> None:
        self.words: list[str] = []
        self.root = os.path.abspath(os.environ.get("WAAGENT_ROOT") or "/")
        self.conf: str | None = None
        self.verbose = self.force = self.full = self.debug = False


def parse(argv: list[str]) -> Invocation:
    """Return what *argv* (without the program's name) asks for.

    Raises:
        UsageError: a word is unknown, or a flag lacks its value.
    """
    found = Invocation()
    passed_on: list[str] = []
    rest = iter(argv)
    new_command = only_words = False
    for argument in rest:
        if only_words:
            found.words.append(argument)
        elif new_command and argument == "--":
            only_words = True
            found.words.append(argument)
        elif (not argument and not new_command) or _valued(found, argument, rest, inside=new_command):
            continue
        elif new_command:
            if argument in ("-verbose", "--verbose"):
                found.verbose = True
            else:
                found.words.append(argument)
        elif argument.lstrip("-/") in _PASSED_ON:
            passed_on.append("--" + argument.lstrip("-/"))
        else:
            new_command = _legacy(found, argument)
    found.words += passed_on
    return found


def _legacy(found: Invocation, argument: str) -> bool:
    """Take in one word before any new command; returns whether it begins one."""
    word = argument.lstrip("-/")
    firewall = _FIREWALL.fullmatch(word)
    command = "help" if argument == "-h" else LEGACY.get(word)
    topic = found.words[:1] == ["help"]
    if word in _FLAGS:
        setattr(found, word, True)
    elif topic and word:
        found.words.append(command or word)
    elif firewall:
        found.words = ["setup-firewall", firewall.group(1)]
    elif command == "help" and found.words:
        found.words.insert(0, "help")  # that of the command before it
    elif command is not None:
        found.words = [command]
    elif not word or found.words:
        raise UsageError(f"unknown argument {argument!r}")
    else:
        found.words = [word]
        return True
    return False


def _valued(found: Invocation, argument: str, rest: Iterator[str], *, inside: bool) -> bool:
    """Take in ``flag:value``, ``flag=value`` or ``flag value``; returns whether it was one.

    Inside a new command only the dashed long forms are ours: other words may be its own.
    """
    match = _VALUED.fullmatch(argument)
    if match is None:
        return False
    dash, name, separator, value = match.groups()
    if not dash.startswith("-") and (inside or name == "root" or (name == "conf" and not separator)):
        return False
    if inside and name == "conf":
        return False
    if not separator:
        value = next(rest, "")
    if not value:
        raise UsageError(f"{argument} needs a path")
    setattr(found, "root" if name == "root" else "conf", os.path.abspath(value))
    return True
