"""Which commands there are, who runs them, and what they need: the table that help and ``main`` read."""

from __future__ import annotations

import importlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from waagent.cli.session import Session
    from waagent.records import Command

CORE = (
    # name, summary, module:function, needs root, left out of the help
    ("help", "show this, or what one command does", "help:run", False, False),
    ("version", "print versions of agent, distribution and Python", "version:run", False, False),
    ("show-configuration", "print every option with its effective value", "show_configuration:run", False, False),
    ("config show", "print every option, with origins or as JSON", "config_show:run", False, False),
    ("config check", "read the configuration and print what is wrong with it", "config_check:run", False, False),
    ("analyze", "print where the time went at the last start of the service", "analyze:run", False, False),
    ("daemon", "run the service in the foreground", "service:daemon", True, False),
    ("start", "run the service in the background", "start:run", True, False),
    ("run-exthandlers", "run the worker alone (the service starts it)", "service:worker", True, False),
    ("run-boot", "run the boot stage alone (the service starts it)", "service:boot", True, True),
)
FAMILIES = {"plugins": "waagent.cli.plugins"}
"""First words whose commands stand in a module as ``COMMANDS``, a tuple of :class:`waagent.records.Command`."""


class Entry:
    """One command, wherever it comes from.

    Attributes:
        name: one or two words.
        summary: one line for the help.
        root: it needs root on the real root.
        hidden: it is left out of the help.
        configure: adds options to its parser, or ``None``.
        run: does it; takes session and parsed arguments, returns the exit code (ruling 5).
        plugin: the plugin that brings it, ``None`` for the core's own.
    """

    __slots__ = ("configure", "hidden", "name", "plugin", "root", "run", "summary")

    def __init__(
        self,
        name: str,
        summary: str,
        run: Callable[[Session, argparse.Namespace], int],
        *,
        configure: Callable[[argparse.ArgumentParser], None] | None = None,
        root: bool = True,
        hidden: bool = False,
        plugin: str | None = None,
    ) -> None:
        self.name = name
        self.summary = summary
        self.run = run
        self.configure = configure
        self.root = root
        self.hidden = hidden
        self.plugin = plugin


def find(words: list[str], session: Session) -> tuple[Entry, list[str]] | None:
    """Return the command that *words* begin with, two words before one, and the words after it; ``None`` for none."""
    for entries in _sources(words[0], session):
        found = _by_name(entries)
        for count in (2, 1):
            entry = found.get(" ".join(words[:count]))
            if entry is not None:
                return entry, words[count:]
    return None


def everything(session: Session) -> list[Entry]:
    """Return every command that can be had, the core's first; imports all of them."""
    return list(_by_name(own() + _plugins(session)).values())


def _by_name(entries: list[Entry]) -> dict[str, Entry]:
    """Return the commands by name: of two plugins the first in order has it, so that nobody takes over one of ours."""
    found: dict[str, Entry] = {}
    for entry in entries:
        found.setdefault(entry.name, entry)
    return found


def own() -> list[Entry]:
    """Return the core's commands."""
    return _core(None) + _families(None)


def _sources(first: str, session: Session) -> Iterator[list[Entry]]:
    # Lazily: plugins are not looked for when the core knows the word.
    yield _core(first)
    yield _families(first)
    yield _plugins(session)


def _core(first: str | None) -> list[Entry]:
    return [
        _core_entry(name, summary, target, root, hidden)
        for name, summary, target, root, hidden in CORE
        if first is None or name.split(" ")[0] == first
    ]


def _core_entry(name: str, summary: str, target: str, root: bool, hidden: bool) -> Entry:
    module_name, function = target.split(":")
    module = importlib.import_module(f"waagent.cli.{module_name}")
    configure = getattr(module, "configure", None)
    return Entry(name, summary, getattr(module, function), configure=configure, root=root, hidden=hidden)


def _families(first: str | None) -> list[Entry]:
    entries = []
    for word, module_name in FAMILIES.items():
        if first in (None, word):
            module = importlib.import_module(module_name)
            entries += [_from_command(command, None) for command in module.COMMANDS]
    return entries


def _plugins(session: Session) -> list[Entry]:
    return [_from_command(command, plugin) for plugin, command in session.plugin_commands()]


def _from_command(command: Command, plugin: str | None) -> Entry:
    def run(session: Session, arguments: argparse.Namespace) -> int:
        return command.run(session.agent, arguments)

    return Entry(
        command.name,
        command.summary,
        run,
        configure=command.configure,
        root=command.root,
        hidden=command.hidden,
        plugin=plugin,
    )
