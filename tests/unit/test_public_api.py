"""What plugins may import, and that it costs nothing until they do."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import waagent

PUBLIC = """
Agent AgentError AgentFamily CertificateInfo Command CommandError CommandResult ConfigError CryptError Dependency
DeployedKeyPair DeployedPublicKey OvfError ProvisioningDocument build_provisioning_document document_from_metadata
parse_provisioning_document redact_provisioning_document remove_leftovers report_to_pool ssh_public_key
DhcpError Event ExtensionDownloadError ExtensionReport ExtensionSettings ExtensionsConfigError ExtensionsGoalState
GoalState GoalStateReport HOOK_API Handler HandlerCommand HandlerReport HealthCheck HostingEnvironment HttpError
InvalidContainer Launch Log LogSource Manifest ManifestVersion NoAnswer NotOnThisRoot Option Package Paths Periodic
Plan PluginError ProtocolError ProtocolNotFound RemoteAccess RemoteUser ResourceGone StateError StatusBlob
StatusReport Step Substatus TelemetryEvent TelemetryReceipt Throttled UpdateReport Veto VmSettingsNotSupported
VmSettingsParseError VmSettingsSupportStopped __version__ bare_url conceal ensure_dir expiration_seconds hookimpl
lease_address load_goal_state move_aside
parse_isc_leases parse_networkd_lease parse_openbsd_leases read_json read_limited redact sync_directory timestamp
write_atomic write_json
""".split()  # noqa: SIM905 - read and sorted by people


def test_the_public_names_are_these():
    # A name that goes breaks plugins in the field; one that comes is a promise. Both are decided here.
    assert sorted(waagent.__all__) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there(name):
    assert getattr(waagent, name) is not None
    assert name in dir(waagent)


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="has no attribute 'frobnicate'"):
        waagent.frobnicate  # noqa: B018


def test_importing_the_package_loads_nothing_else():
    program = (
        "import sys, json; before = set(sys.modules); import waagent; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert set(json.loads(done.stdout)) <= {"waagent", "__future__"}
