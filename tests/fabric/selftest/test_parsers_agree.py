"""What the fabric writes is what the agent's parsers read: both channels give the same desired state."""

from __future__ import annotations

import attrs
import pytest

from waagent.platform import (
    artifactsprofile,
    certdoc,
    extensionsconfig,
    goalstate,
    hosting,
    imdsdoc,
    manifest,
    remoteaccess,
    versions,
    vmsettings,
)
from waagent_fabric import FamilySpec, HandlerSpec, RemoteUserSpec, SettingsSpec

pytestmark = pytest.mark.fabric

HANDLERS = [
    HandlerSpec(
        "Contoso.Single", "1.2.3", signature="MIIB",
        settings=[SettingsSpec({"k": ["v", "ü<&>"]}, {"p": "w"}, 4, level=1, depends_on=[("Contoso.Multi", "first")])],
    ),
    HandlerSpec(
        "Contoso.Multi", "2.0.0", multi_config=True, additional_locations=["http://c.example/m.xml?sig=a%2b&b=c"],
        settings=[
            SettingsSpec({}, name="first"),
            SettingsSpec({"a": 1}, name="second", state="disabled", sequence_number=7, level=2,
                         depends_on=["Contoso.Single", ("Contoso.Multi", "first")]),
        ],
    ),
    HandlerSpec("Contoso.Plain", "1.0"),
    HandlerSpec("Contoso.Gone", "1.0", state="uninstall"),
]  # fmt: skip


def both(client, fabric, **options):
    """Publish the same on both channels; return what is parsed of each."""
    ticks = 638852750771746340
    options = {"created_ticks": ticks, "activity_id": "aaaaaaaa-0000-4000-8000-000000000003", **options}
    fabric.publish(HANDLERS, **options)
    slow = extensionsconfig.parse_extensions_config(client.part("ExtensionsConfig").content, "2")
    fabric.publish(HANDLERS, "fasttrack", **options)
    answer = client.vm_settings()
    fast = vmsettings.parse_vm_settings(answer.content, answer.headers["ETag"])
    return slow, fast.extensions


def without_secrets(handlers):
    """Leave out what is encrypted anew each time."""
    return [
        attrs.evolve(handler, extensions=tuple(attrs.evolve(item, protected=None) for item in handler.extensions))
        for handler in handlers
    ]


def test_both_channels_say_the_same(client, fabric, clean):
    families = [FamilySpec("Prod", "3.1.0.0", "3.0.0.0", True, False), FamilySpec("Test")]
    slow, fast = both(client, fabric, families=families, required_features=["MultipleExtensionsPerHandler", "X"])
    assert without_secrets(slow.handlers) == without_secrets(fast.handlers)
    assert slow.agent_families == fast.agent_families
    assert slow.required_features == fast.required_features == ("MultipleExtensionsPerHandler", "X")
    assert slow.created == fast.created
    assert slow.activity_id == fast.activity_id
    assert slow.status_blob == fast.status_blob
    assert (slow.id, slow.source, slow.channel) == ("incarnation_2", "Fabric", "WireServer")
    assert (fast.source, fast.channel) == ("FastTrack", "HostGAPlugin")
    assert [handler.invalid_reason for handler in slow.handlers] == [None] * 4
    single, multi, plain, gone = fast.handlers
    assert single.signature == "MIIB"
    assert single.extensions[0].thumbprint == fabric.tenant.thumbprint
    assert single.extensions[0].public == {"k": ["v", "ü<&>"]}
    assert [item.dependency_level for item in multi.extensions] == [0, 2]
    assert multi.manifest_uris[-1] == "http://c.example/m.xml?sig=a%2b&b=c"
    assert plain.extensions == ()
    assert gone.state == "uninstall"


@pytest.mark.parametrize("kind", ["BlockBlob", "PageBlob", None])
def test_status_blobs(client, fabric, clean, kind):
    slow, fast = both(client, fabric, status_blob=kind)
    assert slow.status_blob == fast.status_blob
    assert (slow.status_blob.blob_type if slow.status_blob else None) == kind


def test_on_hold(client, fabric, clean):
    slow, fast = both(client, fabric, on_hold=True)
    assert fast.on_hold
    assert artifactsprofile.parse_on_hold(client.session.get(slow.artifacts_profile_uri).content)


def test_what_is_invalid_in_one_handler(client, fabric, clean):
    fabric.publish(
        [HandlerSpec("Contoso.Bad", "1.0", settings=[SettingsSpec({})], settings_version="2.0"), HANDLERS[2]]
    )
    bad, good = extensionsconfig.parse_extensions_config(client.part("ExtensionsConfig").content, "2").handlers
    assert "Version Mismatch" in bad.invalid_reason
    assert good.invalid_reason is None


def test_goal_state_and_its_parts(client, fabric, clean):
    fabric.publish(users=[RemoteUserSpec("jit1")])
    document = goalstate.parse_goal_state(client.goal_state().encode())
    identity = fabric.platform.identity
    assert document.incarnation == "2"
    assert document.container_id == identity.container_id
    assert document.role_config_name == identity.config_name
    assert document.remote_access == client.field("RemoteAccessInfo")
    environment = hosting.parse_hosting_environment(client.part("HostingEnvironmentConfig").content)
    assert (environment.vm_name, environment.deployment_name) == ("_demo-vm", fabric.platform.vm.deployment_id)
    hosting.check_shared_config(client.part("SharedConfig").content)
    users = remoteaccess.parse_remote_access(client.part("RemoteAccessInfo", **client.secret_headers()).content)
    assert [user.name for user in users.users] == ["jit1"]
    assert remoteaccess.expiration_seconds(users.users[0].expiration) > 0
    certificates = certdoc.parse_certificate_file(client.certificates().content)
    assert certificates.incarnation == "2"


def test_versions(client, clean):
    offered = versions.parse_versions(client.wire("/?comp=versions", headers={}).content)
    assert versions.negotiate(offered)


def test_manifests(client, fabric, clean):
    url = fabric.add_package("Contoso.A", "1.0", b"zip", disallow_major_upgrade=True)
    fabric.add_package("Contoso.A", "1.1", None, internal=True)
    found = manifest.parse_manifest(client.session.get(url).content, url)
    first, second = found.versions
    assert (first.version, first.internal, first.disallow_major_upgrade) == ("1.0", False, True)
    assert client.session.get(first.uris[1]).content == b"zip"
    assert (second.version, second.internal, second.uris) == ("1.1", True, ())
    fabric.remove_package("Contoso.A", "1.0")
    assert [item.version for item in manifest.parse_manifest(client.session.get(url).content, url).versions] == ["1.1"]
    assert client.session.get(first.uris[0]).status_code == 404


def test_instance_metadata(client, fabric, clean):
    url = f"http://{fabric.imds}/metadata/instance"
    headers = {"Metadata": "true"}
    compute = client.session.get(f"{url}/compute?api-version=2018-02-01", headers=headers).content
    assert imdsdoc.parse_compute(compute)["vmId"] == fabric.platform.vm.vm_id
    imdsdoc.check_instance(client.session.get(f"{url}?api-version=2018-02-01", headers=headers).content)
