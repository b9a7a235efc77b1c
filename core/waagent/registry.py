"""Registered plugins: what pluggy holds and checks, and in which order implementations are called (ruling 20).

pluggy's traps are dealt with here (models.md 2.3): a plugin is registered through a plain holder of its marked
functions, so properties never run and classes with ``__eq__`` are welcome; whatever goes wrong takes it out whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pluggy

from waagent import hookspecs, operations
from waagent.errors import PluginError
from waagent.markers import HOOK_API, PROJECT, Traits, traits_of

FIRST_PARTY_ORDER = (
    "upkeep",
    "firewall",
    "resourcedisk",
    "provisioning",
    "hostname",
    "msp",
    "signatures",  # before the policy, which looks at what it found out
    "policy",
    "extensions",
    "logcollector",
    "telemetry",
    "updates",
)
"""Our features in the order in which events reach them; one that is not named here comes after these, by name."""

FEATURES, DISTROS = "waagent.plugins", "waagent.distros"
"""The groups of entry points."""

_MARK = f"{PROJECT}_impl"
_VARIADIC = 0x04 | 0x08  # CO_VARARGS, CO_VARKEYWORDS


@attrs.frozen(eq=False, repr=False)
class Standing:
    """What decides about the order and the rights of a plugin.

    Attributes:
        name: the entry point's name.
        first_party: it comes with the agent.
        group: :data:`FEATURES` or :data:`DISTROS`.
        level: of a distribution plugin: 0 for the base, then the words of ``ID_LIKE``, highest for ``ID``.
        beside: a distribution plugin named ``ID.suffix``: called before the plugin of the ``ID`` (ruling 21).
    """

    name: str
    first_party: bool = False
    group: str = FEATURES
    level: int = 0
    beside: bool = False


@attrs.frozen(eq=False, repr=False)
class Implementation:
    """One plugin's implementation of one hook.

    Attributes:
        plugin: the plugin's name.
        function: what to call.
        arguments: the names of the arguments it takes.
        any_root: the plugin changes nothing outside the agent's root (ruling 7).
    """

    plugin: str
    function: Callable[..., Any]
    arguments: tuple[str, ...]
    any_root: bool = False


class IncompatiblePlugin(PluginError):
    """The plugin asks for a newer hook interface than this agent has."""


@attrs.frozen(eq=False, repr=False)
class Examined:
    """A plugin's marked functions, bound, by attribute name; and whether it answers under any root (ruling 7)."""

    functions: dict[str, Callable[..., Any]]
    any_root: bool = False


class _Holder:
    """A plain, hashable stand-in that carries a plugin's implementations to pluggy."""

    def __init__(self, implementations: dict[str, Callable[..., Any]]) -> None:
        self.__dict__.update(implementations)


class Registry:
    """The plugins of a process that passed every check."""

    def __init__(self) -> None:
        namespaces = (hookspecs, *operations.GROUPS)
        self._manager = pluggy.PluginManager(PROJECT)
        for namespace in namespaces:
            self._manager.add_hookspecs(namespace)
        self.traits: dict[str, Traits] = traits_of(*namespaces)
        self._standing: dict[str, Standing] = {}
        self._any_root: set[str] = set()
        self._ordered: dict[str, tuple[Implementation, ...]] = {}

    @property
    def any_root(self) -> bool:
        """Whether a plugin answers under any root (ruling 7)."""
        return bool(self._any_root)

    def register(self, examined: Examined, standing: Standing) -> tuple[str, ...]:
        """Add an examined plugin and return the names of the hooks it implements.

        Raises:
            PluginError: it breaks a rule; says which. Nothing of it stays registered.
        """
        name = standing.name
        if name in self._standing:
            raise PluginError("a plugin of this name is registered already", plugin=name)
        try:
            self._manager.register(_Holder(examined.functions), name=name)
            hooks = self._check(name)
        except Exception as problem:
            self._withdraw(name)
            if isinstance(problem, PluginError):
                raise
            raise PluginError(" ".join(str(problem).split()), plugin=name) from problem
        self._standing[name] = standing
        if examined.any_root:
            self._any_root.add(name)
        self._ordered.clear()
        return hooks

    def unregister(self, name: str) -> None:
        """Take the plugin *name* out."""
        if self._standing.pop(name, None) is not None:
            self._any_root.discard(name)
            self._withdraw(name)
            self._ordered.clear()

    def implementations(self, hook: str) -> tuple[Implementation, ...]:
        """Return the implementations of *hook* in call order; none costs a look-up.

        Raises:
            PluginError: no such hook: the caller's fault.
        """
        ordered = self._ordered.get(hook)
        if ordered is None:
            traits = self.traits.get(hook)
            if traits is None:
                raise PluginError(f"there is no hook {hook}", hook=hook)
            key = _decision_key if traits.first_answer else _event_key
            found = sorted(
                getattr(self._manager.hook, hook).get_hookimpls(),
                key=lambda one: key(self._standing[one.plugin_name]),
            )
            ordered = self._ordered[hook] = tuple(
                Implementation(one.plugin_name, one.function, tuple(one.argnames), one.plugin_name in self._any_root)
                for one in found
            )
        return ordered

    def _check(self, name: str) -> tuple[str, ...]:
        holder = self._manager.get_plugin(name)
        callers = self._manager.get_hookcallers(holder) or []
        hooks: list[str] = []
        for caller in callers:
            if caller.name not in self.traits or caller.name in hooks:
                continue  # check_pending below refuses an unknown one, unless the plugin says that it is optional
            hooks.append(caller.name)
            own = [one for one in caller.get_hookimpls() if one.plugin_name == name]
            if len(own) > 1:
                raise PluginError(f"{caller.name} is implemented twice", plugin=name, hook=caller.name)
            _check_implementation(own[0], name, caller.name)
        self._manager.check_pending()
        return tuple(hooks)

    def _withdraw(self, name: str) -> None:
        if self._manager.get_plugin(name) is not None:
            self._manager.unregister(name=name)


def examine(plugin: object, name: str) -> Examined:
    """Find what *plugin* implements. Runs code of the plugin (``__dir__``, descriptors): call it contained.

    Raises:
        PluginError: it is a class, implements nothing, or needs a newer agent.
    """
    if isinstance(plugin, type):
        raise PluginError("the entry point names a class; it has to name an instance or a module", plugin=name)
    needed = getattr(plugin, "waagent_hook_api", 1)
    if not isinstance(needed, int):
        raise PluginError(f"waagent_hook_api is {needed!r}, which is no number", plugin=name)
    if needed > HOOK_API:
        raise IncompatiblePlugin(
            f"it needs hook interface {needed}, this agent has {HOOK_API}: update waagent", plugin=name
        )
    functions = {}
    for attribute in dir(plugin):
        if attribute.startswith("__"):
            continue
        static = getattr(type(plugin), attribute, None)  # the class first, so that no property is run
        if static is None:
            static = getattr(plugin, "__dict__", {}).get(attribute)
        if not isinstance(getattr(static, _MARK, None), dict):
            continue
        value = getattr(plugin, attribute)
        if not callable(value) or not hasattr(value, "__name__"):
            raise PluginError(f"{attribute} is marked as a hook and is no function", plugin=name, hook=attribute)
        functions[attribute] = value
    if not functions:
        raise PluginError("it implements no hook: mark its functions with @hookimpl", plugin=name)
    return Examined(functions, getattr(plugin, "waagent_any_root", False) is True)


def _check_implementation(implementation: Any, name: str, hook: str) -> None:
    options = implementation.opts
    if options.get("hookwrapper") or options.get("wrapper"):
        raise PluginError(f"{hook} is a wrapper; wrappers are not called here", plugin=name, hook=hook)
    if implementation.kwargnames:
        given = ", ".join(implementation.kwargnames)
        raise PluginError(f"{hook} gives defaults to {given}; arguments take none", plugin=name, hook=hook)
    code = getattr(implementation.function, "__code__", None)
    if code is None or hasattr(implementation.function, "__wrapped__"):
        return  # a decorated function's own code says nothing about what it takes
    if code.co_kwonlyargcount or code.co_flags & _VARIADIC:
        raise PluginError(
            f"{hook} has keyword-only or variable arguments; name the arguments it takes", plugin=name, hook=hook
        )


def _event_key(standing: Standing) -> tuple[object, ...]:
    if not standing.first_party:
        return (2, 0, standing.name)
    if standing.group == DISTROS:
        return (0, standing.level, standing.name)
    return (1, _feature_rank(standing.name), standing.name)


def _decision_key(standing: Standing) -> tuple[object, ...]:
    if standing.group == DISTROS:
        return (1, -standing.level, not standing.beside, standing.name)
    if not standing.first_party:
        return (0, 0, False, standing.name)
    return (2, _feature_rank(standing.name), False, standing.name)


def _feature_rank(name: str) -> int:
    return FIRST_PARTY_ORDER.index(name) if name in FIRST_PARTY_ORDER else len(FIRST_PARTY_ORDER)
