"""What a goal state would do on this machine: the planner walked over what is here; nothing is changed or fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from waagent import ExtensionsGoalState
from waagent_extensions import cleanup, facts, order, outcomes, permission, planner, records, validity, versions
from waagent_extensions.layout import Layout
from waagent_extensions.ledger import Progress
from waagent_extensions.order import Unit
from waagent_extensions.planner import Facts

if TYPE_CHECKING:
    from waagent import Agent

_STEPS_MOST = 1000


@attrs.frozen(eq=False, repr=False)
class Forecast:
    """What would become of one unit.

    Attributes:
        name: full name.
        wanted: the requested state.
        version: the version that would be worked on.
        verdict: ``run``, ``nothing`` (it is as wanted), ``refused`` or ``invalid``.
        reason: why it would not be worked on.
        waits_for: what has to succeed first.
        steps: in order, for people.
        notes: what can only be known when it happens.
    """

    name: str
    wanted: str
    version: str
    verdict: str
    reason: str = ""
    waits_for: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@attrs.frozen(eq=False, repr=False)
class Outlook:
    """What would become of a goal state.

    Attributes:
        goal_state: its id.
        obstacle: why nothing of it would be done; empty when something would.
        units: in the order of processing.
        removed: directories of handlers that it does not name.
    """

    goal_state: str
    obstacle: str
    units: tuple[Forecast, ...]
    removed: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return a JSON document of it."""
        return attrs.asdict(self)


def outlook(agent: Agent, goal_state: ExtensionsGoalState, failed_disables: dict[str, int]) -> Outlook:
    """Return what the engine would do if *goal_state* came now and everything succeeded.

    Args:
        agent: of a command line.
        goal_state: a recorded one.
        failed_disables: goal states in a row in which a handler could not be disabled, by name.
    """
    layout = Layout(agent.paths.lib_dir, agent.paths.extension_log_dir)
    obstacle = ""
    unsupported = order.unsupported_features(goal_state.required_features)
    if unsupported:
        obstacle = f"it requires features that this agent does not have: {', '.join(unsupported)}"
    elif goal_state.on_hold and agent.config.boolean("EnableOverProvisioning"):
        obstacle = "extension handling is on hold"
    units: list[Forecast] = []
    good = []
    for handler in goal_state.handlers:
        problem = handler.invalid_reason or validity.problem(handler)
        if problem is None:
            good.append(handler)
        else:
            units.append(Forecast(handler.name, handler.state, handler.version, "invalid", problem))
    if obstacle:
        return Outlook(goal_state.id, obstacle, tuple(units), ())
    ordered = order.units(good)
    waits = order.waits(ordered)
    known: dict[str, Facts] = {}
    units += [_forecast(agent, layout, unit, waits.get(unit.full_name, ()), known, failed_disables) for unit in ordered]
    enabled = agent.config.boolean("Extensions.Enabled")
    keep = agent.config.text("Extensions.KeepDirectories")
    removed = [handler.base for handler in cleanup.orphans(layout, goal_state.handlers, keep)] if enabled else []
    return Outlook(goal_state.id, "", tuple(units), tuple(removed))


def _forecast(
    agent: Agent,
    layout: Layout,
    unit: Unit,
    waits_for: tuple[str, ...],
    known: dict[str, Facts],
    failed_disables: dict[str, int],
) -> Forecast:
    name = unit.handler.name
    version, note = _version(layout, unit)
    veto = permission.refusal(agent, unit)
    if veto is not None:
        return Forecast(unit.full_name, unit.wanted, version, "refused", veto.reason)
    found = facts.probe(layout, unit, version, Progress(), failed_disables.get(name, 0))
    before = known.get(name)
    if before is not None:
        # What an earlier unit of the same handler will have done.
        found = attrs.evolve(
            found,
            state=before.state,
            present=before.present,
            other=before.other,
            leftovers=before.leftovers,
            updating_from=before.updating_from,
        )
    notes = [note] if note else []
    if not records.is_installed(found.state) and unit.handler.state == order.ENABLED:
        notes.append("the package is not here: what its manifest asks for in an update is not known yet")
    try:
        steps, end = _walk(layout, found, name)
    except planner.NoRow as problem:
        return Forecast(unit.full_name, unit.wanted, version, "invalid", str(problem))
    known[name] = end
    verdict = "run" if steps else "nothing"
    return Forecast(unit.full_name, unit.wanted, version, verdict, "", waits_for, steps, tuple(notes))


def _version(layout: Layout, unit: Unit) -> tuple[str, str]:
    handler = unit.handler
    installed = facts.installed_version(layout, handler.name)
    if unit.handler.state != order.ENABLED:
        return (installed.version if installed is not None else handler.version), ""
    if installed is not None and versions.key(installed.version) == versions.key(handler.version):
        return installed.version, ""
    fitting = [item.version for item in facts.versions_on_disk(layout, handler.name)]
    chosen = versions.choose(handler.version, fitting) or handler.version
    return chosen, f"which version {handler.version} names is for the version manifest to say; taken for {chosen}"


def _walk(layout: Layout, found: Facts, name: str) -> tuple[tuple[str, ...], Facts]:
    steps: list[str] = []
    while len(steps) < _STEPS_MOST:
        missing = planner.plan(found)
        if not missing:
            break
        action = missing[0]
        text = planner.summary(action, name)
        if action.kind == "command":
            manifest = facts.manifest_of(layout.handler(name, action.version))
            line = manifest.commands.get(action.operation) if manifest is not None else None
            limit = f"at most {outcomes.TIMEOUTS[action.operation]:.0f} s"
            text += f" ({line}; {limit})" if line else f" ({limit})"
        steps.append(text)
        found = planner.after(found, action)
    return tuple(steps), found
