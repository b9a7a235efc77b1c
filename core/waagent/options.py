"""Every configuration key that the agent's own parts know (spec/configuration.md §4, §7, §9; decisions.md "Floors").

Plugins declare their options themselves (``declare_options``); the keys of features that are not installed stand here
all the same, because files with them are in the field and ``-show-configuration`` has always printed them. A key is
either effective or ``ignored`` with the reason. Defaults are the documented ones (ruling 39).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from waagent.records import Option

if TYPE_CHECKING:
    from waagent.config import Config


def _flag(name: str, default: bool, summary: str) -> Option:
    return Option(name, "bool", default, summary)


def _number(name: str, default: int | None, summary: str, minimum: int | None = None) -> Option:
    return Option(name, "int", default, summary, minimum=minimum)


def _period(name: str, default: int | None, summary: str, default_from: str | None = None) -> Option:
    # Below one second the agent would spin (configuration §3).
    return Option(name, "int", default, summary, minimum=1, default_from=default_from)


def _text(name: str, default: str | None, summary: str, choices: tuple[str, ...] | None = None) -> Option:
    return Option(name, "text", default, summary, choices=choices)


def _idle(name: str, kind: str, default: object, reason: str) -> Option:
    return Option(name, kind, default, "accepted, without effect", ignored=reason)


def _gone(name: str, reason: str) -> Option:
    return _idle(name, "text", None, reason)


_OF_2_0 = "it belonged to agent 2.0"
_SMALL = "the agent is small by itself, and puts no limit on its memory"
_NO_EFFECT_SINCE = "it has had no effect since 2.2.45; Provisioning.Agent decides"

CORE: tuple[Option, ...] = (
    # Extensions
    _flag("Extensions.Enabled", True, "handle extensions; n: status only, every 300 s"),
    _period("Extensions.GoalStatePeriod", 6, "seconds between polls of the goal state, and between status reports"),
    _period(
        "Extensions.InitialGoalStatePeriod",
        None,
        "the same until the first goal state is done",
        default_from="Extensions.GoalStatePeriod",
    ),
    _flag("Extensions.WaitForCloudInit", False, "wait for cloud-init before the first extension runs"),
    _period("Extensions.WaitForCloudInitTimeout", 3600, "seconds to wait for cloud-init"),
    _number("Extensions.WaitForPackageLock", 0, "seconds to wait for the package manager's lock before install", 0),
    _text("Extensions.Launcher", "scope", "how handler commands start", ("scope", "service", "process")),
    _flag("CGroups.EnforceLimits", True, "give handlers the limits that their manifests ask for, each in its scope"),
    _text("CGroups.Excluded", "customscript,runcommand", "handlers without limits, comma separated"),
    # Provisioning
    _text("Provisioning.Agent", "auto", "who provisions: auto, waagent, cloud-init; any other word: nobody"),
    _flag("Provisioning.DeleteRootPassword", False, "lock root's password when provisioning and deprovisioning"),
    _flag("Provisioning.RegenerateSshHostKeyPair", True, "make new SSH host keys"),
    _text("Provisioning.SshHostKeyPairType", "rsa", "type of the host key: rsa, dsa, ecdsa, ed25519, or auto for all"),
    _flag("Provisioning.MonitorHostName", True, "publish a changed host name through DHCP"),
    _period("Provisioning.MonitorHostNamePeriod", 30, "seconds between looks at the host name"),
    _flag("Provisioning.DecodeCustomData", False, "decode custom data from base64"),
    _flag("Provisioning.ExecuteCustomData", False, "run custom data after provisioning"),
    _flag("Provisioning.AllowResetSysUser", False, "let the password of a system user be set"),
    _text("Provisioning.PasswordCryptId", "6", "crypt method: 1, 2a, 5 or 6", ("1", "2a", "5", "6")),
    _number("Provisioning.PasswordCryptSaltLength", 10, "characters of salt", 1),
    # Resource disk
    _flag("ResourceDisk.Format", True, "format and mount the resource disk"),
    _text("ResourceDisk.Filesystem", "ext4", "its file system; needs mkfs of that name"),
    _text("ResourceDisk.MountPoint", "/mnt/resource", "where it is mounted"),
    _text("ResourceDisk.MountOptions", None, "options of mount -o, comma separated"),
    _flag("ResourceDisk.EnableSwap", False, "make a swap file on it"),
    _flag("ResourceDisk.EnableSwapEncryption", False, "encrypt swap on FreeBSD; elsewhere it is not done"),
    _number("ResourceDisk.SwapSizeMB", 0, "size of the swap file in MB"),
    _flag("ResourceDisk.AllowReformat", False, "format a disk that holds another file system"),
    # Logs
    _flag("Logs.Verbose", False, "write VERBOSE lines to the log file"),
    _flag("Logs.Console", True, "echo the log to /dev/console until the VM is provisioned"),
    _flag("Logs.Collect", True, "collect and upload logs for support"),
    _period("Logs.CollectPeriod", 3600, "seconds between collections"),
    _text("Logs.File", "/var/log/waagent.log", "the log file"),
    # Operating system
    _idle("OS.AllowHTTP", "bool", False, "TLS is always there, and secrets never go over plain HTTP"),
    _flag("OS.EnableFIPS", False, "set OPENSSL_FIPS=1 for every command"),
    _flag("OS.EnableFirewall", False, "let root alone reach the WireServer"),
    _period("OS.EnableFirewallPeriod", 300, "seconds between checks of the firewall rules"),
    _period("OS.MonitorDhcpClientRestartPeriod", 30, "seconds between looks at the DHCP client"),
    _period("OS.RemovePersistentNetRulesPeriod", 30, "seconds between looks for persistent network rules of udev"),
    _number("OS.RootDeviceScsiTimeout", 300, "SCSI timeout of every sd* disk in seconds; 0 leaves it alone", 0),
    _period("OS.RootDeviceScsiTimeoutPeriod", 30, "seconds between looks at that timeout"),
    _text("OS.OpensslPath", "/usr/bin/openssl", "the openssl program, where one is needed"),
    _text("OS.SshDir", "/etc/ssh", "folder of sshd_config and host keys"),
    _number("OS.SshClientAliveInterval", 180, "ClientAliveInterval of sshd", 0),
    Option("OS.HomeDir", "text", "/home", "parent of the users' homes", aliases=("Home.Dir",)),
    _text("OS.PasswordPath", "/etc/shadow", "file of the password hashes"),
    _text("OS.SudoersDir", "/etc/sudoers.d", "folder of the sudoers file of the provisioned user"),
    _flag("OS.EnableRDMA", False, "load and set up the RDMA stack"),
    _flag("OS.UpdateRdmaDriver", False, "install the RDMA driver; implies OS.EnableRDMA"),
    _flag("OS.CheckRdmaDriver", True, "check the RDMA driver; y in a file implies OS.EnableRDMA"),
    # Network, protocol, policy
    _text("HttpProxy.Host", None, "proxy towards the internet; never used for the platform"),
    _number("HttpProxy.Port", None, "its port; 80 when only the host is given"),
    _text("Protocol.EndpointDiscovery", "dhcp", "dhcp: option 245; any other word: 168.63.129.16"),
    _text("Policy.PolicyFilePath", "/etc/waagent_policy.json", "extension policy; in force when the file is there"),
    _idle("Monitor.NetworkConfigurationChanges", "bool", False, "routes and interfaces are not written to the log"),
    _text("Platform.WireServer", None, "host:port of another WireServer, for development"),
    _text("Platform.HostPlugin", None, "host:port of another host plugin, for development"),
    _text("Platform.Imds", None, "host:port of another metadata service, for development"),
    _number("Status.MaxInterval", 30, "most seconds between status uploads; 0: one every period", 0),
    # Plugins
    _text("Plugins.Enabled", None, "plugins that are on, names or globs, comma separated"),
    _text("Plugins.Disabled", None, "plugins that are off, names or globs, comma separated"),
    _text("Plugins.ThirdParty", "all", "all; listed, like any other word: only those in Plugins.Enabled"),
    _flag("Plugins.RequireTrustedFiles", True, "load only plugins whose files nobody but root can write"),
    _text("Plugins.AllowList", None, "file that pins the plugins that may be loaded"),
    # Update
    _flag("AutoUpdate.Enabled", True, "update the agent; n: run the packaged version"),
    Option(
        "AutoUpdate.UpdateToLatestVersion",
        "bool",
        True,
        "update the agent; n: run the newest version that is here",
        default_from="AutoUpdate.Enabled",
    ),
    _text("AutoUpdate.GAFamily", "Prod", "family of versions to update from"),
    _period("Autoupdate.Frequency", 3600, "seconds between looks for a new version"),
    _flag("EnableOverProvisioning", True, "hold extensions while the platform says onHold"),
    # Places and the rest
    _text("Lib.Dir", "/var/lib/waagent", "state directory"),
    _text("DVD.MountPoint", "/mnt/cdrom/secure", "where the provisioning medium is mounted"),
    _text("Pid.File", "/var/run/waagent.pid", "pid of the daemon"),
    _text("Extension.LogDir", "/var/log/azure", "logs of the extensions"),
    _flag("DetectScvmmEnv", False, "look for System Center Virtual Machine Manager at start"),
    # Debug
    _period("Debug.CgroupCheckPeriod", 300, "seconds between looks at the agent's own quota"),
    _idle("Debug.CgroupLogMetrics", "bool", False, "no metrics of groups are taken"),
    _flag("Debug.CgroupDisableOnProcessCheckFailure", True, "no quota of the agent while others are in its group"),
    _flag("Debug.CgroupDisableOnQuotaCheckFailure", True, "no quota of the agent once it was held back too much"),
    _number("Debug.AgentCpuQuota", 50, "per cent of one processor for the agent, once handlers have units", 1),
    _number("Debug.AgentCpuThrottledTimeThreshold", 120, "seconds between two looks that are too much", 0),
    _idle("Debug.AgentMemoryQuota", "int", 314572800, _SMALL),
    _idle("Debug.EnableAgentMemoryUsageCheck", "bool", False, _SMALL),
    _flag("Debug.EnableFastTrack", True, "take goal states from the host plugin"),
    _period("Debug.EtpCollectionPeriod", 300, "seconds between collections of extension events"),
    _period("Debug.SelfUpdateHotfixFrequency", 14400, "seconds between looks for a hotfix"),
    _period("Debug.SelfUpdateRegularFrequency", 86400, "seconds between looks for a regular version"),
    _flag("Debug.EnableGAVersioning", True, "honour a version asked for in the goal state"),
    _flag("Debug.EnableRsmDowngrade", False, "allow such a version to be older"),
    _period("Debug.FirewallRulesLogPeriod", 86400, "seconds between firewall rules in the log"),
    _flag("Debug.EnableExtensionPolicy", True, "enforce the policy file"),
    Option(
        "Debug.EnableExtSignatureValidation",
        "bool",
        True,
        "check signatures of extension packages",
        aliases=("Debug.EnableSignatureValidation",),
    ),
    _flag("Debug.EnableAgentSignatureValidation", False, "check signatures of agent packages"),
    _flag("Debug.IgnoreExtSignatureValidationErrors", True, "report bad signatures without blocking"),
    _text("Debug.SignatureValidationTelemetryExpiryTime", "2027-02-01", "day from which that is no longer reported"),
    _idle(
        "Debug.SignatureValidationInitialDelay",
        "int",
        600,
        "a check takes some 20 ms, and the first packages are checked too",
    ),
    _number("Debug.SignatureValidationTimeout", 10, "seconds after which validation is given up", 0),
    _flag("Debug.EnableCgroupV2ResourceLimiting", True, "limit the log collector on cgroup v2"),
    _number("Debug.LogCollectorInitialDelay", 300, "seconds before the first collection", 0),
    # Accepted and ignored (configuration §7)
    _gone("Provisioning.Enabled", _NO_EFFECT_SINCE),
    _gone("Provisioning.UseCloudInit", _NO_EFFECT_SINCE),
    _gone("CGroups.Enabled", "CGroups.EnforceLimits decides"),
    _gone("LBProbeResponder", _OF_2_0),
    _gone("Role.StateConsumer", _OF_2_0),
    _gone("Role.ConfigurationConsumer", _OF_2_0),
    _gone("Role.TopologyConsumer", _OF_2_0),
    _gone("Network.Interface", _OF_2_0),
    _gone("OS.SshdConfigPath", "use OS.SshDir"),
    _gone("Extensions.GoalStateHistoryCleanupPeriod", "history is bounded by number and size"),
    _idle("Debug.AutoUpdateHotfixFrequency", "int", 14400, "use Debug.SelfUpdateHotfixFrequency"),
    _idle("Debug.AutoUpdateNormalFrequency", "int", 86400, "use Debug.SelfUpdateRegularFrequency"),
    _gone("Debug.CgroupMonitorExpiryTime", "the experiment ended with 2.12"),
    _gone("Debug.CgroupMonitorExtensionName", "the experiment ended with 2.12"),
)

_OWNERS = (
    # The first row that the key begins with counts; no name: it is the core's.
    ("Extensions.GoalStatePeriod", ""),
    ("Extensions.InitialGoalStatePeriod", ""),
    ("Extensions.Launcher", "scopes"),
    ("Extensions.WaitFor", "waiting"),
    ("Extensions.", "extensions"),
    ("EnableOverProvisioning", "extensions"),
    ("CGroups.", "scopes"),
    ("Debug.Cgroup", "scopes"),
    ("Debug.AgentCpu", "scopes"),
    ("Debug.EtpCollectionPeriod", "telemetry"),
    ("Policy.", "policy"),
    ("Debug.EnableExtensionPolicy", "policy"),
    ("Debug.EnableExtSignatureValidation", "signatures"),
    ("Debug.IgnoreExtSignatureValidationErrors", "signatures"),
    ("Debug.SignatureValidation", "signatures"),
    ("Provisioning.MonitorHostName", "hostname"),
    ("Provisioning.", "provisioning"),
    ("DVD.MountPoint", "provisioning"),
    ("ResourceDisk.", "resourcedisk"),
    ("DetectScvmmEnv", "scvmm"),
    ("OS.MonitorDhcpClientRestartPeriod", "network"),
    ("OS.RemovePersistentNetRulesPeriod", "upkeep"),
    ("OS.RootDeviceScsiTimeout", "upkeep"),
    ("OS.EnableRDMA", "rdma"),
    ("OS.UpdateRdmaDriver", "rdma"),
    ("OS.CheckRdmaDriver", "rdma"),
    ("OS.EnableFirewall", "firewall"),
    ("Debug.FirewallRulesLogPeriod", "firewall"),
    ("Logs.Collect", "logcollector"),
    ("Debug.LogCollectorInitialDelay", "logcollector"),
    ("Debug.EnableCgroupV2ResourceLimiting", "logcollector"),
    ("AutoUpdate.", "updates"),
    ("Autoupdate.", "updates"),
    ("Debug.SelfUpdate", "updates"),
    ("Debug.EnableGAVersioning", "updates"),
    ("Debug.EnableRsmDowngrade", "updates"),
    ("Debug.EnableAgentSignatureValidation", "updates"),
)


def owner_of(name: str) -> str | None:
    """Return the name of our own plugin that acts on the key *name*, or ``None`` when the core does."""
    return next((owner or None for beginning, owner in _OWNERS if name.startswith(beginning)), None)


def remarks(config: Config) -> Iterator[tuple[str, str]]:
    """Yield key and warning for what is legal line by line and surprising taken together (configuration §4, §7)."""
    if config.given("AutoUpdate.UpdateToLatestVersion") and config.given("AutoUpdate.Enabled"):
        yield "AutoUpdate.UpdateToLatestVersion", "overrides AutoUpdate.Enabled, which is set too"
    agent = config.text("Provisioning.Agent")
    if agent not in ("auto", "waagent", "cloud-init", "disabled"):
        yield "Provisioning.Agent", f"is {agent!r}, which acts as disabled (known: auto, waagent, cloud-init, disabled)"
    third = config.text("Plugins.ThirdParty")
    if third not in ("", "all", "listed"):
        yield "Plugins.ThirdParty", f"is {third!r}, which acts as listed (known: all, listed)"
    if config.raw("Provisioning.Enabled") in ("n", "N") and not config.given("Provisioning.Agent"):
        yield "Provisioning.Enabled", "has no effect; Provisioning.Agent=disabled or =cloud-init is meant"
    if config.raw("Provisioning.UseCloudInit") in ("y", "Y"):
        yield "Provisioning.UseCloudInit", "has no effect; Provisioning.Agent and Extensions.WaitForCloudInit decide"
    if config.raw("OS.AllowHTTP") in ("y", "Y"):
        yield "OS.AllowHTTP", "is refused: secrets never go over plain HTTP"
    if config.boolean("ResourceDisk.EnableSwapEncryption") and os.uname().sysname != "FreeBSD":
        yield "ResourceDisk.EnableSwapEncryption", "is not done here: swap is not encrypted"
    if config.text("HttpProxy.Host") and config.optional_integer("HttpProxy.Port") is None:
        yield "HttpProxy.Host", "is set without HttpProxy.Port: port 80 is used"
    port = config.optional_integer("HttpProxy.Port")
    if port is not None and not 0 < port <= 65535:
        yield "HttpProxy.Port", f"is {port}, which is no port: port 80 is used"
    if port is not None and not config.text("HttpProxy.Host"):
        yield "HttpProxy.Port", "is set without HttpProxy.Host: no proxy is used"
