"""What plugins are installed, and loading one of them: importlib.metadata and stevedore (models.md 2.1, 2.2).

Imported in the boot stage and by commands only; the worker goes by the list that the boot stage wrote.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import attrs

from waagent.log import Log
from waagent.registry import DISTROS, FEATURES
from waagent.trust import normalised

GROUPS = (FEATURES, DISTROS)


@attrs.frozen(eq=False, repr=False)
class Found:
    """One entry point of one distribution.

    Attributes:
        name: the plugin's name.
        group: ``waagent.plugins`` or ``waagent.distros``.
        value: ``module:attribute``.
        distribution: the name of the Python distribution that it comes with.
        version: of that distribution.
        metadata: the directory that declares it, empty when unknown.
        entry_point: what stevedore loads.
    """

    name: str
    group: str
    value: str
    distribution: str
    version: str
    metadata: str
    entry_point: Any


def installed(log: Log) -> list[Found]:
    """Return every entry point of our groups, by name; imports none of them.

    Of a distribution that is on the path twice the first one counts, as for ``import``. What is wrong with one
    distribution's metadata is logged and hides no other distribution.
    """
    found: list[Found] = []
    seen = set()
    for distribution in importlib.metadata.distributions():
        try:
            if not any(group in (distribution.read_text("entry_points.txt") or "") for group in GROUPS):
                continue
            name = distribution.metadata["Name"]
            if not name or normalised(name) in seen:
                continue
            seen.add(normalised(name))
            found += _entries(importlib.metadata.distribution(name), name)
        except Exception as problem:
            log.warning(f"an installed distribution cannot be read: {type(problem).__name__}: {problem}")
    return sorted(found, key=lambda one: (one.name, one.group, normalised(one.distribution), one.value))


def load(found: Found) -> object:
    """Import *found* through stevedore and return what it names; raises whatever the plugin raises."""
    return _OneEntry(found).load()


def _entries(distribution: importlib.metadata.Distribution, name: str) -> Iterator[Found]:
    metadata = str(getattr(distribution, "_path", ""))  # empty for finders that know no directory
    for entry in distribution.entry_points:
        if entry.group in GROUPS:
            yield Found(entry.name, entry.group, entry.value.strip(), name, distribution.version, metadata, entry)


class _OneEntry:
    """One entry point, given to stevedore by itself: a plugin that raises SystemExit or asserts costs one name.

    The manager is told the entry point instead of looking it up: stevedore's look-up trusts a cache on disk that misses
    what was reinstalled within two minutes, and knows neither distributions nor duplicates.
    """

    def __init__(self, found: Found) -> None:
        self._found = found
        self._problem: BaseException | None = None

    def load(self) -> object:
        from stevedore.named import NamedExtensionManager

        one = self._found

        if TYPE_CHECKING:
            Base = NamedExtensionManager[Any]  # stevedore 3.5's is not generic
        else:
            Base = NamedExtensionManager

        class Manager(Base):
            def list_entry_points(self) -> list[Any]:
                return [one.entry_point]

        manager = Manager(
            namespace=one.group,
            names=[one.name],
            on_load_failure_callback=self._failed,
            on_missing_entrypoints_callback=_told_already,
        )
        if self._problem is not None:
            raise self._problem
        plugin: object = manager[one.name].plugin
        return plugin

    def _failed(self, manager: Any, entry_point: Any, problem: BaseException) -> None:
        self._problem = problem


def _told_already(names: Any) -> None:
    """Stevedore counts a name that failed to load as missing, too; the failure says more."""
