"""Reading PKCS#12 with an empty password: every key, not only the first (wireserver §11.4).

Runs in the short-lived certificate helper and in tests only. The library's own reader silently returns one key, and
refuses what has no MAC.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import attrs
from cryptography.hazmat.primitives import serialization

from waagent.errors import CryptError
from waagent.platform import der
from waagent.platform.cms import DATA, TripleDES, UnknownAlgorithm, cbc, decrypt_content

try:
    from cryptography.hazmat.decrepit.ciphers.algorithms import RC2
except ImportError:  # before cryptography 43
    RC2 = None  # type: ignore[assignment,misc]

PASSWORDS = (b"\0\0", b"")
"""The empty password as the two bytes that end a BMP string, and as nothing at all."""
MOST_ITERATIONS = 3_000_000
"""Of all key derivations of one file together: some seconds."""
_MOST_BAGS = 512
_MOST_KEY = 12 << 10
_MOST_PROBLEMS = 10

_ENCRYPTED_DATA = "1.2.840.113549.1.7.6"
_BAG = "1.2.840.113549.1.12.10.1."
_X509 = "1.2.840.113549.1.9.22.1"
_PBE = "1.2.840.113549.1.12.1."
_PBES2, _PBKDF2 = "1.2.840.113549.1.5.13", "1.2.840.113549.1.5.12"
_MAC_HASHES = {
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.4": "sha224",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
_PRFS = {
    "1.2.840.113549.2.7": "sha1",
    "1.2.840.113549.2.8": "sha224",
    "1.2.840.113549.2.9": "sha256",
    "1.2.840.113549.2.10": "sha384",
    "1.2.840.113549.2.11": "sha512",
}
_KEY_SIZES = {
    "2.16.840.1.101.3.4.1.2": 16,
    "2.16.840.1.101.3.4.1.22": 24,
    "2.16.840.1.101.3.4.1.42": 32,
    "1.2.840.113549.3.7": 24,
}


@attrs.frozen(eq=False, repr=False)
class Identity:
    """One certificate, with its key when the file holds it.

    Attributes:
        thumbprint: upper-case hex SHA-1 of the certificate.
        certificate: DER.
        key: PEM, PKCS#8, not encrypted; ``None`` when the file holds none for it.
    """

    thumbprint: str
    certificate: bytes
    key: bytes | None = attrs.field(default=None, repr=False)


@attrs.frozen(eq=False, repr=False)
class Bundle:
    """What a PFX file holds.

    Attributes:
        identities: its certificates in their order, each once.
        warnings: what was odd, one line each.
        unknown: what is encrypted in a way that the library does not have, and another tool may; likewise.
    """

    identities: tuple[Identity, ...]
    warnings: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


def read(data: bytes) -> Bundle:
    """Read a PFX file with an empty password and pair its keys with its certificates by their public keys.

    A part that cannot be read is passed over with a warning, as long as the rest holds a certificate.

    Raises:
        UnknownAlgorithm: nothing can be read, as it is encrypted in an unknown way.
        CryptError: it is no such file, or nothing can be read (its password is not empty).
    """
    walk = _Walk(data)
    if not walk.certificates and walk.unknown:
        raise UnknownAlgorithm(walk.unknown[0])
    if not walk.certificates and walk.problems:
        raise CryptError(walk.problems[0])
    bundle = pair(walk.certificates, walk.keys)
    return attrs.evolve(
        bundle, warnings=(*walk.warnings, *walk.problems, *bundle.warnings), unknown=tuple(walk.unknown)
    )


def pair(certificates: list[bytes], keys: list[bytes]) -> Bundle:
    """Pair DER certificates with PKCS#8 keys; a key without a certificate is a warning, and so is one that is odd."""
    warnings: list[str] = []
    by_public: dict[bytes, bytes] = {}
    for number, key in enumerate(keys, 1):
        try:
            public, text = _load_key(key)
        except CryptError as problem:
            warnings.append(f"private key {number} is passed over: {problem}")
            continue
        by_public.setdefault(public, text)
    identities: dict[str, Identity] = {}
    used: set[bytes] = set()
    for certificate in certificates:
        thumbprint = hashlib.new("sha1", certificate, usedforsecurity=False).hexdigest().upper()
        try:
            public = _normal_form(der.CertificateFacts(certificate).public_key)
        except CryptError as problem:
            warnings.append(f"certificate {thumbprint} is passed over: {problem}")
            continue
        used.add(public)
        identities.setdefault(thumbprint, Identity(thumbprint, certificate, by_public.get(public)))
    lonely = len(by_public.keys() - used)
    if lonely:
        warnings.append(f"{lonely} private key{'s have' if lonely > 1 else ' has'} no certificate and cannot be used")
    return Bundle(tuple(identities.values()), tuple(warnings))


def derive(password: bytes, salt: bytes, iterations: int, purpose: int, size: int, digest: str = "sha1") -> bytes:
    """Return *size* bytes of the PKCS#12 key derivation (RFC 7292 appendix B).

    Args:
        password: encoded as a BMP string.
        salt: as in the file.
        iterations: at least 1.
        purpose: 1 key, 2 initialization vector, 3 MAC key.
        size: bytes wanted.
        digest: ``sha1`` … ``sha512``.
    """

    function = getattr(hashlib, digest)

    def hashed(data: bytes) -> bytes:
        return bytes(function(data, usedforsecurity=False).digest())

    block = int(function(usedforsecurity=False).block_size)

    def stretched(data: bytes) -> bytes:
        length = -(-len(data) // block) * block
        return (data * (length // len(data) + 1))[:length] if data else b""

    mixed = bytearray(stretched(salt) + stretched(password))
    result = b""
    while True:
        part = hashed(bytes([purpose]) * block + bytes(mixed))
        for _ in range(iterations - 1):
            part = hashed(part)
        result += part
        if len(result) >= size:
            return result[:size]
        addend = int.from_bytes(stretched(part)[:block], "big") + 1
        for at in range(0, len(mixed), block):
            total = (int.from_bytes(mixed[at : at + block], "big") + addend) % (1 << 8 * block)
            mixed[at : at + block] = total.to_bytes(block, "big")


class _Walk:
    """One pass through a PFX file."""

    def __init__(self, data: bytes) -> None:
        self.certificates: list[bytes] = []
        self.keys: list[bytes] = []
        self.warnings: list[str] = []
        self.problems: list[str] = []
        self.unknown: list[str] = []
        self._iterations = 0
        self._bags = 0
        fields = der.parse(data, "the PFX file").sequence("the PFX file", 2)
        content = fields[1].sequence("the PFX content", 2)
        kind = content[0].oid("the PFX content")
        if kind != DATA:
            raise UnknownAlgorithm(f"the PFX file protects its content with {kind}, which is not known")
        safe = content[1].explicit(0, "the PFX content").octets("the PFX content")
        self._passwords = self._check_mac(fields[2] if len(fields) > 2 else None, safe)
        for part in der.parse(safe, "the PFX content").sequence("the PFX content"):
            self._contained(self._part, part)

    def _contained(self, read: Callable[[der.Value], None], value: der.Value) -> None:
        """Read one part or bag, so that an odd one does not spoil the rest."""
        try:
            read(value)
        except UnknownAlgorithm as problem:
            self._remember(self.unknown, str(problem))
        except CryptError as problem:
            self._remember(self.problems, str(problem))

    def _remember(self, where: list[str], what: str) -> None:
        if len(where) < _MOST_PROBLEMS and what not in where:
            where.append(what)

    def _check_mac(self, value: der.Value | None, safe: bytes) -> tuple[bytes, ...]:
        """Return the passwords to try, the one that the MAC proves first; a bad MAC is only a warning."""
        if value is None:
            return PASSWORDS
        try:
            fields = value.sequence("the MAC", 2)
            info = fields[0].sequence("the MAC", 2)
            name = info[0].sequence("the MAC's digest", 1)[0].oid("the MAC's digest")
            digest = _MAC_HASHES.get(name)
            if digest is None:
                raise CryptError(f"its algorithm {name} is not known")
            wanted, salt = info[1].octets("the MAC"), fields[1].octets("the MAC's salt")
            iterations = fields[2].integer("the MAC's iterations", 1 << 31) if len(fields) > 2 else 1
            if len(wanted) != hashlib.new(digest, usedforsecurity=False).digest_size:
                raise CryptError("it has the wrong length")
            for password in PASSWORDS:
                self._spend(iterations)
                key = derive(password, salt, iterations, 3, len(wanted), digest)
                if hmac.compare_digest(hmac.new(key, safe, digest).digest(), wanted):
                    return (password, *(other for other in PASSWORDS if other != password))
            self.warnings.append("the MAC of the PFX file does not match; its content is read anyway")
        except CryptError as problem:
            self.warnings.append(f"the MAC of the PFX file cannot be checked: {problem}")
        return PASSWORDS

    def _spend(self, iterations: int) -> None:
        if iterations < 1:
            raise CryptError("the number of iterations is not positive")
        self._iterations += iterations
        if self._iterations > MOST_ITERATIONS:
            raise CryptError("deriving the keys would take too long")

    def _part(self, part: der.Value) -> None:
        fields = part.sequence("a part of the PFX file", 2)
        kind = fields[0].oid("a part of the PFX file")
        if kind == DATA:
            bags = fields[1].explicit(0, "a part of the PFX file").octets("a part of the PFX file")
        elif kind == _ENCRYPTED_DATA:
            inner = fields[1].explicit(0, "an encrypted part").sequence("an encrypted part", 2)
            content = inner[1].sequence("an encrypted part", 3)
            bags = self._decrypt(content[1], content[2].octets("an encrypted part", 0x80))
        else:
            raise UnknownAlgorithm(f"a part of the PFX file is protected with {kind}, which is not known")
        for bag in der.parse(bags, "the bags").sequence("the bags"):
            self._contained(self._bag, bag)

    def _bag(self, bag: der.Value) -> None:
        self._bags += 1
        if self._bags > _MOST_BAGS:
            raise CryptError("the PFX file holds too many bags")
        fields = bag.sequence("a bag", 2)
        kind = fields[0].oid("a bag's kind")
        value = fields[1].explicit(0, "a bag")
        if kind == _BAG + "1":
            self.keys.append(value.raw)
        elif kind == _BAG + "2":
            parts = value.sequence("an encrypted key", 2)
            self.keys.append(self._decrypt(parts[0], parts[1].octets("an encrypted key")))
        elif kind == _BAG + "3":
            parts = value.sequence("a certificate bag", 2)
            if parts[0].oid("a certificate's kind") == _X509:
                self.certificates.append(parts[1].explicit(0, "a certificate").octets("a certificate"))
        elif kind == _BAG + "6":
            for inner in value.sequence("the bags"):
                self._contained(self._bag, inner)

    def _decrypt(self, algorithm: der.Value, data: bytes) -> bytes:
        """Decrypt *data* and make sure that the result is a sequence: the sign of the right password encoding."""
        fields = algorithm.sequence("a cipher", 2)
        name = fields[0].oid("a cipher")
        parameters = fields[1].sequence("a cipher's parameters", 2)
        opened: Callable[[bytes], bytes]
        if name == _PBES2:
            opened = self._pbes2(parameters, data)
        elif name.startswith(_PBE):
            opened = self._pbes1(name, parameters, data)
        else:
            raise UnknownAlgorithm(f"the PFX file is encrypted with {name}, which is not known")
        problem: CryptError | None = None
        for password in self._passwords:
            try:
                plain = opened(password)
                return der.parse(plain, "decrypted content").expect(der.SEQUENCE, "decrypted content").raw
            except UnknownAlgorithm:
                raise
            except CryptError as found:
                problem = found
        raise CryptError(f"the PFX file cannot be decrypted with an empty password: {problem}")

    def _pbes1(self, name: str, parameters: tuple[der.Value, ...], data: bytes) -> Callable[[bytes], bytes]:
        salt = parameters[0].octets("a salt")
        iterations = parameters[1].integer("the iterations", 1 << 31)
        cipher: Any = TripleDES
        size = {_PBE + "3": 24, _PBE + "4": 16, _PBE + "5": 16}.get(name)
        if name == _PBE + "5":
            cipher = RC2
        if size is None or cipher is None:
            raise UnknownAlgorithm(f"the PFX file is encrypted with {name}, which the library does not have")

        def opened(password: bytes) -> bytes:
            self._spend(2 * iterations)
            key = derive(password, salt, iterations, 1, size)
            if name == _PBE + "4":
                key += key[:8]
            return cbc(cipher, key, derive(password, salt, iterations, 2, 8), data)

        return opened

    def _pbes2(self, parameters: tuple[der.Value, ...], data: bytes) -> Callable[[bytes], bytes]:
        function = parameters[0].sequence("the key derivation", 2)
        name = function[0].oid("the key derivation")
        if name != _PBKDF2:
            raise UnknownAlgorithm(f"the PFX file derives its key with {name}, which is not known")
        settings = function[1].sequence("the key derivation", 2)
        salt = settings[0].octets("a salt")
        iterations = settings[1].integer("the iterations", 1 << 31)
        digest: str | None = "sha1"
        for member in settings[2:]:
            if member.tag == der.SEQUENCE:
                prf = member.sequence("the key derivation's digest", 1)[0].oid("the key derivation's digest")
                digest = _PRFS.get(prf)
        cipher = parameters[1].sequence("a cipher", 2)
        algorithm = cipher[0].oid("a cipher")
        size = _KEY_SIZES.get(algorithm)
        if digest is None or size is None:
            raise UnknownAlgorithm(f"the PFX file is encrypted with {algorithm}, which is not known")
        vector = cipher[1].octets("an initialization vector")

        def opened(password: bytes) -> bytes:
            self._spend(iterations)
            return decrypt_content(
                algorithm, vector, data, hashlib.pbkdf2_hmac(digest, password, salt, iterations, size)
            )

        return opened


def _load_key(key: bytes) -> tuple[bytes, bytes]:
    """Return the public key of a PKCS#8 key in normal form, and the key as PEM."""
    if len(key) > _MOST_KEY:
        raise CryptError("it is too large")
    try:
        loaded = serialization.load_der_private_key(key, None)
        public = loaded.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        text = loaded.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    except Exception as problem:
        raise CryptError(f"the library cannot load it ({type(problem).__name__})") from None
    return public, text


def _normal_form(public_key: bytes) -> bytes:
    """Return the public key as the library writes it, so that equal keys are equal bytes; else as it came."""
    try:
        return serialization.load_der_public_key(public_key).public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except Exception:
        return public_key
