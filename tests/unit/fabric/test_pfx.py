"""PKCS#12 files of the fabric, opened again with the openssl command."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from waagent_fabric import crypto, pfx

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")


def openssl(folder, data: bytes, *options: str) -> str:
    folder.joinpath("file.pfx").write_bytes(data)
    command = ["openssl", "pkcs12", "-nodes", "-password", "pass:", "-in", "file.pfx", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, check=True, text=True).stdout


def blocks(text: str, word: str) -> list[bytes]:
    return [found.encode() for found in re.findall(f"-----BEGIN {word}-----.*?-----END {word}-----", text, re.DOTALL)]


@pytest.fixture(scope="module")
def several():
    return [
        crypto.make_tenant_certificate(),
        crypto.make_certificate("CRP", kind="ec", with_key=False),
        crypto.make_certificate("vault rsa", slot="vault"),
        crypto.make_certificate("vault ec", kind="ec"),
    ]


@pytest.mark.parametrize("mac", [True, False])
@pytest.mark.parametrize("key_protection", pfx.KEY_PROTECTIONS)
@pytest.mark.parametrize("encrypt_certificates", [False, True])
def test_every_key_and_certificate_comes_out_again(tmp_path, several, mac, key_protection, encrypt_certificates):
    data = pfx.build_pfx(several, mac=mac, key_protection=key_protection, encrypt_certificates=encrypt_certificates)
    text = openssl(tmp_path, data, *([] if mac else ["-nomacver"]))
    found = {x509.load_pem_x509_certificate(block) for block in blocks(text, "CERTIFICATE")}
    assert found == {item.certificate for item in several}
    keys = [serialization.load_pem_private_key(block, None) for block in blocks(text, "PRIVATE KEY")]
    assert [type(key) for key in keys] == [type(item.key) for item in several if item.key is not None]
    numbers = {key.public_key().public_numbers() for key in keys}
    assert numbers == {item.certificate.public_key().public_numbers() for item in several if item.key is not None}
    assert {isinstance(key, rsa.RSAPrivateKey) for key in keys} == {True, False}
    assert any(isinstance(key, ec.EllipticCurvePrivateKey) for key in keys)


def test_the_mac_is_checked_by_openssl(tmp_path, several):
    data = bytearray(pfx.build_pfx(several))
    data[-30] ^= 1  # inside the MAC
    with pytest.raises(subprocess.CalledProcessError):
        openssl(tmp_path, bytes(data))


def test_protection_is_that_of_the_platform(tmp_path, several):
    tmp_path.joinpath("file.pfx").write_bytes(pfx.build_pfx(several))
    command = ["openssl", "pkcs12", "-info", "-nodes", "-password", "pass:", "-in", "file.pfx"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, text=True).stderr
    assert "MAC: sha1, Iteration 2000" in shown
    assert "pbeWithSHA1And3-KeyTripleDES-CBC, Iteration 2000" in shown


def test_friendly_names(tmp_path, several):
    assert "friendlyName: TenantEncryptionCert" in openssl(tmp_path, pfx.build_pfx(several))


def test_a_key_without_its_certificate(tmp_path):
    lonely = crypto.make_certificate("lonely", kind="ec")
    data = pfx.build_pfx([crypto.Certificate(lonely.certificate, lonely.key, "lonely", key_only=True)])
    text = openssl(tmp_path, data)
    assert len(blocks(text, "PRIVATE KEY")) == 1
    assert blocks(text, "CERTIFICATE") == []


def test_unknown_protection_is_refused(several):
    with pytest.raises(ValueError, match="none of"):
        pfx.build_pfx(several, key_protection="rot13")
