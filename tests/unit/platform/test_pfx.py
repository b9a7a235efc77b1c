"""PKCS#12 files with an empty password: every certificate and every key of them, whatever wrote them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.platform import blobs
from waagent.errors import CryptError
from waagent.platform import pfx
from waagent.platform.cms import UnknownAlgorithm
from waagent_fabric import der as write
from waagent_fabric.crypto import make_certificate, make_tenant_certificate
from waagent_fabric.pfx import build_pfx

DATA = "1.2.840.113549.1.7.1"
BAG = "1.2.840.113549.1.12.10.1."


@pytest.fixture(scope="module")
def tenant():
    return make_tenant_certificate()


@pytest.fixture(scope="module")
def several(tenant):
    """What the platform delivers: the tenant's pair, a CA without key, Key Vault pairs, an SSH certificate."""
    return [
        tenant,
        make_certificate("CRP", slot="ca", with_key=False),
        make_certificate("vault rsa", slot="vault"),
        make_certificate("vault ec", kind="ec"),
        make_certificate("ssh", slot="ssh", with_key=False),
    ]


def found(bundle: pfx.Bundle) -> list[tuple[str, bool]]:
    return [(item.thumbprint, item.key is not None) for item in bundle.identities]


def expected(certificates) -> list[tuple[str, bool]]:
    return [(item.thumbprint, item.key is not None) for item in certificates]


def assert_keys_fit(bundle: pfx.Bundle, certificates) -> None:
    for identity, certificate in zip(bundle.identities, certificates):
        if identity.key is not None:
            assert identity.key.startswith(b"-----BEGIN PRIVATE KEY-----\n")
            loaded = serialization.load_pem_private_key(identity.key, None)
            assert loaded.private_numbers() == certificate.key.private_numbers()


@pytest.mark.parametrize("mac", [True, False])
@pytest.mark.parametrize("protection", ["3des", "aes", "none"])
@pytest.mark.parametrize("encrypted", [True, False])
def test_every_key_of_several_comes_with_its_certificate(several, mac, protection, encrypted):
    data = build_pfx(several, mac=mac, key_protection=protection, encrypt_certificates=encrypted)
    bundle = pfx.read(data)
    assert found(bundle) == expected(several)
    assert_keys_fit(bundle, several)
    assert bundle.warnings == ()


OPENSSL_FORMS = {
    "as it is": (),
    "3des and sha1": ("-keypbe", "PBE-SHA1-3DES", "-certpbe", "PBE-SHA1-3DES", "-macalg", "sha1"),
    "two-key 3des": ("-keypbe", "PBE-SHA1-2DES", "-certpbe", "PBE-SHA1-2DES", "-macalg", "sha1"),
    "aes-128": ("-keypbe", "AES-128-CBC", "-certpbe", "AES-128-CBC"),
    "aes-192": ("-keypbe", "AES-192-CBC", "-certpbe", "AES-192-CBC"),
    "pbes2 with 3des": ("-keypbe", "DES-EDE3-CBC", "-certpbe", "DES-EDE3-CBC"),
    "sha512 mac": ("-macalg", "sha512"),
    "no mac": ("-nomac",),
    "plain key": ("-keypbe", "NONE", "-certpbe", "NONE"),
    "one iteration": ("-noiter", "-nomaciter"),
    "many iterations": ("-iter", "100000"),
}


@pytest.mark.parametrize("kind", ["rsa", "ec"])
@pytest.mark.parametrize("form", OPENSSL_FORMS, ids=[name.replace(" ", "-") for name in OPENSSL_FORMS])
def test_what_openssl_writes_is_read(tmp_path, several, kind, form):
    certificate = several[2] if kind == "rsa" else several[3]
    others = [several[1], several[4]]
    data = blobs.pfx(str(tmp_path), certificate, *OPENSSL_FORMS[form], others=others)
    bundle = pfx.read(data)
    assert found(bundle) == expected([certificate, *others])
    assert_keys_fit(bundle, [certificate])
    assert bundle.warnings == ()


def test_a_wrong_mac_is_a_warning(several):
    data = build_pfx(several)
    # The MAC's salt is the last octet string before the iterations.
    broken = data[:-10] + bytes([data[-10] ^ 1]) + data[-9:]
    bundle = pfx.read(broken)
    assert found(bundle) == expected(several)
    assert len(bundle.warnings) == 1
    assert "MAC" in bundle.warnings[0]


def test_a_mac_of_an_unknown_kind_is_a_warning(tenant):
    data = build_pfx([tenant])
    odd = data.replace(write.oid("1.3.14.3.2.26"), write.oid("1.3.14.3.2.99"))
    bundle = pfx.read(odd)
    assert found(bundle) == expected([tenant])
    assert "cannot be checked" in bundle.warnings[0]


def derived_bag(key: bytes, password: bytes) -> bytes:
    """A key bag as a writer makes it that encodes the empty password as *password*."""
    from waagent_fabric.crypto import encrypt_cbc, triple_des
    from waagent_fabric.pfx import derive

    salt = os.urandom(8)
    content = encrypt_cbc(triple_des(derive(1, salt, 24, 2000, password)), derive(2, salt, 8, 2000, password), key)
    named = write.algorithm("1.2.840.113549.1.12.1.3", write.sequence(write.octets(salt), write.integer(2000)))
    return bag("2", write.sequence(named, write.octets(content)))


def bag(kind: str, value: bytes) -> bytes:
    return write.sequence(write.oid(BAG + kind), write.explicit(0, value))


def certificate_bag(certificate) -> bytes:
    return bag(
        "3", write.sequence(write.oid("1.2.840.113549.1.9.22.1"), write.explicit(0, write.octets(certificate.der)))
    )


def file_of(*bags: bytes) -> bytes:
    part = write.sequence(write.oid(DATA), write.explicit(0, write.octets(write.sequence(*bags))))
    content = write.sequence(write.oid(DATA), write.explicit(0, write.octets(write.sequence(part))))
    return write.sequence(write.integer(3), content)


@pytest.mark.parametrize("password", [b"\0\0", b""])
def test_both_encodings_of_the_empty_password_are_tried(tenant, password):
    bundle = pfx.read(file_of(certificate_bag(tenant), derived_bag(tenant.key_der, password)))
    assert found(bundle) == [(tenant.thumbprint, True)]


@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("salt", [1, 8, 20, 64, 65, 200])
@pytest.mark.parametrize("wanted", [8, 24, 150])
def test_the_key_derivation_is_that_of_the_standard(digest, salt, wanted):
    value = os.urandom(salt)
    options = {"digest": digest, "hexpass": "0000", "hexsalt": value.hex(), "iter": "5", "id": "1"}
    argv = [word for name, text in options.items() for word in ("-kdfopt", f"{name}:{text}")]
    theirs = blobs.openssl("kdf", "-keylen", str(wanted), "-binary", *argv, "PKCS12KDF")
    assert pfx.derive(b"\0\0", value, 5, 1, wanted, digest) == theirs


def test_a_key_without_a_certificate_is_a_warning_and_the_rest_is_kept(several):
    import attrs

    lonely = attrs.evolve(make_certificate("lonely", slot="lonely"), key_only=True)
    bundle = pfx.read(build_pfx([several[0], lonely, several[3]]))
    assert found(bundle) == expected([several[0], several[3]])
    assert bundle.warnings == ("1 private key has no certificate and cannot be used",)


def test_one_odd_key_spoils_no_other(several):
    tenant, vault = several[0], several[2]
    damaged = bag("1", write.sequence(write.integer(0), write.octets(b"nonsense")))
    bundle = pfx.read(
        file_of(certificate_bag(tenant), damaged, derived_bag(tenant.key_der, b"\0\0"), certificate_bag(vault))
    )
    assert found(bundle) == [(tenant.thumbprint, True), (vault.thumbprint, False)]
    assert len(bundle.warnings) == 1
    assert "private key 1 is passed over" in bundle.warnings[0]


def test_a_certificate_that_comes_twice_is_there_once(tenant):
    bundle = pfx.read(file_of(certificate_bag(tenant), certificate_bag(tenant)))
    assert found(bundle) == [(tenant.thumbprint, False)]


def test_bags_within_bags_are_found(tenant):
    inner = bag("6", write.sequence(certificate_bag(tenant), bag("1", tenant.key_der)))
    assert found(pfx.read(file_of(inner))) == [(tenant.thumbprint, True)]


def test_an_empty_file_holds_nothing():
    bundle = pfx.read(file_of())
    assert (bundle.identities, bundle.warnings, bundle.unknown) == ((), (), ())


def test_a_password_that_is_not_empty_is_said(tmp_path, tenant):
    data = blobs.pfx(str(tmp_path), tenant, "-passout", "pass:secret")
    with pytest.raises(CryptError, match="empty password"):
        pfx.read(data)


def test_rc2_of_40_bits_is_told_apart_for_another_tool(tmp_path, several):
    if subprocess.run(["openssl", "list", "-providers", "-provider", "legacy"], capture_output=True).returncode:
        pytest.skip("this openssl has no legacy provider to write RC2 with")
    legacy = ("-legacy", "-certpbe", "PBE-SHA1-RC2-40", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1")
    with pytest.raises(UnknownAlgorithm, match=r"1\.2\.840\.113549\.1\.12\.1\.6"):
        pfx.read(blobs.pfx(str(tmp_path), several[2], *legacy))


def test_what_is_partly_unknown_is_read_in_part_and_says_so(tenant):
    strange = bag(
        "2", write.sequence(write.algorithm("1.2.3.4", write.sequence(write.null(), write.null())), write.octets(b"x"))
    )
    bundle = pfx.read(file_of(certificate_bag(tenant), strange))
    assert found(bundle) == [(tenant.thumbprint, False)]
    assert "1.2.3.4" in bundle.unknown[0]


def test_endless_key_derivations_are_refused(tenant):
    def hungry(iterations: int) -> bytes:
        named = write.algorithm(
            "1.2.840.113549.1.12.1.3", write.sequence(write.octets(b"s"), write.integer(iterations))
        )
        return bag("2", write.sequence(named, write.octets(bytes(64))))

    begun = time.process_time()
    bundle = pfx.read(file_of(certificate_bag(tenant), *[hungry(1 << 30)] * 50, *[hungry(0)] * 50))
    assert found(bundle) == [(tenant.thumbprint, False)]
    assert any("too long" in warning for warning in bundle.warnings)
    with pytest.raises(CryptError):
        pfx.read(file_of(*[hungry(100_000)] * 500))
    assert time.process_time() - begun < 20


def test_too_many_bags_are_refused(tenant):
    bundle = pfx.read(file_of(certificate_bag(tenant), *[bag("5", write.sequence())] * 2000))
    assert found(bundle) == [(tenant.thumbprint, False)]
    assert "the PFX file holds too many bags" in bundle.warnings
    assert len(bundle.warnings) < 20


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_mutated_files_raise_nothing_else(tenant, data):
    content = bytearray(build_pfx([tenant], key_protection=data.draw(st.sampled_from(["3des", "aes", "none"]))))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.integers(0, 2))
        if kind == 0:
            content[at] = data.draw(st.integers(0, 255))
        elif kind == 1:
            del content[at : at + data.draw(st.integers(1, 40))]
        else:
            content[at:at] = data.draw(st.binary(max_size=20))
        if not content:
            break
    begun = time.process_time()
    try:
        bundle = pfx.read(bytes(content))
    except CryptError:
        pass
    else:
        for identity in bundle.identities:
            assert identity.thumbprint == hashlib.sha1(identity.certificate).hexdigest().upper()
    assert time.process_time() - begun < 20


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_else(noise):
    for data in (noise, file_of(noise), file_of(bag("2", noise), bag("3", noise), bag("1", noise), bag("6", noise))):
        try:
            pfx.read(data)
        except CryptError:
            pass
