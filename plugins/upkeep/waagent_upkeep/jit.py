"""The plugin ``jit``: just-in-time accounts come, and go when their time is over (provisioning §24, wireserver §12)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import GoalState, hookimpl

if TYPE_CHECKING:
    from waagent import Agent
    from waagent_upkeep.remoteusers import RemoteUsers


class JitPlugin:
    """The hooks."""

    def __init__(self) -> None:
        self._users: RemoteUsers | None = None

    @hookimpl
    def on_goal_state(self, agent: Agent, goal_state: GoalState) -> None:
        """Hand the accounts to their lane."""
        if self._users is None:
            from waagent_upkeep.remoteusers import RemoteUsers

            self._users = RemoteUsers(agent)
        self._users.offer(goal_state.remote_access)


plugin = JitPlugin()
