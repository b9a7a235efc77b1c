"""Messages in every form that the platform uses are opened, and nothing else than a CryptError comes of bad ones."""

from __future__ import annotations

import base64
import json
import os
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.platform import blobs
from waagent.errors import CryptError
from waagent.platform import cms, der
from waagent_fabric import crypto
from waagent_fabric.crypto import make_certificate, make_tenant_certificate

SECRET = b"the content of the message, longer than one block"


@pytest.fixture(scope="module")
def mine():
    return make_certificate("LinuxTransport", slot="mine")


@pytest.fixture(scope="module")
def other():
    return make_certificate("Somebody else", slot="other")


def opened(message: bytes, certificate) -> bytes:
    return cms.decrypt(message, certificate.key, certificate.der)


@pytest.mark.parametrize("cipher", blobs.CIPHERS)
@pytest.mark.parametrize("key_id", [True, False])
@pytest.mark.parametrize("oaep", ["", "sha1", "sha256"])
def test_what_openssl_encrypts_is_opened(tmp_path, mine, cipher, key_id, oaep):
    message = blobs.envelope(str(tmp_path), SECRET, [mine], cipher=cipher, oaep=oaep, key_id=key_id)
    assert opened(message, mine) == SECRET


@pytest.mark.parametrize(
    ("cipher", "oaep", "issuer_and_serial"),
    [
        ("AES128_CBC", True, False),  # certificates, first request
        ("DES_EDE3_CBC", False, False),  # certificates, second request; just-in-time passwords
        ("DES_EDE3_CBC", False, True),  # protected settings
        ("AES256_CBC", False, True),  # protected settings of FIPS platforms
    ],
)
def test_each_row_of_the_platforms_encodings_is_opened(mine, cipher, oaep, issuer_and_serial):
    message = crypto.envelope(SECRET, [mine.certificate], cipher=cipher, oaep=oaep, issuer_and_serial=issuer_and_serial)
    assert opened(message, mine) == SECRET


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 100_000])
@pytest.mark.parametrize("streamed", [True, False])
def test_any_length_and_indefinite_lengths_in_pieces(tmp_path, mine, size, streamed):
    data = os.urandom(size)
    message = blobs.envelope(str(tmp_path), data, [mine], cipher="aes-128-cbc", key_id=True, streamed=streamed)
    assert (message[1] == 0x80) is streamed
    assert opened(message, mine) == data


@pytest.mark.parametrize("key_id", [True, False])
def test_the_right_one_of_several_recipients_is_found(tmp_path, mine, other, key_id):
    third = make_certificate("A third", slot="third")
    message = blobs.envelope(str(tmp_path), SECRET, [other, mine, third], key_id=key_id)
    for certificate in (mine, other, third):
        assert opened(message, certificate) == SECRET


def test_a_recipient_under_another_name_is_tried(tmp_path, mine):
    """The same key under a new certificate: nothing matches, and a look at the key says that it fits."""
    renamed = make_certificate("LinuxTransport renewed", slot="mine")
    message = blobs.envelope(str(tmp_path), SECRET, [mine])
    assert cms.decrypt(message, mine.key, renamed.der) == SECRET


@pytest.mark.parametrize("oaep", ["", "sha1"])
def test_the_wrong_key_is_an_error_of_ours(tmp_path, mine, other, oaep):
    message = blobs.envelope(str(tmp_path), SECRET, [other], oaep=oaep, key_id=True)
    with pytest.raises(CryptError):
        opened(message, mine)


def test_the_wrong_key_for_a_recipient_that_names_the_certificate_is_too(mine, other):
    message = crypto.envelope(SECRET, [mine.certificate])
    with pytest.raises(CryptError):
        cms.decrypt(message, other.key, mine.der)


def test_an_unknown_cipher_is_told_apart(tmp_path, mine):
    message = blobs.envelope(str(tmp_path), SECRET, [mine], cipher="camellia-128-cbc")
    with pytest.raises(cms.UnknownAlgorithm, match=r"1\.2\.392\.200011\.61\.1\.1\.1\.2"):
        opened(message, mine)


def test_what_is_no_enveloped_data_says_so(tmp_path, mine):
    path, key = blobs.write_pair(str(tmp_path), "signer", mine)
    signed = blobs.openssl("cms", "-sign", "-outform", "DER", "-signer", path, "-inkey", key, data=SECRET)
    with pytest.raises(CryptError, match=r"holds content type 1\.2\.840\.113549\.1\.7\.2"):
        opened(signed, mine)
    with pytest.raises(CryptError):
        opened(b"", mine)
    with pytest.raises(CryptError):
        opened(b"0" * 100, mine)


def test_protected_settings_are_opened_as_json(tmp_path):
    tenant = make_tenant_certificate()
    value = {"commandToExecute": "echo ü", "list": [1, None]}
    for text in (
        crypto.encrypt_protected_settings(value, tenant),
        crypto.encrypt_protected_settings(value, tenant, cipher="AES256_CBC"),
        base64.encodebytes(blobs.envelope(str(tmp_path), json.dumps(value).encode(), [tenant])).decode(),
    ):
        assert cms.open_protected_settings(text, tenant.key, tenant.der) == value
    broken = base64.b64encode(crypto.envelope(b"not json", [tenant.certificate])).decode()
    with pytest.raises(CryptError, match="no JSON"):
        cms.open_protected_settings(broken, tenant.key, tenant.der)


@pytest.mark.parametrize(
    "encoded",
    ["Pässwörd1 ".encode("utf-16-le"), "Pässwörd1 ".encode("utf-16"), b"\xfe\xff" + "Pässwörd1 ".encode("utf-16-be")],
)
def test_passwords_are_utf_16_with_or_without_a_mark(mine, encoded):
    text = base64.b64encode(crypto.envelope(encoded, [mine.certificate])).decode()
    assert cms.open_password(text, mine.key, mine.der) == "Pässwörd1 "


@pytest.mark.parametrize("text", ["not base64!", "AAA", "ü", base64.b64encode(b"no message").decode(), ""])
def test_a_password_that_cannot_be_read_is_an_error_of_ours(mine, text):
    with pytest.raises(CryptError):
        cms.open_password(text, mine.key, mine.der)


def test_a_password_that_is_not_text_is_an_error_of_ours(mine):
    odd = base64.b64encode(crypto.envelope(b"abc", [mine.certificate])).decode()
    with pytest.raises(CryptError, match="UTF-16"):
        cms.open_password(odd, mine.key, mine.der)


# Hostile bytes


def bounded(work) -> None:
    begun = time.process_time()
    try:
        work()
    except CryptError:
        pass
    assert time.process_time() - begun < 5


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_mutated_messages_raise_nothing_else(mine, data):
    message = bytearray(crypto.envelope(SECRET, [mine.certificate], cipher="AES128_CBC", oaep=True))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(message) - 1))
        kind = data.draw(st.integers(0, 3))
        if kind == 0:
            message[at] = data.draw(st.integers(0, 255))
        elif kind == 1:
            del message[at : at + data.draw(st.integers(1, 40))]
        elif kind == 2:
            message[at:at] = data.draw(st.binary(max_size=20))
        else:
            message[at:at] = message[at : at + 60]
        if not message:
            break
    bounded(lambda: opened(bytes(message), mine))


@settings(deadline=None, max_examples=300)
@given(noise=st.binary(max_size=300))
def test_random_bytes_raise_nothing_else(mine, noise):
    bounded(lambda: opened(noise, mine))
    bounded(lambda: der.CertificateFacts(noise))


def nested(depth: int, indefinite: bool) -> bytes:
    if indefinite:
        return b"\x30\x80" * depth
    data = b""
    for _ in range(depth):
        size = len(data)
        data = b"\x30\x84" + size.to_bytes(4, "big") + data
    return data


@pytest.mark.parametrize(
    "data",
    [
        nested(100_000, True),
        nested(20_000, False),
        b"\x30\x80" + b"\x05\x00" * 1_000_000 + b"\0\0",
        b"\x30\x83\x1e\x84\x80" + b"\x05\x00" * 1_000_000,
        b"\x30" * (5 << 20),
        b"\x30\x88" + b"\xff" * 8,
        b"\x30\xff" + b"\xff" * 200,
        b"\x1f\xff" * 1000,
        b"\x24\x80" * 40 + b"\0\0" * 40,
    ],
    ids=["deep", "deep definite", "many", "many definite", "large", "endless", "longest", "long tag", "strings"],
)
def test_structures_made_to_exhaust_are_refused_soon(mine, data):
    begun = time.process_time()
    with pytest.raises(CryptError):
        opened(data, mine)
    assert time.process_time() - begun < 3


def test_many_recipients_do_not_mean_many_decryptions(mine, other):
    message = crypto.envelope(SECRET, [other.certificate] * 60)
    begun = time.process_time()
    with pytest.raises(CryptError):
        opened(message, mine)
    assert time.process_time() - begun < 3
    with pytest.raises(CryptError, match="65 recipients"):
        opened(crypto.envelope(SECRET, [other.certificate] * 65), mine)


# The walker


@pytest.mark.parametrize("dotted", ["2.5.29.14", "1.2.840.113549.1.7.3", "0.9.2342", "2.999.3"])
def test_object_identifiers_read_as_their_numbers(dotted):
    first, second, *rest = map(int, dotted.split("."))
    content = b""
    for number in (first * 40 + second, *rest):
        piece = bytes([number & 0x7F])
        while number > 0x7F:
            number >>= 7
            piece = bytes([0x80 | number & 0x7F]) + piece
        content += piece
    assert der.parse(bytes([6, len(content)]) + content, "x").oid("x") == dotted


def test_integers_are_signed_and_may_be_limited():
    assert der.parse(b"\x02\x02\x00\xff", "x").integer("x") == 255
    assert der.parse(b"\x02\x01\xff", "x").integer("x") == -1
    with pytest.raises(CryptError):
        der.parse(b"\x02\x01\xff", "x").integer("x", 10)
    with pytest.raises(CryptError):
        der.parse(b"\x02\x00", "x").integer("x")


@given(st.binary(max_size=60))
def test_what_is_read_lies_within_the_bytes(data):
    try:
        value = der.parse(data, "x")
    except CryptError:
        return
    assert data.startswith(value.raw)
    assert value.content in value.raw
