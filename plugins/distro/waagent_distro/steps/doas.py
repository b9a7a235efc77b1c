"""Rights of ``doas``, OpenBSD's ``sudo`` (spec/provisioning.md §7.3)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from waagent import AgentError
from waagent_distro.steps import accounts, textfiles

if TYPE_CHECKING:
    from waagent import Agent

FILE = "/etc/doas.conf"
_ROOT = "permit keepenv nopass root"


def grant(agent: Agent, name: str, password_required: bool) -> bool:
    """Let the user *name* become root; without a password where *password_required* is ``False``.

    Raises:
        AgentError: ``doas`` does not accept the file; the old one stays.
    """
    accounts.check_name(name)
    lines = textfiles.read_or_empty(agent.paths.at(FILE)).splitlines() or [_ROOT]
    forms = {True: f"permit keepenv persist {name}", False: f"permit keepenv nopass {name}"}
    lines = [line for line in lines if line.strip() != forms[not password_required]]
    if forms[password_required] not in lines:
        lines.append(forms[password_required])
    _write(agent, lines)
    return True


def revoke(agent: Agent, name: str) -> bool:
    """Take the rules of the user *name* out."""
    lines = textfiles.read_or_empty(agent.paths.at(FILE)).splitlines()
    kept = [line for line in lines if line.split()[:1] != ["permit"] or line.split()[-1] != name]
    if kept != lines:
        _write(agent, kept)
    return True


def _write(agent: Agent, lines: list[str]) -> None:
    path = agent.paths.at(FILE)
    draft = path + ".waagent"
    try:
        textfiles.replace(draft, "\n".join(lines) + "\n", 0o644)
        done = agent.run(("doas", "-C", draft))
        if not done.ok:
            raise AgentError(f"doas does not accept {path}: {done.describe()}")
        os.rename(draft, path)
    finally:
        textfiles.remove(draft)
