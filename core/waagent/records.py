"""What contributions return and decisions take: small frozen values, public API (architecture §5).

A plugin says what it has (an option, a command, a check) and the core acts on it: that keeps plugins short and lets the
core name the distribution that a conflicting or failing contribution came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from waagent.values import Checked, Value

if TYPE_CHECKING:
    import argparse

    from waagent.agent import Agent

_NONE = type(None)
_TEXT, _TEXT_OR_NONE = (str,), (str, _NONE)


@attrs.frozen(eq=False, repr=False)
class Option(Checked, Value):
    """One configuration option (``waagent.conf``, drop-ins).

    Attributes:
        name: ``Area.Name``; a plugin's area is its own name (``Acme.Interval``).
        kind: ``bool`` (``y``/``n``), ``int`` or ``text``.
        default: the value when no file says anything, of that kind, or ``None``.
        help: one line for ``waagent config``.
        since: the product version that brought it.
        aliases: other names that mean the same; the name itself wins over them.
        choices: the texts that are allowed, ``None`` for any.
        minimum: the least number that is allowed, ``None`` for any.
        ignored: why the option is accepted and ignored, ``None`` when it does something.
        default_from: another option whose value is the default of this one.
    """

    TYPES = {
        "name": _TEXT,
        "kind": _TEXT,
        "help": _TEXT,
        "since": _TEXT,
        "aliases": (tuple, list),
        "choices": (tuple, list, _NONE),
        "minimum": (int, _NONE),
        "ignored": _TEXT_OR_NONE,
        "default_from": _TEXT_OR_NONE,
    }
    name: str
    kind: str
    default: object
    help: str
    since: str = "3.0.0"
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] | None = None
    minimum: int | None = None
    ignored: str | None = None
    default_from: str | None = None


@attrs.frozen(eq=False, repr=False)
class Command(Checked, Value):
    """One command of ``waagent``.

    Attributes:
        name: the word, or two words (``plugins list``).
        summary: one line for ``waagent help``.
        run: does it and returns the exit code (ruling 5).
        configure: adds options and arguments to the command's parser.
        root: it needs root on the real root (exit 77 otherwise).
        hidden: it is left out of the help.
    """

    TYPES = {"name": _TEXT, "summary": _TEXT, "run": (Callable,), "configure": (Callable, _NONE)}
    name: str
    summary: str
    run: Callable[[Agent, argparse.Namespace], int]
    configure: Callable[[argparse.ArgumentParser], None] | None = None
    root: bool = True
    hidden: bool = False


@attrs.frozen(eq=False, repr=False)
class Periodic(Checked, Value):
    """One periodic duty of the worker.

    Attributes:
        name: a short name for the log and ``waagent plugins show``.
        period: seconds, or the name of the option that holds them.
        run: does it; called again one period after it returned, to the nearest goal state period: duties that fall
            together wake the machine once.
        lane: the thread it runs in; ``None`` for the lane of hooks.
    """

    TYPES = {"name": _TEXT, "period": (int, float, str), "run": (Callable,), "lane": _TEXT_OR_NONE}
    name: str
    period: float | str
    run: Callable[[Agent], None]
    lane: str | None = None


@attrs.frozen(eq=False, repr=False)
class LogSource(Checked, Value):
    """Something for the log collector.

    Attributes:
        kind: ``file`` (a path, globs allowed), ``command`` (its output) or ``listing`` (of a directory).
        value: the path or the command line.
        priority: lower is collected first when the archive gets too large.
    """

    TYPES = {"kind": _TEXT, "value": _TEXT, "priority": (int,)}
    kind: str
    value: str
    priority: int = 100


@attrs.frozen(eq=False, repr=False)
class HealthCheck(Checked, Value):
    """The answer of one check of ``waagent doctor``.

    Attributes:
        id: ``area.check``, stable, for scripts.
        result: ``ok``, ``warning`` or ``failed``.
        detail: what was found.
        remedy: what to do about it; empty when there is nothing to do.
    """

    TYPES = {"id": _TEXT, "result": _TEXT, "detail": _TEXT, "remedy": _TEXT}
    id: str
    result: str
    detail: str
    remedy: str = ""


@attrs.frozen(eq=False, repr=False)
class Veto(Checked, Value):
    """A plugin's no.

    Attributes:
        reason: for people and the status blob; no secrets.
        code: the error code for the status blob, ``None`` for the caller's own.
    """

    TYPES = {"reason": _TEXT, "code": (int, _NONE)}
    reason: str
    code: int | None = None


@attrs.frozen(eq=False, repr=False)
class Package(Value):
    """A handler's package, downloaded and not yet unpacked.

    Attributes:
        path: the zip file.
        signature: base64 of the detached CMS signature, empty when the package is unsigned.
    """

    handler_name: str
    version: str
    path: str
    signature: str


@attrs.frozen(eq=False, repr=False)
class HandlerCommand(Value):
    """One command of a handler, ready to start (extensions §12).

    Attributes:
        extension_name: of a multi-config handler, else ``None``.
        operation: ``install``, ``update``, ``enable``, ``disable`` or ``uninstall``.
        line: the command line from the handler's manifest, for ``/bin/sh -c``.
        cwd: where it starts.
        environment: the whole environment of the command. May hold secrets: never logged.
        timeout: seconds.
        run_dir: the run directory that holds its output and exit code.
        resource_limits: ``resourceLimits`` of the handler's manifest as it stands there, ``{}`` when absent.
    """

    handler_name: str
    handler_version: str
    extension_name: str | None
    operation: str
    line: str
    cwd: str
    environment: Mapping[str, str] = attrs.field(repr=False)
    timeout: float
    run_dir: str
    resource_limits: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(eq=False, repr=False)
class CommandResult(Value):
    """How a handler's command ended.

    Attributes:
        ok: it ended with exit code 0.
        exit_code: ``None`` when it was out of time, could not be started, or nobody knows.
        timed_out: it was ended because it was out of time.
        launch_problem: why it was started without the launcher that a plugin had chosen; empty when it was not.
    """

    ok: bool
    exit_code: int | None = None
    timed_out: bool = False
    launch_problem: str = ""


@attrs.frozen(eq=False, repr=False)
class Launch(Checked, Value):
    """How a handler's command is to be started.

    Attributes:
        prefix: arguments put before the command's wrapper (``systemd-run --scope …``).
        scope: the unit that the command runs in, ``None`` when it has none of its own.
    """

    TYPES = {"prefix": (tuple, list), "scope": _TEXT_OR_NONE}
    prefix: tuple[str, ...]
    scope: str | None
