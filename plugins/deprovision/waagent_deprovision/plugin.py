"""The deprovision plugin: its hooks. Everything else is loaded when it is first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import Command, Option, Plan, hookimpl

if TYPE_CHECKING:
    import argparse

    from waagent import Agent

ALSO = "Deprovision.Also"
_CAUTION = (
    "Deprovisioning does not guarantee that the image is cleared of all sensitive data, nor that it is suitable for "
    "redistribution. It cannot be undone: make a copy of the machine first if it is to live on."
)


@hookimpl
def declare_options() -> Option:
    """What goes beyond what is documented is the image builder's to ask for (ruling 45)."""
    words = "machine-id, cloud-init, histories, rotated-logs, network-manager, sudoers, fstab"
    return Option(ALSO, "text", None, f"what else deprovisioning removes, comma separated: {words}")


@hookimpl
def declare_commands() -> list[Command]:
    """The two commands."""
    return [
        Command(
            "deprovision",
            "remove this machine's identity and secrets, so that it can become an image",
            lambda agent, arguments: _run(agent, arguments, delete_user=False),
            configure=_configure,
        ),
        Command(
            "deprovision+user",
            "the same, and delete the user that was provisioned last",
            lambda agent, arguments: _run(agent, arguments, delete_user=True),
            configure=_configure,
        ),
    ]


@hookimpl
def on_deprovision(agent: Agent, delete_user: bool) -> Plan:
    """Everything that cli §5.2 lists."""
    from waagent_deprovision.removal import Removal

    return Removal(agent, delete_user).plan()


@hookimpl
def on_vm_identity_change(agent: Agent, old: str, new: str) -> Plan:
    """Forget what belongs to the machine that this disk was copied from (cli §5.3)."""
    from waagent_deprovision import partial

    return partial.plan(agent, old, new)


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = _CAUTION
    parser.add_argument("--dry-run", action="store_true", help="show what would be removed, and remove nothing")


def _run(agent: Agent, arguments: argparse.Namespace, *, delete_user: bool) -> int:
    from waagent_deprovision import command

    return command.run(agent, delete_user=delete_user, force=arguments.force, dry_run=arguments.dry_run)
