from __future__ import annotations

import base64
import io
import json
import uuid
import zipfile

import pytest

from waagent_fabric import Fabric, HandlerSpec, SettingsSpec

pytestmark = pytest.mark.fabric

STATUS = {
    "version": "1.1",
    "timestampUTC": "2026-01-02T03:04:05Z",
    "aggregateStatus": {
        "guestAgentStatus": {"version": "3.0.0.0", "status": "Ready"},
        "handlerAggregateStatus": [],
    },
}


def storage_headers(body, **more):
    return {
        "x-ms-version": "2014-02-14", "x-ms-date": "2026-01-02T03:04:05Z", "Content-Length": str(len(body)), **more,
    }  # fmt: skip


def status_order(url, body, **more):
    headers = storage_headers(body, **more)
    order = {
        "headers": [{"headerName": name, "headerValue": value} for name, value in headers.items()],
        "requestUri": url,
    }
    if body:
        order["content"] = base64.b64encode(body).decode()
    return order


def put_status(client, order, **options):
    return client.host("/status", "PUT", json=order, **options)


def block(client, document, url=None):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    order = status_order(url or client.status_url(), body, **{"x-ms-blob-type": "BlockBlob"})
    return put_status(client, order)


# -- versions, health, identity


def test_versions_and_health(client, clean):
    assert client.host("/versions").json() == ["2015-09-01"]
    assert client.host("/health").status_code == 200


def test_versions_expect_the_container(client, violated):
    assert client.host("/versions", identity={}).status_code == 200
    assert violated() == ["header x-ms-containerid is missing"]


@pytest.mark.parametrize("missing", ["x-ms-containerid", "x-ms-host-config-name"])
def test_identity_headers_are_demanded(client, violated, missing):
    identity = {**client.identity, missing: None}
    answer = client.host("/vmSettings", identity=identity, headers={"x-ms-client-correlationid": str(uuid.uuid4())})
    assert answer.status_code == 400
    assert b"InvalidContainerConfiguration" in answer.content
    assert violated() == [f"header {missing} is missing"]


def test_a_stale_identity_is_gone(client, fabric, clean):
    identity = client.identity
    fabric.reallocate()
    for name in identity:
        stale = {**client.identity, name: identity[name]}
        given = {"x-ms-client-correlationid": str(uuid.uuid4())}
        assert client.host("/vmSettings", identity=stale, headers=given).status_code == 410
    assert client.vm_settings().status_code == 200


def test_a_stale_identity_can_be_called_invalid_instead(client, fabric, clean):
    identity = client.identity
    fabric.platform.stale_answer = 400
    fabric.reallocate()
    answer = client.host("/vmSettings", identity=identity, headers={"x-ms-client-correlationid": str(uuid.uuid4())})
    assert answer.status_code == 400
    assert b"InvalidContainerConfiguration" in answer.content


def test_an_invented_identity_is_gone_and_a_violation(client, violated):
    identity = {**client.identity, "x-ms-containerid": str(uuid.uuid4())}
    assert client.host("/status", "PUT", identity, json={}).status_code == 410
    assert "never given out" in violated()[0]


def test_the_version_is_demanded(client, violated):
    assert client.host("/vmSettings", version="2014-01-01").status_code == 400
    assert len(violated()) == 1


def test_unknown_resources(client, violated):
    assert client.host("/nonsense").status_code == 404
    assert client.host("/status").status_code == 404
    assert len(violated()) == 2


# -- vmSettings


def test_vm_settings_answer_304_while_unchanged(client, fabric, clean):
    first = client.vm_settings()
    etag = first.headers["ETag"]
    assert first.json()["extensionGoalStatesSource"] == "Fabric"
    again = client.vm_settings(**{"If-None-Match": etag})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
    assert fabric.publish(channel="fasttrack") == "etag_" + client.vm_settings().headers["ETag"]
    fresh = client.vm_settings(**{"If-None-Match": etag})
    assert fresh.status_code == 200
    assert fresh.json()["extensionGoalStatesSource"] == "FastTrack"


def test_fast_track_leaves_the_incarnation_alone(client, fabric, clean):
    fabric.publish(channel="fasttrack")
    assert client.field("Incarnation") == "1"


def test_a_quoted_etag_is_a_violation(client, violated):
    etag = client.vm_settings().headers["ETag"]
    assert client.vm_settings(**{"If-None-Match": f'"{etag}"'}).status_code == 200
    assert len(violated()) == 1


def test_the_correlation_id_is_expected(client, violated):
    assert client.host("/vmSettings").status_code == 200
    assert "x-ms-client-correlationid is None" in violated()[0]


def test_the_document(client, fabric, clean):
    fabric.publish(
        [
            HandlerSpec(
                "Contoso.Multi", "2.0.0", multi_config=True,
                settings=[
                    SettingsSpec({}, name="first"),
                    SettingsSpec({"a": 1}, name="second", state="disabled", sequence_number=7, level=2,
                                 depends_on=[("Contoso.Multi", "first")]),
                ],
            ),
            HandlerSpec("Contoso.Single", "1.0", settings=[SettingsSpec({"k": "v"}, {"p": "w"}, 4, level=1,
                                                                        depends_on=["Contoso.Multi"])]),
            HandlerSpec("Contoso.Gone", "1.0", state="uninstall", location="", failover_location=""),
        ],
        "fasttrack", on_hold=True,
    )  # fmt: skip
    document = client.vm_settings().json()
    multi, single, gone = document["extensionGoalStates"]
    assert document["onHold"] is True
    assert [item["extensionName"] for item in multi["settings"]] == ["first", "second"]
    assert multi["settings"][1]["seqNo"] == 7
    assert json.loads(multi["settings"][1]["publicSettings"]) == {"a": 1}
    assert multi["dependsOn"][0]["name"] == "second"
    assert single["settingsSeqNo"] == 4
    assert single["settings"][0]["protectedSettingsCertThumbprint"] == fabric.tenant.thumbprint
    assert single["dependsOn"] == [{"dependsOnExtension": [{"handler": "Contoso.Multi"}], "dependencyLevel": 1}]
    assert gone["state"] == "uninstall"
    assert "settings" not in gone
    spellings = set(multi) | set(single)
    assert {"failoverLocation", "failoverlocation"} <= spellings, "the service mixes the case of its names"


def test_a_host_without_fast_track():
    with Fabric(fast_track=False) as fabric:
        import requests

        assert requests.get(f"http://{fabric.host_plugin}/vmSettings", timeout=10).status_code == 404
        assert fabric.violations == []


# -- artifacts


def test_artifacts_come_through_the_plugin(client, fabric, clean):
    fabric.add_package("Contoso.A", "1.0", {"f": "x"}, manifest_command="run")
    fabric.publish([HandlerSpec("Contoso.A", "1.0")])
    manifest = client.location("Contoso.A")
    answer = client.artifact(manifest)
    assert answer.content == client.session.get(manifest).content
    uri = answer.text.partition("<Uri>")[2].partition("</Uri>")[0].replace("&amp;", "&")
    package = client.artifact(uri, **{"x-ms-artifact-manifest-location": manifest})
    with zipfile.ZipFile(io.BytesIO(package.content)) as archive:
        assert sorted(archive.namelist()) == ["HandlerManifest.json", "f"]
    verified = client.artifact(uri, **{"x-ms-verify-from-artifacts-blob": "true"})
    assert verified.content == package.content


def test_a_rewritten_url_is_a_violation(client, fabric, violated):
    fabric.publish([HandlerSpec("Contoso.A", "1.0")])
    changed = client.location("Contoso.A").replace("%2b", "%2B")
    assert client.artifact(changed).status_code == 200
    assert violated() == ["x-ms-artifact-location is not the URL as it was given"]


def test_artifacts_that_are_not_there(client, fabric, violated):
    url = fabric.platform.store.put("/a/x", b"x")
    fabric.platform.store.delete("/a/x")
    assert client.artifact(url).status_code == 404
    assert client.artifact("https://elsewhere.example/x?sig=a").status_code == 502
    assert violated() == []
    assert client.host("/extensionArtifact").status_code == 400
    assert client.artifact(url, **{"x-ms-verify-from-artifacts-blob": "yes"}).status_code == 404
    assert len(violated()) == 2


# -- status


def test_a_status_through_the_plugin(client, fabric, clean):
    assert block(client, STATUS).status_code == 200
    (record,) = fabric.statuses
    assert (record.channel, record.blob_type, record.document) == ("hostplugin", "BlockBlob", STATUS)
    assert fabric.status == STATUS
    assert fabric.wait_for_status(lambda document: document["version"] == "1.1", 1) == STATUS


def test_a_page_blob_through_the_plugin(client, fabric, clean):
    fabric.publish(status_blob="PageBlob")
    url = client.status_url()
    text = json.dumps({**STATUS, "padding": "x" * 600}).encode()
    body = text + b" " * (-len(text) % 512)
    create = {"x-ms-blob-type": "PageBlob", "x-ms-blob-content-length": str(len(body))}
    assert put_status(client, status_order(url, b"", **create)).status_code == 200
    assert fabric.statuses == [], "not whole yet"
    for start in range(0, len(body), 512):
        page = {"x-ms-range": f"bytes={start}-{start + 511}", "x-ms-page-write": "update"}
        assert put_status(client, status_order(f"{url}&comp=page", body[start : start + 512], **page)).ok
    (record,) = fabric.statuses
    assert (record.channel, record.blob_type, record.size) == ("hostplugin", "PageBlob", len(body))


def test_the_wrong_kind_of_blob(client, fabric, violated):
    fabric.publish(status_blob="PageBlob")
    assert block(client, STATUS).status_code == 200
    assert violated() == ["the status blob is to be a PageBlob, not a BlockBlob"]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"{not json", "not ASCII JSON"),
        ({**STATUS, "version": "9"}, "version is '9'"),
        ('{"version": "ü"}'.encode(), "not ASCII JSON"),
        ({**STATUS, "note": "http://x/y?a=b&sig=secret"}, "shared access signature"),
    ],
    ids=["no JSON", "version", "no ASCII", "a secret"],
)
def test_faulty_status_documents(client, violated, document, words):
    assert block(client, document).status_code == 200
    (text,) = violated()
    assert words in text


@pytest.mark.parametrize(
    "change",
    [
        lambda order: order.pop("requestUri"),
        lambda order: order.update(content="!!"),
        lambda order: order.update(headers=None),
        lambda order: order["headers"].append({"headerName": "Content-Length", "headerValue": 12}),
    ],
    ids=["no URI", "no base64", "no headers", "a number as header"],
)
def test_orders_that_are_none(client, violated, change):
    order = status_order(client.status_url(), b"{}", **{"x-ms-blob-type": "BlockBlob"})
    change(order)
    assert put_status(client, order).status_code == 400
    assert "not a status request" in violated()[0]


def test_what_storage_refuses_is_a_bad_gateway(client, fabric, violated):
    order = status_order(client.status_url(), json.dumps(STATUS).encode())
    assert put_status(client, order).status_code == 502
    assert "x-ms-blob-type is None" in violated()[0]
    assert fabric.statuses == []


def test_a_status_url_that_was_changed(client, violated):
    assert block(client, STATUS, client.status_url().replace("%2b", "%2B")).status_code == 200
    assert violated() == ["requestUri is not the URL as it was given"]


# -- logs


def log_headers(**changes):
    return {
        "x-ms-vmagentlog-deploymentid": "d", "x-ms-client-name": "WALinuxAgent", "x-ms-client-version": "3.0.0.0",
        "x-ms-client-correlationid": str(uuid.uuid4()), **changes,
    }  # fmt: skip


def archive():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("waagent.log", "line")
    return buffer.getvalue()


def test_logs(client, fabric, clean):
    identity = {"x-ms-containerid": client.identity["x-ms-containerid"]}
    assert client.host("/vmAgentLog", "PUT", identity, headers=log_headers(), data=archive()).status_code == 200
    assert fabric.log_uploads == [archive()]


def test_faulty_logs(client, violated):
    answer = client.host("/vmAgentLog", "PUT", headers=log_headers(), data=b"no zip")
    assert answer.status_code == 400
    client.host("/vmAgentLog", "PUT", headers=log_headers(**{"x-ms-client-name": None}), data=archive())
    assert violated() == ["the body is not a zip archive", "header x-ms-client-name is missing"]
