from __future__ import annotations

import json
from xml.dom import minidom

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.platform.healthdoc import (
    MAX_DESCRIPTION,
    Observation,
    build_health_report,
    build_host_health,
    build_provisioning_health,
    build_role_properties,
    fit,
)

HEAD = (
    '<?xml version="1.0" encoding="utf-8"?><Health xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xmlns:xsd="http://www.w3.org/2001/XMLSchema"><GoalStateIncarnation>1</GoalStateIncarnation><Container>'
    "<ContainerId>c-1</ContainerId><RoleInstanceList><Role><InstanceId>i-1</InstanceId><Health>"
)
TAIL = "</Health></Role></RoleInstanceList></Container></Health>"


def test_ready_byte_for_byte() -> None:
    assert build_health_report("1", "c-1", "i-1", "Ready") == f"{HEAD}<State>Ready</State>{TAIL}".encode()


def test_not_ready_byte_for_byte() -> None:
    found = build_health_report("1", "c-1", "i-1", "NotReady", "ProvisioningFailed", 'why: <a> & "b" é\x00\x1b')
    details = (
        "<Details><SubStatus>ProvisioningFailed</SubStatus>"
        '<Description>why: &lt;a&gt; &amp; "b" é??</Description></Details>'
    )
    assert found == f"{HEAD}<State>NotReady</State>{details}{TAIL}".encode()


def test_a_description_holds_no_secret() -> None:
    found = build_health_report(
        "1", "c", "i", "NotReady", "ProvisioningFailed", "GET https://a/b?x=1&sig=SECRET failed"
    )
    assert b"SECRET" not in found
    assert b"https://a/b?&lt;redacted&gt; failed" in found


def test_an_incarnation_may_be_unknown() -> None:
    assert b"<GoalStateIncarnation></GoalStateIncarnation>" in build_health_report(None, "c", "i", "Ready")


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("x" * 3600, "x" * 3600),
        ("x" * 3601, "x" * 3597 + "..."),
        ("&" * 720, "&amp;" * 720),
        ("&" * 721, "&amp;" * 719 + "..."),
        ("é" * 1800, "é" * 1800),
        ("é" * 1801, "é" * 1798 + "..."),
        ("😀" * 901, "😀" * 899 + "..."),
        ("x" * 100_000, "x" * 3597 + "..."),
    ],
)
def test_the_limit_counts_bytes_after_escaping(description: str, expected: str) -> None:
    assert fit(description) == expected


@given(st.text(st.characters(), max_size=5000) | st.text("<>&é😀x", min_size=600, max_size=4000))
def test_every_description_fits_and_is_well_formed(description: str) -> None:
    body = build_health_report("1", "c-1", "i-1", "NotReady", "ProvisioningFailed", description)
    assert len(fit(description).encode("utf-8")) <= MAX_DESCRIPTION
    elements = minidom.parseString(body).getElementsByTagName("Description")
    assert len(elements) == 1


def test_what_xml_cannot_hold_is_shown_as_a_question_mark() -> None:
    assert fit("a\tb\r\nc\x00\x0b\x1f\x7f\ud800\udfff\ufffe\uffff\ufffd\U0001f600") == (
        "a\tb\r\nc???\x7f????\ufffd\U0001f600"
    )


def test_role_properties_byte_for_byte() -> None:
    assert build_role_properties("C", "I", 'T"<') == (
        b'<?xml version="1.0" encoding="utf-8"?><RoleProperties><Container><ContainerId>C</ContainerId><RoleInstances>'
        b'<RoleInstance><Id>I</Id><Properties><Property name="CertificateThumbprint" value="T&quot;&lt;" />'
        b"</Properties></RoleInstance></RoleInstances></Container></RoleProperties>"
    )


def test_host_health() -> None:
    body = build_host_health(
        [
            Observation("GuestAgentPluginHeartbeat", True),
            Observation("n" * 70, False, "d" * 200 + "é", "https://a/b?sig=SECRET " + "v" * 200),
        ]
    )
    assert json.loads(body) == {
        "Api": "reporttargethealth",
        "Version": "1.0",
        "Source": "WALinuxAgent",
        "Observations": [
            {"ObservationName": "GuestAgentPluginHeartbeat", "IsHealthy": True, "Description": "", "Value": ""},
            {
                "ObservationName": "n" * 64,
                "IsHealthy": False,
                "Description": "d" * 128,
                "Value": ("https://a/b?<redacted> " + "v" * 200)[:128],
            },
        ],
    }


def test_at_most_ten_observations_the_newest() -> None:
    body = build_host_health(Observation(str(number), True) for number in range(12))
    assert [item["ObservationName"] for item in json.loads(body)["Observations"]] == [str(n) for n in range(2, 12)]


def test_provisioning_health() -> None:
    assert json.loads(build_provisioning_health("Ready")) == {"state": "Ready"}
    found = json.loads(build_provisioning_health("NotReady", "ProvisioningFailed", "é" * 4000))
    assert found["state"] == "NotReady"
    assert found["details"]["subStatus"] == "ProvisioningFailed"
    assert len(json.dumps(found["details"]["description"])) - 2 <= MAX_DESCRIPTION
    assert found["details"]["description"].endswith("é...")
