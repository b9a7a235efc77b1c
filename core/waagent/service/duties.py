"""The periodic duties that plugins declare: each in its lane, again one period after it returned (architecture §5)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waagent.agent import Agent
    from waagent.records import Periodic

HOOKS_LANE = "hooks"
_SPREAD = 0.2
_LEAST = 1.0


class Duties:
    """Runs duties until the worker stops; one that fails is backed off by the containment, by name."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def start(self, declared: list[tuple[str, Periodic]]) -> None:
        """Run each duty for the first time soon, a little apart from the next."""
        for number, (plugin, duty) in enumerate(declared):
            self._later((number + 1) * _SPREAD, plugin, duty)

    def period(self, plugin: str, duty: Periodic) -> float:
        """Return the seconds between two runs; the option that holds them is asked each time."""
        value: object = duty.period
        if isinstance(value, str):
            try:
                value = self._agent.config.value(value)
            except KeyError:
                self._agent.log.periodic(
                    86400, f"duty {plugin} {duty.name}", 2,
                    f"plugin {plugin}: the period of {duty.name} is option {duty.period}, which nobody declared; "
                    f"it runs every 300 s",
                )  # fmt: skip
                return 300.0
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            return 300.0
        return max(_LEAST, float(value))

    def _later(self, seconds: float, plugin: str, duty: Periodic) -> None:
        grid = float(self._agent.config.integer("Extensions.GoalStatePeriod"))
        self._agent.loop.call_later(
            seconds, lambda: self._submit(plugin, duty), f"duty {duty.name} of {plugin}", grid=grid
        )

    def _submit(self, plugin: str, duty: Periodic) -> None:
        if not self._agent.stopping.is_set():
            lane = self._agent.lane(duty.lane or HOOKS_LANE)
            lane.submit(lambda: self._run(plugin, duty), name=f"{duty.name} of {plugin}")

    def _run(self, plugin: str, duty: Periodic) -> None:
        try:
            self._agent.hooks.run_duty(plugin, duty, self._agent)
        finally:
            self._later(self.period(plugin, duty), plugin, duty)
