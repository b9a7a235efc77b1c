"""A client that speaks the protocol byte for byte, to talk to the fabric as an agent does."""

from __future__ import annotations

import base64
import html
import re
import uuid

import pytest
import requests

from waagent_fabric import crypto

WIRE = {"x-ms-agent-name": "WALinuxAgent", "x-ms-version": "2012-11-30"}
XML = {**WIRE, "Content-Type": "text/xml;charset=utf-8"}


class Client:
    """An agent's half of the conversation, on requests."""

    WIRE = WIRE
    XML = XML

    def __init__(self, fabric):
        self.fabric = fabric
        self.session = requests.Session()
        self.session.trust_env = False
        self.transport = crypto.make_certificate("LinuxTransport", slot="transport")

    def wire(self, path, method="GET", headers=WIRE, **options):
        return self.session.request(
            method, f"http://{self.fabric.wireserver}{path}", headers=headers, timeout=30, **options
        )

    def goal_state(self):
        return self.wire("/machine/?comp=goalstate").text

    def field(self, tag):
        found = re.search(f"<{tag}>(.*?)</{tag}>", self.goal_state(), re.DOTALL)
        return html.unescape(found.group(1)).strip() if found else None

    def part(self, tag, **headers):
        return self.session.get(self.field(tag), headers={**WIRE, **headers}, timeout=30)

    @property
    def identity(self):
        return {"x-ms-containerid": self.field("ContainerId"), "x-ms-host-config-name": self.field("ConfigName")}

    def host(self, path, method="GET", identity=None, *, version="2015-09-01", headers=None, **options):
        given = {"x-ms-version": version, **(self.identity if identity is None else identity), **(headers or {})}
        given = {name: value for name, value in given.items() if value is not None}
        return self.session.request(
            method, f"http://{self.fabric.host_plugin}{path}", headers=given, timeout=30, **options
        )

    def vm_settings(self, **headers):
        given = {"x-ms-client-correlationid": str(uuid.uuid4()), **headers}
        return self.host("/vmSettings", headers=given)

    def secret_headers(self, cipher=None):
        found = {"x-ms-guest-agent-public-x509-cert": base64.b64encode(self.transport.der).decode()}
        if cipher is not None:
            found["x-ms-cipher-name"] = cipher
        return found

    def certificates(self, cipher=None):
        return self.part("Certificates", **self.secret_headers(cipher))

    def artifact(self, url, **headers):
        return self.host("/extensionArtifact", headers={"x-ms-artifact-location": url, **headers})

    def location(self, name):
        text = self.part("ExtensionsConfig").text
        return html.unescape(re.search(f'name="{re.escape(name)}"[^>]* location="([^"]*)"', text).group(1))

    def status_url(self):
        found = re.search("<StatusUploadBlob[^>]*>(.*?)<", self.part("ExtensionsConfig").text)
        return html.unescape(found.group(1))


@pytest.fixture
def client(fabric):
    made = Client(fabric)
    yield made
    made.session.close()


@pytest.fixture
def clean(fabric):
    """The test must end without a violation."""
    yield
    assert [str(violation) for violation in fabric.violations] == []


def violated(fabric):
    """Return the texts of the violations so far and forget them."""
    found = [violation.text for violation in fabric.violations]
    fabric.violations.clear()
    return found


@pytest.fixture(name="violated")
def violated_fixture(fabric):
    return lambda: violated(fabric)
