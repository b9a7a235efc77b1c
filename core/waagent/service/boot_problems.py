"""What went wrong in the boot stage, as the worker tells it in the status."""

from __future__ import annotations

from waagent.errors import StateError
from waagent.files import read_json
from waagent.service.beats import BOOT_RESULT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waagent.agent import Agent


def read(agent: Agent) -> list[str]:
    """Return one line per plan of the last boot stage that did not reach its goal."""
    try:
        content = read_json(agent.paths.run(BOOT_RESULT), 1 << 20)
        plans = content["plans"] if content else []
        return [f"boot: {plan['plan']} of plugin {plan['plugin']}: {plan['error']}" for plan in plans if not plan["ok"]]
    except (StateError, KeyError, TypeError) as problem:
        return [f"boot: its result cannot be read: {problem}"]
