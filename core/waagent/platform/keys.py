"""The transport key pair: what the platform encrypts for (wireserver §11.1, ruling 15).

Runs in the short-lived certificate helper and in tests only: it loads ``cryptography``.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from waagent.errors import CryptError, StateError
from waagent.files import ensure_dir, read_json, read_limited, write_atomic, write_json
from waagent.platform.der import CertificateFacts

KEY_FILE = "TransportPrivate.pem"
CERTIFICATE_FILE = "TransportCert.pem"
STATE_FILE = "transport-key.json"
"""Remembers which machine the pair was made for; JSON with a schema number."""

_SUBJECT = "LinuxTransport"
_BITS = 2048
_DAYS = 730
_RENEW_DAYS = 30
_SCHEMA = 1
_LIMIT = 64 << 10


def ensure_transport_key(
    lib_dir: str, vm_id: str | None = None, *, force: bool = False, now: dt.datetime | None = None
) -> bool:
    """Make the transport key pair unless a good one of this machine is there.

    A pair is good while key and certificate belong together, the certificate is valid for another 30 days and has a
    SubjectKeyIdentifier, and the machine is the one that it was made for. Another identity means a copied disk: its
    original holds the same key.

    Args:
        lib_dir: ``Lib.Dir``; made when missing.
        vm_id: the machine's identity; ``None`` when it cannot be told, which then speaks for neither.
        force: make a new pair in any case.
        now: the time, UTC; default the present.

    Returns:
        Whether a pair was made.

    Raises:
        CryptError: the library cannot make one.
        OSError: the files cannot be written.
    """
    moment = now or dt.datetime.now(dt.timezone.utc)
    ensure_dir(lib_dir)
    known = _known_machine(lib_dir)
    if not force and _same(known, vm_id) and _is_good(lib_dir, moment):
        if vm_id and not known:
            _remember(lib_dir, vm_id)
        return False
    try:
        key, certificate = make_pair(moment)
    except Exception as problem:
        raise CryptError(f"the transport key cannot be made: {type(problem).__name__}: {problem}") from problem
    # In this order: a pair that was cut short does not fit together, and is made again.
    write_atomic(os.path.join(lib_dir, KEY_FILE), key)
    write_atomic(os.path.join(lib_dir, CERTIFICATE_FILE), certificate)
    _remember(lib_dir, vm_id)
    return True


def make_pair(now: dt.datetime) -> tuple[bytes, bytes]:
    """Return a new key (PKCS#8 PEM) and its self-signed certificate (PEM), valid for 730 days from *now* (UTC)."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
    public = key.public_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _SUBJECT)])
    begin = now.astimezone(dt.timezone.utc).replace(microsecond=0, tzinfo=None)
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + dt.timedelta(days=_DAYS))
        # The host addresses its messages by this one: nothing can be opened without it.
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return text, certificate.public_bytes(serialization.Encoding.PEM)


def load_pair(lib_dir: str) -> tuple[rsa.RSAPrivateKey, bytes]:
    """Return the transport key and its certificate (DER).

    Raises:
        CryptError: one is missing or cannot be read.
    """
    key_path, certificate_path = os.path.join(lib_dir, KEY_FILE), os.path.join(lib_dir, CERTIFICATE_FILE)
    try:
        key = serialization.load_pem_private_key(read_limited(key_path, _LIMIT), None)
        certificate = x509.load_pem_x509_certificate(read_limited(certificate_path, _LIMIT))
    except (OSError, StateError) as problem:
        raise CryptError(f"the transport key cannot be read: {problem}") from None
    except Exception as problem:
        raise CryptError(f"the transport key in {lib_dir} is damaged: {type(problem).__name__}") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise CryptError(f"{key_path}: is no RSA key")
    return key, certificate.public_bytes(serialization.Encoding.DER)


def _is_good(lib_dir: str, now: dt.datetime) -> bool:
    try:
        key, der = load_pair(lib_dir)
        facts = CertificateFacts(der)
        certificate = x509.load_der_x509_certificate(der)
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        begin, end = _validity(certificate)
    except Exception:  # whatever is wrong with the old pair, a new one cures it
        return False
    if key.key_size < _BITS or facts.key_id is None or facts.public_key != public:
        return False
    if not begin <= now < end - dt.timedelta(days=_RENEW_DAYS):
        return False
    for name in (KEY_FILE, CERTIFICATE_FILE):
        path = os.path.join(lib_dir, name)
        with contextlib.suppress(OSError):
            if os.stat(path).st_mode & 0o077:
                os.chmod(path, 0o600)
    return True


def _validity(certificate: x509.Certificate) -> tuple[dt.datetime, dt.datetime]:
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    utc = dt.timezone.utc  # before cryptography 42
    return certificate.not_valid_before.replace(tzinfo=utc), certificate.not_valid_after.replace(tzinfo=utc)


def _known_machine(lib_dir: str) -> str | None:
    with contextlib.suppress(StateError):
        state = read_json(os.path.join(lib_dir, STATE_FILE), _LIMIT)
        if isinstance(state, dict) and state.get("schema") == _SCHEMA and isinstance(state.get("vmId"), str):
            return str(state["vmId"]) or None
    return None


def _same(known: str | None, vm_id: str | None) -> bool:
    return not known or not vm_id or known.upper() == vm_id.upper()


def _remember(lib_dir: str, vm_id: str | None) -> None:
    write_json(os.path.join(lib_dir, STATE_FILE), {"schema": _SCHEMA, "vmId": vm_id or ""})
