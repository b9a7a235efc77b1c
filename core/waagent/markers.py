"""The markers of hooks, and what the agent knows of each hook as data (architecture §5, models.md 2.4).

``hookimpl`` is for plugin authors (import it from :mod:`waagent`); the spec markers are for ``hookspecs`` and
``operations``. Each of them hands the function to pluggy unchanged and notes deadline and kind beside it, so that a
hook cannot exist without them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pluggy

PROJECT = "waagent"

HOOK_API = 1
"""Number of the hook interface. A plugin that needs a newer one says so in ``waagent_hook_api`` and is refused by an
older agent with a clear line; hooks and arguments are only added under one number."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

EVENT, CONTRIBUTION, DECISION, OPERATION = "event", "contribution", "decision", "operation"

HOOK_DEADLINE = 30.0
"""Seconds that a hook has when its spec says nothing else (ruling 23)."""
OPERATION_DEADLINE = 120.0
"""Seconds that a distribution operation has when its spec says nothing else (ruling 23)."""

_ATTRIBUTE = "waagent_traits"
_Function = TypeVar("_Function", bound=Callable[..., Any])


class Traits:
    """What the agent knows of one hook.

    Attributes:
        name: the hook's name.
        kind: ``event``, ``contribution``, ``decision`` or ``operation``.
        deadline: seconds an implementation has before it is abandoned.
        periodic: it is called again and again, so repeated failure backs a plugin off.
        changing: an operation that writes to the machine; answered only on the real root (ruling 7).
        arguments: argument names in the spec's order.
        defaults: what a caller may leave out of an operation, with its value.
    """

    __slots__ = ("arguments", "changing", "deadline", "defaults", "kind", "name", "periodic")

    def __init__(
        self,
        function: Callable[..., Any],
        kind: str,
        deadline: float,
        *,
        periodic: bool = False,
        changing: bool = False,
        defaults: dict[str, Any] | None = None,
    ) -> None:
        code = function.__code__
        self.name: str = function.__name__
        self.kind = kind
        self.deadline = deadline
        self.periodic = periodic
        self.changing = changing
        self.arguments: tuple[str, ...] = code.co_varnames[: code.co_argcount]
        self.defaults: dict[str, Any] = defaults or {}

    @property
    def first_answer(self) -> bool:
        """Whether the first answer ends the call."""
        return self.kind in (DECISION, OPERATION)


def event(*, deadline: float = HOOK_DEADLINE) -> Callable[[_Function], _Function]:
    """Mark a spec as an event: every plugin is called."""
    return _marker(EVENT, deadline)


def contribution(*, deadline: float = HOOK_DEADLINE, periodic: bool = False) -> Callable[[_Function], _Function]:
    """Mark a spec as a contribution: every plugin is asked, and what they return is collected."""
    return _marker(CONTRIBUTION, deadline, periodic=periodic)


def decision(*, deadline: float = HOOK_DEADLINE) -> Callable[[_Function], _Function]:
    """Mark a spec as a decision: the first answer counts."""
    return _marker(DECISION, deadline)


def changes(*, deadline: float = OPERATION_DEADLINE, **defaults: Any) -> Callable[[_Function], _Function]:
    """Mark a distribution operation that writes to the machine; *defaults* are arguments a caller may leave out."""
    return _marker(OPERATION, deadline, changing=True, defaults=defaults)


def reads(*, deadline: float = OPERATION_DEADLINE, **defaults: Any) -> Callable[[_Function], _Function]:
    """Mark a distribution operation that only looks; *defaults* are arguments a caller may leave out."""
    return _marker(OPERATION, deadline, defaults=defaults)


def traits_of(*namespaces: object) -> dict[str, Traits]:
    """Return the traits of every hook specified in *namespaces* (modules), by name, in the order written there."""
    found = {}
    for namespace in namespaces:
        for value in vars(namespace).values():
            traits = getattr(value, _ATTRIBUTE, None)
            if isinstance(traits, Traits):
                found[traits.name] = traits
    return found


def _marker(kind: str, deadline: float, **more: Any) -> Callable[[_Function], _Function]:
    def mark(function: _Function) -> _Function:
        traits = Traits(function, kind, deadline, **more)
        setattr(function, _ATTRIBUTE, traits)
        marked: _Function = hookspec(function, firstresult=traits.first_answer)
        return marked

    return mark
