"""ExtensionsConfig: the extension part of the goal state as the WireServer sends it (wireserver §8, extensions §2).

A document that is no XML fails as a whole (:class:`~waagent.errors.ExtensionsConfigError`). What is wrong with one
handler is that handler's ``invalid_reason`` alone: it stays in the list, is not run, and its status says why. Whatever
could be read of its settings stays with it, so that its sequence numbers get an answer.

Beyond the table of §8.2 a handler is invalid here when a name or version cannot be part of a file name, when a sequence
number is no number, and when settings are JSON of another shape; the former agent lost the whole goal state in the
latter two.
"""

from __future__ import annotations

from typing import Any

import attrs

from waagent.errors import ExtensionsConfigError, ProtocolError
from waagent.platform import jsondoc, settings, ticks, xmldoc
from waagent.platform.models import (
    NULL_GUID,
    AgentFamily,
    Dependency,
    ExtensionSettings,
    ExtensionsGoalState,
    Handler,
    StatusBlob,
)
from waagent.platform.savedtext import redact_extensions_config
from waagent.platform.settings import InvalidHandler
from waagent.platform.xmldoc import Element

__all__ = ["empty_extensions_goal_state", "parse_extensions_config", "redact_extensions_config"]

CHANNEL = "WireServer"
SOURCE = "Fabric"

_DOCUMENT = "ExtensionsConfig"
_LISTED_VERSIONS = 10


def empty_extensions_goal_state(incarnation: str | None) -> ExtensionsGoalState:
    """Return what a goal state without an ExtensionsConfig asks for: nothing (wireserver §6)."""
    return ExtensionsGoalState(
        id=f"incarnation_{incarnation}", channel=CHANNEL, source=SOURCE, sequence=incarnation or ""
    )


def parse_extensions_config(
    data: bytes, incarnation: str | None, notes: list[str] | None = None
) -> ExtensionsGoalState:
    """Parse the document.

    Args:
        data: the document.
        incarnation: of the goal state that named it; becomes the id and the reported sequence.
        notes: takes one line for each thing that was let pass with a warning; no line holds a secret.

    Raises:
        ExtensionsConfigError: no such document.
    """
    lines = [] if notes is None else notes
    try:
        root = xmldoc.parse(data, _DOCUMENT, "Extensions")
    except ProtocolError as problem:
        raise ExtensionsConfigError(str(problem)) from None
    metadata = root.find("InVMGoalStateMetaData") or Element("InVMGoalStateMetaData", {})
    features = root.find("RequiredFeatures")
    return attrs.evolve(
        empty_extensions_goal_state(incarnation),
        activity_id=metadata.get("activityId") or NULL_GUID,
        correlation_id=metadata.get("correlationId") or NULL_GUID,
        created=ticks.ticks_to_timestamp(metadata.get("createdOnTicks")),
        required_features=_required_features(features) if features is not None else (),
        status_blob=_status_blob(root.find("StatusUploadBlob"), lines),
        agent_families=_families(root),
        handlers=_handlers(root, lines),
        artifacts_profile_uri=root.find_text("InVMArtifactsProfileBlob") or "",
    )


def _required_features(parent: Element) -> tuple[str, ...]:
    return tuple(item.find_text("Name") or "" for item in parent.find_all("RequiredFeature"))


def _status_blob(element: Element | None, notes: list[str]) -> StatusBlob | None:
    if element is None or not element.text:
        return None
    return StatusBlob(url=element.text, blob_type=settings.blob_type(element.get("statusBlobType"), notes))


def _families(root: Element) -> tuple[AgentFamily, ...]:
    def flag(family: Element, tag: str) -> bool | None:
        text = family.find_text(tag)
        return None if text is None else text.lower() == "true"

    found = []
    for family in root.find_all("GAFamily"):
        uris = family.find("Uris")
        found.append(
            AgentFamily(
                name=family.find_text("Name") or "",
                version=family.find_text("Version") or None,
                from_version=family.find_text("FromVersion") or None,
                is_version_from_rsm=flag(family, "IsVersionFromRSM"),
                is_vm_enabled_for_rsm_upgrades=flag(family, "IsVMEnabledForRSMUpgrades"),
                uris=tuple(item.text for item in uris.find_all("Uri") if item.text) if uris is not None else (),
            )
        )
    return tuple(found)


def _handlers(root: Element, notes: list[str]) -> tuple[Handler, ...]:
    plugins = root.find("Plugins")
    if plugins is None:
        return ()
    by_name: dict[str, list[Element]] = {}
    listed = root.find("PluginSettings")
    for node in listed.find_all("Plugin") if listed is not None else ():
        by_name.setdefault(node.get("name").lower(), []).append(node)
    return tuple(_handler(plugin, by_name, notes) for plugin in plugins.find_all("Plugin"))


def _handler(plugin: Element, by_name: dict[str, list[Element]], notes: list[str]) -> Handler:
    reader = _Reader(plugin, notes)
    try:
        reader.read(by_name.get(reader.name.lower(), []))
        reason = None
    except InvalidHandler as problem:
        reason = str(problem)
    additional = plugin.find("additionalLocations")
    locations = [plugin.get("location"), plugin.get("failoverlocation")]
    if additional is not None:
        locations.extend(item.text for item in additional.find_all("additionalLocation"))
    return Handler(
        name=reader.name,
        version=reader.version,
        state=reader.state,
        manifest_uris=tuple(uri for uri in locations if uri),
        signature=plugin.get("encodedSignature"),
        multi_config=reader.multi_config,
        extensions=tuple(reader.extensions),
        invalid_reason=reason,
    )


class _Reader:
    """Joins one ``Plugins/Plugin`` with its settings; what was read before a problem stays."""

    def __init__(self, plugin: Element, notes: list[str]) -> None:
        self.notes = notes
        self.name = plugin.get("name")
        self.version = plugin.get("version")
        state = plugin.get("state")
        self.state = state.lower() if state.lower() in settings.REQUESTED_STATES else state
        self.multi_config = False
        self.extensions: list[ExtensionSettings] = []

    def read(self, nodes: list[Element]) -> None:
        """Read the settings among *nodes*, the entries of ``PluginSettings`` with the handler's name.

        Raises:
            InvalidHandler: a row of §8.2 says so.
        """
        for field, value in (("name", self.name), ("version", self.version)):
            if not value:
                problem = f"Extensions.Plugins.Plugin.{field} is None for ExtensionConfig"
                self.notes.append(f"{problem}, logging error")
                raise InvalidHandler(problem)
        if not self.state:
            raise InvalidHandler("Received empty Extensions.Plugins.Plugin.state, failing Handler")
        settings.check_names(self.name, self.version)
        if not nodes:
            return
        node = self._only(nodes)
        single = node.find_all("RuntimeSettings")
        multiple = node.find_all("ExtensionRuntimeSettings")
        if single and multiple:
            raise InvalidHandler(
                "Both RuntimeSettings and ExtensionRuntimeSettings found for the same extension: "
                f"{self.name} and version: {self.version}"
            )
        if len(single) > 1:
            raise InvalidHandler(
                f"Multiple RuntimeSettings found for the same extension: {self.name} "
                f"and version: {self.version} (Expected: 1; Available: {len(single)})"
            )
        if single:
            self._read_single(node, single[0])
        elif multiple:
            self.multi_config = True
            self._read_multiple(node, multiple)

    def _only(self, nodes: list[Element]) -> Element:
        if any(node.get("version") != self.version for node in nodes):
            # Short: every handler of a hostile document could list every node of it.
            found = list(dict.fromkeys(xmldoc.shown(node.get("version")) for node in nodes[:1000]))
            more = ", ..." if len(found) > _LISTED_VERSIONS else ""
            raise InvalidHandler(
                f"Extension PluginSettings Version Mismatch! Expected PluginSettings version: {self.version} for "
                f"Extension: {self.name} but found versions: ({', '.join(found[:_LISTED_VERSIONS])}{more})"
            )
        if len(nodes) > 1:
            raise InvalidHandler(
                f"Multiple plugin settings found for the same extension: {self.name} "
                f"and version: {self.version} (Expected: 1; Available: {len(nodes)})"
            )
        return nodes[0]

    def _read_single(self, parent: Element, node: Element) -> None:
        depends_on = parent.find_all("DependsOn")
        if len(depends_on) > 1:
            raise InvalidHandler(
                "Extension Handler can only have a single dependsOn node for Single config extensions. "
                f"Found: {len(depends_on)}"
            )
        level = _level(depends_on[0], self.name, self.notes) if depends_on else 0
        edges = _edges(depends_on[0]) if depends_on else ()
        self._add(node, self.name, self.state, level, edges)

    def _read_multiple(self, parent: Element, nodes: list[Element]) -> None:
        dependencies: dict[str, tuple[int, tuple[Dependency, ...]]] = {}
        for depends_on in parent.find_all("DependsOn"):
            name = depends_on.get("name")
            if not name:
                raise InvalidHandler(
                    "No Name not specified for DependsOn object in ExtensionRuntimeSettings for MultiConfig!"
                )
            dependencies[name] = (_level(depends_on, self.name, self.notes), _edges(depends_on))
        for node in nodes:
            name = node.get("name")
            if not name:
                raise InvalidHandler("Extension Name not specified for ExtensionRuntimeSettings for MultiConfig!")
            settings.check_names(self.name, self.version, (name,))
            level, edges = dependencies.get(name, (0, ()))
            self._add(node, name, node.get("state").lower() or "enabled", level, edges)

    def _add(self, node: Element, name: str, state: str, level: int, edges: tuple[Dependency, ...]) -> None:
        text = node.get("seqNo")
        if not text:
            raise InvalidHandler(f"SeqNo not specified for the Extension: {name}")
        sequence = settings.number(text)
        if sequence is None:
            raise InvalidHandler(f"SeqNo is not a number for the Extension: {name}")
        item = ExtensionSettings(
            name=name,
            sequence_number=sequence,
            state=state,
            dependency_level=level,
            depends_on=edges,
            has_content=False,
        )
        self.extensions.append(item)
        try:
            value = jsondoc.parse(node.text, "RuntimeSettings")
        except ProtocolError as problem:
            self.notes.append(f"Invalid extension settings for the Extension: {name}: {problem}")
            return
        found = _handler_settings(value, name)
        if found is not None:
            protected, thumbprint = settings.secret(
                found.get("protectedSettings"), found.get("protectedSettingsCertThumbprint"), name
            )
            self.extensions[-1] = ExtensionSettings(
                name,
                sequence,
                state,
                level,
                edges,
                public=found.get("publicSettings"),
                protected=protected,
                thumbprint=thumbprint,
            )


def _handler_settings(value: Any, name: str) -> dict[str, Any] | None:
    """Return the one ``handlerSettings`` object, ``None`` when the list is empty.

    Raises:
        InvalidHandler: another shape.
    """
    listed = value.get("runtimeSettings") if isinstance(value, dict) else None
    if not isinstance(listed, list) or len(listed) > 1:
        raise InvalidHandler(f"Expected one runtimeSettings item in the settings of the Extension: {name}")
    if not listed:
        return None
    found = listed[0].get("handlerSettings") if isinstance(listed[0], dict) else None
    if not isinstance(found, dict):
        raise InvalidHandler(f"Expected a handlerSettings object in the settings of the Extension: {name}")
    return found


def _level(depends_on: Element, handler: str, notes: list[str]) -> int:
    return settings.dependency_level(depends_on.get("dependencyLevel"), handler, notes)


def _edges(depends_on: Element) -> tuple[Dependency, ...]:
    return tuple(
        Dependency(handler=edge.get("handler"), extension=edge.get("extension") or None)
        for edge in depends_on.find_all("DependsOnExtension")
        if edge.get("handler")
    )
