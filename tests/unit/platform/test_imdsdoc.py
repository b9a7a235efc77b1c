from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from waagent.errors import ProtocolError
from waagent.platform import imdsdoc

Captured = Callable[[str], bytes]


def instance(**interface: Any) -> bytes:
    found = {"macAddress": "000D3A", "ipv4": {"ipAddress": [{"privateIpAddress": "10.0.0.4"}]}, **interface}
    return json.dumps({"compute": {}, "network": {"interface": [found]}}).encode()


def test_captured_answer(captured: Captured) -> None:
    data = captured("imds/valid.json")
    imdsdoc.check_instance(data)
    compute = imdsdoc.parse_compute(data)
    assert (compute["location"], compute["vmId"]) == ("westus", "e7fdbfc4-2deb-4a4e-8615-ea6aaf50162e")
    assert imdsdoc.image_origin(compute) == imdsdoc.IMAGE_ENDORSED


def test_keys_lose_their_line_breaks() -> None:
    data = b'{"vmId": "x", "publicKeys": [{"keyData": "ssh-rsa AA\\r\\nBB\\n", "path": "/p"}, {"path": "/q"}, 5]}'
    assert imdsdoc.parse_compute(data) == {
        "vmId": "x",
        "publicKeys": [{"keyData": "ssh-rsa AABB", "path": "/p"}, {"path": "/q"}, 5],
    }


@pytest.mark.parametrize("data", [b"", b"[]", b"<html/>", b'"x"', b"{"])
def test_what_is_no_answer(data: bytes) -> None:
    with pytest.raises(ProtocolError, match=r"^IMDS compute: expected "):
        imdsdoc.parse_compute(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"<html/>", "IMDS instance: expected JSON"),
        (b"{}", r"^Missing field: \[network\]$"),
        (b'{"network": {}}', r"^Missing field: \[interface\]$"),
        (b'{"network": {"interface": []}}', r"^Missing field: \[0\]$"),
        (instance(macAddress=""), r"^Empty field: \[macAddress\]$"),
        (instance(ipv4={}), r"^Missing field: \[ipAddress\]$"),
        (instance(ipv4={"ipAddress": [{}]}), r"^Missing field: \[privateIpAddress\]$"),
        (instance(ipv4={"ipAddress": [{"privateIpAddress": ""}]}), r"^Empty field: \[privateIpAddress\]$"),
    ],
)
def test_answers_of_an_unhealthy_service(data: bytes, said: str) -> None:
    with pytest.raises(ProtocolError, match=said):
        imdsdoc.check_instance(data)


def test_a_healthy_answer_passes() -> None:
    imdsdoc.check_instance(instance())


@pytest.mark.parametrize(
    ("status", "exhausted", "unhealthy"),
    [
        (410, False, True),
        (410, True, True),
        (429, True, False),
        (None, True, False),
        (503, True, True),
        (500, False, True),
        (403, True, True),
        (404, False, False),
        (400, False, False),
    ],
)
def test_which_failures_count_against_the_service(status: int | None, exhausted: bool, unhealthy: bool) -> None:
    assert imdsdoc.IS_UNHEALTHY[imdsdoc.judge(status, exhausted=exhausted)] is unhealthy


def test_failure_messages() -> None:
    assert imdsdoc.failure("instance", "Throttled") == "IMDS error in /metadata/instance: Throttled"


@pytest.mark.parametrize(
    ("value", "expected"), [("true", True), ("False", False), (True, True), (False, False), (None, False), ("x", False)]
)
def test_booleans_are_texts(value: Any, expected: bool) -> None:
    assert imdsdoc.boolean(value) is expected


RULES = {"PUB": {"OFFER": {"Minimum": "6.3", "List": ["7-LVM"]}, "NESTED": {"STABLE": {"Minimum": "494.4"}}}}


@pytest.mark.parametrize(
    ("publisher", "offer", "sku", "version", "origin"),
    [
        ("", "OFFER", "7", "1", 1),
        ("pub", "offer", "6.3", "1", 2),
        ("pub", "offer", "6.10", "1", 2),
        ("pub", "offer", "7-lvm", "1", 2),
        ("pub", "offer", "6.2", "1", 3),
        ("pub", "offer", "daily", "1", 3),
        ("pub", "nested", "stable", "494.4.0", 2),
        ("pub", "nested", "stable", "494.3.9", 3),
        ("pub", "nested", "alpha", "600", 3),
        ("pub", "other", "7", "1", 3),
        ("pub", "nested", "stable", "daily", 3),
        ("other", "offer", "7", "1", 3),
    ],
)
def test_image_origin(publisher: str, offer: str, sku: str, version: str, origin: int) -> None:
    compute = {"publisher": publisher, "offer": offer, "sku": sku, "version": version}
    assert imdsdoc.image_origin(compute, RULES) == origin


@pytest.mark.parametrize(
    ("publisher", "offer", "sku", "origin"),
    [
        ("Canonical", "0001-com-ubuntu-server-jammy", "22_04-lts-gen2", 2),
        ("canonical", "ubuntu-24_04-lts", "server", 2),
        ("RedHat", "RHEL", "8_9", 2),
        ("RedHat", "RHEL", "6.6", 3),
        ("OpenLogic", "CentOS", "7-LVM", 2),
        ("Debian", "debian-12", "12-gen2", 2),
        ("SUSE", "sles-15-sp5", "gen2", 2),
        ("Contoso", "appliance", "1", 3),
    ],
)
def test_the_installed_list(publisher: str, offer: str, sku: str, origin: int) -> None:
    assert imdsdoc.image_origin({"publisher": publisher, "offer": offer, "sku": sku, "version": "1"}) == origin


def test_an_image_nobody_described() -> None:
    assert imdsdoc.image_origin(None) == imdsdoc.IMAGE_UNKNOWN
    assert imdsdoc.image_origin({}) == imdsdoc.IMAGE_CUSTOM
    assert imdsdoc.image_origin({"publisher": "pub"}, {"PUB": []}) == imdsdoc.IMAGE_UNKNOWN  # type: ignore[dict-item]
