"""What is done in which order, and what waits for what (extensions §11.3-§11.7). Pure: no file, no clock, no thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import attrs

from waagent import Dependency, ExtensionSettings, Handler

ENABLED, DISABLED, UNINSTALL = "enabled", "disabled", "uninstall"
SUPPORTED_FEATURES = ("MultipleExtensionsPerHandler",)
SELF_UPDATE_FEATURE = "VersioningGovernance"
DEPENDENCY_DEADLINE = 5400.0
"""Seconds from the start of a goal state after which nobody is waited for any more."""
STATUS_PERIOD = 5.0
"""Seconds between two looks at the status of an extension that others wait for, at most."""
FIRST_LOOK = 0.25
"""Seconds until the first look; they double until they reach :data:`STATUS_PERIOD`."""

_CHAIN = " was skipped, as "

DONE, FAILED, RETRY, SKIPPED, BLOCKED = "done", "failed", "retry", "skipped", "blocked"


@attrs.frozen(eq=False, repr=False)
class Unit:
    """One piece of work: an extension, or a handler without settings.

    Attributes:
        handler: the handler as the goal state has it.
        settings: ``None`` for a handler without settings.
        key: sorts the work: removals first (negative), then by dependency level.
    """

    handler: Handler
    settings: ExtensionSettings | None
    key: int

    @property
    def extension(self) -> str | None:
        """The extension's own name; ``None`` for single-config."""
        return self.settings.name if self.settings is not None and self.handler.multi_config else None

    @property
    def full_name(self) -> str:
        """``<handler>`` or ``<handler>.<extension>``: unique within a goal state."""
        return f"{self.handler.name}.{self.extension}" if self.extension else self.handler.name

    @property
    def sequence(self) -> int | None:
        """The goal state's sequence number; ``None`` without settings."""
        return self.settings.sequence_number if self.settings is not None else None

    @property
    def wanted(self) -> str:
        """What becomes of the extension: its own state for multi-config, else the handler's."""
        return self.settings.state if self.extension and self.settings is not None else self.handler.state

    @property
    def enables(self) -> bool:
        """Whether the unit ends enabled."""
        return self.handler.state == ENABLED and self.wanted == ENABLED


def units(handlers: Iterable[Handler]) -> tuple[Unit, ...]:
    """Return the work of a goal state in order: removals, most dependent first; then by dependency level."""
    found = []
    for handler in handlers:
        for settings in handler.extensions or (None,):
            level = settings.dependency_level if settings is not None else 0
            enables = handler.state == ENABLED and (
                settings is None or not handler.multi_config or settings.state == ENABLED
            )
            found.append(Unit(handler, settings, level if enables else -level - 1))
    return tuple(sorted(found, key=lambda unit: unit.key))


def waits(ordered: Iterable[Unit]) -> dict[str, tuple[str, ...]]:
    """Return for every unit (by full name) the units that must have succeeded before it starts.

    Edges count when the goal state names some that it also contains, on a lower level; otherwise every unit of a
    lower level does. So units that have nothing to do with a failed one still run, and no circle can form.
    """
    enabling = [unit for unit in ordered if unit.key >= 0]
    found = {}
    for unit in enabling:
        lower = [other for other in enabling if other.key < unit.key]
        edges = unit.settings.depends_on if unit.settings is not None else ()
        named = [other for other in lower if any(_is(other, edge) for edge in edges)]
        found[unit.full_name] = tuple(other.full_name for other in (named or lower))
    return found


def _is(unit: Unit, edge: Dependency) -> bool:
    if unit.handler.name.lower() != edge.handler.lower():
        return False
    return not edge.extension or not unit.extension or unit.extension.lower() == edge.extension.lower()


@attrs.frozen(eq=False, repr=False)
class Outcome:
    """How a unit ended, or when it is tried again.

    Attributes:
        kind: ``done``, ``failed``, ``retry``, ``skipped`` (something it depends on failed) or ``blocked`` (a veto).
        reason: for people.
        retry_at: monotonic seconds, for ``retry``.
        code: what is reported of a failure (extensions §13.2).
        operation: the word for it in reports: ``Enable``, ``Download`` …
        began: when the unit's turn came, seconds since the epoch: an older status file is not about this failure.
    """

    kind: str
    reason: str = ""
    retry_at: float = 0.0
    code: int = -1
    operation: str = ""
    began: float = 0.0


@attrs.frozen(eq=False, repr=False)
class Run:
    """Do this unit now."""

    unit: Unit


@attrs.frozen(eq=False, repr=False)
class Skip:
    """Do not do this unit: what it depends on failed."""

    unit: Unit
    reason: str


@attrs.frozen
class Wait:
    """Nothing can be done before *until* (monotonic seconds); *names* are what others wait for."""

    until: float
    names: tuple[str, ...] = ()


def next_move(
    ordered: Iterable[Unit],
    waiting_for: Mapping[str, tuple[str, ...]],
    outcomes: Mapping[str, Outcome],
    status: Callable[[str], str | None],
    now: float,
    deadline: float,
    look_after: float = STATUS_PERIOD,
) -> Run | Skip | Wait | None:
    """Return what to do next; ``None`` when everything has an outcome.

    Args:
        ordered: the units in order.
        waiting_for: from :func:`waits`.
        outcomes: what has become of units so far, by full name.
        status: the status an extension reports (``None`` for a unit without settings: it is not waited for).
        now: monotonic seconds.
        deadline: when waiting ends; a terminal status seen at that moment still counts.
        look_after: seconds until statuses that are waited for are looked at again.
    """
    wake: list[float] = []
    names: list[str] = []
    for unit in ordered:
        outcome = outcomes.get(unit.full_name)
        if outcome is not None and outcome.kind != RETRY:
            continue
        if outcome is not None and now < outcome.retry_at:
            wake.append(outcome.retry_at)
            continue
        open_ones = []
        for name in waiting_for.get(unit.full_name, ()):
            verdict = _verdict(outcomes.get(name), name, status, now >= deadline)
            if verdict:
                return Skip(unit, verdict)
            if verdict is None:
                open_ones.append(name)
        if not open_ones:
            return Run(unit)
        names.extend(name for name in open_ones if name not in names)
    if any(_ran(outcomes.get(name)) for name in names):
        wake.append(min(now + look_after, max(deadline, now)))
    return Wait(min(wake), tuple(names)) if wake else None


def _ran(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.kind == DONE


def _verdict(outcome: Outcome | None, name: str, status: Callable[[str], str | None], late: bool) -> str | None:
    """Return "" when *name* succeeded, ``None`` while that is open, else why dependants are skipped."""
    if outcome is None or outcome.kind == RETRY:
        return None
    if outcome.kind == SKIPPED:
        # However long the chain is: the one before, and what failed first.
        return f"Dependent Extension {name}{_CHAIN}{outcome.reason.rpartition(_CHAIN)[2]}"
    if outcome.kind != DONE:
        return f"Dependent Extension {name} failed or was not processed: {outcome.reason}"
    word = status(name)
    if word is None or word == "success":
        return ""
    if word == "error":
        return f"Dependent Extension {name} did not succeed. Status was error"
    if late:
        return (
            f"Dependent Extension {name} did not reach a terminal state within {DEPENDENCY_DEADLINE / 60:.0f} minutes"
        )
    return None


def unsupported_features(required: Iterable[str], self_update: bool = False) -> tuple[str, ...]:
    """Return the names this agent does not know; any of them fails the whole goal state (extensions §11.3)."""
    known = {*SUPPORTED_FEATURES, SELF_UPDATE_FEATURE} if self_update else set(SUPPORTED_FEATURES)
    return tuple(name for name in required if name not in known)


def orphans(installed: Iterable[str], handlers: Iterable[Handler]) -> tuple[str, ...]:
    """Return the handler names on disk that the goal state does not name at all (extensions §11.7)."""
    wanted = {handler.name.lower() for handler in handlers}
    return tuple(sorted({name for name in installed if name.lower() not in wanted}))
