"""The platform's half of the cryptography: certificates, CMS messages for them (wireserver §11.3)."""

from __future__ import annotations

import base64
import datetime as dt
import functools
import json
import os
from collections.abc import Sequence
from typing import Any, Union

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, CipherAlgorithm, algorithms, modes
from cryptography.x509.oid import NameOID

from waagent_fabric.der import algorithm, explicit, implicit, integer, null, octets, oid, sequence, set_of

try:
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
except ImportError:  # before cryptography 43
    from cryptography.hazmat.primitives.ciphers.algorithms import TripleDES

PrivateKey = Union[rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey]

CIPHERS = ("AES128_CBC", "DES_EDE3_CBC", "AES256_CBC")
TENANT_SUBJECT = "Windows Azure CRP Certificate Generator"
_CONTENT = {
    "AES128_CBC": ("2.16.840.1.101.3.4.1.2", 16, 16),
    "AES256_CBC": ("2.16.840.1.101.3.4.1.42", 32, 16),
    "DES_EDE3_CBC": ("1.2.840.113549.3.7", 24, 8),
}
_DATA = "1.2.840.113549.1.7.1"
_ENVELOPED_DATA = "1.2.840.113549.1.7.3"
_RSA_ENCRYPTION = "1.2.840.113549.1.1.1"
_RSAES_OAEP = "1.2.840.113549.1.1.7"


class BadTransportCertificate(ValueError):
    """The transport certificate in a request header cannot be used; says why."""


def triple_des(key: bytes) -> CipherAlgorithm:
    """Return the 3DES algorithm, which newer libraries keep in an attic."""
    return TripleDES(key)


def encrypt_cbc(cipher: CipherAlgorithm, iv: bytes, data: bytes) -> bytes:
    """Return *data* with PKCS#7 padding, encrypted in CBC mode."""
    block = len(iv)
    fill = block - len(data) % block
    encryptor = Cipher(cipher, modes.CBC(iv)).encryptor()
    return encryptor.update(data + bytes((fill,)) * fill) + encryptor.finalize()


@attrs.frozen(eq=False)
class Certificate:
    """A certificate, with its key where the platform hands it out.

    Attributes:
        key: ``None`` for a certificate without key (an SSH public key by fingerprint, a CA).
        friendly_name: attribute of its bags in the PFX.
        key_only: the PFX carries the key and not the certificate.
    """

    certificate: x509.Certificate
    key: PrivateKey | None = attrs.field(default=None, repr=False)
    friendly_name: str | None = None
    key_only: bool = False

    @property
    def thumbprint(self) -> str:
        """Upper-case hex SHA-1 of the DER form."""
        return self.certificate.fingerprint(hashes.SHA1()).hex().upper()

    @property
    def der(self) -> bytes:
        """The certificate in DER."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        """The certificate in PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The private key, PKCS#8 PEM.

        Raises:
            ValueError: there is none.
        """
        return self._key(serialization.Encoding.PEM)

    @property
    def key_der(self) -> bytes:
        """The private key, PKCS#8 DER.

        Raises:
            ValueError: there is none.
        """
        return self._key(serialization.Encoding.DER)

    def _key(self, encoding: serialization.Encoding) -> bytes:
        if self.key is None:
            raise ValueError("a certificate without key")
        return self.key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@functools.cache
def _rsa_key(slot: str) -> rsa.RSAPrivateKey:
    # Keys are dear to make: one per slot and process; certificates around them are new each time.
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def make_certificate(
    common_name: str,
    *,
    kind: str = "rsa",
    slot: str | None = None,
    domain_component: bool = False,
    with_key: bool = True,
) -> Certificate:
    """Make a self-signed certificate with SubjectKeyIdentifier.

    Args:
        common_name: subject; as ``DC=`` instead of ``CN=`` with *domain_component*.
        kind: ``rsa`` (2048 bits) or ``ec`` (P-256).
        slot: name under which an RSA key is shared within this process; the subject unless given.
        with_key: whether the platform hands out the key.
    """
    key: PrivateKey
    if kind == "rsa":
        key = _rsa_key(slot or common_name)
    elif kind == "ec":
        key = ec.generate_private_key(ec.SECP256R1())
    else:
        raise ValueError(f"kind {kind!r} is neither rsa nor ec")
    word = NameOID.DOMAIN_COMPONENT if domain_component else NameOID.COMMON_NAME
    name = x509.Name([x509.NameAttribute(word, common_name)])
    now = dt.datetime.now(dt.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=730))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Certificate(certificate, key if with_key else None, common_name)


def make_tenant_certificate(slot: str = "tenant") -> Certificate:
    """Make the certificate that protected settings are encrypted for, named as the platform names it."""
    made = make_certificate(TENANT_SUBJECT, domain_component=True, slot=slot)
    return attrs.evolve(made, friendly_name="TenantEncryptionCert")


def read_transport_certificate(header: str) -> x509.Certificate:
    """Read the header ``x-ms-guest-agent-public-x509-cert``: base64 of a DER certificate, in one line.

    Raises:
        BadTransportCertificate: it is no such thing, or holds no RSA key or no SubjectKeyIdentifier.
    """
    if any(blank in header for blank in " \r\n\t"):
        raise BadTransportCertificate("the transport certificate is not one line of base64")
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(header, validate=True))
    except ValueError as error:
        raise BadTransportCertificate(f"not base64 of a DER certificate: {error}") from None
    if not isinstance(certificate.public_key(), rsa.RSAPublicKey):
        raise BadTransportCertificate("the transport key is not RSA")
    try:
        certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        raise BadTransportCertificate("the transport certificate has no SubjectKeyIdentifier") from None
    return certificate


def _recipient(certificate: x509.Certificate, content_key: bytes, oaep: bool, issuer_and_serial: bool) -> bytes:
    public = certificate.public_key()
    if not isinstance(public, rsa.RSAPublicKey):
        raise ValueError("only RSA certificates can be recipients")
    if issuer_and_serial:
        version, rid = 0, sequence(certificate.issuer.public_bytes(), integer(certificate.serial_number))
    else:
        identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        version, rid = 2, implicit(0, identifier)
    if oaep:
        scheme: padding.AsymmetricPadding = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
        named = algorithm(_RSAES_OAEP, sequence())
    else:
        scheme, named = padding.PKCS1v15(), algorithm(_RSA_ENCRYPTION, null())
    return sequence(integer(version), rid, named, octets(public.encrypt(content_key, scheme)))


def envelope(
    data: bytes,
    recipients: Sequence[x509.Certificate],
    *,
    cipher: str = "DES_EDE3_CBC",
    oaep: bool = False,
    issuer_and_serial: bool = False,
) -> bytes:
    """Return *data* as DER CMS EnvelopedData for all *recipients* (RFC 5652; wireserver §11.3).

    Args:
        cipher: one of :data:`CIPHERS`.
        oaep: RSAES-OAEP with SHA-1 instead of PKCS#1 v1.5.
        issuer_and_serial: name recipients so, instead of by SubjectKeyIdentifier.
    """
    content_oid, key_size, iv_size = _CONTENT[cipher]
    content_key, iv = os.urandom(key_size), os.urandom(iv_size)
    block_cipher = triple_des(content_key) if cipher == "DES_EDE3_CBC" else algorithms.AES(content_key)
    infos = [_recipient(certificate, content_key, oaep, issuer_and_serial) for certificate in recipients]
    encrypted = sequence(
        oid(_DATA), algorithm(content_oid, octets(iv)), implicit(0, encrypt_cbc(block_cipher, iv, data))
    )
    enveloped = sequence(integer(0 if issuer_and_serial else 2), set_of(*infos), encrypted)
    return sequence(oid(_ENVELOPED_DATA), explicit(0, enveloped))


def envelope_for_transport(data: bytes, certificate: x509.Certificate, cipher: str) -> bytes:
    """Return *data* encrypted as the answer to a request that asked for *cipher* (wireserver §11.3, rows 1 and 2)."""
    return envelope(data, [certificate], cipher=cipher, oaep=cipher != "DES_EDE3_CBC")


def encrypt_protected_settings(value: Any, tenant: Certificate, *, cipher: str = "DES_EDE3_CBC") -> str:
    """Return base64 of the CMS message of *value* as JSON, recipient by issuer and serial (wireserver §11.5)."""
    message = envelope(json.dumps(value).encode(), [tenant.certificate], cipher=cipher, issuer_and_serial=True)
    return base64.b64encode(message).decode()


def encrypt_password(password: str, certificate: x509.Certificate) -> str:
    """Return base64 of the CMS message of a remote-access password, UTF-16LE (wireserver §12)."""
    return base64.b64encode(envelope(password.encode("utf-16-le"), [certificate])).decode()
