"""The public API of waagent, for plugins: everything a plugin may import, and nothing else.

A plugin is an object (a module, or an instance of a class) whose functions are marked ``@hookimpl`` and named after
hooks; it is found through an entry point of the group ``waagent.plugins`` or ``waagent.distros``::

    from waagent import HealthCheck, hookimpl

    @hookimpl
    def check_health(agent):
        return HealthCheck("acme.licence", "ok", "valid until 2030-01-01")

Names are resolved when they are first used (PEP 562): importing this package loads nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # type checkers know the name; the module typing is not for free in the supervisor

if TYPE_CHECKING:
    from waagent.agent import Agent
    from waagent.errors import (
        AgentError,
        CommandError,
        ConfigError,
        CryptError,
        DhcpError,
        ExtensionDownloadError,
        ExtensionsConfigError,
        HttpError,
        InvalidContainer,
        NoAnswer,
        NotOnThisRoot,
        OvfError,
        PluginError,
        ProtocolError,
        ProtocolNotFound,
        ResourceGone,
        StateError,
        Throttled,
        VmSettingsNotSupported,
        VmSettingsParseError,
        VmSettingsSupportStopped,
    )
    from waagent.events import Event
    from waagent.files import (
        ensure_dir,
        move_aside,
        read_json,
        read_limited,
        remove_leftovers,
        sync_directory,
        write_atomic,
        write_json,
    )
    from waagent.log import Log, timestamp
    from waagent.markers import HOOK_API, hookimpl
    from waagent.paths import Paths
    from waagent.plan import Plan, Step
    from waagent.platform.certificates import ssh_public_key
    from waagent.platform.kvp import report_to_pool
    from waagent.platform.leases import (
        lease_address,
        parse_isc_leases,
        parse_networkd_lease,
        parse_openbsd_leases,
    )
    from waagent.platform.models import (
        AgentFamily,
        CertificateInfo,
        Dependency,
        ExtensionReport,
        ExtensionSettings,
        ExtensionsGoalState,
        GoalState,
        GoalStateReport,
        Handler,
        HandlerReport,
        HostingEnvironment,
        Manifest,
        ManifestVersion,
        RemoteAccess,
        RemoteUser,
        StatusBlob,
        StatusReport,
        Substatus,
        TelemetryEvent,
        TelemetryReceipt,
        UpdateReport,
    )
    from waagent.platform.ovf import (
        DeployedKeyPair,
        DeployedPublicKey,
        ProvisioningDocument,
        build_provisioning_document,
        document_from_metadata,
        parse_provisioning_document,
        redact_provisioning_document,
    )
    from waagent.platform.recorded import load_goal_state
    from waagent.platform.remoteaccess import expiration_seconds
    from waagent.records import (
        Command,
        CommandResult,
        HandlerCommand,
        HealthCheck,
        Launch,
        LogSource,
        Option,
        Package,
        Periodic,
        Veto,
    )
    from waagent.redaction import bare_url, conceal, redact
    from waagent.version import __version__

_PLACES = {
    "agent": ("Agent",),
    "errors": (
        "AgentError",
        "CommandError",
        "ConfigError",
        "CryptError",
        "DhcpError",
        "ExtensionDownloadError",
        "ExtensionsConfigError",
        "HttpError",
        "InvalidContainer",
        "NoAnswer",
        "NotOnThisRoot",
        "OvfError",
        "PluginError",
        "ProtocolError",
        "ProtocolNotFound",
        "ResourceGone",
        "StateError",
        "Throttled",
        "VmSettingsNotSupported",
        "VmSettingsParseError",
        "VmSettingsSupportStopped",
    ),
    "events": ("Event",),
    "files": (
        "ensure_dir",
        "move_aside",
        "read_json",
        "read_limited",
        "remove_leftovers",
        "sync_directory",
        "write_atomic",
        "write_json",
    ),
    "log": ("Log", "timestamp"),
    "markers": ("HOOK_API", "hookimpl"),
    "paths": ("Paths",),
    "plan": ("Plan", "Step"),
    "platform.leases": ("lease_address", "parse_isc_leases", "parse_networkd_lease", "parse_openbsd_leases"),
    "platform.remoteaccess": ("expiration_seconds",),
    "platform.certificates": ("ssh_public_key",),
    "platform.kvp": ("report_to_pool",),
    "platform.models": (
        "AgentFamily",
        "CertificateInfo",
        "Dependency",
        "ExtensionReport",
        "ExtensionSettings",
        "ExtensionsGoalState",
        "GoalState",
        "GoalStateReport",
        "Handler",
        "HandlerReport",
        "HostingEnvironment",
        "Manifest",
        "ManifestVersion",
        "RemoteAccess",
        "RemoteUser",
        "StatusBlob",
        "StatusReport",
        "Substatus",
        "TelemetryEvent",
        "TelemetryReceipt",
        "UpdateReport",
    ),
    "platform.recorded": ("load_goal_state",),
    "platform.ovf": (
        "DeployedKeyPair",
        "DeployedPublicKey",
        "ProvisioningDocument",
        "build_provisioning_document",
        "document_from_metadata",
        "parse_provisioning_document",
        "redact_provisioning_document",
    ),
    "records": (
        "Command",
        "CommandResult",
        "HandlerCommand",
        "HealthCheck",
        "Launch",
        "LogSource",
        "Option",
        "Package",
        "Periodic",
        "Veto",
    ),
    "redaction": ("bare_url", "conceal", "redact"),
    "version": ("__version__",),
}
_HOME = {name: place for place, names in _PLACES.items() for name in names}

__all__ = [  # noqa: RUF022  (by topic, as a reader looks for them)
    "__version__",
    # writing hooks
    "HOOK_API", "hookimpl", "Agent", "Event", "Plan", "Step",
    # what hooks return and take
    "Command", "CommandResult", "HandlerCommand", "HealthCheck", "Launch", "LogSource", "Option", "Package", "Periodic",
    "Veto",
    # what the platform says and is told
    "AgentFamily", "CertificateInfo", "Dependency", "ExtensionReport", "ExtensionSettings", "ExtensionsGoalState",
    "GoalState", "GoalStateReport", "Handler", "HandlerReport", "HostingEnvironment", "Manifest", "ManifestVersion",
    "RemoteAccess", "RemoteUser", "StatusBlob", "StatusReport", "Substatus", "TelemetryEvent", "TelemetryReceipt",
    "UpdateReport", "expiration_seconds", "load_goal_state",
    # files, texts and places
    "Log", "Paths", "bare_url", "conceal", "ensure_dir", "move_aside", "read_json", "read_limited", "redact",
    "remove_leftovers", "sync_directory", "timestamp", "write_atomic", "write_json",
    # DHCP leases: the platform's address (option 245)
    "lease_address", "parse_isc_leases", "parse_networkd_lease", "parse_openbsd_leases",
    # the provisioning document, and what else provisioning asks of the platform's formats
    "DeployedKeyPair", "DeployedPublicKey", "ProvisioningDocument", "build_provisioning_document",
    "document_from_metadata", "parse_provisioning_document", "redact_provisioning_document", "report_to_pool",
    "ssh_public_key",
    # errors
    "AgentError", "CommandError", "ConfigError", "CryptError", "DhcpError", "ExtensionDownloadError",
    "ExtensionsConfigError", "HttpError", "InvalidContainer", "NoAnswer", "NotOnThisRoot", "OvfError", "PluginError",
    "ProtocolError", "ProtocolNotFound", "ResourceGone", "StateError", "Throttled", "VmSettingsNotSupported",
    "VmSettingsParseError", "VmSettingsSupportStopped",
]  # fmt: skip


def __getattr__(name: str) -> object:
    place = _HOME.get(name)
    if place is None:
        raise AttributeError(f"module 'waagent' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"waagent.{place}"), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
