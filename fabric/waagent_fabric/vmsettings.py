"""The vmSettings document and the artifacts profile: the JSON that the host plugin serves (wireserver §9, §10)."""

from __future__ import annotations

import json
from typing import Any

from waagent_fabric.documents import ExtensionsSpec
from waagent_fabric.records import FamilySpec, HandlerSpec, SettingsSpec, VirtualMachine


def _family(family: FamilySpec) -> dict[str, Any]:
    optional = {
        "version": family.version,
        "fromVersion": family.from_version,
        "isVersionFromRSM": family.is_version_from_rsm,
        "isVMEnabledForRSMUpgrades": family.is_vm_enabled_for_rsm_upgrades,
    }
    fields: dict[str, Any] = {"name": family.name}
    fields.update((key, value) for key, value in optional.items() if value is not None)
    fields["uris"] = list(family.uris or ())
    return fields


def _settings(item: SettingsSpec, protected: tuple[str, str] | None, multi_config: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if multi_config:
        fields.update(extensionName=item.name, extensionState=item.state, seqNo=item.sequence_number)
    if protected is not None:
        fields["protectedSettingsCertThumbprint"] = protected[1]
        fields["protectedSettings"] = protected[0]
    if item.raw is not None:
        fields["publicSettings"] = item.raw
    elif item.public is not None:
        fields["publicSettings"] = json.dumps(item.public)
    return fields


def _depends_on(item: SettingsSpec, multi_config: bool) -> dict[str, Any] | None:
    if not item.depends_on and item.level in (0, None):
        return None
    edges = []
    for edge in item.depends_on:
        handler, extension = (edge, None) if isinstance(edge, str) else edge
        edges.append({"handler": handler} if extension is None else {"extension": extension, "handler": handler})
    # The service mixes the case of these names; both spellings occur in one document.
    fields: dict[str, Any] = {
        "DependsOnExtension" if multi_config else "dependsOnExtension": edges,
        "dependencyLevel": item.level,
    }
    if multi_config:
        fields["name"] = item.name
    return fields


def _handler(spec: ExtensionsSpec, index: int, handler: HandlerSpec) -> dict[str, Any]:
    location, failover, additional = spec.manifests[index]
    fields: dict[str, Any] = {
        "name": handler.name,
        "version": handler.version,
        "location": location,
        "state": handler.state,
        "autoUpgrade": False,
        "runAsStartupTask": False,
        "isJson": True,
        "useExactVersion": True,
        "isMultiConfig": handler.multi_config,
    }
    if failover:
        fields["failoverlocation" if index % 2 else "failoverLocation"] = failover
    if additional:
        fields["additionalLocations"] = list(additional)
    if handler.signature:
        fields["encodedSignature"] = handler.signature
    if handler.settings:
        fields["settingsSeqNo"] = handler.settings[0].sequence_number
        fields["settings"] = [
            _settings(item, spec.protected.get((index, number)), handler.multi_config)
            for number, item in enumerate(handler.settings)
        ]
        edges = [edge for edge in (_depends_on(item, handler.multi_config) for item in handler.settings) if edge]
        if edges:
            fields["dependsOn"] = edges
    return fields


def vm_settings(
    spec: ExtensionsSpec, vm: VirtualMachine, *, source: str, host_plugin_version: str, schema_version: str = "0.0"
) -> bytes:
    """Return the vmSettings document.

    Args:
        source: ``FastTrack`` or ``Fabric``.
        host_plugin_version: four parts; below 1.0.8.133 agents do not use the document.
    """
    document: dict[str, Any] = {
        "hostGAPluginVersion": host_plugin_version,
        "vmSettingsSchemaVersion": schema_version,
        "activityId": spec.activity_id,
        "correlationId": spec.correlation_id,
        "inSvdSeqNo": spec.sequence,
        "certificatesRevision": 0,
        "extensionsLastModifiedTickCount": spec.created_ticks,
        "extensionGoalStatesSource": source,
        "onHold": spec.on_hold,
    }
    if spec.status_url is not None:
        document["statusUploadBlob"] = {"statusBlobType": spec.status_blob_type, "value": spec.status_url}
    document.update(
        inVMMetadata={
            "subscriptionId": vm.subscription_id,
            "resourceGroupName": vm.resource_group,
            "vmName": vm.name,
            "location": vm.location,
            "vmId": vm.vm_id,
            "vmSize": vm.size,
            "osType": "Linux",
        },
        requiredFeatures=[{"name": name} for name in spec.required_features],
        gaFamilies=[_family(family) for family in spec.families],
        extensionGoalStates=[_handler(spec, index, handler) for index, handler in enumerate(spec.handlers)],
    )
    return json.dumps(document, indent=4).encode()


def artifacts_profile(on_hold: bool, sequence: int) -> bytes:
    """Return the artifacts profile, padded with NUL as a page blob comes (wireserver §9)."""
    document = {
        "inVMArtifactsProfileBlobSeqNo": sequence,
        "profileId": f"profile-{sequence}",
        "onHold": on_hold,
        "certificateThumbprint": None,
        "encryptedHealthChecks": None,
        "encryptedApplicationProfile": None,
    }
    text = json.dumps(document).encode()
    return text + bytes(-len(text) % 512)
