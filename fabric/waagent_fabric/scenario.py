"""The JSON form of what a fabric is asked for: packages, goal states, faults; for the command line and scenario files.

A scenario file::

    {"vm": {"name": "demo-vm"},
     "packages": [{"name": "Contoso.Sample", "version": "1.0.0", "sample": {"message": "hello"}}],
     "goal_states": [{"handlers": [{"name": "Contoso.Sample", "version": "1.0.0",
                                    "settings": [{"public": {"k": "v"}, "protected": {"p": "w"}}]}]},
                     {"after": 30, "channel": "fasttrack", "handlers": []}],
     "faults": [{"kind": "status", "server": "hostplugin", "path": "/status", "statuses": [503], "times": 3}]}

Keys are the names of the Python records' attributes. ``sample`` holds the arguments of
:func:`waagent_fabric.packages.sample_package`; instead of it a package may have ``files`` (path → text) or ``zip`` (a
path on disk).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import attrs

from waagent_fabric.api import Fabric
from waagent_fabric.faults import Fault
from waagent_fabric.packages import sample_package
from waagent_fabric.records import FamilySpec, HandlerSpec, RemoteUserSpec, SettingsSpec, VirtualMachine

T = TypeVar("T")

_PUBLISH_KEYS = {
    "handlers", "channel", "created_ticks", "on_hold", "required_features", "families", "status_blob", "users",
    "incarnation", "parts", "role_instance", "activity_id", "correlation_id",
}  # fmt: skip


class ScenarioError(ValueError):
    """The JSON says something that no record knows; names the place and the key."""


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ScenarioError(f"{where}: an object is expected, not {value!r}")
    return value


def _list(value: Any, where: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise ScenarioError(f"{where}: a list is expected, not {value!r}")
    return tuple(value)


def _build(make: Callable[..., T], value: Any, where: str) -> T:
    try:
        return make(**_object(value, where))
    except (TypeError, ValueError) as error:
        raise ScenarioError(f"{where}: {error}") from None


def settings_from(value: Any, where: str = "settings") -> SettingsSpec:
    """Return the settings instance that a JSON object describes; an edge is ``"handler"`` or ``["handler", "ext"]``.

    Raises:
        ScenarioError: see the class.
    """
    fields = dict(_object(value, where))
    edges = _list(fields.get("depends_on", []), f"{where}.depends_on")
    fields["depends_on"] = tuple(tuple(edge) if isinstance(edge, list) else edge for edge in edges)
    return _build(SettingsSpec, fields, where)


def handler_from(value: Any, where: str = "handler") -> HandlerSpec:
    """Return the handler that a JSON object describes.

    Raises:
        ScenarioError: see the class.
    """
    fields = dict(_object(value, where))
    listed = _list(fields.get("settings", []), f"{where}.settings")
    fields["settings"] = tuple(settings_from(item, f"{where}.settings[{n}]") for n, item in enumerate(listed))
    return _build(HandlerSpec, fields, where)


def fault_from(value: Any, where: str = "fault") -> Fault:
    """Return the fault that a JSON object describes.

    Raises:
        ScenarioError: see the class.
    """
    return _build(Fault, value, where)


def add_package(fabric: Fabric, value: Any, where: str = "package") -> str:
    """Add the package that a JSON object describes; return its manifest's URL.

    Raises:
        ScenarioError: see the class.
        OSError: the zip cannot be read.
    """
    fields = dict(_object(value, where))
    try:
        name, version = str(fields.pop("name")), str(fields.pop("version"))
    except KeyError as error:
        raise ScenarioError(f"{where}: {error.args[0]} is missing") from None
    sources = [key for key in ("sample", "files", "zip") if key in fields]
    if len(sources) > 1:
        raise ScenarioError(f"{where}: only one of {', '.join(sources)}")
    content: Mapping[str, bytes | str] | bytes
    if "zip" in fields:
        with open(fields.pop("zip"), "rb") as file:
            content = file.read()
    elif "files" in fields:
        content = _object(fields.pop("files"), f"{where}.files")
    else:
        sample = _object(fields.pop("sample", {}), f"{where}.sample")
        content = _build(lambda **options: sample_package(name, version, **options), sample, f"{where}.sample")
    return _build(lambda **options: fabric.add_package(name, version, content, **options), fields, where)


def publish(fabric: Fabric, value: Any, where: str = "goal state") -> str:
    """Publish the goal state that a JSON object describes (its ``packages`` first); return its id.

    Raises:
        ScenarioError: see the class.
    """
    fields = {key: item for key, item in _object(value, where).items() if key not in ("after", "packages")}
    unknown = sorted(set(fields) - _PUBLISH_KEYS)
    if unknown:
        raise ScenarioError(f"{where}: unknown key {unknown[0]!r}")
    for number, item in enumerate(_list(value.get("packages", []), f"{where}.packages")):
        add_package(fabric, item, f"{where}.packages[{number}]")
    for key, make in (
        ("handlers", handler_from),
        ("families", lambda item, place: _build(FamilySpec, item, place)),
        ("users", lambda item, place: _build(RemoteUserSpec, item, place)),
    ):
        if fields.get(key) is not None:
            listed = _list(fields[key], f"{where}.{key}")
            fields[key] = [make(item, f"{where}.{key}[{n}]") for n, item in enumerate(listed)]
    return _build(fabric.publish, fields, where)


@attrs.frozen
class Scenario:
    """A scenario file, read and not yet applied."""

    vm: VirtualMachine = attrs.field(factory=VirtualMachine)
    packages: Sequence[Any] = ()
    goal_states: Sequence[Any] = ()
    faults: Sequence[Any] = ()
    fabric_options: Mapping[str, Any] = attrs.field(factory=dict)

    def begin(self, fabric: Fabric) -> list[tuple[float, Callable[[], str]]]:
        """Add packages, inject faults, publish goal states without ``after``; return the later ones.

        Returns:
            Pairs of seconds from now and what publishes then.

        Raises:
            ScenarioError: see the class.
        """
        for number, item in enumerate(self.packages):
            add_package(fabric, item, f"packages[{number}]")
        for number, item in enumerate(self.faults):
            fabric.inject(fault_from(item, f"faults[{number}]"))
        later: list[tuple[float, Callable[[], str]]] = []
        for number, item in enumerate(self.goal_states):
            where = f"goal_states[{number}]"
            after = _object(item, where).get("after", 0)
            if not isinstance(after, (int, float)) or after < 0:
                raise ScenarioError(f"{where}.after: seconds are expected, not {after!r}")
            if after:
                later.append((float(after), lambda item=item, where=where: publish(fabric, item, where)))  # type: ignore[misc]
            else:
                publish(fabric, item, where)
        return later


def load(path: str) -> Scenario:
    """Read a scenario file.

    Raises:
        ScenarioError: it is not JSON, or says something unknown.
        OSError: it cannot be read.
    """
    with open(path, encoding="utf-8") as file:
        try:
            document = _object(json.load(file), path)
        except ValueError as error:
            raise ScenarioError(f"{path}: {error}") from None
    known = {"vm", "packages", "goal_states", "faults", "fabric"}
    unknown = sorted(set(document) - known)
    if unknown:
        raise ScenarioError(f"{path}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
    return Scenario(
        vm=_build(VirtualMachine, document.get("vm", {}), "vm"),
        packages=_list(document.get("packages", []), "packages"),
        goal_states=_list(document.get("goal_states", []), "goal_states"),
        faults=_list(document.get("faults", []), "faults"),
        fabric_options=_object(document.get("fabric", {}), "fabric"),
    )
