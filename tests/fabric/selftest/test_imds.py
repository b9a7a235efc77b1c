from __future__ import annotations

import pytest

from waagent_fabric import Fabric, VirtualMachine

pytestmark = pytest.mark.fabric


@pytest.fixture
def ask(client, fabric):
    def ask(path, headers=None, **query):
        headers = {"Metadata": "true"} if headers is None else headers
        return client.session.get(f"http://{fabric.imds}{path}", params=query, headers=headers, timeout=10)

    return ask


def test_the_agents_questions(ask, clean):
    compute = ask("/metadata/instance/compute", **{"api-version": "2018-02-01"}).json()
    assert compute["name"] == "demo-vm"
    assert compute["vmId"]
    assert "osProfile" not in compute
    instance = ask("/metadata/instance", **{"api-version": "2018-02-01"}).json()
    assert instance["compute"] == compute
    (interface,) = instance["network"]["interface"]
    assert interface["macAddress"]
    assert interface["ipv4"]["ipAddress"][0]["privateIpAddress"] == "10.0.0.4"


def test_newer_versions_say_more(ask, clean):
    query = {"api-version": "2023-11-15", "extended": "true"}
    instance = ask("/metadata/instance", **query).json()
    assert instance["compute"]["osProfile"]["computerName"] == "demo-vm"
    assert instance["compute"]["publicKeys"] == []
    assert instance["extended"]["compute"]["ppsType"] == "None"
    assert "extended" not in ask("/metadata/instance", **{"api-version": "2023-11-15"}).json()


def test_leaves_are_text(ask, clean):
    version = {"api-version": "2021-02-01"}
    assert ask("/metadata/instance/compute/name", format="text", **version).text == "demo-vm"
    assert ask("/metadata/instance/network/interface/0/macAddress", format="text", **version).text == "000D3A000001"
    assert ask("/metadata/instance", format="text", **version).text == "compute\nnetwork"
    assert ask("/metadata/instance/compute/name", **version).status_code == 400
    assert ask("/metadata/instance/network/interface/7", **version).status_code == 404


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "Metadata is None"),
        ({"Metadata": "False"}, "Metadata is 'False'"),
        ({"Metadata": "true", "X-Forwarded-For": "10.0.0.1"}, "X-Forwarded-For"),
    ],
)
def test_headers_are_demanded(ask, violated, headers, words):
    assert ask("/metadata/instance", headers, **{"api-version": "2018-02-01"}).status_code == 400
    (text,) = violated()
    assert words in text


def test_unknown_versions_name_the_newest(ask, clean):
    for query in ({}, {"api-version": "1999-01-01"}):
        answer = ask("/metadata/instance", **query)
        assert answer.status_code == 400
        assert len(answer.json()["newest-versions"]) == 3
    assert "2018-02-01" in ask("/metadata/versions").json()["apiVersions"]


def test_unknown_resources(ask, clean):
    for path in ("/metadata/instance/nonsense", "/metadata/attested/document", "/"):
        assert ask(path, **{"api-version": "2021-02-01"}).status_code == 404


def test_values_can_be_laid_over(ask, fabric, clean):
    fabric.set_instance_metadata(compute={"tags": "a:b", "zone": None}, network=None, extra=[1])
    instance = ask("/metadata/instance", **{"api-version": "2018-02-01"}).json()
    assert instance["compute"]["tags"] == "a:b"
    assert "zone" not in instance["compute"]
    assert instance["compute"]["name"] == "demo-vm"
    assert "network" not in instance
    assert instance["extra"] == [1]


def test_reprovision_data(ask, fabric, clean):
    query = {"api-version": "2019-06-01"}
    assert ask("/metadata/reprovisiondata", **query).status_code == 404
    fabric.platform.reprovision_data = b"<Environment/>"
    assert ask("/metadata/reprovisiondata", **query).content == b"<Environment/>"


def test_another_machine():
    import requests

    with Fabric(vm=VirtualMachine(name="other", size="Standard_L8s")) as fabric:
        answer = requests.get(
            f"http://{fabric.imds}/metadata/instance/compute?api-version=2018-02-01",
            headers={"Metadata": "true"},
            timeout=10,
        )
    assert (answer.json()["name"], answer.json()["vmSize"]) == ("other", "Standard_L8s")
