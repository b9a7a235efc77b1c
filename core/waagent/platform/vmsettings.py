"""vmSettings: the extension part of the goal state as the host plugin sends it, "fast track" (wireserver §10).

Two pages differ on bad items. wireserver §10 describes the reference: any violation fails the whole document, the goal
state stops updating until the etag changes, and every other extension of the machine waits. extensions §2.2 rules
(mark N) that a single bad item makes only its handler invalid, as ExtensionsConfig does. That rule holds here, wherever
the document as a whole is still sound:

* The **document** fails (:class:`~waagent.errors.VmSettingsParseError`) when it is no JSON object, when a member that
  belongs to no handler breaks its rule, when ``extensionGoalStates`` is no list, or when one of its items is no object
  or has no name: nobody could be told about such a handler, and leaving it out would look like a request to remove it.
* Everything else that is wrong inside an item is that handler's ``invalid_reason``. It is not run, its status says
  why, and the settings that could be read stay with it, so that their sequence numbers get an answer.

Member names count in any case, at every level. A name given twice with different values breaks the object it stands in.
Public settings are text that holds JSON; their own names stay as the user wrote them.
"""

from __future__ import annotations

import re
from typing import Any

import attrs

from waagent.errors import ProtocolError, VmSettingsNotSupported, VmSettingsParseError
from waagent.platform import jsondoc, settings, ticks
from waagent.platform.artifactsprofile import flag
from waagent.platform.models import NULL_GUID, AgentFamily, ExtensionsGoalState, Handler, StatusBlob
from waagent.platform.savedtext import redact_vm_settings
from waagent.platform.vmhandler import HandlerReader

__all__ = ["VmSettings", "parse_vm_settings", "redact_vm_settings"]

CHANNEL = "HostGAPlugin"
MINIMUM_HOST_PLUGIN = (1, 0, 8, 133)
SIGNATURE_HOST_PLUGIN = (1, 0, 8, 159)

_DOCUMENT = "vmSettings"
_NO_VERSION = "0.0.0.0"  # noqa: S104  (a version, no address)
_VERSION = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,7}\Z")


@attrs.frozen(eq=False, repr=False)
class VmSettings:
    """One vmSettings document.

    Attributes:
        host_plugin_version: dotted version of the host plugin.
        source: ``FastTrack``, ``Fabric`` (the document is to be ignored) or ``UNKNOWN``.
        extensions: the goal state in it.
        etag: as the answer's header had it.
        schema_version: informational.
    """

    host_plugin_version: str
    source: str
    extensions: ExtensionsGoalState
    etag: str
    schema_version: str = _NO_VERSION


def parse_vm_settings(data: bytes, etag: str, notes: list[str] | None = None) -> VmSettings:
    """Parse the answer to ``GET /vmSettings``.

    Args:
        data: the document.
        etag: the answer's ``ETag`` header, verbatim.
        notes: takes one line for each thing that was let pass with a warning; no line holds a secret.

    Raises:
        VmSettingsNotSupported: the host plugin is older than 1.0.8.133: as if it had answered 404.
        VmSettingsParseError: the document as a whole is unsound.
    """
    lines = [] if notes is None else notes
    version = _NO_VERSION
    try:
        document = jsondoc.fields(jsondoc.parse(data, _DOCUMENT, mark_repeated=True), _DOCUMENT)
        version = _version(document.get("hostgapluginversion"), "hostGAPluginVersion")
        numbers = tuple(int(part) for part in version.split("."))
        if numbers < MINIMUM_HOST_PLUGIN:
            minimum = ".".join(map(str, MINIMUM_HOST_PLUGIN))
            raise VmSettingsNotSupported(f"vmSettings need host plugin {minimum}, found {version}")
        return VmSettings(
            host_plugin_version=version,
            source=_source(document),
            extensions=_extensions(document, etag, numbers >= SIGNATURE_HOST_PLUGIN, lines),
            etag=etag,
            schema_version=_version(document.get("vmsettingsschemaversion"), "vmSettingsSchemaVersion"),
        )
    except VmSettingsNotSupported:
        raise
    except ProtocolError as problem:
        raise VmSettingsParseError(
            f"Error parsing vmSettings [HGAP: {version} Etag:{etag}]: {problem}", etag, redact_vm_settings(data)
        ) from None


def _version(value: Any, member: str) -> str:
    if value is None:
        return _NO_VERSION
    if not isinstance(value, str) or not _VERSION.match(value):
        raise ProtocolError(f"{_DOCUMENT}: {member}: expected a dotted version, found {jsondoc.kind(value)}")
    return value


def _source(document: dict[str, Any]) -> str:
    value = document.get("extensiongoalstatessource")
    if not isinstance(value, str) or not value:
        return "UNKNOWN"
    return {"fasttrack": "FastTrack", "fabric": "Fabric"}.get(value.lower(), value)


def _extensions(document: dict[str, Any], etag: str, with_signatures: bool, notes: list[str]) -> ExtensionsGoalState:
    return ExtensionsGoalState(
        id=f"etag_{etag}",
        channel=CHANNEL,
        source=_source(document),
        sequence=_sequence(document.get("insvdseqno")),
        activity_id=_guid(document.get("activityid")),
        correlation_id=_guid(document.get("correlationid")),
        created=_created(document.get("extensionslastmodifiedtickcount")),
        required_features=tuple(
            _text(item, "name", "requiredFeatures") for item in _objects(document, "requiredFeatures")
        ),
        on_hold=document.get("onhold") is not None and flag(document["onhold"], f"{_DOCUMENT}: onHold"),
        status_blob=_status_blob(document.get("statusuploadblob"), notes),
        agent_families=tuple(_family(item) for item in _objects(document, "gaFamilies")),
        handlers=tuple(_handler(item, with_signatures, notes) for item in _objects(document, "extensionGoalStates")),
    )


def _sequence(value: Any) -> int:
    if value is None:
        return 0
    found = settings.number(value)
    if found is None:
        raise ProtocolError(f"{_DOCUMENT}: inSvdSeqNo: expected a number, found {jsondoc.kind(value)}")
    return found


def _guid(value: Any) -> str:
    return value if isinstance(value, str) and value else NULL_GUID


def _created(value: Any) -> str:
    return ticks.ticks_to_timestamp(value if isinstance(value, (str, int)) else None)


def _objects(document: dict[str, Any], member: str) -> list[dict[str, Any]]:
    """Return the objects of a list member, none when it is absent or null."""
    value = document.get(member.casefold())
    if value is None:
        return []
    where = f"{_DOCUMENT}: {member}"
    if not isinstance(value, list):
        raise ProtocolError(f"{where}: expected a list, found {jsondoc.kind(value)}")
    return [item if isinstance(item, dict) else jsondoc.fields(item, f"{where}[{i}]") for i, item in enumerate(value)]


def _text(item: dict[str, Any], member: str, where: str) -> str:
    value = jsondoc.fields(item, f"{_DOCUMENT}: {where}").get(member)
    if not isinstance(value, str):
        raise ProtocolError(f"{_DOCUMENT}: {where}[].{member}: expected text, found {jsondoc.kind(value)}")
    return value


def _status_blob(value: Any, notes: list[str]) -> StatusBlob | None:
    if value is None:
        return None
    blob = jsondoc.fields(value, f"{_DOCUMENT}: statusUploadBlob")
    url = blob.get("value")
    if not isinstance(url, str) or not url.strip():
        raise ProtocolError(f"{_DOCUMENT}: statusUploadBlob.value: expected text, found {jsondoc.kind(url)}")
    return StatusBlob(url=url.strip(), blob_type=settings.blob_type(blob.get("statusblobtype"), notes))


def _family(item: dict[str, Any]) -> AgentFamily:
    where = f"{_DOCUMENT}: gaFamilies[]"
    family = jsondoc.fields(item, where)

    def optional(member: str, kinds: type | tuple[type, ...]) -> Any:
        value = family.get(member.casefold())
        if value is not None and not isinstance(value, kinds):
            raise ProtocolError(f"{where}.{member}: unexpectedly found {jsondoc.kind(value)}")
        return value

    if "name" not in family:
        raise ProtocolError(f"{where}.name: expected text, found nothing")
    uris = optional("uris", list) or []
    if not all(isinstance(uri, str) for uri in uris):
        raise ProtocolError(f"{where}.uris: expected a list of texts, found something else in it")
    return AgentFamily(
        name=optional("name", str) or "",
        version=optional("version", str) or None,
        from_version=optional("fromVersion", str) or None,
        is_version_from_rsm=optional("isVersionFromRSM", bool),
        is_vm_enabled_for_rsm_upgrades=optional("isVMEnabledForRSMUpgrades", bool),
        uris=tuple(uri for uri in uris if uri),
    )


def _handler(item: dict[str, Any], with_signatures: bool, notes: list[str]) -> Handler:
    # An item that names a key twice is invalid, yet its name is needed to say so: the last one counts for that.
    names = [value for name, value in item.items() if name.casefold() == "name"]
    name = names[-1] if names else None
    if not isinstance(name, str) or not name:
        raise ProtocolError(f"{_DOCUMENT}: extensionGoalStates[].name: expected text, found {jsondoc.kind(name)}")
    return HandlerReader(name, with_signatures, notes).read(item)
