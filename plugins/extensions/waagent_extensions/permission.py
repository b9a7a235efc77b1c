"""Whether a unit of a goal state may be worked on at all (extensions §15.2, §17)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import NoAnswer, Veto
from waagent_extensions.order import Unit

if TYPE_CHECKING:
    from waagent import Agent

_OPERATIONS = {"enabled": "enable", "disabled": "disable", "uninstall": "uninstall"}


def refusal(agent: Agent, unit: Unit) -> Veto | None:
    """Return why *unit* is not worked on, or ``None``: the configuration speaks first, then plugins."""
    if not agent.config.boolean("Extensions.Enabled"):
        where = agent.config.origin("Extensions.Enabled").file or "/etc/waagent.conf"
        return Veto(
            f"Extension '{unit.full_name}' will not be processed since extension processing is disabled. To enable "
            f"extension processing, set Extensions.Enabled=y in '{where}'"
        )
    operation = _OPERATIONS.get(unit.handler.state, unit.handler.state)
    try:
        return agent.hooks.allow_extension(agent, unit.handler, operation)
    except NoAnswer as problem:
        return Veto(f"Extension will not be processed: {problem}")
