"""Opening CMS EnvelopedData: the certificates, protected settings, just-in-time passwords (wireserver §11.3, §12).

Runs in the short-lived certificate helper and in tests only: it loads ``cryptography``, which the resident processes
do without. The library's own PKCS#7 reader knows neither SubjectKeyIdentifier recipients nor 3DES.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

import attrs
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from waagent.errors import CryptError
from waagent.platform import der

try:
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
except ImportError:  # before cryptography 43
    from cryptography.hazmat.primitives.ciphers.algorithms import TripleDES

__all__ = [
    "DATA",
    "Enveloped",
    "Recipient",
    "TripleDES",
    "UnknownAlgorithm",
    "cbc",
    "decode_base64",
    "decrypt",
    "decrypt_content",
    "open_password",
    "open_protected_settings",
    "parse_enveloped",
    "password_text",
]

ENVELOPED_DATA = "1.2.840.113549.1.7.3"
DATA = "1.2.840.113549.1.7.1"
RSA_PKCS1 = "1.2.840.113549.1.1.1"
RSA_OAEP = "1.2.840.113549.1.1.7"
MGF1 = "1.2.840.113549.1.1.8"
_CIPHERS: dict[str, tuple[str, int]] = {
    "2.16.840.1.101.3.4.1.2": ("AES", 16),
    "2.16.840.1.101.3.4.1.22": ("AES", 24),
    "2.16.840.1.101.3.4.1.42": ("AES", 32),
    "1.2.840.113549.3.7": ("3DES", 24),
}
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "1.3.14.3.2.26": hashes.SHA1,
    "2.16.840.1.101.3.4.2.4": hashes.SHA224,
    "2.16.840.1.101.3.4.2.1": hashes.SHA256,
    "2.16.840.1.101.3.4.2.2": hashes.SHA384,
    "2.16.840.1.101.3.4.2.3": hashes.SHA512,
}
_MOST_RECIPIENTS = 64
_MOST_TRIED = 8


class UnknownAlgorithm(CryptError):
    """The message is encrypted in a way that this code or the library does not know; other tools may."""


@attrs.frozen(eq=False, repr=False)
class Recipient:
    """One addressee: by key id or by issuer (encoded) and serial number."""

    key_id: bytes | None
    issuer: bytes | None
    serial: int | None
    algorithm: str
    parameters: der.Value | None
    encrypted_key: bytes

    def is_for(self, certificate: der.CertificateFacts) -> bool:
        """Whether it is addressed to *certificate*."""
        if self.key_id is not None:
            return self.key_id == certificate.key_id
        return self.serial == certificate.serial and self.issuer == certificate.issuer


@attrs.frozen(eq=False, repr=False)
class Enveloped:
    """An EnvelopedData message, read and not yet opened."""

    recipients: tuple[Recipient, ...]
    algorithm: str
    initialization_vector: bytes
    ciphertext: bytes


def parse_enveloped(data: bytes) -> Enveloped:
    """Read a DER or BER ContentInfo that holds EnvelopedData (RFC 5652).

    Raises:
        CryptError: it is none.
    """
    info = der.parse(data, "the CMS message").sequence("the CMS message", 2)
    kind = info[0].oid("the content type")
    if kind != ENVELOPED_DATA:
        raise CryptError(f"the CMS message holds content type {kind}, not enveloped data")
    fields = info[1].explicit(0, "the content").sequence("the enveloped data", 3)
    if fields[1].tag == 0xA0:  # originatorInfo
        fields = fields[:1] + fields[2:]
        if len(fields) < 3:
            raise CryptError("the enveloped data is incomplete")
    members = fields[1].expect(der.SET, "the recipients").children
    if len(members) > _MOST_RECIPIENTS:
        raise CryptError(f"the message has {len(members)} recipients")
    recipients = tuple(_recipient(member) for member in members if member.tag == der.SEQUENCE)
    content = fields[2].sequence("the encrypted content", 3)
    cipher = content[1].sequence("the content's cipher", 1)
    algorithm = cipher[0].oid("the content's cipher")
    vector = b""
    if len(cipher) > 1 and cipher[1].tag == der.OCTETS:
        vector = cipher[1].content
    ciphertext = content[2].octets("the encrypted content", 0x80)
    return Enveloped(recipients, algorithm, vector, ciphertext)


def decrypt(data: bytes, key: RSAPrivateKey, certificate: bytes) -> bytes:
    """Return the content of an EnvelopedData message.

    Args:
        data: the message, DER or BER.
        key: the private key of *certificate*.
        certificate: DER; says which recipient is meant. When none matches, each one is tried.

    Raises:
        UnknownAlgorithm: it is well formed, but encrypted in an unknown way.
        CryptError: it cannot be read, or is not for this key.
    """
    message = parse_enveloped(data)
    facts = der.CertificateFacts(certificate)
    addressed = [item for item in message.recipients if item.is_for(facts)]
    tried = (addressed or list(message.recipients))[:_MOST_TRIED]
    problem = CryptError("the message has no recipient that a certificate could be")
    for recipient in tried:
        try:
            return decrypt_content(
                message.algorithm, message.initialization_vector, message.ciphertext, _content_key(recipient, key)
            )
        except CryptError as found:
            # What another tool may open is the better answer.
            problem = problem if isinstance(problem, UnknownAlgorithm) else found
    raise problem


def decrypt_content(algorithm: str, vector: bytes, ciphertext: bytes, key: bytes) -> bytes:
    """Decrypt CBC and take the padding off.

    Raises:
        UnknownAlgorithm: no such cipher here.
        CryptError: the key is wrong or the content damaged.
    """
    known = _CIPHERS.get(algorithm)
    if known is None:
        raise UnknownAlgorithm(f"the content is encrypted with {algorithm}, which is not known")
    name, size = known
    if len(key) != size:
        raise CryptError("the key does not open the message: the content key has the wrong length")
    return cbc(TripleDES if name == "3DES" else algorithms.AES, key, vector, ciphertext)


def cbc(cipher: Any, key: bytes, vector: bytes, ciphertext: bytes) -> bytes:
    """Decrypt CBC with PKCS#7 padding.

    Args:
        cipher: the library's class.
        key: of the right length.
        vector: one block.
        ciphertext: whole blocks.

    Raises:
        UnknownAlgorithm: the library refuses the cipher (FIPS mode).
        CryptError: the key is wrong or the content damaged.
    """
    block = int(cipher.block_size) // 8
    if len(vector) != block or not ciphertext or len(ciphertext) % block:
        raise CryptError("the encrypted content is malformed")
    try:
        decryptor = Cipher(cipher(key), modes.CBC(vector)).decryptor()
        padded = decryptor.update(ciphertext) + decryptor.finalize()
    except UnsupportedAlgorithm as problem:
        raise UnknownAlgorithm(f"the library refuses {cipher.__name__}: {problem}") from None
    except Exception as problem:
        raise CryptError(f"the content cannot be decrypted: {type(problem).__name__}") from None
    unpadder = padding.PKCS7(block * 8).unpadder()
    try:
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        raise CryptError("the key does not open the message, or the message is damaged") from None


def open_protected_settings(text: str, key: RSAPrivateKey, certificate: bytes) -> Any:
    """Return a handler's protected settings as the JSON value that they hold (wireserver §11.5).

    The agent never needs it: handlers decrypt for themselves. It serves diagnostics and tests.

    Raises:
        CryptError: they are not base64 of a message for this key with JSON inside.
    """
    try:
        return json.loads(decrypt(decode_base64(text), key, certificate).decode("utf-8"))
    except (ValueError, RecursionError):
        raise CryptError("the protected settings hold no JSON") from None


def open_password(text: str, key: RSAPrivateKey, certificate: bytes) -> str:
    """Return a just-in-time user's password (wireserver §12): UTF-16, little endian unless a mark says otherwise.

    Raises:
        CryptError: it is not base64 of a message for this key with UTF-16 text inside.
    """
    return password_text(decrypt(decode_base64(text), key, certificate))


def password_text(data: bytes) -> str:
    """Return the text of a decrypted password.

    Raises:
        CryptError: it is not UTF-16.
    """
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-16-le"
    try:
        return data.decode(encoding)
    except ValueError:
        raise CryptError("the password is not UTF-16 text") from None


def decode_base64(text: str | bytes) -> bytes:
    """Return the bytes of base64 *text*, which may hold line breaks.

    Raises:
        CryptError: it is none.
    """
    if len(text) > 2 * der.MAX_SIZE:
        raise CryptError("the message is too large")
    try:
        compact = b"".join((text.encode("ascii") if isinstance(text, str) else text).split())
        return base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError):
        raise CryptError("the message is not base64") from None


def _recipient(value: der.Value) -> Recipient:
    fields = value.sequence("a recipient", 4)
    key_id = issuer = serial = None
    if fields[1].tag in (0x80, 0xA0):
        key_id = fields[1].octets("the recipient's key id", 0x80)
    else:
        names = fields[1].sequence("the recipient's name", 2)
        issuer, serial = names[0].raw, names[1].integer("the recipient's serial number")
    cipher = fields[2].sequence("the key's cipher", 1)
    parameters = cipher[1] if len(cipher) > 1 else None
    return Recipient(
        key_id, issuer, serial, cipher[0].oid("the key's cipher"), parameters, fields[3].octets("the encrypted key")
    )


def _content_key(recipient: Recipient, key: RSAPrivateKey) -> bytes:
    scheme: rsa_padding.AsymmetricPadding
    if recipient.algorithm == RSA_PKCS1:
        scheme = rsa_padding.PKCS1v15()
    elif recipient.algorithm == RSA_OAEP:
        scheme = _oaep(recipient.parameters)
    else:
        raise UnknownAlgorithm(f"the key is encrypted with {recipient.algorithm}, which is not known")
    try:
        return key.decrypt(recipient.encrypted_key, scheme)
    except UnsupportedAlgorithm as problem:
        raise UnknownAlgorithm(f"the library refuses the key's cipher: {problem}") from None
    except Exception as problem:
        raise CryptError(f"the key does not open the message: {type(problem).__name__}") from None


def _oaep(parameters: der.Value | None) -> rsa_padding.OAEP:
    """Return the scheme of RSAES-OAEP-params (RFC 4055); empty means SHA-1 throughout."""
    digest = mask = "1.3.14.3.2.26"
    label: bytes | None = None
    if parameters is not None and parameters.tag == der.SEQUENCE:
        for number, member in der.context(parameters.children):
            inner = member.explicit(number, "an OAEP parameter").sequence("an OAEP parameter", 1)
            name = inner[0].oid("an OAEP parameter")
            if number == 0:
                digest = name
            elif number == 1 and name == MGF1 and len(inner) > 1:
                mask = inner[1].sequence("the mask's digest", 1)[0].oid("the mask's digest")
            elif number == 2 and len(inner) > 1:
                label = inner[1].octets("the OAEP label") or None
            else:
                raise UnknownAlgorithm(f"OAEP with {name} is not known")
    if digest not in _HASHES or mask not in _HASHES:
        raise UnknownAlgorithm(f"OAEP with digests {digest} and {mask} is not known")
    return rsa_padding.OAEP(rsa_padding.MGF1(_HASHES[mask]()), _HASHES[digest](), label)
