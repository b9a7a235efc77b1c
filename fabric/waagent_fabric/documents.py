"""The XML that the platform serves: versions, goal state and its parts, manifests (wireserver §5 to §9, §11 to §13)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

import attrs

from waagent_fabric.records import FamilySpec, HandlerSpec, SettingsSpec, VirtualMachine

_PROLOGUE = '<?xml version="1.0" encoding="utf-8"?>\n'
_XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
_XSI_I = 'xmlns:i="http://www.w3.org/2001/XMLSchema-instance"'

_SUPPORTED = (
    "2015-04-05", "2012-11-30", "2012-09-15", "2012-05-15", "2011-12-31", "2011-10-15", "2011-08-31", "2011-04-07",
    "2010-12-15", "2010-28-10",
)  # fmt: skip
VERSIONS = (
    f"{_PROLOGUE}<Versions>\n  <Preferred>\n    <Version>2015-04-05</Version>\n  </Preferred>\n  <Supported>\n"
    + "".join(f"    <Version>{version}</Version>\n" for version in _SUPPORTED)
    + "  </Supported>\n</Versions>"
)


@attrs.frozen
class Identity:
    """What names one placement of the machine (wireserver §6)."""

    container_id: str
    role_instance_id: str
    config_name: str


@attrs.frozen
class ExtensionsSpec:
    """The extension part of one goal state, secrets already encrypted, before it is written down.

    Attributes:
        protected: base64 of the CMS message and thumbprint per ``(handler index, settings index)``.
        manifests: per handler index: location, failover location, additional ones.
        created_ticks: 100 ns units since year 1.
        profile_url: where the artifacts profile lies, ``None`` when the machine has none.
    """

    handlers: Sequence[HandlerSpec]
    protected: Mapping[tuple[int, int], tuple[str, str]] = attrs.field(repr=False)
    manifests: Sequence[tuple[str, str, Sequence[str]]]
    families: Sequence[FamilySpec]
    required_features: Sequence[str]
    status_url: str | None
    status_blob_type: str
    profile_url: str | None
    on_hold: bool
    created_ticks: int
    activity_id: str
    correlation_id: str
    sequence: int


def escape_uri_part(text: str) -> str:
    """Escape as the platform does in its URIs: also ``-`` and ``_``."""
    return quote(text, safe="").replace("-", "%2D").replace("_", "%5F")


def part_path(identity: Identity, what: str, incarnation: int) -> str:
    """Return path and query of one part of the goal state.

    Args:
        what: ``certificates``, ``remoteAccessInfo`` or the type of a configuration (``sharedConfig``, …).
    """
    head = f"/machine/{identity.container_id}/{escape_uri_part(identity.role_instance_id)}?comp="
    middle = what if what in ("certificates", "remoteAccessInfo") else f"config&type={what}"
    return f"{head}{middle}&incarnation={incarnation}"


def goal_state(base: str, identity: Identity, incarnation: int, *, parts: Sequence[str], role_instance: bool) -> str:
    """Return the GoalState document (wireserver §6).

    Args:
        base: ``http://host:port`` of the WireServer.
        parts: those of ``hostingEnvironmentConfig``, ``sharedConfig``, ``extensionsConfig``, ``fullConfig``,
            ``certificates``, ``remoteAccessInfo`` that it names.
        role_instance: whether it holds the machine's instance at all.
    """

    def uri(name: str) -> str:
        return escape(base + part_path(identity, name, incarnation))

    names = {
        "hostingEnvironmentConfig": "HostingEnvironmentConfig",
        "sharedConfig": "SharedConfig",
        "extensionsConfig": "ExtensionsConfig",
        "fullConfig": "FullConfig",
        "certificates": "Certificates",
    }
    lines = [f"          <{tag}>{uri(name)}</{tag}>" for name, tag in names.items() if name in parts]
    remote = ""
    if "remoteAccessInfo" in parts:
        remote = f"    <RemoteAccessInfo>{uri('remoteAccessInfo')}\n    </RemoteAccessInfo>\n"
    instance = ""
    if role_instance:
        instance = (
            "      <RoleInstance>\n"
            f"        <InstanceId>{escape(identity.role_instance_id)}</InstanceId>\n"
            "        <State>Started</State>\n        <Configuration>\n"
            + "\n".join(lines)
            + f"\n          <ConfigName>{escape(identity.config_name)}</ConfigName>\n"
            "        </Configuration>\n      </RoleInstance>\n"
        )
    return (
        f'{_PROLOGUE}<GoalState {_XSI} xsi:noNamespaceSchemaLocation="goalstate10.xsd">\n'
        f"  <Version>2012-11-30</Version>\n  <Incarnation>{incarnation}</Incarnation>\n"
        "  <Machine>\n    <ExpectedState>Started</ExpectedState>\n"
        "    <StopRolesDeadlineHint>300000</StopRolesDeadlineHint>\n"
        "    <LBProbePorts>\n      <Port>16001</Port>\n    </LBProbePorts>\n"
        "    <ExpectHealthReport>FALSE</ExpectHealthReport>\n  </Machine>\n"
        f"  <Container>\n    <ContainerId>{escape(identity.container_id)}</ContainerId>\n{remote}"
        f"    <RoleInstanceList>\n{instance}    </RoleInstanceList>\n  </Container>\n</GoalState>\n"
    )


def hosting_environment(vm: VirtualMachine, incarnation: int) -> str:
    """Return HostingEnvironmentConfig, with a made-up account key in its settings (wireserver §7)."""
    instance = f"_{vm.name}"
    guid = "{f1ab0000-0000-4000-8000-0000000000aa}"
    key = "DefaultEndpointsProtocol=http;AccountName=fabric;AccountKey=bm90IGEga2V5IG9mIGFueWJvZHk="
    return (
        f'<HostingEnvironmentConfig version="1.0.0.0" goalStateIncarnation="{incarnation}">\n'
        '  <StoredCertificates>\n    <StoredCertificate name="Stored0TenantEncryptionCert" certificateId="sha1:0000" '
        'storeName="My" configurationLevel="System" />\n  </StoredCertificates>\n'
        f'  <Deployment name={quoteattr(vm.deployment_id)} guid="{guid}" incarnation="0">\n'
        f'    <Service name="{vm.resource_group}" guid="{guid}" />\n'
        f'    <ServiceInstance name="{vm.deployment_id}.0" guid="{guid}" />\n  </Deployment>\n'
        f'  <Incarnation number="1" instance={quoteattr(instance)} guid="{guid}" />\n'
        f'  <Role guid="{guid}" name={quoteattr(instance)} hostingEnvironmentVersion="1" software="" '
        'softwareType="ApplicationPackage" entryPoint="" parameters="" settleTimeSeconds="0" />\n'
        '  <HostingEnvironmentSettings name="full" runtime="rd_fabric_stable.1.0.0.8.zip">\n    <CAS mode="full" />\n'
        '    <PrivilegeLevel mode="max" />\n    <AdditionalProperties><CgiHandlers></CgiHandlers>'
        "</AdditionalProperties>\n  </HostingEnvironmentSettings>\n"
        f'  <ApplicationSettings>\n    <Setting name="ConnectionString" value={quoteattr(key)} />\n'
        "  </ApplicationSettings>\n  <ResourceReferences />\n</HostingEnvironmentConfig>\n"
    )


def shared_config(vm: VirtualMachine, incarnation: int) -> str:
    """Return SharedConfig (wireserver §7)."""
    instance = f"_{vm.name}"
    guid = "{f1ab0000-0000-4000-8000-0000000000aa}"
    return (
        f'<SharedConfig version="1.0.0.0" goalStateIncarnation="{incarnation}">\n'
        f'  <Deployment name={quoteattr(vm.deployment_id)} guid="{guid}" incarnation="0">\n'
        f'    <Service name="{vm.resource_group}" guid="{guid}" />\n'
        f'    <ServiceInstance name="{vm.deployment_id}.0" guid="{guid}" />\n  </Deployment>\n'
        f'  <Incarnation number="1" instance={quoteattr(instance)} guid="{guid}" />\n'
        f'  <Role guid="{guid}" name={quoteattr(instance)} settleTimeSeconds="0" />\n'
        '  <LoadBalancerSettings timeoutSeconds="0" waitLoadBalancerProbeCount="8">\n    <Probes>\n'
        '      <Probe name="D41D8CD98F00B204E9800998ECF8427E" />\n    </Probes>\n  </LoadBalancerSettings>\n'
        "  <OutputEndpoints />\n"
        f"  <Instances>\n    <Instance id={quoteattr(instance)} address={quoteattr(vm.private_address)}>\n"
        '      <FaultDomains randomId="0" updateId="0" updateCount="0" />\n      <InputEndpoints />\n'
        "    </Instance>\n  </Instances>\n</SharedConfig>\n"
    )


def _flag(value: bool) -> str:
    return "true" if value else "false"


def _family(family: FamilySpec) -> str:
    fields = [("Name", family.name), ("Version", family.version), ("FromVersion", family.from_version)]
    for tag, value in (
        ("IsVersionFromRSM", family.is_version_from_rsm),
        ("IsVMEnabledForRSMUpgrades", family.is_vm_enabled_for_rsm_upgrades),
    ):
        fields.append((tag, None if value is None else _flag(value)))
    lines = [f"        <{tag}>{escape(value)}</{tag}>\n" for tag, value in fields if value is not None]
    if family.uris:
        uris = "".join(f"          <Uri>{escape(uri)}</Uri>\n" for uri in family.uris)
        lines.append(f"        <Uris>\n{uris}        </Uris>\n")
    return f"      <GAFamily>\n{''.join(lines)}      </GAFamily>\n"


def settings_json(settings: SettingsSpec, protected: tuple[str, str] | None) -> str:
    """Return the text of one settings node (wireserver §8.3)."""
    if settings.raw is not None:
        return settings.raw
    content: dict[str, Any] = {}
    if protected is not None:
        content["protectedSettingsCertThumbprint"] = protected[1]
        content["protectedSettings"] = protected[0]
    if settings.public is not None:
        content["publicSettings"] = settings.public
    return json.dumps({"runtimeSettings": [{"handlerSettings": content}]}, indent=2)


def _depends_on(settings: SettingsSpec, named: bool) -> str:
    if not settings.depends_on and settings.level in (0, None):
        return ""
    name = f" name={quoteattr(settings.name)}" if named and settings.name is not None else ""
    edges = []
    for edge in settings.depends_on:
        handler, extension = (edge, None) if isinstance(edge, str) else edge
        extra = f"extension={quoteattr(extension)} " if extension is not None else ""
        edges.append(f"        <DependsOnExtension {extra}handler={quoteattr(handler)} />\n")
    level = quoteattr(str(settings.level))
    return f"      <DependsOn dependencyLevel={level}{name}>\n{''.join(edges)}      </DependsOn>\n"


def _plugin(handler: HandlerSpec, manifests: tuple[str, str, Sequence[str]]) -> str:
    location, failover, additional = manifests
    attributes = {
        "name": handler.name,
        "version": handler.version,
        "location": location,
        "state": handler.state,
        "autoUpgrade": "false",
        "failoverlocation": failover,
        "runAsStartupTask": "false",
        "isJson": "true",
        "useExactVersion": "true",
    }
    if handler.signature:
        attributes["encodedSignature"] = handler.signature
    text = " ".join(f"{name}={quoteattr(value)}" for name, value in attributes.items())
    if not additional:
        return f"    <Plugin {text} />\n"
    more = "".join(f"        <additionalLocation>{escape(uri)}</additionalLocation>\n" for uri in additional)
    return f"    <Plugin {text}>\n      <additionalLocations>\n{more}      </additionalLocations>\n    </Plugin>\n"


def _plugin_settings(spec: ExtensionsSpec, index: int) -> str:
    handler = spec.handlers[index]
    nodes = [_depends_on(item, handler.multi_config) for item in handler.settings]
    for number, item in enumerate(handler.settings):
        sequence = quoteattr("" if item.sequence_number is None else str(item.sequence_number))
        text = escape(settings_json(item, spec.protected.get((index, number))))
        if handler.multi_config:
            name = "" if item.name is None else f" name={quoteattr(item.name)}"
            nodes.append(
                f"      <ExtensionRuntimeSettings seqNo={sequence}{name} state={quoteattr(item.state)}>{text}"
                "</ExtensionRuntimeSettings>\n"
            )
        else:
            nodes.append(f"      <RuntimeSettings seqNo={sequence}>{text}</RuntimeSettings>\n")
    version = quoteattr(handler.settings_version or handler.version)
    return f"    <Plugin name={quoteattr(handler.name)} version={version}>\n{''.join(nodes)}    </Plugin>\n"


def extensions_config(spec: ExtensionsSpec, vm: VirtualMachine, incarnation: int) -> str:
    """Return ExtensionsConfig (wireserver §8)."""
    families = "".join(_family(family) for family in spec.families)
    head = (
        f'<Extensions version="1.0.0.0" goalStateIncarnation="{incarnation}">'
        f"\n  <GuestAgentExtension {_XSI_I}>\n    <GAFamilies>\n{families}    </GAFamilies>\n"
        f"    <Location>{escape(vm.location)}</Location>\n    <ServiceName>CRP</ServiceName>\n"
        "  </GuestAgentExtension>\n"
    )
    out = [head]
    if spec.status_url is not None:
        out.append(
            f"  <StatusUploadBlob statusBlobType={quoteattr(spec.status_blob_type)}>{escape(spec.status_url)}"
            "</StatusUploadBlob>\n"
        )
    if spec.required_features:
        features = "".join(
            f"    <RequiredFeature>\n      <Name>{escape(name)}</Name>\n    </RequiredFeature>\n"
            for name in spec.required_features
        )
        out.append(f"  <RequiredFeatures>\n{features}  </RequiredFeatures>\n")
    if spec.handlers:
        plugins = "".join(_plugin(handler, manifests) for handler, manifests in zip(spec.handlers, spec.manifests))
        settings = "".join(
            _plugin_settings(spec, index) for index, handler in enumerate(spec.handlers) if handler.settings
        )
        out.append(f"  <Plugins>\n{plugins}  </Plugins>\n  <PluginSettings>\n{settings}  </PluginSettings>\n")
    if spec.profile_url is not None:
        out.append(f"  <InVMArtifactsProfileBlob>{escape(spec.profile_url)}</InVMArtifactsProfileBlob>\n")
    out.append(
        f'  <InVMGoalStateMetaData inSvdSeqNo="{spec.sequence}" createdOnTicks="{spec.created_ticks}" '
        f"activityId={quoteattr(spec.activity_id)} correlationId={quoteattr(spec.correlation_id)} />\n"
        "</Extensions>\n"
    )
    return "".join(out)


def certificate_file(incarnation: int, data: bytes | None, data_format: str | None) -> str:
    """Return the CertificateFile document; *data* is the DER CMS message, ``None`` leaves ``Data`` empty (§11.2)."""
    text = base64.encodebytes(data).decode().strip() if data is not None else ""
    named = f"  <Format>{escape(data_format)}</Format>\n" if data_format is not None else ""
    return (
        f'{_PROLOGUE}<CertificateFile {_XSI} xsi:noNamespaceSchemaLocation="certificates10.xsd">\n'
        f"  <Version>2012-11-30</Version>\n  <Incarnation>{incarnation}</Incarnation>\n{named}"
        f"  <Data>{text}</Data>\n</CertificateFile>\n"
    )


def remote_access(incarnation: int, users: Sequence[tuple[str, str, str, Sequence[str]]]) -> str:
    """Return the RemoteAccess document; *users* are (name, encrypted password, expiration, groups) (§12)."""
    items = []
    for name, password, expiration, groups in users:
        names = "".join(f"<GroupName>{escape(group)}</GroupName>" for group in groups)
        items.append(
            f"    <User>\n      <Name>{escape(name)}</Name>\n      <Password>{password}</Password>\n"
            f"      <Expiration>{escape(expiration)}</Expiration>\n      <Groups>{names}</Groups>\n    </User>\n"
        )
    return (
        f"{_PROLOGUE}<RemoteAccess>\n  <Version>1</Version>\n  <Incarnation>{incarnation}</Incarnation>\n"
        f"  <Users>\n{''.join(items)}  </Users>\n</RemoteAccess>\n"
    )


@attrs.frozen
class ManifestEntry:
    """One version of a manifest (wireserver §13)."""

    version: str
    uris: Sequence[str] = ()
    internal: bool = False
    disallow_major_upgrade: bool = False


def manifest(entries: Sequence[ManifestEntry]) -> str:
    """Return the PluginVersionManifest document."""

    def plugin(entry: ManifestEntry) -> str:
        uris = "".join(f"        <Uri>{escape(uri)}</Uri>\n" for uri in entry.uris)
        listed = f"      <Uris>\n{uris}      </Uris>\n" if entry.uris else ""
        major = "      <DisallowMajorVersionUpgrade>true</DisallowMajorVersionUpgrade>\n"
        return (
            f"    <Plugin>\n      <Version>{escape(entry.version)}</Version>\n{listed}"
            f"{major if entry.disallow_major_upgrade else ''}    </Plugin>\n"
        )

    public = "".join(plugin(entry) for entry in entries if not entry.internal)
    internal = "".join(plugin(entry) for entry in entries if entry.internal)
    tail = f"  <InternalPlugins>\n{internal}  </InternalPlugins>\n" if internal else ""
    return (
        f"{_PROLOGUE}<PluginVersionManifest {_XSI_I}>\n  <Plugins>\n{public}  </Plugins>\n{tail}"
        "</PluginVersionManifest>\n"
    )
