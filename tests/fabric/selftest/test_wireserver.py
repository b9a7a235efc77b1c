from __future__ import annotations

import base64
import datetime as dt
import html
import json
import re
import subprocess
from xml.etree import ElementTree as ET

import pytest

from waagent_fabric import FamilySpec, HandlerSpec, RemoteUserSpec, SettingsSpec, crypto

pytestmark = pytest.mark.fabric

HEALTH = """<?xml version="1.0" encoding="utf-8"?>
<Health xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema">
<GoalStateIncarnation>{incarnation}</GoalStateIncarnation><Container><ContainerId>{container}</ContainerId>
<RoleInstanceList><Role><InstanceId>{instance}</InstanceId><Health>{health}</Health></Role></RoleInstanceList>
</Container></Health>"""


def health(client, state="Ready", details="", *, incarnation="1", container=None, instance=None):
    inner = f"<State>{state}</State>{details}"
    body = HEALTH.format(
        incarnation=incarnation,
        container=container or client.field("ContainerId"),
        instance=instance or client.field("InstanceId"),
        health=inner,
    )
    return client.wire("/machine?comp=health", "POST", client.XML, data=body.encode())


# -- what it hands out


def test_versions_need_no_headers(client, clean):
    document = ET.fromstring(client.wire("/?comp=versions", headers={}).text)
    assert document.findtext("Preferred/Version") == "2015-04-05"
    assert "2012-11-30" in [item.text for item in document.findall("Supported/Version")]


@pytest.mark.parametrize("path", ["/machine/?comp=goalstate", "/machine?comp=goalstate"])
def test_goal_state(client, fabric, clean, path):
    fabric.publish()
    answer = client.wire(path)
    assert answer.headers["Content-Type"] == "text/xml; charset=utf-8"
    document = ET.fromstring(answer.content)
    instance = "Container/RoleInstanceList/RoleInstance"
    assert document.findtext("Incarnation") == "2"
    assert document.findtext(f"{instance}/InstanceId").endswith("._demo-vm")
    uri = document.findtext(f"{instance}/Configuration/SharedConfig")
    assert uri.startswith(f"http://{fabric.wireserver}/machine/{client.field('ContainerId')}/")
    assert uri.endswith("?comp=config&type=sharedConfig&incarnation=2")
    assert "%2D" in uri
    assert "%5F" in uri


@pytest.mark.parametrize("version", [None, "2015-04-05"])
def test_the_protocol_version_is_demanded(client, violated, version):
    headers = {"x-ms-agent-name": "WALinuxAgent", **({} if version is None else {"x-ms-version": version})}
    assert client.wire("/machine/?comp=goalstate", headers=headers).status_code == 400
    assert len(violated()) == 1


def test_the_agent_name_is_expected(client, violated):
    assert client.wire("/machine/?comp=goalstate", headers={"x-ms-version": "2012-11-30"}).status_code == 200
    assert violated() == ["header x-ms-agent-name is missing"]


def test_parts(client, fabric, clean):
    assert ET.fromstring(client.part("HostingEnvironmentConfig").text).find("Incarnation").get("instance") == "_demo-vm"
    assert ET.fromstring(client.part("SharedConfig").text).tag == "SharedConfig"
    assert ET.fromstring(client.part("FullConfig").text).tag == "FullConfig"
    assert ET.fromstring(client.part("ExtensionsConfig").text).get("goalStateIncarnation") == "1"


def test_escapes_that_need_none_may_be_undone(client, clean):
    uri = client.field("SharedConfig").replace("%2D", "-").replace("%5F", "_")
    assert client.session.get(uri, headers=client.WIRE).status_code == 200


def test_parts_of_another_incarnation_are_gone(client, fabric, clean):
    uri = client.field("ExtensionsConfig")
    fabric.publish()
    assert client.session.get(uri, headers=client.WIRE).status_code == 410
    fabric.reallocate()
    again = client.field("ExtensionsConfig")
    fabric.reallocate()
    assert client.session.get(again, headers=client.WIRE).status_code == 410


def test_a_move_keeps_the_incarnation_unless_told_otherwise(client, fabric, clean):
    before = client.field("ContainerId"), client.field("ConfigName")
    fabric.reallocate()
    assert client.field("Incarnation") == "1"
    assert client.field("ContainerId") != before[0]
    assert client.field("ConfigName") != before[1]
    fabric.reallocate(incarnation=9)
    assert client.field("Incarnation") == "9"


def test_absent_parts(client, fabric, violated):
    fabric.publish(parts=["hostingEnvironmentConfig", "sharedConfig"])
    assert client.field("ExtensionsConfig") is None
    assert client.field("Certificates") is None
    uri = client.field("SharedConfig").replace("sharedConfig", "extensionsConfig")
    assert client.session.get(uri, headers=client.WIRE).status_code == 404
    assert violated() == ["the goal state does not name extensionsConfig"]
    fabric.publish(role_instance=False)
    assert client.field("InstanceId") is None


def test_byte_order_mark_on_demand(client, fabric, clean):
    fabric.platform.bom = True
    assert client.wire("/machine/?comp=goalstate").content.startswith(b"\xef\xbb\xbf<?xml")


def test_unknown_resources(client, violated):
    assert client.wire("/machine/?comp=nonsense").status_code == 404
    assert client.wire("/elsewhere", "POST").status_code == 404
    assert len(violated()) == 2


# -- ExtensionsConfig


def extensions(client):
    return ET.fromstring(client.part("ExtensionsConfig").text)


def test_handlers_and_settings(client, fabric, clean):
    fabric.add_package("Contoso.Single", "1.2.3", {"f": "x"}, manifest_command="run")
    fabric.publish(
        [
            HandlerSpec(
                "Contoso.Single", "1.2.3", signature="MIIB",
                settings=[
                    SettingsSpec({"a": "<&>"}, sequence_number=4, level=1, depends_on=[("Contoso.Multi", "first")])
                ],
            ),
            HandlerSpec(
                "Contoso.Multi", "2.0.0", multi_config=True, additional_locations=["http://c/x?a=1&b=2"],
                settings=[SettingsSpec(name="first"), SettingsSpec(name="second", state="disabled", sequence_number=1)],
            ),
            HandlerSpec("Contoso.Gone", "1.0", state="uninstall"),
        ]
    )  # fmt: skip
    document = extensions(client)
    single, multi, gone = document.findall("Plugins/Plugin")
    assert (single.get("name"), single.get("version"), single.get("state")) == ("Contoso.Single", "1.2.3", "enabled")
    assert single.get("encodedSignature") == "MIIB"
    assert client.session.get(single.get("location")).text == client.session.get(single.get("failoverlocation")).text
    assert "1.2.3" in client.session.get(single.get("location")).text
    assert multi.findtext("additionalLocations/additionalLocation") == "http://c/x?a=1&b=2"
    assert gone.get("state") == "uninstall"
    first, second = document.findall("PluginSettings/Plugin")
    assert first.find("RuntimeSettings").get("seqNo") == "4"
    settings = json.loads(first.findtext("RuntimeSettings"))["runtimeSettings"][0]["handlerSettings"]
    assert settings == {"publicSettings": {"a": "<&>"}}
    assert first.find("DependsOn").get("dependencyLevel") == "1"
    assert dict(first.find("DependsOn/DependsOnExtension").items()) == {
        "handler": "Contoso.Multi", "extension": "first",
    }  # fmt: skip
    assert [dict(item.items()) for item in second.findall("ExtensionRuntimeSettings")] == [
        {"seqNo": "0", "name": "first", "state": "enabled"},
        {"seqNo": "1", "name": "second", "state": "disabled"},
    ]


def test_broken_settings_can_be_published(client, fabric, clean):
    broken = SettingsSpec(raw="{not json", sequence_number=None)
    fabric.publish([HandlerSpec("Contoso.Bad", "1.0", settings=[broken], settings_version="0.9")])
    settings = extensions(client).find("PluginSettings/Plugin")
    assert settings.get("version") == "0.9"
    assert settings.find("RuntimeSettings").get("seqNo") == ""
    assert settings.findtext("RuntimeSettings") == "{not json"


def test_families_features_and_metadata(client, fabric, clean):
    family = FamilySpec("Test", "3.1.0.0", "3.0.0.0", True, False)
    fabric.publish(families=[family], required_features=["A", "B"], created_ticks=637726657706205217)
    document = extensions(client)
    found = document.find("GuestAgentExtension/GAFamilies/GAFamily")
    assert [(item.tag, item.text) for item in found if item.tag != "Uris"] == [
        ("Name", "Test"), ("Version", "3.1.0.0"), ("FromVersion", "3.0.0.0"), ("IsVersionFromRSM", "true"),
        ("IsVMEnabledForRSMUpgrades", "false"),
    ]  # fmt: skip
    assert client.session.get(found.findtext("Uris/Uri")).text.endswith("</PluginVersionManifest>\n")
    assert [item.text for item in document.findall("RequiredFeatures/RequiredFeature/Name")] == ["A", "B"]
    assert document.find("InVMGoalStateMetaData").get("createdOnTicks") == "637726657706205217"


def test_creation_times_rise_and_are_now(client, fabric, clean):
    seen = []
    for _ in range(3):
        fabric.publish()
        seen.append(int(extensions(client).find("InVMGoalStateMetaData").get("createdOnTicks")))
    assert seen == sorted(set(seen))
    created = dt.datetime(1, 1, 1) + dt.timedelta(microseconds=seen[-1] // 10)
    assert abs(created - dt.datetime.now(dt.timezone.utc).replace(tzinfo=None)) < dt.timedelta(minutes=1)


def test_on_hold_lies_in_the_artifacts_profile(client, fabric, clean):
    assert extensions(client).find("InVMArtifactsProfileBlob") is None
    fabric.publish(on_hold=True)
    data = client.session.get(extensions(client).findtext("InVMArtifactsProfileBlob")).content
    assert len(data) % 512 == 0
    assert json.loads(data.rstrip(b"\0"))["onHold"] is True


def test_no_status_blob(client, fabric, clean):
    fabric.publish(status_blob=None)
    assert extensions(client).find("StatusUploadBlob") is None


# -- certificates


def openssl(folder, *command, data=b""):
    return subprocess.run(["openssl", *command], cwd=folder, input=data, capture_output=True, check=True).stdout


def open_pfx(folder, client, text, *options):
    document = ET.fromstring(text)
    assert document.findtext("Format") == "Pkcs7BlobWithPfxContents"
    folder.joinpath("t.pem").write_bytes(client.transport.pem + client.transport.key_pem)
    message = base64.b64decode(document.findtext("Data"))
    decrypt = ("cms", "-decrypt", "-inform", "DER", "-inkey", "t.pem", "-recip", "t.pem")
    folder.joinpath("c.pfx").write_bytes(openssl(folder, *decrypt, data=message))
    return openssl(folder, "pkcs12", "-nodes", "-password", "pass:", "-in", "c.pfx", *options).decode()


@pytest.mark.parametrize("cipher", [None, "AES128_CBC", "DES_EDE3_CBC"])
def test_certificates_for_the_transport_key(client, fabric, clean, tmp_path, cipher):
    fabric.add_certificate("vault ec", kind="ec")
    fabric.add_certificate("ssh", kind="ec", with_key=False)
    text = open_pfx(tmp_path, client, client.certificates(cipher).text)
    assert text.count("BEGIN CERTIFICATE") == 4, "tenant, its CA, vault and ssh"
    assert text.count("BEGIN PRIVATE KEY") == 2, "tenant and vault"
    assert fabric.platform.transport_certificate == client.transport.certificate


def test_pfx_variants(client, fabric, clean, tmp_path):
    options = fabric.certificate_options
    options.mac, options.key_protection, options.encrypt_certificates = False, "aes", True
    assert "BEGIN PRIVATE KEY" in open_pfx(tmp_path, client, client.certificates().text, "-nomacver")


def test_protected_settings_open_with_the_delivered_key(client, fabric, clean, tmp_path):
    fabric.publish([HandlerSpec("Contoso.A", "1.0", settings=[SettingsSpec(protected={"secret": "s"})])])
    text = extensions(client).findtext("PluginSettings/Plugin/RuntimeSettings")
    settings = json.loads(text)["runtimeSettings"][0]["handlerSettings"]
    delivered = open_pfx(tmp_path, client, client.certificates().text)
    assert settings["protectedSettingsCertThumbprint"] == fabric.tenant.thumbprint
    assert fabric.tenant.pem.decode().strip() in delivered
    tmp_path.joinpath("pair.pem").write_text(delivered)
    message = base64.b64decode(settings["protectedSettings"])
    tmp_path.joinpath("tenant.pem").write_bytes(fabric.tenant.pem)
    decrypt = ("cms", "-decrypt", "-inform", "DER", "-inkey", "pair.pem", "-recip", "tenant.pem")
    assert json.loads(openssl(tmp_path, *decrypt, data=message)) == {"secret": "s"}


def test_rotation_changes_the_thumbprint(client, fabric, clean, tmp_path):
    old = fabric.tenant
    new = fabric.rotate_tenant_certificate()
    fabric.publish()
    text = open_pfx(tmp_path, client, client.certificates().text)
    assert new.thumbprint != old.thumbprint
    assert new.pem.decode().strip() in text
    assert old.pem.decode().strip() not in text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"empty": True}, ("Pkcs7BlobWithPfxContents", "")),
        ({"empty": True, "data_format": None}, (None, "")),
        ({"empty": True, "data_format": "CertificatesNonPfxPackage"}, ("CertificatesNonPfxPackage", "")),
    ],
)
def test_documents_without_certificates(client, fabric, clean, options, expected):
    for name, value in options.items():
        setattr(fabric.certificate_options, name, value)
    document = ET.fromstring(client.certificates().text)
    assert (document.findtext("Format"), document.findtext("Data") or "") == expected


def test_a_broken_cipher_cannot_be_opened_and_the_other_can(client, fabric, clean, tmp_path):
    fabric.certificate_options.broken_ciphers = ["AES128_CBC"]
    with pytest.raises(subprocess.CalledProcessError):
        open_pfx(tmp_path, client, client.certificates("AES128_CBC").text)
    assert "BEGIN PRIVATE KEY" in open_pfx(tmp_path, client, client.certificates("DES_EDE3_CBC").text)


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "x-ms-guest-agent-public-x509-cert is missing"),
        ({"x-ms-guest-agent-public-x509-cert": "AAAA"}, "not base64 of a DER certificate"),
        ({"x-ms-cipher-name": "RC2"}, "x-ms-cipher-name is 'RC2'"),
    ],
)
def test_unusable_requests_for_certificates(client, violated, headers, words):
    given = headers if "x-ms-cipher-name" not in headers else {**client.secret_headers(), **headers}
    answer = client.part("Certificates", **given)
    assert answer.status_code == 400
    (text,) = violated()
    assert words in text


def test_remote_access(client, fabric, clean, tmp_path):
    assert client.field("RemoteAccessInfo") is None
    fabric.publish(users=[RemoteUserSpec("jit1", "pässword")])
    assert re.search(r"incarnation=2\s+</RemoteAccessInfo>", html.unescape(client.goal_state()))
    document = ET.fromstring(client.part("RemoteAccessInfo", **client.secret_headers()).text)
    user = document.find("Users/User")
    assert user.findtext("Name") == "jit1"
    tmp_path.joinpath("t.pem").write_bytes(client.transport.pem + client.transport.key_pem)
    message = base64.b64decode(user.findtext("Password"))
    decrypt = ("cms", "-decrypt", "-inform", "DER", "-inkey", "t.pem", "-recip", "t.pem")
    assert openssl(tmp_path, *decrypt, data=message).decode("utf-16-le") == "pässword"


# -- what it is told


def test_health_reports_are_recorded(client, fabric, clean):
    details = "<Details><SubStatus>ProvisioningFailed</SubStatus><Description>a &lt; b</Description></Details>"
    assert health(client, "NotReady", details).status_code == 200
    assert health(client).status_code == 200
    first, second = fabric.health_reports
    assert (first.state, first.substatus, first.description) == ("NotReady", "ProvisioningFailed", "a < b")
    assert (second.state, second.substatus, second.incarnation) == ("Ready", "", "1")


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"state": "Fine"}, 400, "State is 'Fine'"),
        ({"state": "<a>"}, 400, "not a well-formed Health document"),
        ({"container": "11111111-0000-4000-8000-000000000000"}, 410, "never given out"),
        ({"instance": "someone"}, 400, "instance is 'someone'"),
        ({"incarnation": "x"}, 200, "GoalStateIncarnation is 'x'"),
        ({"state": "NotReady"}, 200, "SubStatus is ''"),
        (
            {"state": "NotReady", "details": "<Details><SubStatus>Provisioning</SubStatus><Description>"
             + "&lt;" * 1025 + "</Description></Details>"},
            200, "4100 bytes; the limit is 4096",
        ),
        (
            {"state": "NotReady", "details": "<Details><SubStatus>Provisioning</SubStatus><Description>"
             "http://x/?sig=secret</Description></Details>"},
            200, "shared access signature",
        ),
    ],
)  # fmt: skip
def test_faulty_health_reports(client, violated, change, status, words):
    assert health(client, **change).status_code == status
    (text,) = violated()
    assert words in text


def test_health_from_a_container_of_before_is_gone(client, fabric, clean):
    container = client.field("ContainerId")
    fabric.reallocate()
    assert health(client, container=container).status_code == 410
    assert fabric.health_reports == []


def test_a_document_type_is_refused(client, violated):
    body = b'<!DOCTYPE Health [<!ENTITY a "b">]><Health>&a;</Health>'
    assert client.wire("/machine?comp=health", "POST", client.XML, data=body).status_code == 400
    assert "a document type" in violated()[0]


def test_content_type_is_demanded(client, violated):
    assert client.wire("/machine?comp=health", "POST", client.WIRE, data=b"<Health/>").status_code == 415
    assert len(violated()) == 1


def test_role_properties_are_accepted_with_202(client, fabric, clean):
    body = (
        '<?xml version="1.0" encoding="utf-8"?><RoleProperties><Container>'
        f"<ContainerId>{client.field('ContainerId')}</ContainerId><RoleInstances><RoleInstance>"
        f'<Id>{client.field("InstanceId")}</Id><Properties><Property name="CertificateThumbprint" value="T" />'
        "</Properties></RoleInstance></RoleInstances></Container></RoleProperties>"
    )
    assert client.wire("/machine?comp=roleProperties", "POST", client.XML, data=body).status_code == 202
    assert fabric.role_properties == [{"CertificateThumbprint": "T"}]


def telemetry(client, parameters, providers=1):
    event = f'<Event id="1"><![CDATA[{parameters}]]></Event>'
    provider = f'<Provider id="69B669B9-4AF8-4C50-BDC4-6006FA76E975">{event}</Provider>'
    body = f'<?xml version="1.0"?><TelemetryData version="1.0">{provider * providers}</TelemetryData>'
    return client.wire("/machine?comp=telemetrydata", "POST", client.XML, data=body.encode())


def test_telemetry(client, fabric, clean):
    parameters = (
        '<Param Name="Name" Value="a &lt;b&gt;" T="mt:wstr" /><Param Name="Duration" Value="7" T="mt:uint64" />'
    )
    assert telemetry(client, parameters).status_code == 200
    (event,) = fabric.telemetry
    assert event.event == "1"
    assert event.parameters == {"Name": "a <b>", "Duration": "7"}


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"parameters": "<Param"}, 200, "event parameters are not XML"),
        ({"parameters": "", "providers": 2}, 200, "2 providers"),
        ({"parameters": '<Param Name="M" Value="https://x/?a=b&amp;sig=s" />'}, 200, "shared access signature"),
        ({"parameters": " " * 65536}, 413, "bytes in one request"),
    ],
)
def test_faulty_telemetry(client, violated, options, status, words):
    assert telemetry(client, **options).status_code == status
    (text,) = violated()
    assert words in text


def observations(client, *items, **changes):
    report = {"Api": "reporttargethealth", "Version": "1.0", "Source": "WALinuxAgent", "Observations": list(items)}
    report.update(changes)
    return client.wire("/HealthService", "POST", {}, json=report)


def observation(name="GuestAgentPluginHeartbeat", healthy=True, description=""):
    return {"ObservationName": name, "IsHealthy": healthy, "Description": description, "Value": ""}


def test_health_service(client, fabric, clean):
    assert observations(client, observation(), observation("InstanceMetadataHeartbeat", False)).status_code == 200
    assert [item["IsHealthy"] for item in fabric.observations] == [True, False]


@pytest.mark.parametrize(
    ("items", "changes", "status"),
    [
        ([observation("Invented")], {}, 200),
        ([observation(description="x" * 129)], {}, 200),
        ([observation()], {"Api": "other"}, 200),
        ([observation()] * 11, {}, 400),
    ],
    ids=["unknown name", "long text", "other interface", "too many"],
)
def test_faulty_observations(client, violated, items, changes, status):
    assert observations(client, *items, **changes).status_code == status
    assert len(violated()) == 1


def test_provisioning_health(client, fabric, clean):
    report = {"state": "NotReady", "details": {"subStatus": "ProvisioningFailed", "description": "why"}}
    headers = {"x-ms-guest-agent-name": "waagent"}
    assert client.wire("/provisioning/health", "POST", headers, json=report).status_code == 201
    assert client.wire("/provisioning/health", "POST", headers, json={"state": "Ready"}).status_code == 201
    assert [(item.state, item.description, item.channel) for item in fabric.health_reports] == [
        ("NotReady", "why", "json"), ("Ready", "", "json"),
    ]  # fmt: skip


def test_provisioning_health_that_is_no_json(client, violated):
    headers = {"x-ms-guest-agent-name": "waagent", "Content-Type": "application/json"}
    assert client.wire("/provisioning/health", "POST", headers, data=b"{").status_code == 400
    assert "not JSON" in violated()[0]


def test_ec_certificates_of_the_platform_are_usable(fabric):
    made = fabric.add_certificate("second", kind="ec")
    assert made.key_pem.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert isinstance(made, crypto.Certificate)
