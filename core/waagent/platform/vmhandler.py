"""One item of vmSettings' ``extensionGoalStates`` (wireserver §10); ``vmsettings`` tells the rules."""

from __future__ import annotations

from typing import Any

from waagent.errors import ProtocolError
from waagent.platform import jsondoc, settings
from waagent.platform.models import Dependency, ExtensionSettings, Handler
from waagent.platform.settings import InvalidHandler

_Dependencies = dict[str, tuple[int, tuple[Dependency, ...]]]


class HandlerReader:
    """Reads one handler; what was read before a problem stays."""

    def __init__(self, name: str, with_signatures: bool, notes: list[str]) -> None:
        self.name = name
        self.with_signatures = with_signatures
        self.notes = notes
        self.version = ""
        self.state = ""
        self.uris: tuple[str, ...] = ()
        self.signature = ""
        self.multi_config = False
        self.extensions: list[ExtensionSettings] = []

    def read(self, item: dict[str, Any]) -> Handler:
        """Return the handler, valid or with the reason why it is not."""
        reason = None
        try:
            self._read(jsondoc.fields(item, f"extensionGoalStates[{self.name}]"))
        except ProtocolError as problem:
            reason = str(problem)
        return Handler(
            name=self.name,
            version=self.version,
            state=self.state,
            manifest_uris=self.uris,
            signature=self.signature,
            multi_config=self.multi_config,
            extensions=tuple(self.extensions),
            invalid_reason=reason,
        )

    def _read(self, item: dict[str, Any]) -> None:
        # Every part is read whatever is wrong with another, so that what can be reported by number is known.
        problems: list[ProtocolError] = []
        for part in (self._read_identity, self._read_locations, self._read_settings):
            try:
                part(item)
            except ProtocolError as problem:
                problems.append(problem)
        if problems:
            raise problems[0]

    def _read_identity(self, item: dict[str, Any]) -> None:
        version, state = item.get("version"), item.get("state")
        if isinstance(version, str):
            self.version = version.strip()
        if isinstance(state, str):
            self.state = state.lower() if state.lower() in settings.REQUESTED_STATES else state
        if not self.version:
            raise self._invalid("version", "text", version)
        if self.state not in settings.REQUESTED_STATES:
            raise InvalidHandler(f"extensionGoalStates[{self.name}].state: expected enabled, disabled or uninstall")
        settings.check_names(self.name, self.version)
        if self.with_signatures:
            signature = item.get("encodedsignature")
            if signature is not None and not isinstance(signature, str):
                raise self._invalid("encodedSignature", "text", signature)
            self.signature = (signature or "").strip()

    def _read_locations(self, item: dict[str, Any]) -> None:
        uris = []
        for member in ("location", "failoverLocation"):
            uri = item.get(member.casefold())
            if uri is not None and not isinstance(uri, str):
                raise self._invalid(member, "text", uri)
            uris.append(uri)
        additional = self._list(item, "additionalLocations")
        if not all(uri is None or isinstance(uri, str) for uri in additional):
            raise InvalidHandler(f"extensionGoalStates[{self.name}].additionalLocations: expected a list of texts")
        self.uris = tuple(uri.strip() for uri in [*uris, *additional] if uri and uri.strip())

    def _read_settings(self, item: dict[str, Any]) -> None:
        multi_config = item.get("ismulticonfig")
        if multi_config is not None and not isinstance(multi_config, bool):
            raise self._invalid("isMultiConfig", "true or false", multi_config)
        self.multi_config = bool(multi_config)
        where = f"extensionGoalStates[{self.name}].settings[]"
        listed = [jsondoc.fields(each, where) for each in self._list(item, "settings")]
        if self.multi_config:
            self._read_multiple(item, listed)
        else:
            self._read_single(item, listed)

    def _read_single(self, item: dict[str, Any], listed: list[dict[str, Any]]) -> None:
        if len(listed) > 1:
            raise InvalidHandler(
                f"Single-config extension {self.name} has more than one settings object ({len(listed)})"
            )
        level, edges = self._single_dependency(item, bool(listed))
        if listed:
            sequence = self._sequence(item.get("settingsseqno"), self.name)
            self._add(listed[0], self.name, sequence, self.state or "enabled", level, edges)

    def _single_dependency(self, item: dict[str, Any], has_settings: bool) -> tuple[int, tuple[Dependency, ...]]:
        if item.get("dependson") is None:
            return 0, ()
        listed = self._list(item, "dependsOn")
        if not listed:
            self.notes.append(f"dependsOn of extension {self.name} is an empty list. Setting its level to 0")
            return 0, ()
        if len(listed) > 1:
            raise InvalidHandler(f"dependsOn of extension {self.name} has more than one item ({len(listed)})")
        if not has_settings:
            self.notes.append(f"dependsOn of extension {self.name} is ignored: the extension has no settings")
            return 0, ()
        return self._dependency(jsondoc.fields(listed[0], f"extensionGoalStates[{self.name}].dependsOn[]"))

    def _read_multiple(self, item: dict[str, Any], listed: list[dict[str, Any]]) -> None:
        dependencies: _Dependencies = {}
        for each in self._list(item, "dependsOn"):
            found = jsondoc.fields(each, f"extensionGoalStates[{self.name}].dependsOn[]")
            name = found.get("name")
            if not isinstance(name, str) or not name:
                raise self._invalid("dependsOn[].name", "text", name)
            dependencies[name] = self._dependency(found)
        for values in listed:
            name = values.get("extensionname")
            if not isinstance(name, str) or not name:
                raise self._invalid("settings[].extensionName", "text", name)
            settings.check_names(self.name, self.version, (name,))
            state = values.get("extensionstate")
            if not isinstance(state, str) or not state:
                raise self._invalid("settings[].extensionState", "text", state)
            sequence = self._sequence(values.get("seqno"), f"{self.name}.{name}")
            level, edges = dependencies.get(name, (0, ()))
            self._add(values, name, sequence, state.lower(), level, edges)
        if not dependencies.keys() <= {extension.name for extension in self.extensions}:
            raise InvalidHandler(f"dependsOn of extension {self.name} names an extension that has no settings")

    def _dependency(self, item: dict[str, Any]) -> tuple[int, tuple[Dependency, ...]]:
        level = settings.dependency_level(item.get("dependencylevel"), self.name, self.notes)
        listed = item.get("dependsonextension")
        if not isinstance(listed, list):
            self.notes.append(f"dependsOn of extension {self.name} does not say on what (dependsOnExtension)")
            return level, ()
        edges = []
        for each in listed:
            edge = jsondoc.fields(each, f"extensionGoalStates[{self.name}].dependsOn[].dependsOnExtension[]")
            handler, extension = edge.get("handler"), edge.get("extension")
            if isinstance(handler, str) and handler:
                edges.append(Dependency(handler, extension if isinstance(extension, str) and extension else None))
        return level, tuple(edges)

    def _add(
        self,
        values: dict[str, Any],
        name: str,
        sequence: int,
        state: str,
        level: int,
        edges: tuple[Dependency, ...],
    ) -> None:
        item = ExtensionSettings(
            name=name,
            sequence_number=sequence,
            state=state,
            dependency_level=level,
            depends_on=edges,
            has_content=False,
        )
        self.extensions.append(item)
        public = values.get("publicsettings")
        if public is not None:
            if not isinstance(public, str):
                raise self._invalid("settings[].publicSettings", "text that holds JSON", public)
            public = jsondoc.parse(public, f"publicSettings of the Extension: {name}")
        protected, thumbprint = settings.secret(
            values.get("protectedsettings"), values.get("protectedsettingscertthumbprint"), name
        )
        if protected is not None and not thumbprint:
            raise InvalidHandler(f"protectedSettings of the Extension: {name} came without a thumbprint")
        self.extensions[-1] = ExtensionSettings(
            name, sequence, state, level, edges, public=public, protected=protected, thumbprint=thumbprint
        )

    def _sequence(self, value: Any, extension: str) -> int:
        if value is None or value == "":
            raise InvalidHandler(f"SeqNo not specified for the Extension: {extension}")
        sequence = settings.number(value)
        if sequence is None:
            raise InvalidHandler(f"SeqNo is not a number for the Extension: {extension}")
        return sequence

    def _list(self, item: dict[str, Any], member: str) -> list[Any]:
        value = item.get(member.casefold())
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._invalid(member, "a list", value)
        return value

    def _invalid(self, member: str, expected: str, found: Any) -> InvalidHandler:
        return InvalidHandler(
            f"extensionGoalStates[{self.name}].{member}: expected {expected}, found {jsondoc.kind(found)}"
        )
