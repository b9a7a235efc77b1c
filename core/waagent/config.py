"""Typed configuration: every value knows where it comes from (architecture §10, spec/configuration.md §3).

A value that cannot be used never stops the agent: the default counts, and ``problems`` says so with file and line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import attrs

from waagent.conffile import PATH_KEYS, RawConfig, Setting
from waagent.options import CORE, owner_of, remarks
from waagent.records import Option

if TYPE_CHECKING:
    from waagent.log import Log

KINDS = ("bool", "int", "text")
_TYPES = {"bool": bool, "int": int, "text": str}
_LONGEST_NUMBER = 40
_LARGEST = 1 << 32  # 136 years, or 4 GiB: the system's timers take no more than 292 years
_LONGEST_QUOTE = 80
_MOST_NAMES = 20
DEFAULT, PLUGIN_DEFAULT = "default", "plugin default"


@attrs.frozen
class Origin:
    """Where a value comes from.

    Attributes:
        kind: ``default``, ``plugin default``, ``vendor``, ``file`` or ``drop-in``.
        file: the file, ``None`` for a default.
        line: its line, ``None`` for a default.
        plugin: the plugin whose default it is, else ``None``.
    """

    kind: str
    file: str | None = None
    line: int | None = None
    plugin: str | None = None

    def __str__(self) -> str:
        if self.file is not None:
            return f"{self.file}:{self.line}"
        return f"default of plugin {self.plugin}" if self.plugin else self.kind


@attrs.frozen(eq=False, repr=False)
class Problem:
    """Something in the configuration that somebody should look at.

    Attributes:
        level: ``warning`` (a value was not used, or something surprising holds) or ``info``.
        message: what and with which result.
        file: where; ``None`` when the message names the place itself.
        line: the line there.
    """

    level: str
    message: str
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}" if self.file is not None else self.message


@attrs.frozen(eq=False, repr=False)
class _Known:
    """An option as it stands: its default may come from a plugin, its value from a file."""

    option: Option
    plugin: str | None = None
    default: object = None
    default_plugin: str | None = None


class Config:
    """The configuration of a process, read once (configuration §1: there is no reload).

    Args:
        raw: what the files say.
        options: the options that the core knows; plugins add theirs with :meth:`declare`.
    """

    UNKNOWN = "keys that nothing here knows are passed over"

    def __init__(self, raw: RawConfig, options: Iterable[Option] = CORE) -> None:
        self._raw = raw
        self._known: dict[str, _Known] = {}
        self._aliases: dict[str, str] = {}
        self._declaring: list[Problem] = []
        self._values: dict[str, tuple[object, Origin]] = {}
        self._given: set[str] = set()
        self._refused: list[Problem] = []
        for option in options:
            self._add(option, None)
        self._resolve()

    def declare(self, plugin: str, options: Iterable[Option]) -> None:
        """Add the options of *plugin*; one that is known already gets its default from the plugin.

        A contribution that cannot be used (another kind, a name that is an alias) becomes a problem.
        """
        for option in options:
            self._add(option, plugin)
        self._resolve()

    @property
    def options(self) -> Mapping[str, Option]:
        """Every known option by name, in byte order of the names."""
        return MappingProxyType({name: self._known[name].option for name in sorted(self._known)})

    @property
    def files(self) -> tuple[str, ...]:
        """The files that were read, in order."""
        return tuple(self._raw.files)

    @property
    def lines(self) -> tuple[Setting, ...]:
        """Every line of the files in order of reading, overridden ones too: for keys of which more than one counts."""
        return tuple(self._raw.lines)

    @property
    def unknown(self) -> tuple[Setting, ...]:
        """The settings that count and whose keys nobody declared, in order of the files."""
        last = self._raw.settings
        return tuple(
            setting
            for setting in self._raw.lines
            if last[setting.key] is setting
            and setting.key not in self._known
            and setting.key not in self._aliases
            and setting.key.lstrip("#") == setting.key  # an indented comment is none to the parser (configuration §2)
            and setting.key
        )

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Everything worth a word, in order of the files; unknown keys share one problem.

        Looking for the nearest known name loads :mod:`difflib`: what stays resident reads this in the boot stage only.
        """
        found = [Problem("warning", text) for text in self._raw.problems] + self._declaring
        in_files = []
        for key, message in remarks(self) if self._has_core() else ():
            in_files.append(self._problem("warning", key, f"{key} {message}"))
        # A remark says more than the bare "has no effect" of the same line.
        remarked = {(problem.file, problem.line) for problem in in_files}
        in_files += [
            problem
            for problem in self._refused
            if problem.level != "info" or (problem.file, problem.line) not in remarked
        ]
        order = {file: number for number, file in enumerate(self._raw.files)}
        found += sorted(in_files, key=lambda problem: (order.get(problem.file or "", -1), problem.line or 0))
        unknown = self.unknown
        if unknown:
            names = ", ".join(self._unknown_text(setting) for setting in unknown[:_MOST_NAMES])
            more = f" and {len(unknown) - _MOST_NAMES} more" if len(unknown) > _MOST_NAMES else ""
            found.append(Problem("info", f"{self.UNKNOWN}: {names}{more}"))
        return tuple(found)

    def report(self, log: Log, states: Mapping[str, str]) -> None:
        """Write every problem to *log*; *states* as for :meth:`idle`."""
        for problem in self.problems:
            (log.warning if problem.level == "warning" else log.info)(f"Configuration: {problem}")
        idle = [f"{setting.key} ({reason})" for setting, reason in self.idle(states)]
        if idle:
            log.info(f"Configuration: keys that nobody acts on: {', '.join(idle)}")

    def standing(self, name: str, states: Mapping[str, str]) -> str:
        """Return why nobody acts on option *name*, empty when somebody does or that is not known.

        Args:
            name: a known option.
            states: the state of every installed plugin by its name; empty when plugins cannot be had.
        """
        plugin = self.plugin(name)
        return "" if plugin is None or not states else _standing(plugin, states.get(plugin, "absent"))

    def idle(self, states: Mapping[str, str]) -> list[tuple[Setting, str]]:
        """Return what files set to another value than the default although nobody acts on it, with the reason.

        A key that nobody declared counts when its first word is the name of an installed plugin that is not on: what
        that plugin would know cannot be asked.
        """
        found = []
        for name in sorted(self._given):
            reason = self.standing(name, states)
            setting = self._setting_of(name)
            if reason and setting is not None and self.value(name) != self.default(name):
                found.append((setting, reason))
        for setting in self.unknown:
            plugin = setting.key.partition(".")[0].lower()
            reason = _standing(plugin, states.get(plugin, "on"))
            if reason:
                found.append((setting, reason))
        return found

    def nearest(self, key: str) -> str | None:
        """Return the known name that *key* most likely means, or ``None``."""
        import difflib

        names = {name.lower(): name for name in sorted(self._known) if not self._known[name].option.ignored}
        found = difflib.get_close_matches(key.lower(), list(names), 1, 0.75)
        return names[found[0]] if found else None

    def value(self, name: str) -> object:
        """Return the value of option *name*, of its kind or ``None``.

        Raises:
            KeyError: no such option was declared.
        """
        return self._values[name][0]

    def boolean(self, name: str) -> bool:
        """Return the value of the bool option *name*."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise TypeError(f"option {name} is no switch")
        return value

    def integer(self, name: str) -> int:
        """Return the value of the int option *name*, which has a default."""
        value = self.optional_integer(name)
        if value is None:
            raise TypeError(f"option {name} may be absent")
        return value

    def optional_integer(self, name: str) -> int | None:
        """Return the value of the int option *name*, ``None`` when it is absent."""
        value = self.value(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise TypeError(f"option {name} is no number")
        return value

    def text(self, name: str) -> str | None:
        """Return the value of the text option *name*, ``None`` when it is absent."""
        value = self.value(name)
        if value is not None and not isinstance(value, str):
            raise TypeError(f"option {name} is no text")
        return value

    def origin(self, name: str) -> Origin:
        """Return where the value of option *name* comes from."""
        return self._values[name][1]

    def default(self, name: str) -> object:
        """Return the value that option *name* has when no file sets it."""
        return self._default(name, set())[0]

    def given(self, name: str) -> bool:
        """Return whether a file sets option *name* (by whatever name) to a value that is used."""
        return name in self._given

    def raw(self, key: str) -> str | None:
        """Return the text of any *key*, declared or not; ``None`` when it is absent."""
        return self._raw.get(key)

    def plugin(self, name: str) -> str | None:
        """Return the plugin that acts on option *name*: who declared it, else one of our own, else ``None``."""
        return self._known[name].plugin or owner_of(name)

    @property
    def http_proxy(self) -> tuple[str, int] | None:
        """Host and port of the configured proxy, ``None`` without one; the port defaults to 80 (configuration §4.6)."""
        host = self.text("HttpProxy.Host")
        port = self.optional_integer("HttpProxy.Port") or 80
        return (host, port if 0 < port <= 65535 else 80) if host else None

    def _add(self, option: Option, plugin: str | None) -> None:
        reason = self._fault(option, plugin)
        if reason:
            source = f"plugin {plugin}" if plugin else "the core"
            self._declaring.append(Problem("warning", f"option {option.name} of {source} is left out: {reason}"))
            return
        known = self._known.get(option.name)
        if known is not None:
            changed = option.default != known.default
            self._known[option.name] = _Known(
                known.option,
                known.plugin or plugin,
                option.default,
                plugin if changed else known.default_plugin,
            )
            return
        self._known[option.name] = _Known(option, plugin, option.default, plugin)
        for alias in option.aliases:
            self._aliases.setdefault(alias, option.name)

    def _fault(self, option: Option, plugin: str | None) -> str | None:
        if option.kind not in KINDS:
            return f"unknown kind {option.kind!r}"
        if option.default is not None and type(option.default) is not _TYPES[option.kind]:
            return f"its default {option.default!r} is no {option.kind}"
        if option.kind == "bool" and option.default is None:
            return "a switch needs a default"
        if option.name in self._aliases:
            return f"the name is another word for {self._aliases[option.name]}"
        known = self._known.get(option.name)
        if known is not None and known.option.kind != option.kind:
            return f"it is declared already, as {known.option.kind}"
        if known is not None and known.plugin not in (None, plugin):
            return f"plugin {known.plugin} declared it already"
        return None

    def _resolve(self) -> None:
        self._refused = []
        self._values = {}
        self._given = set()
        for name in sorted(self._known):
            found = self._from_file(name)
            if found is not None:
                self._given.add(name)
            self._values[name] = found or self._default(name, set())

    def _from_file(self, name: str) -> tuple[object, Origin] | None:
        option = self._known[name].option
        setting = self._setting(option)
        text = None if setting is None else setting.given
        if setting is None or text is None:
            return None
        if option.ignored:
            if text != _as_text(option.default):
                self._refuse(setting, f"{setting.key} is accepted and has no effect: {option.ignored}", "info")
            return None
        value, reason = _convert(option, text)
        if value is None:
            default = _as_text(self._default(name, set())[0])
            self._refuse(setting, f"{setting.key}={_quote(text)}: {reason}; the default {default} is used")
            return None
        if reason:
            self._refuse(setting, f"{setting.key}={_quote(text)}: {reason}; {value} is used")
        return value, Origin(setting.layer, setting.file, setting.line)

    def _setting(self, option: Option) -> Setting | None:
        own = self._raw.settings.get(option.name)
        for alias in option.aliases:
            other = self._raw.settings.get(alias)
            if other is None:
                continue
            if own is None:
                self._refuse(other, f"{alias} is taken as {option.name}; write that instead")
                own = other
            else:
                self._refuse(other, f"{alias} is passed over: {own.key} is set too")
        return own

    def _setting_of(self, name: str) -> Setting | None:
        option = self._known[name].option
        return next(filter(None, (self._raw.settings.get(key) for key in (name, *option.aliases))), None)

    def _default(self, name: str, seen: set[str]) -> tuple[object, Origin]:
        known = self._known[name]
        other = known.option.default_from
        if other is not None and other in self._known and other not in seen and known.default_plugin is None:
            seen.add(name)
            found = self._from_file_quietly(other)
            return found if found is not None else self._default(other, seen)
        kind = PLUGIN_DEFAULT if known.default_plugin else DEFAULT
        return known.default, Origin(kind, plugin=known.default_plugin)

    def _from_file_quietly(self, name: str) -> tuple[object, Origin] | None:
        kept = list(self._refused)
        found = self._from_file(name)
        self._refused = kept
        return found

    def _refuse(self, setting: Setting, message: str, level: str = "warning") -> None:
        self._refused.append(Problem(level, message, setting.file, setting.line))

    def _problem(self, level: str, key: str, message: str) -> Problem:
        setting = self._raw.settings.get(key)
        if setting is None:
            return Problem(level, message)
        return Problem(level, message, setting.file, setting.line)

    def _unknown_text(self, setting: Setting) -> str:
        near = self.nearest(setting.key)
        hint = f", did you mean {near}?" if near else ""
        return f"{_quote(setting.key)} ({setting.file}:{setting.line}{hint})"

    def _has_core(self) -> bool:
        return "Provisioning.Agent" in self._known


def _standing(plugin: str, state: str) -> str:
    if state == "on":
        return ""
    if state == "off":
        return f"owned by disabled plugin {plugin}"
    return f"owned by plugin {plugin}, which is {'not installed' if state == 'absent' else state}"


def _convert(option: Option, text: str) -> tuple[object, str]:
    """Return value and what is wrong with it; the value is ``None`` when *text* is refused (configuration §3)."""
    if option.kind == "bool":
        if text in ("y", "Y", "n", "N"):
            return text in ("y", "Y"), ""
        return None, "is neither y nor n"
    if option.kind == "int":
        try:
            number = int(text) if len(text) <= _LONGEST_NUMBER else None
        except ValueError:
            number = None
        if number is None:
            return None, "is no whole number"
        if abs(number) > _LARGEST:
            return None, "is too large"
        if option.minimum is not None and number < option.minimum:
            return option.minimum, f"is below {option.minimum}"
        return number, ""
    if option.choices is not None and text not in option.choices:
        return None, f"is none of {', '.join(option.choices)}"
    if option.name in PATH_KEYS and not text.startswith("/"):
        return None, "is no absolute path"
    return text, ""


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "y" if value else "n"
    return str(value)


def _quote(text: str) -> str:
    return text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "..."
