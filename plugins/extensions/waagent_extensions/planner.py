"""The state machine of extensions §10 as tables: what is wanted × what is there -> the steps that are missing.

Pure. A plan is never remembered: after each step the facts are read again and the tables asked again, so an agent
that was killed anywhere goes on from what it finds. What files cannot tell (an exit code, that a step was done in
this goal state) comes from the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from waagent_extensions.records import ENABLED, FAILED_UPGRADE, INSTALLED, NOT_INSTALLED


@attrs.frozen(eq=False, repr=False)
class Ran:
    """A command that ended in this goal state. ``code`` is what later commands are told (extensions §10.4)."""

    ok: bool
    code: str = "0"


@attrs.frozen(eq=False, repr=False)
class Other:
    """Another installed version of the handler.

    Attributes:
        extensions: what has to be disabled: the enabled extensions, or ``(None,)`` for single-config.
        newer: it is newer than the wanted one: a downgrade.
    """

    version: str
    state: str
    extensions: tuple[str | None, ...] = (None,)
    newer: bool = False


@attrs.frozen(eq=False, repr=False)
class Facts:
    """What is wanted of one unit, and what is there.

    Attributes:
        requested: the handler's wanted state.
        wanted: the extension's wanted state.
        extension: its name for multi-config, else ``None``.
        version: the chosen version.
        state: the chosen version's ``HandlerState``.
        present: there is a directory or a package of this handler.
        other: another installed version.
        leftovers: versions on disk besides the chosen one.
        recorded: the extension's recorded state (multi-config).
        enabled: what a disable of the chosen version goes through: extension names, or ``(None,)``.
        update_with_install, continue_on_failure: from the chosen version's manifest.
        broken_disable: disabling failed too often, or its command is missing: go on without it.
        done: names of steps done in this goal state.
        ran: commands that ended in this goal state: (operation, version whose command it is, extension).
        updating_from: the version an update of this goal state started from.
    """

    requested: str
    wanted: str
    extension: str | None
    version: str
    state: str = NOT_INSTALLED
    present: bool = False
    other: Other | None = None
    leftovers: tuple[str, ...] = ()
    recorded: str | None = None
    enabled: tuple[str | None, ...] = (None,)
    update_with_install: bool = True
    continue_on_failure: bool = False
    broken_disable: bool = False
    done: frozenset[str] = frozenset()
    ran: Mapping[tuple[str, str, str | None], Ran] = attrs.field(factory=dict)
    updating_from: str | None = None


@attrs.frozen(eq=False, repr=False)
class Action:
    """One missing step.

    Attributes:
        name: unique within the unit; what the journal shows.
        kind: what to do: ``command``, or one of the words in the tables.
        operation: of a command: install, update, enable, disable, uninstall.
        version: whose command or directory.
        extension: of a command.
        tolerant: a failing command does not end the work.
        gives_code: a failing command ends the work with this code instead of its own.
    """

    name: str
    kind: str
    version: str
    operation: str = ""
    extension: str | None = None
    tolerant: bool = False
    gives_code: int | None = None


@attrs.frozen(eq=False, repr=False)
class Row:
    """One row of §10.2 or §10.3: which facts it is for, and its steps in order."""

    requested: str
    states: frozenset[str]
    other: str  # "none", "older", "newer" or "any"
    steps: tuple[str, ...]


_UNUSABLE = frozenset({NOT_INSTALLED, FAILED_UPGRADE})
_USABLE = frozenset({INSTALLED, ENABLED})
_BEGIN = ("reset", "fetch", "settings")
_END = ("install", "mark-installed", "extension", "tidy")

ROWS = (
    Row("enabled", _UNUSABLE, "none", (*_BEGIN, *_END)),
    Row(
        "enabled",
        _UNUSABLE,
        "older",
        (*_BEGIN, "disable-old", "carry", "update-by-new", "uninstall-old", "remove-old", *_END),
    ),
    Row(
        "enabled",
        _UNUSABLE,
        "newer",
        (*_BEGIN, "disable-old", "carry", "update-by-old", "uninstall-old", "remove-old", *_END),
    ),
    Row("enabled", _USABLE, "any", ("settings", "extension", "tidy")),
    Row("uninstall", frozenset({ENABLED}), "any", ("disable", "mark-disabled", "uninstall", "remove")),
    Row("uninstall", frozenset({INSTALLED, FAILED_UPGRADE}), "any", ("uninstall", "remove")),
    Row("uninstall", frozenset({NOT_INSTALLED}), "any", ("remove",)),
    Row("disabled", frozenset({ENABLED}), "any", ("disable", "mark-disabled")),
    Row("disabled", frozenset({NOT_INSTALLED, INSTALLED, FAILED_UPGRADE}), "any", ()),
)

# What "extension" stands for: wanted state, recorded state -> steps (§10.5; single-config counts as wanted enabled).
EXTENSION_ROWS = {
    ("enabled", None): ("enable", "mark-enabled"),
    ("enabled", "enabled"): ("enable", "mark-enabled"),
    ("enabled", "disabled"): ("enable", "mark-enabled"),
    ("disabled", "enabled"): ("disable-extension", "forget-extension"),
    ("disabled", "disabled"): ("forget-extension",),
    ("disabled", None): (),
}

_UPDATE_FAILED = 1008


_SUMMARIES = {
    "reset": "forget the failed update of {name} {version}",
    "fetch": "get the package of {name} {version}",
    "settings": "write the settings of {name} {version}",
    "mark-old-disabled": "record that {name} {version} is disabled",
    "carry": "carry status over to {name} {version}",
    "remove-old": "remove {name} {version}",
    "mark-installed": "record that {name} {version} is installed",
    "mark-enabled": "record that {name} {version} is enabled",
    "forget-extension": "remove the settings of a disabled extension of {name} {version}",
    "tidy": "remove superseded versions of {name}",
    "mark-disabled": "record that {name} {version} is disabled",
    "remove": "remove {name}",
}


def summary(action: Action, name: str) -> str:
    """Return what *action* does to the handler *name*, for people."""
    if action.kind == "command":
        whose = f"{name}.{action.extension}" if action.extension else name
        return f"run {action.operation} of {whose} {action.version}"
    return _SUMMARIES[action.kind].format(name=name, version=action.version)


def may_stop_before(action: Action, facts: Facts) -> bool:
    """Return whether a newer goal state may take over before *action*: no command and no download begins any more.

    From its update command until its installation an update is one operation: the handler's files of both versions
    are in between.
    """
    if action.kind not in ("command", "fetch"):
        return False
    updating = any(operation == "update" for operation, _, _ in facts.ran)
    return not updating or "mark-installed" in facts.done


class NoRow(LookupError):
    """The goal state wants something that no table knows."""


def row_for(facts: Facts) -> Row:
    """Return the row of the table for *facts*.

    Raises:
        NoRow: the requested state is none that the platform may ask for.
    """
    other = "none" if facts.other is None else "newer" if facts.other.newer else "older"
    for row in ROWS:
        if row.requested == facts.requested and facts.state in row.states and row.other in ("any", other):
            return row
    raise NoRow(f"Unknown requested state: {facts.requested!r}")


def plan(facts: Facts) -> tuple[Action, ...]:
    """Return what is missing, in order.

    Raises:
        NoRow: the handler's or the extension's requested state is unknown.
    """
    missing: list[Action] = []
    for step in row_for(facts).steps:
        if step == "extension":
            missing.extend(_extension_steps(facts))
        else:
            missing.extend(_STEPS[step](facts))
    return tuple(missing)


def _extension_steps(facts: Facts) -> list[Action]:
    wanted = facts.wanted if facts.extension is not None else "enabled"
    recorded = facts.recorded if facts.extension is not None else None
    if (wanted, recorded) not in EXTENSION_ROWS:
        raise NoRow(f"Unknown requested state of the extension: {wanted!r}")
    missing: list[Action] = []
    for step in EXTENSION_ROWS[wanted, recorded]:
        missing.extend(_STEPS[step](facts))
    return missing


def _once(name: str, facts: Facts, wanted: bool = True, version: str | None = None) -> list[Action]:
    if not wanted or name in facts.done:
        return []
    return [Action(name, name, version or facts.version)]


def _command(
    name: str,
    facts: Facts,
    operation: str,
    version: str,
    extension: str | None,
    tolerant: bool = False,
    gives_code: int | None = None,
) -> list[Action]:
    ran = facts.ran.get((operation, version, extension))
    if ran is not None and (ran.ok or tolerant):
        return []
    return [Action(name, "command", version, operation, extension, tolerant, gives_code)]


def _named(name: str, extension: str | None) -> str:
    return f"{name}:{extension}" if extension else name


def _disable_old(facts: Facts) -> list[Action]:
    old = facts.other
    if old is None or old.state != ENABLED:
        return []
    tolerant = facts.continue_on_failure
    missing = []
    for extension in old.extensions:
        call = _named("disable-old", extension)
        missing.extend(_command(call, facts, "disable", old.version, extension, tolerant, _UPDATE_FAILED))
    # After a tolerated failure the old version's record stays Enabled (§10.4).
    failed = any(not _was_ok(facts, ("disable", old.version, extension)) for extension in old.extensions)
    if missing or not failed:
        missing.extend(_once("mark-old-disabled", facts, version=old.version))
    return missing


def _was_ok(facts: Facts, call: tuple[str, str, str | None]) -> bool:
    ran = facts.ran.get(call)
    return ran is not None and ran.ok


def _update(facts: Facts, by_new: bool) -> list[Action]:
    version = facts.version if by_new or facts.other is None else facts.other.version
    return _command("update", facts, "update", version, facts.extension)


def _uninstall_old(facts: Facts) -> list[Action]:
    if facts.other is None:
        return []
    return _command(
        "uninstall-old",
        facts,
        "uninstall",
        facts.other.version,
        facts.extension,
        facts.continue_on_failure,
        _UPDATE_FAILED,
    )


def _install(facts: Facts) -> list[Action]:
    updating = facts.other is not None or facts.updating_from is not None
    if updating and not facts.update_with_install:
        return []
    return _command("install", facts, "install", facts.version, facts.extension)


def _disable(facts: Facts) -> list[Action]:
    missing = []
    for extension in facts.enabled:
        name = _named("disable", extension)
        missing.extend(_command(name, facts, "disable", facts.version, extension, facts.broken_disable))
    return missing


_STEPS: dict[str, Callable[[Facts], list[Action]]] = {
    "reset": lambda facts: _once("reset", facts, facts.state == FAILED_UPGRADE),
    "fetch": lambda facts: _once("fetch", facts),
    "settings": lambda facts: _once(
        "settings", facts, facts.extension is None or facts.wanted == "enabled" or facts.recorded == "enabled"
    ),
    "disable-old": _disable_old,
    "carry": lambda facts: _once("carry", facts),
    "update-by-new": lambda facts: _update(facts, by_new=True),
    "update-by-old": lambda facts: _update(facts, by_new=False),
    "uninstall-old": _uninstall_old,
    "remove-old": lambda facts: _once(
        "remove-old", facts, facts.other is not None, facts.other.version if facts.other else None
    ),
    "install": _install,
    "mark-installed": lambda facts: _once("mark-installed", facts),
    "enable": lambda facts: _command("enable", facts, "enable", facts.version, facts.extension),
    "mark-enabled": lambda facts: _once("mark-enabled", facts),
    "disable-extension": lambda facts: _command(
        "disable", facts, "disable", facts.version, facts.extension, tolerant=True
    ),
    "forget-extension": lambda facts: _once("forget-extension", facts),
    "tidy": lambda facts: _once("tidy", facts, bool(facts.leftovers)),
    "disable": _disable,
    "mark-disabled": lambda facts: _once("mark-disabled", facts),
    "uninstall": lambda facts: _command("uninstall", facts, "uninstall", facts.version, facts.extension, tolerant=True),
    "remove": lambda facts: _once("remove", facts, facts.present),
}


def after(facts: Facts, action: Action) -> Facts:
    """Return the facts once *action* succeeded: what a dry run walks on, and what a test can hold the work to."""
    if action.kind == "command":
        ran = {**facts.ran, (action.operation, action.version, action.extension): Ran(True)}
        started_from = facts.other.version if action.operation == "update" and facts.other else facts.updating_from
        return attrs.evolve(facts, ran=ran, updating_from=started_from)
    done = attrs.evolve(facts, done=facts.done | {action.name})
    change = _EFFECTS.get(action.kind)
    return change(done) if change is not None else done


def _without_other(facts: Facts) -> Facts:
    gone = facts.other.version if facts.other is not None else None
    return attrs.evolve(facts, other=None, leftovers=tuple(item for item in facts.leftovers if item != gone))


_EFFECTS: dict[str, Callable[[Facts], Facts]] = {
    "reset": lambda facts: attrs.evolve(facts, state=NOT_INSTALLED),
    "fetch": lambda facts: attrs.evolve(facts, present=True),
    "mark-old-disabled": lambda facts: attrs.evolve(
        facts, other=attrs.evolve(facts.other, state=INSTALLED) if facts.other is not None else None
    ),
    "remove-old": _without_other,
    "mark-installed": lambda facts: attrs.evolve(facts, state=INSTALLED),
    "mark-enabled": lambda facts: attrs.evolve(
        facts, state=ENABLED, recorded="enabled" if facts.extension is not None else None
    ),
    "forget-extension": lambda facts: attrs.evolve(facts, recorded=None),
    "mark-disabled": lambda facts: attrs.evolve(facts, state=INSTALLED),
    "tidy": lambda facts: attrs.evolve(facts, leftovers=()),
    "remove": lambda facts: attrs.evolve(facts, state=NOT_INSTALLED, present=False, other=None, leftovers=()),
}
