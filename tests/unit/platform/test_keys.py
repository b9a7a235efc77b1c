"""The transport key pair: its form, and when it is kept or made anew."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.unit.platform import blobs
from waagent.errors import CryptError
from waagent.platform import cms, keys
from waagent_fabric import crypto

NOW = dt.datetime(2026, 3, 1, 12, 30, tzinfo=dt.timezone.utc)
MACHINE = "B1C2D3E4-0000-1111-2222-333344445555"


@pytest.fixture
def lib(tmp_path):
    return str(tmp_path / "lib" / "waagent")


def make(lib: str, vm_id: str | None = MACHINE, **more) -> bool:
    more.setdefault("now", NOW)
    return keys.ensure_transport_key(lib, vm_id, **more)


def certificate(lib: str) -> bytes:
    with open(os.path.join(lib, "TransportCert.pem"), "rb") as stream:
        return stream.read()


def test_the_pair_has_the_form_that_the_platform_needs(lib):
    assert make(lib)
    path = os.path.join(lib, "TransportCert.pem")
    text = blobs.openssl("x509", "-in", path, "-noout", "-text").decode()
    assert "Version: 3" in text
    assert "Issuer: CN = LinuxTransport" in text or "Issuer: CN=LinuxTransport" in text
    assert "sha256WithRSAEncryption" in text
    assert "Public-Key: (2048 bit)" in text
    assert "Exponent: 65537" in text
    assert "X509v3 Basic Constraints: critical\n                CA:TRUE" in text
    cert = x509.load_pem_x509_certificate(certificate(lib))
    assert cert.subject == cert.issuer
    public = cert.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    identifier = cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    assert identifier == hashlib.sha1(public).digest()
    authority = cert.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert authority == identifier
    begin, end = keys._validity(cert)
    assert (begin, end - begin) == (NOW, dt.timedelta(days=730))
    blobs.openssl("verify", "-CAfile", path, "-attime", str(int(NOW.timestamp()) + 60), path)
    with open(os.path.join(lib, "TransportPrivate.pem"), "rb") as stream:
        assert stream.read().startswith(b"-----BEGIN PRIVATE KEY-----\n")


def test_nobody_else_may_read_it(lib):
    make(lib)
    assert os.stat(lib).st_mode & 0o777 == 0o700
    for name in ("TransportPrivate.pem", "TransportCert.pem", "transport-key.json"):
        assert os.stat(os.path.join(lib, name)).st_mode & 0o777 == 0o600
    os.chmod(os.path.join(lib, "TransportPrivate.pem"), 0o644)
    assert not make(lib)
    assert os.stat(os.path.join(lib, "TransportPrivate.pem")).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("vm_id", [MACHINE, MACHINE.lower(), None, ""])
def test_a_good_pair_of_this_machine_is_kept(lib, vm_id):
    make(lib)
    before = certificate(lib)
    assert not make(lib, vm_id, now=NOW + dt.timedelta(days=600))
    assert certificate(lib) == before


@pytest.mark.parametrize("days", [-1, 701, 5000])
def test_a_pair_that_is_about_to_end_or_not_yet_valid_is_replaced(lib, days):
    make(lib)
    before = certificate(lib)
    assert make(lib, now=NOW + dt.timedelta(days=days))
    assert certificate(lib) != before


def test_a_copied_machine_gets_a_pair_of_its_own(lib):
    make(lib)
    assert make(lib, "ANOTHER-MACHINE")
    assert not make(lib, "ANOTHER-MACHINE")
    assert make(lib, MACHINE)


def test_an_identity_that_becomes_known_later_is_remembered(lib):
    make(lib, None)
    assert not make(lib, MACHINE)
    assert make(lib, "ANOTHER-MACHINE")


def test_force_makes_a_new_pair(lib):
    make(lib)
    assert make(lib, force=True)


def damage(lib: str, how: str) -> None:
    key, cert = os.path.join(lib, "TransportPrivate.pem"), os.path.join(lib, "TransportCert.pem")
    if how == "no key":
        os.unlink(key)
    elif how == "no certificate":
        os.unlink(cert)
    elif how == "key cut":
        os.truncate(key, 500)
    elif how == "certificate empty":
        os.truncate(cert, 0)
    elif how == "not a pair":
        with open(key, "wb") as stream:
            stream.write(keys.make_pair(NOW)[0])
    elif how == "no key id":
        argv = ["req", "-x509", "-new", "-key", key, "-subj", "/CN=LinuxTransport", "-days", "730"]
        data = blobs.openssl(*argv, "-addext", "subjectKeyIdentifier=none", "-addext", "authorityKeyIdentifier=none")
        with open(cert, "wb") as stream:
            stream.write(data)
    elif how == "small key":
        argv = ["req", "-x509", "-nodes", "-newkey", "rsa:1024", "-subj", "/CN=LinuxTransport", "-days", "730"]
        blobs.openssl(*argv, "-keyout", key, "-out", cert)
    elif how == "elliptic key":
        argv = ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        blobs.openssl(*argv, "-subj", "/CN=LinuxTransport", "-days", "730", "-keyout", key, "-out", cert)
    else:
        raise AssertionError(how)


@pytest.mark.parametrize(
    "how",
    [
        "no key",
        "no certificate",
        "key cut",
        "certificate empty",
        "not a pair",
        "no key id",
        "small key",
        "elliptic key",
    ],
)
def test_a_pair_that_is_no_good_is_replaced(lib, how):
    now = dt.datetime.now(dt.timezone.utc)
    make(lib, now=now)
    damage(lib, how)
    later = now + dt.timedelta(seconds=60)
    assert make(lib, now=later)
    assert not make(lib, now=later)
    key, der = keys.load_pair(lib)
    message = crypto.envelope(b"hello", [x509.load_der_x509_certificate(der)])
    assert cms.decrypt(message, key, der) == b"hello"


def test_the_pair_of_the_former_agent_is_kept(lib):
    """It was made by the openssl command, and is 0400 there."""
    os.makedirs(lib)
    key, cert = os.path.join(lib, "TransportPrivate.pem"), os.path.join(lib, "TransportCert.pem")
    argv = ["req", "-x509", "-nodes", "-subj", "/CN=LinuxTransport", "-days", "730", "-newkey", "rsa:2048"]
    blobs.openssl(*argv, "-keyout", key, "-out", cert)
    os.chmod(key, 0o400)
    assert not make(lib, now=dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=60))


@pytest.mark.parametrize("state", ["", "[]", "{", '{"schema": 9, "vmId": "X"}', '{"schema": 1, "vmId": 7}'])
def test_a_damaged_record_of_the_machine_costs_no_more_than_the_record(lib, state):
    make(lib)
    path = os.path.join(lib, "transport-key.json")
    with open(path, "w") as stream:
        stream.write(state)
    assert not make(lib)
    with open(path) as stream:
        assert json.load(stream) == {"schema": 1, "vmId": MACHINE}


def test_a_missing_pair_is_said_when_it_is_needed(lib):
    with pytest.raises(CryptError, match="cannot be read"):
        keys.load_pair(lib)
    make(lib)
    damage(lib, "key cut")
    with pytest.raises(CryptError, match="damaged"):
        keys.load_pair(lib)
