"""What the platform said, and is told, as frozen values: nothing past this package sees XML or raw JSON.

Every class is public API.
"""

from __future__ import annotations

from typing import Any

import attrs

from waagent.values import Value

NULL_GUID = "00000000-0000-0000-0000-000000000000"
MINIMUM_TIMESTAMP = "0001-01-01T00:00:00.000000Z"


@attrs.frozen(eq=False, repr=False)
class Dependency(Value):
    """One ``DependsOnExtension`` edge: the handler, and of a multi-config handler the extension (wireserver §8.4)."""

    handler: str
    extension: str | None = None


@attrs.frozen(eq=False, repr=False)
class ExtensionSettings(Value):
    """One settings instance of a handler: what users call an extension (wireserver §8.2, §8.3).

    Attributes:
        name: the handler's name for single-config, its own name for multi-config.
        sequence_number: the platform's number; may go down.
        state: ``enabled`` or ``disabled`` (single-config: the handler's state).
        dependency_level: ordering key, 0 and up.
        depends_on: the edges behind the level.
        public: any JSON value, ``None`` when absent.
        protected: base64 of a DER CMS message, ``None`` when absent. A secret: never logged.
        thumbprint: upper-case hex SHA-1 of the certificate that opens ``protected``.
        has_content: ``False`` when the node's text was not JSON (only the number is known then).
    """

    name: str
    sequence_number: int
    state: str = "enabled"
    dependency_level: int = 0
    depends_on: tuple[Dependency, ...] = ()
    public: Any = None
    protected: str | None = attrs.field(default=None, repr=False)
    thumbprint: str | None = None
    has_content: bool = True


@attrs.frozen(eq=False, repr=False)
class Handler(Value):
    """One handler of the desired state (wireserver §8, §10; extensions §2).

    Attributes:
        name: ``Publisher.Type``.
        version: requested version, exact or a prefix.
        state: ``enabled``, ``disabled`` or ``uninstall``; other words stay as they came.
        manifest_uris: where its version manifest lies: location, failover location, additional ones.
        signature: base64 of the package's detached CMS signature, ``""`` when unsigned.
        multi_config: several named extensions, each with its own state.
        extensions: the settings, in document order; empty for a handler without settings.
        invalid_reason: why this handler cannot be processed; others still are.
    """

    name: str
    version: str
    state: str = "enabled"
    manifest_uris: tuple[str, ...] = ()
    signature: str = ""
    multi_config: bool = False
    extensions: tuple[ExtensionSettings, ...] = ()
    invalid_reason: str | None = None


@attrs.frozen(eq=False, repr=False)
class AgentFamily(Value):
    """One family of agent versions that the platform offers (wireserver §8.1)."""

    name: str
    version: str | None = None
    from_version: str | None = None
    is_version_from_rsm: bool | None = None
    is_vm_enabled_for_rsm_upgrades: bool | None = None
    uris: tuple[str, ...] = ()


@attrs.frozen(eq=False, repr=False)
class StatusBlob(Value):
    """Where status goes: a SAS URL (a secret: never logged whole) and ``BlockBlob`` or ``PageBlob``."""

    url: str = attrs.field(repr=False)
    blob_type: str = "BlockBlob"


@attrs.frozen(eq=False, repr=False)
class ExtensionsGoalState(Value):
    """The extension part of the goal state, from ExtensionsConfig or vmSettings (wireserver §8, §10).

    Attributes:
        id: ``incarnation_<n>`` or ``etag_<etag>``; a change means new work.
        channel: ``WireServer`` or ``HostGAPlugin``.
        source: ``Fabric`` or ``FastTrack`` (``UNKNOWN`` when vmSettings did not say).
        sequence: what the status blob reports as ``inSvdSeqNo``: the incarnation (text) or the document's number.
        created: ``YYYY-MM-DDTHH:MM:SS.ffffffZ``; compares as text.
        outdated: an older Fabric goal state after fast track stopped: reported, not executed (wireserver §15.5).
    """

    id: str
    channel: str
    source: str
    sequence: str | int
    activity_id: str = NULL_GUID
    correlation_id: str = NULL_GUID
    created: str = MINIMUM_TIMESTAMP
    required_features: tuple[str, ...] = ()
    on_hold: bool = False
    status_blob: StatusBlob | None = None
    agent_families: tuple[AgentFamily, ...] = ()
    handlers: tuple[Handler, ...] = ()
    artifacts_profile_uri: str = attrs.field(default="", repr=False)
    outdated: bool = False


@attrs.frozen(eq=False, repr=False)
class CertificateInfo(Value):
    """One certificate that lies in the state directory as ``<thumbprint>.crt`` (wireserver §11.4)."""

    thumbprint: str
    has_private_key: bool


@attrs.frozen(eq=False, repr=False)
class RemoteUser(Value):
    """One just-in-time account (wireserver §12). The password is still encrypted."""

    name: str
    encrypted_password: str = attrs.field(repr=False)
    expiration: str
    groups: tuple[str, ...] = ()


@attrs.frozen(eq=False, repr=False)
class RemoteAccess(Value):
    """The just-in-time accounts of one incarnation."""

    incarnation: str
    users: tuple[RemoteUser, ...] = ()


@attrs.frozen(eq=False, repr=False)
class HostingEnvironment(Value):
    """Names that telemetry and tools want (wireserver §7)."""

    vm_name: str = ""
    role_name: str = ""
    deployment_name: str = ""


@attrs.frozen(eq=False, repr=False)
class GoalState(Value):
    """One adopted, validated goal state: a snapshot that never changes (wireserver §6, §15).

    Attributes:
        incarnation: opaque; ``None`` when the document had none.
        role_config_name: ``ConfigName``; its text before the first ``.`` is the deployment id.
        certificates: summary of what is in the state directory.
        extensions: the adopted extension part.
        remote_access: ``None`` when the document names none.
    """

    incarnation: str | None
    container_id: str
    role_instance_id: str
    role_config_name: str
    extensions: ExtensionsGoalState
    certificates: tuple[CertificateInfo, ...] = ()
    remote_access: RemoteAccess | None = None
    hosting: HostingEnvironment = HostingEnvironment()

    @property
    def deployment_id(self) -> str | None:
        """The deployment's id, or ``None`` when the configuration name does not say."""
        head, dot, _ = self.role_config_name.partition(".")
        return head if dot and head else None


@attrs.frozen(eq=False, repr=False)
class ManifestVersion(Value):
    """One version in a manifest (wireserver §13)."""

    version: str
    uris: tuple[str, ...] = ()
    internal: bool = False
    disallow_major_upgrade: bool = False


@attrs.frozen(eq=False, repr=False)
class Manifest(Value):
    """The versions of a handler or agent family, and the URI that the manifest came from."""

    versions: tuple[ManifestVersion, ...]
    uri: str = attrs.field(default="", repr=False)


@attrs.frozen(eq=False, repr=False)
class Substatus(Value):
    """One item of an extension's substatus list (extensions §8)."""

    name: str
    status: str
    code: Any = 0
    message: str | None = None
    lang: str = "en-US"


@attrs.frozen(eq=False, repr=False)
class ExtensionReport(Value):
    """What one extension says of itself, for the status blob (extensions §8, §13.3).

    Attributes:
        name: the extension's name; its own for multi-config, the handler's otherwise.
        sequence_number: of the goal state, never "highest on disk".
        status: ``transitioning``, ``warning``, ``error`` or ``success``.
    """

    name: str
    sequence_number: int | str
    status: str
    code: Any = 0
    message: str | None = ""
    lang: str = "en-US"
    operation: str | None = None
    configuration_applied_time: str | None = None
    substatus: tuple[Substatus, ...] = ()


@attrs.frozen(eq=False, repr=False)
class HandlerReport(Value):
    """One item of ``handlerAggregateStatus`` (extensions §13.3).

    Attributes:
        status: ``Ready``, ``NotReady``, ``Installing`` or ``Unresponsive``.
        message: ``None`` leaves the formatted message out.
        multi_config: the extension's name is part of the item only then.
        extension: ``None`` reports the handler alone.
    """

    name: str
    version: str
    status: str
    code: int = 0
    message: str | None = None
    multi_config: bool = False
    extension: ExtensionReport | None = None


@attrs.frozen(eq=False, repr=False)
class GoalStateReport(Value):
    """``goalStateAggregateStatus``: how the last goal state ended (wireserver §17.3).

    Attributes:
        timestamp: when it was processed, ``YYYY-MM-DDTHH:MM:SSZ``.
    """

    sequence: str | int
    status: str
    code: int
    message: str
    timestamp: str


@attrs.frozen(eq=False, repr=False)
class UpdateReport(Value):
    """``updateStatus`` of the agent (service §6)."""

    expected_version: str
    status: str
    code: int
    message: str = ""


@attrs.frozen(eq=False, repr=False)
class StatusReport(Value):
    """One plugin's part of the status blob; the parts are joined in call order.

    Attributes:
        handlers: items for ``handlerAggregateStatus``.
        goal_state: how the goal state ended; the first part that says so counts.
        update: the agent's update status; likewise.
        features: names (value ``1.0``) for ``supportedFeatures``.
        problems: one line each; appended to the agent's own message.
        details: anything for the public status copy (``/run/waagent/status.json``) under the plugin's name;
            must be JSON and free of secrets.
        busy: work runs (a handler's command, a download): status is uploaded every period while it does (ruling 28).
    """

    handlers: tuple[HandlerReport, ...] = ()
    goal_state: GoalStateReport | None = None
    update: UpdateReport | None = None
    features: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    details: dict[str, Any] | None = None
    busy: bool = False


@attrs.frozen(eq=False, repr=False)
class TelemetryEvent(Value):
    """One event for the platform's telemetry (wireserver §19.1).

    Attributes:
        provider: the GUID of the table that it is meant for.
        id: the kind of event: 1 operation, 4 metric, 7 log.
        parameters: (name, value) in the order in which they are sent; the type of a value is that of its column.
    """

    provider: str
    id: int
    parameters: tuple[tuple[str, str | int | float | bool], ...]


@attrs.frozen(eq=False, repr=False)
class TelemetryReceipt(Value):
    """What became of offered events.

    Attributes:
        done: how many of them, from the first, the platform has or never will; offer the rest again.
        oversize: how many of those are too large for a request and were left out.
    """

    done: int
    oversize: int = 0
