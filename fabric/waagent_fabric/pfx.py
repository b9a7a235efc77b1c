"""PKCS#12 as the platform writes it: empty password, several keys of any kind (wireserver §11.4; RFC 7292)."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence

from cryptography.hazmat.primitives.ciphers import algorithms

from waagent_fabric.crypto import Certificate, encrypt_cbc, triple_des
from waagent_fabric.der import algorithm, bmp_string, explicit, implicit, integer, null, octets, oid, sequence, set_of

ITERATIONS = 2000
KEY_PROTECTIONS = ("3des", "aes", "none")
_PASSWORD = b"\x00\x00"  # the empty password as BMPString with its terminator
_DATA = "1.2.840.113549.1.7.1"
_ENCRYPTED_DATA = "1.2.840.113549.1.7.6"
_BAG = "1.2.840.113549.1.12.10.1."
_PBE_3DES = "1.2.840.113549.1.12.1.3"
_X509 = "1.2.840.113549.1.9.22.1"
_FRIENDLY_NAME = "1.2.840.113549.1.9.20"
_LOCAL_KEY_ID = "1.2.840.113549.1.9.21"


def derive(purpose: int, salt: bytes, size: int, iterations: int = ITERATIONS, password: bytes = _PASSWORD) -> bytes:
    """Return *size* bytes of the PKCS#12 key derivation with SHA-1 (RFC 7292 appendix B.2).

    Args:
        purpose: 1 key, 2 initialisation vector, 3 MAC key.
    """
    block = 64

    def fill(value: bytes) -> bytes:
        return (value * (block // len(value) + 1))[: block * ((len(value) + block - 1) // block)] if value else b""

    blocks = bytearray(fill(salt) + fill(password))
    result = b""
    while len(result) < size:
        digest = hashlib.sha1(bytes((purpose,)) * block + bytes(blocks)).digest()
        for _ in range(iterations - 1):
            digest = hashlib.sha1(digest).digest()
        result += digest
        addend = int.from_bytes((digest * 4)[:block], "big") + 1
        for start in range(0, len(blocks), block):
            total = (int.from_bytes(blocks[start : start + block], "big") + addend) % (1 << (8 * block))
            blocks[start : start + block] = total.to_bytes(block, "big")
    return result[:size]


def _pbe_3des(data: bytes) -> tuple[bytes, bytes]:
    salt = os.urandom(8)
    key, iv = derive(1, salt, 24), derive(2, salt, 8)
    named = algorithm(_PBE_3DES, sequence(octets(salt), integer(ITERATIONS)))
    return named, encrypt_cbc(triple_des(key), iv, data)


def _pbes2_aes(data: bytes) -> tuple[bytes, bytes]:
    salt, iv = os.urandom(16), os.urandom(16)
    key = hashlib.pbkdf2_hmac("sha256", b"", salt, ITERATIONS, 32)
    derivation = algorithm(
        "1.2.840.113549.1.5.12",
        sequence(octets(salt), integer(ITERATIONS), algorithm("1.2.840.113549.2.9", null())),
    )
    scheme = algorithm("2.16.840.1.101.3.4.1.42", octets(iv))
    return algorithm("1.2.840.113549.1.5.13", sequence(derivation, scheme)), encrypt_cbc(algorithms.AES(key), iv, data)


def _attributes(certificate: Certificate, number: int) -> bytes:
    found = [sequence(oid(_LOCAL_KEY_ID), set_of(octets(number.to_bytes(4, "little"))))]
    if certificate.friendly_name is not None:
        found.append(sequence(oid(_FRIENDLY_NAME), set_of(bmp_string(certificate.friendly_name))))
    return set_of(*found)


def _key_bag(certificate: Certificate, number: int, protection: str) -> bytes:
    attributes = _attributes(certificate, number)
    if protection == "none":
        return sequence(oid(_BAG + "1"), explicit(0, certificate.key_der), attributes)
    named, encrypted = (_pbes2_aes if protection == "aes" else _pbe_3des)(certificate.key_der)
    return sequence(oid(_BAG + "2"), explicit(0, sequence(named, octets(encrypted))), attributes)


def _certificate_bag(certificate: Certificate, number: int) -> bytes:
    value = sequence(oid(_X509), explicit(0, octets(certificate.der)))
    return sequence(oid(_BAG + "3"), explicit(0, value), _attributes(certificate, number))


def build_pfx(
    certificates: Sequence[Certificate],
    *,
    mac: bool = True,
    key_protection: str = "3des",
    encrypt_certificates: bool = False,
) -> bytes:
    """Return a PKCS#12 file with an empty password.

    Args:
        certificates: each with or without key.
        mac: HMAC-SHA1 over the content; some of the platform's files have none.
        key_protection: ``3des`` as seen on the platform, ``aes`` (PBES2), or ``none`` for plain key bags.
        encrypt_certificates: put the certificate bags into encryptedData (3DES).
    """
    if key_protection not in KEY_PROTECTIONS:
        raise ValueError(f"key protection {key_protection!r} is none of {KEY_PROTECTIONS}")
    numbered = list(enumerate(certificates, 1))
    keys = sequence(*(_key_bag(item, n, key_protection) for n, item in numbered if item.key is not None))
    bags = sequence(*(_certificate_bag(item, n) for n, item in numbered if not item.key_only))
    parts = [sequence(oid(_DATA), explicit(0, octets(keys)))]
    if encrypt_certificates:
        named, encrypted = _pbe_3des(bags)
        content = sequence(oid(_DATA), named, implicit(0, encrypted))
        parts.append(sequence(oid(_ENCRYPTED_DATA), explicit(0, sequence(integer(0), content))))
    else:
        parts.append(sequence(oid(_DATA), explicit(0, octets(bags))))
    safe = sequence(*parts)
    fields = [integer(3), sequence(oid(_DATA), explicit(0, octets(safe)))]
    if mac:
        salt = os.urandom(20)
        code = hmac.new(derive(3, salt, 20), safe, "sha1").digest()
        digest = sequence(algorithm("1.3.14.3.2.26", null()), octets(code))
        fields.append(sequence(digest, octets(salt), integer(ITERATIONS)))
    return sequence(*fields)
