"""The plugins of a process: found, judged, imported, checked, registered; from then on :class:`Hooks` calls them.

Two ways lead here. The boot stage and commands look at what is installed (:meth:`PluginHost.discover`) and judge each
plugin before anything of it is imported. The worker takes the list that the boot stage wrote
(:meth:`PluginHost.from_list`) and imports what is on, without the machinery of discovery in memory. Nothing that a
plugin does keeps the agent from starting (architecture §6).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import attrs

from waagent import pluginlist, trust
from waagent.containment import LATE as CALL_LATE
from waagent.containment import Containment, Outcome
from waagent.distro import DistroFacts, detect
from waagent.errors import ConfigError, PluginError, StateError
from waagent.hooks import Hooks
from waagent.pluginlist import (
    ABSENT,
    DUPLICATE,
    FAILED,
    INCOMPATIBLE,
    LATE,
    OFF,
    ON,
    OTHER,
    UNTRUSTED,
    PluginInfo,
)
from waagent.registry import DISTROS, FEATURES, Examined, IncompatiblePlugin, Registry, Standing, examine
from waagent.switchboard import Switchboard

if TYPE_CHECKING:
    from waagent.config import Config
    from waagent.discovery import Found
    from waagent.log import Log
    from waagent.paths import Paths

IMPORT_DEADLINE = 5.0
"""Seconds that the import of a third party's plugin may take (ruling 22a)."""
OWN_IMPORT_DEADLINE = 30.0
"""The same for ours: they do not hang, and a machine that is busy booting would not be provisioned without them."""

FIRST_PARTY = "waagent"
"""The Python distribution whose plugins are ours."""

LIST_NAME = "plugins.json"
"""The list of plugins in the runtime directory (ruling 19a)."""


class PluginHost:
    """Every installed plugin with its state, and the hooks of those that are on.

    Args:
        log: where states and failures are told.
        config: what is on and trusted.
        paths: the agent's places.
        facts: the distribution, default what is found under the root.
    """

    def __init__(self, log: Log, config: Config, paths: Paths, facts: DistroFacts | None = None) -> None:
        self._log = log
        self._config = config
        self._paths = paths
        self.distribution = facts or detect(paths)
        self.containment = Containment(log)
        self._registry = Registry()
        self._plugins: dict[str, PluginInfo] = {}
        self._found: dict[str, Found] = {}
        self._key_facts: dict[str, object] = {}
        self.hooks = Hooks(self._registry, self.containment)
        self.switchboard = _switchboard(config)

    # ---- Ways to fill it ----

    @classmethod
    def boot(cls, log: Log, config: Config, paths: Paths, path: str | None = None) -> PluginHost:
        """Return the plugins as the boot stage has them, loaded, with the list at *path* written (ruling 19d).

        A list that was made from the same files in the same boot is used again, which saves the search. When the list
        cannot be written that is logged, and the worker looks for plugins itself.
        """
        place = path or paths.run(LIST_NAME)
        if pluginlist.current(place, paths, config.files):
            host = cls.from_list(log, config, paths, place)
            if all(info.loaded for info in host.listing() if info.state == ON):
                return host
        host = cls(log, config, paths)
        host.discover()
        host.load()
        try:
            host.write_list(place)
        except OSError as problem:
            log.warning(f"the list of plugins cannot be written to {place}: {problem.strerror}")
        return host

    @classmethod
    def from_list(cls, log: Log, config: Config, paths: Paths, path: str | None = None) -> PluginHost:
        """Return the plugins of the list at *path*, loaded; nothing is looked for.

        Raises:
            StateError: there is no list, or none that can be used.
        """
        place = path or paths.run(LIST_NAME)
        found = pluginlist.read(place, paths)
        if found is None:
            raise StateError(f"{place}: there is no list of plugins")
        host = cls(log, config, paths)
        host._key_facts = found[0]
        host._plugins = {info.name: info for info in found[1]}
        host._import({info.name: _importer(info.value) for info in found[1] if host._wanted(info)})
        return host

    def discover(self) -> None:
        """Find what is installed and judge it; imports no plugin.

        Needs importlib.metadata and so is for the boot stage and for commands.
        """
        from waagent import discovery

        self._key_facts = pluginlist.key_facts(self._paths, self._config.files)
        remembered = self._remembered()
        by_name: dict[str, list[Found]] = {}
        for found in discovery.installed(self._log):
            by_name.setdefault(found.name, []).append(found)
        allowed, refusal = self._allow_list()
        for name, several in by_name.items():
            info = self._judge(several, allowed, refusal, remembered.get(name))
            self._plugins[name] = info
            self._found[name] = several[0]
            if info.state == DUPLICATE:
                self._log.warning(f"plugin {name} is not loaded: {info.reason}")
            elif info.state not in (ON, OFF, OTHER):
                self._log.warning(f"plugin {info.label} is not loaded: {info.reason}")

    def load(self) -> None:
        """Import, check and register what :meth:`discover` found to be on; never raises on a plugin's account."""
        from waagent import discovery

        def loader(found: Found) -> Callable[[], object]:
            return lambda: discovery.load(found)

        self._import({name: loader(self._found[name]) for name, info in self._plugins.items() if info.state == ON})

    def add(
        self, name: str, plugin: object, *, first_party: bool = False, group: str = FEATURES, level: int = 0
    ) -> None:
        """Register *plugin*, which is here already: for tests, and for the demo.

        Raises:
            PluginError: it breaks a rule of hooks; says which.
        """
        info = PluginInfo(name, group, "", "", "", first_party=first_party, level=level, reason="given by the program")
        hooks = self._registry.register(examine(plugin, name), _standing(info))
        self._plugins[name] = attrs.evolve(info, hooks=hooks, loaded=True)

    def write_list(self, path: str | None = None) -> None:
        """Write the list for later processes.

        Raises:
            OSError: it cannot be written.
        """
        pluginlist.write(path or self._paths.run(LIST_NAME), self._key_facts, self._plugins.values())

    # ---- What there is ----

    def listing(self) -> list[PluginInfo]:
        """Return every installed plugin, by name, with how its calls in this process went."""
        stuck = self.containment.stuck()
        failed = self.containment.failed()
        known = [self._plugins[name] for name in sorted(self._plugins)]
        if not stuck and not failed:
            return known  # nearly always, and the status asks every period
        found = []
        for info in known:
            name = info.name
            tallies = failed.get(name, {})
            failing = [f"{hook}: {tally.last_error}" for hook, tally in tallies.items() if tally.consecutive]
            error = f"hangs in {stuck[name]}" if name in stuck else "; ".join(failing)
            failures = sum(tally.failures for tally in tallies.values())
            found.append(attrs.evolve(info, failures=failures, last_error=error) if failures or error else info)
        return found

    def are_ours(self, names: Iterable[str]) -> bool:
        """Whether all these plugins come with the agent."""
        return self.containment.ours.issuperset(names)

    def plugin(self, name: str) -> PluginInfo | None:
        """Return the installed plugin *name*."""
        return next((info for info in self.listing() if info.name == name), None)

    # ---- Judging ----

    def _judge(
        self,
        several: list[Found],
        allowed: trust.AllowList | None,
        refusal: str,
        late: PluginInfo | None,
    ) -> PluginInfo:
        found = several[0]
        first_party = trust.normalised(found.distribution) == FIRST_PARTY
        info = PluginInfo(
            found.name, found.group, found.value, found.distribution, found.version, first_party=first_party
        )
        if len(several) > 1:
            return _duplicate(info, several)
        verdict = self.switchboard.verdict(found.name, first_party=first_party)
        info = attrs.evolve(info, reason=verdict.reason, file=verdict.file, line=verdict.line)
        if not verdict.on:
            return attrs.evolve(info, state=OFF)
        if found.group == DISTROS:
            level = self.distribution.level(found.name)
            if level is None:
                words = ", ".join(self.distribution.words)
                return attrs.evolve(info, state=OTHER, reason=f"for another distribution; this one is {words}")
            info = attrs.evolve(info, level=level[0], beside=level[1])
        if not first_party:
            info = self._judge_third_party(info, found, allowed, refusal)
            if info.state == ON and late is not None and late.fingerprint == _fingerprint(info):
                return attrs.evolve(info, state=LATE, reason=late.reason, fingerprint=late.fingerprint)
        return info

    def _judge_third_party(
        self, info: PluginInfo, found: Found, allowed: trust.AllowList | None, refusal: str
    ) -> PluginInfo:
        if refusal:
            return attrs.evolve(info, state=UNTRUSTED, reason=refusal, file=None, line=None)
        if allowed is not None:
            objection = allowed.objection(info.name, info.distribution, info.version)
            if objection is not None:
                reason, line = objection
                return attrs.evolve(info, state=UNTRUSTED, reason=reason, file=allowed.path, line=line)
        reason = self._untrusted(info, found.metadata)
        return attrs.evolve(info, state=UNTRUSTED, reason=reason, file=None, line=None) if reason else info

    def _untrusted(self, info: PluginInfo, metadata: str = "") -> str:
        """Return why the files of a third party's plugin are not trusted, empty when they are.

        Ours are not looked at: they come with the agent itself, which runs already.
        """
        if info.first_party or not self._config.boolean("Plugins.RequireTrustedFiles"):
            return ""
        allowed = trust.owners(self._paths)
        try:
            place = trust.locate(info.value.partition(":")[0].strip())
            reason = trust.untrusted(place, allowed) if place is not None else None
        except Exception as problem:  # a third party's finder on sys.meta_path
            return f"its files cannot be found: {type(problem).__name__}: {problem}"
        if reason is None and metadata:
            reason = trust.untrusted(trust.Place(os.path.dirname(metadata), (metadata,)), allowed)
        return f"untrusted file: {reason}" if reason else ""

    def _allow_list(self) -> tuple[trust.AllowList | None, str]:
        path = self._config.text("Plugins.AllowList")
        if not path:
            return None, ""
        try:
            return trust.AllowList.read(self._paths.at(path), trust.owners(self._paths)), ""
        except ConfigError as problem:
            self._log.warning(f"no third party's plugin is loaded: {problem}")
            return None, str(problem)

    def _remembered(self) -> dict[str, PluginInfo]:
        """Return the plugins whose import was late before, in this boot."""
        try:
            found = pluginlist.read(self._paths.run(LIST_NAME), self._paths)
        except StateError:
            return {}
        if found is None or found[0].get("boot") != self._key_facts["boot"]:
            return {}
        return {info.name: info for info in found[1] if info.state == LATE}

    def _wanted(self, info: PluginInfo) -> bool:
        """Return whether a plugin of the list is to be imported here; its files may have changed since."""
        if info.state == LATE and info.first_party:
            return True  # ours was late because the machine was busy, and without it little works
        if info.state != ON:
            return False
        reason = self._untrusted(info)
        if reason:
            self._settle(info, UNTRUSTED, reason)
        return not reason

    # ---- Importing ----

    def _import(self, loaders: dict[str, Callable[[], object]]) -> None:
        for name in loaders:
            self.containment.labels[name] = self._plugins[name].label
            if self._plugins[name].first_party:
                self.containment.ours.add(name)

        def bring(name: str, load: Callable[[], object]) -> Callable[[], Examined | None]:
            return lambda: _bring(load, self._plugins[name])

        for own, deadline in ((True, OWN_IMPORT_DEADLINE), (False, IMPORT_DEADLINE)):
            names = [name for name in sorted(loaders) if self._plugins[name].first_party is own]
            calls = [(name, bring(name, loaders[name])) for name in names]
            for name, outcome in self.containment.call_all(calls, "import", deadline=deadline).items():
                self._settle_import(self._plugins[name], outcome, deadline)

    def _settle_import(self, info: PluginInfo, outcome: Outcome, deadline: float) -> None:
        if outcome.state == CALL_LATE:
            reason = f"its import took longer than {deadline:g} s; not tried again until its files change"
            self._plugins[info.name] = attrs.evolve(
                info, state=LATE, reason=reason, file=None, line=None, fingerprint=_fingerprint(info)
            )
        elif not outcome.answered:
            state = INCOMPATIBLE if isinstance(outcome.problem, IncompatiblePlugin) else FAILED
            self._settle(info, state, outcome.error, told=True)
        elif outcome.value is None:
            self._plugins[info.name] = attrs.evolve(info, state=ABSENT, reason="its package is not installed")
            self._log.info(f"plugin {info.label} is not installed")
        else:
            self._register(info, outcome.value)

    def _register(self, info: PluginInfo, examined: Examined) -> None:
        try:
            hooks = self._registry.register(examined, _standing(info))
        except PluginError as problem:
            self._settle(info, FAILED, str(problem))
            return
        self._plugins[info.name] = attrs.evolve(info, state=ON, hooks=hooks, loaded=True, fingerprint=())
        self._log.verbose(f"plugin {info.label} is loaded: {', '.join(hooks)}")

    def _settle(self, info: PluginInfo, state: str, reason: str, *, told: bool = False) -> None:
        self._plugins[info.name] = attrs.evolve(info, state=state, reason=reason, file=None, line=None)
        if not told:
            self._log.warning(f"plugin {info.label} is not loaded: {reason}")


def _bring(load: Callable[[], object], info: PluginInfo) -> Examined | None:
    """Import a plugin and find its implementations; ``None`` when its top-level package is not installed."""
    top = info.value.partition(":")[0].strip().partition(".")[0]
    try:
        plugin = load()
    except ModuleNotFoundError as problem:
        if problem.name == top:
            return None
        raise
    return examine(plugin, info.name)


def _importer(value: str) -> Callable[[], object]:
    """Return a function that imports ``module:attribute``, as the worker does it."""

    def load() -> object:
        module, _, attribute = value.partition(":")
        name = module.strip()
        __import__(name)
        found: object = sys.modules[name]
        for part in filter(None, attribute.partition("[")[0].strip().split(".")):
            found = getattr(found, part)
        return found

    return load


def _duplicate(info: PluginInfo, several: Iterable[Found]) -> PluginInfo:
    described = [f"{found.distribution} {found.version} ({found.group})" for found in several]
    return attrs.evolve(
        info,
        state=DUPLICATE,
        distribution=", ".join(sorted({found.distribution for found in several})),
        version="",
        first_party=False,
        reason=f"several plugins have this name: {', '.join(described)}; uninstall all but one",
    )


def _standing(info: PluginInfo) -> Standing:
    return Standing(info.name, info.first_party, info.group, info.level, info.beside)


def _fingerprint(info: PluginInfo) -> tuple[int, ...]:
    try:
        place = trust.locate(info.value.partition(":")[0].strip())
    except Exception:
        place = None
    return trust.fingerprint(place) if place is not None else ()


def _switchboard(config: Config) -> Switchboard:
    origin = config.origin("Plugins.ThirdParty")
    return Switchboard(
        config.lines,
        # A word misspelt must not let in what was to be kept out.
        listed_only=config.text("Plugins.ThirdParty") not in ("", "all"),
        listed_by=(origin.file, origin.line),
    )
