"""Which plugins are on, and who said so: file and line (architecture §6). Imports no plugin.

``Plugins.Enabled`` and ``Plugins.Disabled`` hold names or globs, separated by commas. Every line of the two counts, in
the order in which the files are read (vendor, main file, drop-ins): the last one that names a plugin decides about it,
so that a drop-in for one plugin leaves the vendor's word about another alone. An empty value takes back what earlier
lines of that key said.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from waagent.conffile import Setting

ENABLED, DISABLED = "Plugins.Enabled", "Plugins.Disabled"
KEYS = (ENABLED, DISABLED)


@attrs.frozen(eq=False, repr=False)
class Statement:
    """One line that says something about plugins.

    Attributes:
        on: it switches on.
        patterns: the names and globs it holds.
    """

    on: bool
    patterns: tuple[str, ...]
    file: str
    line: int

    def names(self, plugin: str) -> bool:
        """Whether the line names *plugin*."""
        return any(_matches(plugin, pattern) for pattern in self.patterns)

    def __str__(self) -> str:
        key = ENABLED if self.on else DISABLED
        return f"{key}={','.join(self.patterns)} in {self.file}:{self.line}"


@attrs.frozen(eq=False, repr=False)
class Verdict:
    """Whether a plugin is on.

    Attributes:
        on: it may be loaded.
        reason: why, or why not, in one line.
        file: the file that decided, ``None`` when nothing but the default did.
        line: its line.
    """

    on: bool
    reason: str
    file: str | None = None
    line: int | None = None


class Switchboard:
    """What the configuration says about plugins.

    Args:
        settings: the lines of the configuration in order of reading; other keys than :data:`KEYS` are passed over.
        listed_only: third parties are off unless ``Plugins.Enabled`` names them (``Plugins.ThirdParty=listed``).
        listed_by: file and line that say so.
    """

    def __init__(
        self,
        settings: Iterable[Setting],
        *,
        listed_only: bool = False,
        listed_by: tuple[str | None, int | None] = (None, None),
    ) -> None:
        self.statements: list[Statement] = []
        self._listed_only = listed_only
        self._listed_by = listed_by
        for setting in settings:
            if setting.key in KEYS:
                self._add(setting)

    def _add(self, setting: Setting) -> None:
        on = setting.key == ENABLED
        patterns = split(setting.given or "")
        if patterns:
            self.statements.append(Statement(on, patterns, setting.file, setting.line))
        else:
            self.statements = [statement for statement in self.statements if statement.on is not on]

    def about(self, plugin: str) -> list[Statement]:
        """Return the statements that name *plugin*, in the order of reading; the last one decides."""
        return [statement for statement in self.statements if statement.names(plugin)]

    def verdict(self, plugin: str, *, first_party: bool) -> Verdict:
        """Return whether *plugin* is on, and who said so."""
        said = self.about(plugin)
        if said:
            last = said[-1]
            word = "on" if last.on else "off"
            return Verdict(last.on, f"switched {word} by {last}", last.file, last.line)
        if self._listed_only and not first_party:
            file, line = self._listed_by
            where = f" in {file}:{line}" if file else ""
            return Verdict(False, f"third party, and not in {ENABLED}: Plugins.ThirdParty=listed{where}", file, line)
        return Verdict(True, "installed, and nothing says no")


def split(text: str) -> tuple[str, ...]:
    """Return the names in a comma-separated value."""
    return tuple(word for word in (part.strip() for part in text.split(",")) if word)


def _matches(name: str, pattern: str) -> bool:
    """Return whether *name* matches a glob of ``*`` and ``?`` (``[`` means itself), in no more than their product."""
    at = mark = 0
    star = -1
    position = 0
    while position < len(name):
        if at < len(pattern) and pattern[at] == "*":
            star, mark = at, position
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", name[position]):
            at += 1
            position += 1
        elif star >= 0:  # let the last star take one letter more
            at = star + 1
            mark += 1
            position = mark
        else:
            return False
    return not pattern[at:].strip("*")
