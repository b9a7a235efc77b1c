"""Everything the fabric encrypts is opened again with the openssl command, as handlers and other agents do."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from waagent_fabric import crypto

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


@pytest.fixture(scope="module")
def transport():
    return crypto.make_certificate("LinuxTransport", slot="transport")


def open_with_openssl(folder, holder, message: bytes, *, named: bool = True) -> bytes:
    folder.joinpath("cert.pem").write_bytes(holder.pem)
    folder.joinpath("key.pem").write_bytes(holder.key_pem)
    folder.joinpath("message.der").write_bytes(message)
    command = ["openssl", "cms", "-decrypt", "-inform", "DER", "-in", "message.der", "-inkey", "key.pem"]
    if named:
        command += ["-recip", "cert.pem"]
    return subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout


def describe(folder, message: bytes) -> str:
    folder.joinpath("message.der").write_bytes(message)
    command = ["openssl", "cms", "-cmsout", "-print", "-inform", "DER", "-in", "message.der"]
    return subprocess.run(command, cwd=folder, capture_output=True, check=True, text=True).stdout


@pytest.mark.parametrize("cipher", crypto.CIPHERS)
@pytest.mark.parametrize("oaep", [False, True])
@pytest.mark.parametrize("issuer_and_serial", [False, True])
@pytest.mark.parametrize("text", [b"", b"short", bytes(range(256)) * 64], ids=["empty", "short", "long"])
def test_every_variant_of_an_envelope_opens(tmp_path, transport, cipher, oaep, issuer_and_serial, text):
    message = crypto.envelope(
        text, [transport.certificate], cipher=cipher, oaep=oaep, issuer_and_serial=issuer_and_serial
    )
    assert open_with_openssl(tmp_path, transport, message) == text


@pytest.mark.parametrize(
    ("cipher", "key_algorithm", "content_algorithm"),
    [("AES128_CBC", "rsaesOaep", "aes-128-cbc"), ("DES_EDE3_CBC", "rsaEncryption", "des-ede3-cbc")],
)
def test_the_answer_for_a_cipher_is_encoded_as_on_the_platform(
    tmp_path, transport, cipher, key_algorithm, content_algorithm
):
    message = crypto.envelope_for_transport(b"x", transport.certificate, cipher)
    text = describe(tmp_path, message)
    assert "contentType: pkcs7-envelopedData (1.2.840.113549.1.7.3)" in text
    assert text.count("version: 2") == 2, "of the envelope and of the recipient"
    assert "d.subjectKeyIdentifier" in text
    assert f"algorithm: {key_algorithm}" in text
    assert f"algorithm: {content_algorithm}" in text


def test_protected_settings_name_issuer_and_serial(tmp_path):
    tenant = crypto.make_tenant_certificate()
    message = base64.b64decode(crypto.encrypt_protected_settings({"password": "geheim ü"}, tenant))
    text = describe(tmp_path, message)
    assert "d.issuerAndSerialNumber" in text
    assert f"DC={crypto.TENANT_SUBJECT}" in text.replace("DC = ", "DC=")
    assert text.count("version: 0") == 2
    assert json.loads(open_with_openssl(tmp_path, tenant, message)) == {"password": "geheim ü"}


def test_protected_settings_of_a_fips_platform(tmp_path):
    tenant = crypto.make_tenant_certificate()
    message = base64.b64decode(crypto.encrypt_protected_settings({"a": 1}, tenant, cipher="AES256_CBC"))
    assert "algorithm: aes-256-cbc" in describe(tmp_path, message)
    assert json.loads(open_with_openssl(tmp_path, tenant, message)) == {"a": 1}


def test_each_of_several_recipients_can_open(tmp_path, transport):
    tenant = crypto.make_tenant_certificate()
    message = crypto.envelope(b"for both", [transport.certificate, tenant.certificate], cipher="AES128_CBC", oaep=True)
    for holder in (transport, tenant):
        assert open_with_openssl(tmp_path, holder, message) == b"for both"


def test_a_stranger_cannot_open(tmp_path, transport):
    message = crypto.envelope(b"secret", [transport.certificate])
    stranger = crypto.make_certificate("stranger", slot="stranger")
    with pytest.raises(subprocess.CalledProcessError):
        open_with_openssl(tmp_path, stranger, message)


def test_remote_access_password_is_utf16_for_the_transport_key(tmp_path, transport):
    message = base64.b64decode(crypto.encrypt_password("pässwörd", transport.certificate))
    assert open_with_openssl(tmp_path, transport, message).decode("utf-16-le") == "pässwörd"
    assert "d.subjectKeyIdentifier" in describe(tmp_path, message)


def test_thumbprint_is_what_openssl_calls_it(tmp_path, transport):
    tmp_path.joinpath("c.pem").write_bytes(transport.pem)
    command = ["openssl", "x509", "-in", "c.pem", "-noout", "-fingerprint", "-sha1"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, text=True).stdout
    assert printed.strip().partition("=")[2].replace(":", "") == transport.thumbprint


def header_of(certificate: x509.Certificate) -> str:
    return base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()


def test_transport_certificate_is_read(transport):
    assert crypto.read_transport_certificate(header_of(transport.certificate)) == transport.certificate


def without_identifier() -> x509.Certificate:
    made = crypto.make_certificate("no identifier", slot="transport")
    builder = (
        x509.CertificateBuilder()
        .subject_name(made.certificate.subject)
        .issuer_name(made.certificate.issuer)
        .public_key(made.certificate.public_key())
        .serial_number(7)
        .not_valid_before(x509_time(made, "before"))
        .not_valid_after(x509_time(made, "after"))
    )
    return builder.sign(made.key, hashes.SHA256())


def x509_time(made, which):
    name = f"not_valid_{which}"
    return getattr(made.certificate, f"{name}_utc", None) or getattr(made.certificate, name)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (lambda: header_of(crypto.make_certificate("t", slot="transport").certificate)[:64], "not base64 of a DER"),
        (lambda: "!" * 16, "not base64 of a DER"),
        (lambda: "AA AA", "one line"),
        (lambda: header_of(crypto.make_certificate("ec", kind="ec").certificate), "not RSA"),
        (lambda: header_of(without_identifier()), "no SubjectKeyIdentifier"),
    ],
    ids=["cut", "no base64", "blanks", "wrong key", "no identifier"],
)
def test_unusable_transport_certificates_are_refused(header, reason):
    with pytest.raises(crypto.BadTransportCertificate, match=reason):
        crypto.read_transport_certificate(header())


def test_certificates_of_unknown_kind_are_refused():
    with pytest.raises(ValueError, match="neither rsa nor ec"):
        crypto.make_certificate("x", kind="dsa")
