"""``flatcar``: Flatcar Container Linux from 3550 on, which carries Python and keeps ``/etc`` (spec/distro.md §4.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import hookimpl
from waagent_distro.systems.shared import configure_sshd

if TYPE_CHECKING:
    from waagent import Agent

__all__ = ["configure_sshd", "delete_user", "set_password"]

PEOPLE = ("core",)
"""Accounts below ``UID_MIN`` that belong to people: the system's first user."""


@hookimpl
def set_password(agent: Agent, name: str, password: str) -> bool:
    """``core`` is no system user."""
    from waagent_distro.steps import accounts

    return accounts.set_password(agent, name, password, PEOPLE)


@hookimpl
def delete_user(agent: Agent, name: str) -> bool:
    """``core`` is no system user."""
    from waagent_distro.steps import accounts

    return accounts.delete_user(agent, name, PEOPLE)
