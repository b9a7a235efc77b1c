"""The plugin ``serialconsole``: ``waagent -serialconsole`` (cli §4.6, provisioning §19)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import Command, hookimpl

if TYPE_CHECKING:
    import argparse

    from waagent import Agent


@hookimpl
def declare_commands() -> Command:
    """The command."""
    return Command(
        "serialconsole",
        "make the serial port a console of the kernel, from the next start of the machine on",
        _run,
        configure=_configure,
    )


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="show what would be changed, and change nothing")


def _run(agent: Agent, arguments: argparse.Namespace) -> int:
    from waagent_upkeep import consolecommand

    return consolecommand.run(agent, dry_run=arguments.dry_run)
