"""The certificate helper as the resident agent uses it: a process that is asked once and leaves nothing but files."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys

import pytest
from cryptography import x509

from tests.unit.platform import blobs
from waagent import commands
from waagent.errors import CryptError
from waagent.log import Log, Sinks
from waagent.paths import Paths
from waagent.platform import certhelper, certificates
from waagent.platform.models import CertificateInfo
from waagent_fabric import crypto
from waagent_fabric.crypto import make_certificate, make_tenant_certificate
from waagent_fabric.pfx import build_pfx

DOCUMENT = """<?xml version="1.0" encoding="utf-8"?>
<CertificateFile xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xsi:noNamespaceSchemaLocation="certificates10.xsd">
  <Version>2012-11-30</Version><Incarnation>7</Incarnation><Format>Pkcs7BlobWithPfxContents</Format>
  <Data>{}</Data>
</CertificateFile>"""


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """A root with a transport key; made through the helper itself."""
    made = Paths(str(tmp_path_factory.mktemp("root")))
    assert certificates.transport_key(made, "MACHINE-1")
    return made


@pytest.fixture
def transport(paths):
    with open(paths.lib("TransportCert.pem"), "rb") as stream:
        return x509.load_pem_x509_certificate(stream.read())


@pytest.fixture(scope="module")
def tenant():
    return make_tenant_certificate()


def document(message: bytes) -> bytes:
    return DOCUMENT.format(base64.encodebytes(message).decode()).encode()


class Lines:
    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        pass


@pytest.fixture
def lines():
    return Lines()


@pytest.fixture
def log(lines):
    sinks = Sinks()
    sinks.stream = lines
    return Log(sinks, "Test")


def files(paths) -> list[str]:
    return sorted(name for name in os.listdir(paths.lib_dir) if name.endswith((".crt", ".prv", ".tmp", ".pem", ".pfx")))


@pytest.fixture(autouse=True)
def no_certificates_yet(paths):
    for name in files(paths):
        if name.endswith((".crt", ".prv")):
            os.unlink(paths.lib(name))


def test_the_transport_key_is_made_once(paths):
    assert not certificates.transport_key(paths, "MACHINE-1")
    assert certificates.transport_key(paths, "MACHINE-1", force=True)
    assert certificates.transport_key(paths, "MACHINE-2")


@pytest.mark.parametrize("cipher", ["AES128_CBC", "DES_EDE3_CBC"])
def test_certificates_are_written_as_handlers_look_for_them(paths, transport, tenant, cipher, tmp_path):
    vault = make_certificate("vault", kind="ec")
    ssh = make_certificate("ssh", slot="ssh", with_key=False)
    message = crypto.envelope_for_transport(build_pfx([tenant, vault, ssh]), transport, cipher)
    found = certificates.open_certificates(paths, document(message))
    assert found == (
        CertificateInfo(tenant.thumbprint, True),
        CertificateInfo(vault.thumbprint, True),
        CertificateInfo(ssh.thumbprint, False),
    )
    expected = [f"{c.thumbprint}{e}" for c in (tenant, vault) for e in (".crt", ".prv")] + [f"{ssh.thumbprint}.crt"]
    assert files(paths) == sorted([*expected, "TransportCert.pem", "TransportPrivate.pem"])
    for name in expected:
        assert os.stat(paths.lib(name)).st_mode & 0o777 == 0o600
    # What an extension does with them (wireserver §11.5).
    settings = tmp_path / "settings"
    settings.write_bytes(base64.b64decode(crypto.encrypt_protected_settings({"secret": "ü"}, tenant)))
    base = paths.lib(tenant.thumbprint)
    argv = ["-inform", "DER", "-decrypt", "-recip", base + ".crt", "-inkey", base + ".prv", "-in", str(settings)]
    for tool in ("cms", "smime"):
        assert json.loads(blobs.openssl(tool, *argv)) == {"secret": "ü"}


def test_the_bare_message_is_taken_too(paths, transport, tenant):
    message = crypto.envelope_for_transport(build_pfx([tenant]), transport, "AES128_CBC")
    assert certificates.open_certificates(paths, message) == (CertificateInfo(tenant.thumbprint, True),)


def test_a_document_without_data_holds_nothing(paths):
    assert certificates.open_certificates(paths, document(b"")) == ()


def test_equal_files_are_left_alone_and_others_replaced_and_none_removed(paths, transport, tenant):
    message = document(crypto.envelope_for_transport(build_pfx([tenant]), transport, "AES128_CBC"))
    certificates.open_certificates(paths, message)
    crt, prv = paths.lib(tenant.thumbprint + ".crt"), paths.lib(tenant.thumbprint + ".prv")
    older = paths.lib("0123456789ABCDEF0123456789ABCDEF01234567.prv")
    with open(older, "w") as stream:
        stream.write("of an earlier goal state")
    before = [os.stat(path) for path in (crt, prv)]
    os.chmod(prv, 0o644)
    certificates.open_certificates(paths, message)
    after = [os.stat(path) for path in (crt, prv)]
    assert [(s.st_ino, s.st_mtime_ns) for s in after] == [(s.st_ino, s.st_mtime_ns) for s in before]
    assert after[1].st_mode & 0o777 == 0o600
    with open(prv, "r+b") as stream:
        good = stream.read()
        stream.seek(100)
        stream.write(b"????")
    certificates.open_certificates(paths, message)
    with open(prv, "rb") as stream:
        assert stream.read() == good
    assert os.path.exists(older)


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(paths, transport, tenant, tmp_path):
    target = tmp_path / "target"
    target.write_text("untouched")
    os.symlink(target, paths.lib(tenant.thumbprint + ".crt"))
    certificates.open_certificates(paths, crypto.envelope_for_transport(build_pfx([tenant]), transport, "AES128_CBC"))
    assert target.read_text() == "untouched"
    assert not os.path.islink(paths.lib(tenant.thumbprint + ".crt"))


def test_a_file_that_cannot_be_written_is_worth_another_try(paths, transport, tenant):
    os.mkdir(paths.lib(f"{tenant.thumbprint}.crt"))
    message = crypto.envelope_for_transport(build_pfx([tenant]), transport, "AES128_CBC")
    try:
        with pytest.raises(CryptError, match="directory") as failed:
            certificates.open_certificates(paths, message)
    finally:
        os.rmdir(paths.lib(f"{tenant.thumbprint}.crt"))
    assert failed.value.passing


def test_what_was_odd_is_logged(paths, transport, tenant, log, lines):
    import attrs

    lonely = attrs.evolve(make_certificate("lonely", slot="lonely"), key_only=True)
    message = crypto.envelope_for_transport(build_pfx([tenant, lonely]), transport, "AES128_CBC")
    certificates.open_certificates(paths, message, log=log)
    assert "WARNING" in lines.text
    assert "1 private key has no certificate" in lines.text


def test_a_message_for_another_key_is_an_error_and_writes_nothing(paths, tenant):
    other = make_certificate("LinuxTransport", slot="other")
    before = files(paths)
    with pytest.raises(CryptError, match="open-certificates: the key does not open the message"):
        certificates.open_certificates(paths, crypto.envelope(build_pfx([tenant]), [other.certificate]))
    assert files(paths) == before


@pytest.mark.parametrize("data", [b"", b"<html/>", b"0\x80", DOCUMENT.format("!!!").encode(), b"\xff" * 100])
def test_what_is_no_document_is_an_error(paths, data):
    with pytest.raises(CryptError):
        certificates.open_certificates(paths, data)


def test_passwords_come_back(paths, transport):
    text = crypto.encrypt_password("Pässwörd1!", transport)
    assert certificates.decrypt_password(paths, text) == "Pässwörd1!"
    with pytest.raises(CryptError):
        certificates.decrypt_password(paths, "AAAA")


def test_a_missing_transport_key_is_said(tmp_path, tenant):
    with pytest.raises(CryptError, match=r"the transport key cannot be read: .*TransportPrivate\.pem"):
        certificates.open_certificates(Paths(str(tmp_path)), crypto.envelope(b"x", [tenant.certificate]))


def test_a_helper_that_dies_or_hangs_is_an_error(paths, monkeypatch, tmp_path):
    script = tmp_path / "helper.py"
    monkeypatch.setattr(certificates, "SCRIPT", str(script))
    script.write_text("raise SystemExit('gone wrong')")
    with pytest.raises(CryptError, match="ended with 1 without an answer: gone wrong") as failed:
        certificates.transport_key(paths)
    assert failed.value.passing
    script.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(certificates, "TIMEOUT", 0.5)
    with pytest.raises(CryptError, match="out of time"):
        certificates.transport_key(paths)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(CryptError, match="cannot be started"):
        certificates.transport_key(paths)


def test_nothing_secret_is_on_a_command_line(paths, transport, monkeypatch):
    seen = []
    real = commands.run

    def spy(argv, **more):
        seen.append(argv)
        return real(argv, **more)

    monkeypatch.setattr(commands, "run", spy)
    certificates.decrypt_password(paths, crypto.encrypt_password("secret", transport))
    assert seen == [[sys.executable, "-I", "-S", certificates.SCRIPT]]


def test_the_resident_side_loads_no_cryptography():
    code = (
        f"import sys; sys.path[:] = {sys.path!r}\n"
        "import waagent.platform.certificates\n"
        "print(sorted(n for n in sys.modules if n.partition('.')[0] in ('cryptography', 'ssl', 'cffi')))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("request_text", ["", "[]", "{}", '{"op": "no such", "lib_dir": "/tmp"}', "null", "nonsense"])
def test_a_request_that_makes_no_sense_gets_an_error(request_text):
    done = subprocess.run(
        [sys.executable, certificates.SCRIPT], input=request_text, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert set(json.loads(done.stdout)) == {"error"}


def test_a_document_on_disk_can_be_named(paths, transport, tenant):
    message = crypto.envelope_for_transport(build_pfx([tenant]), transport, "AES128_CBC")
    with open(paths.lib("Certificates.xml"), "wb") as stream:
        stream.write(document(message))
    request = {"op": "open-certificates", "lib_dir": paths.lib_dir, "document_path": paths.lib("Certificates.xml")}
    answer = certhelper.serve(request)
    assert answer == {"certificates": [{"thumbprint": tenant.thumbprint, "hasPrivateKey": True}], "warnings": []}


# Where the library lacks an algorithm


def test_an_unknown_content_cipher_is_left_to_openssl(paths, transport, tenant, tmp_path):
    recipient = crypto.Certificate(transport)
    pem = tmp_path / "transport.pem"
    pem.write_bytes(recipient.pem)
    argv = ["cms", "-encrypt", "-binary", "-outform", "DER", "-keyid", "-camellia128", "-recip", str(pem)]
    message = blobs.openssl(*argv, data=build_pfx([tenant]))
    assert certificates.open_certificates(paths, message) == (CertificateInfo(tenant.thumbprint, True),)
    assert not [name for name in files(paths) if name.endswith(".pfx")]
    with pytest.raises(CryptError, match=r"is not known; and openssl cannot open it: .*/nowhere/openssl"):
        certificates.open_certificates(paths, message, openssl="/nowhere/openssl")
    with pytest.raises(CryptError, match="which is not known"):
        certhelper.open_certificates(paths.lib_dir, message)


def test_rc2_of_40_bits_is_left_to_openssl(paths, transport, tenant, tmp_path):
    if subprocess.run(["openssl", "list", "-providers", "-provider", "legacy"], capture_output=True).returncode:
        pytest.skip("this openssl has no legacy provider")
    others = [make_certificate("CRP", slot="ca", with_key=False)]
    legacy = ("-legacy", "-certpbe", "PBE-SHA1-RC2-40", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1")
    message = crypto.envelope(blobs.pfx(str(tmp_path), tenant, *legacy, others=others), [transport])
    found = certificates.open_certificates(paths, message)
    assert found == (CertificateInfo(tenant.thumbprint, True), CertificateInfo(others[0].thumbprint, False))
    with open(paths.lib(tenant.thumbprint + ".prv"), "rb") as stream:
        assert stream.read() == tenant.key_pem
    with pytest.raises(CryptError, match="and openssl cannot read it"):
        certificates.open_certificates(paths, message, openssl="/bin/false")
