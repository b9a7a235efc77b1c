"""Find the timestamp in a signature, and read what it says (RFC 3161, RFC 5652). Pure; openssl verifies it."""

from __future__ import annotations

import re

import attrs

from waagent_signatures import der
from waagent_signatures.der import DerError, Element
from waagent_signatures.digests import digest

_SIGNED_DATA = bytes.fromhex("2a864886f70d010702")  # 1.2.840.113549.1.7.2
_TOKEN = bytes.fromhex("2a864886f70d010910020e")  # 1.2.840.113549.1.9.16.2.14, id-aa-timeStampToken
_TIME_INFO = bytes.fromhex("2a864886f70d0109100104")  # 1.2.840.113549.1.9.16.1.4, id-ct-TSTInfo
_HASHES = {
    bytes.fromhex("608648016503040201"): "sha256",
    bytes.fromhex("608648016503040202"): "sha384",
    bytes.fromhex("608648016503040203"): "sha512",
}
_TIME = re.compile(rb"([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})(?:\.[0-9]+)?Z\Z")


@attrs.frozen(eq=False, repr=False)
class Stamped:
    """A signature with its timestamp.

    Attributes:
        value: the signature's bytes, which the timestamp is about.
        token: the timestamp, a CMS message of its own.
    """

    value: bytes
    token: bytes


@attrs.frozen(eq=False, repr=False)
class TimeInfo:
    """What a timestamp says.

    Attributes:
        seconds: since 1970.
        hash_name: ``sha256``, ``sha384`` or ``sha512``.
        digest: of what existed at that time.
    """

    seconds: int
    hash_name: str
    digest: bytes

    def is_about(self, data: bytes) -> bool:
        """Return whether the timestamp was made for *data*."""
        return digest(self.hash_name, data) == self.digest


def find(signature: bytes) -> Stamped | None:
    """Return the timestamp of a detached CMS signature; ``None`` when its one signer has none.

    Raises:
        DerError: the message cannot be taken apart, or has several signers or timestamps.
    """
    signers = [element for element in _signed_data(signature) if element.tag == der.SET][-1:]
    found = signers[0].children() if signers else []
    if len(found) != 1:
        raise DerError(f"one signer was expected, not {len(found)}")
    fields = der.expect(found[0], der.SEQUENCE, "a signer").children()
    values = [field.body for field in fields if field.tag == der.OCTET_STRING]
    if len(values) != 1:
        raise DerError("the signer has not one signature")
    tokens = [token for field in fields if field.tag == der.CONTEXT_1 for token in _tokens(field)]
    if not tokens:
        return None
    if len(tokens) > 1:
        raise DerError("the signature has several timestamps")
    return Stamped(values[0], tokens[0])


def _tokens(attributes: Element) -> list[bytes]:
    found = []
    for attribute in attributes.children():
        parts = attribute.children()
        if len(parts) == 2 and parts[0].tag == der.OID and parts[0].body == _TOKEN:
            found += [value.whole for value in der.expect(parts[1], der.SET, "a timestamp").children()]
    return found


def claimed(token: bytes) -> TimeInfo:
    """Return what a timestamp claims, unverified.

    Raises:
        DerError: it cannot be read.
    """
    for element in _signed_data(token):
        if element.tag != der.SEQUENCE:
            continue
        parts = element.children()
        if len(parts) == 2 and parts[0].body == _TIME_INFO:
            content = der.expect(parts[1], der.CONTEXT_0, "the timestamp's content").children()
            if len(content) == 1 and content[0].tag == der.OCTET_STRING:
                return read(content[0].body)
    raise DerError("the timestamp has no content")


def read(content: bytes) -> TimeInfo:
    """Return what the content of a timestamp (``TSTInfo``) says.

    Raises:
        DerError: it cannot be read, or uses a hash that counts for nothing any more.
    """
    fields = der.expect(der.parse(content), der.SEQUENCE, "TSTInfo").children()
    if len(fields) < 5:
        raise DerError("TSTInfo is incomplete")
    imprint = der.expect(fields[2], der.SEQUENCE, "messageImprint").children()
    if len(imprint) != 2:
        raise DerError("messageImprint is incomplete")
    algorithm = imprint[0].children()
    name = _HASHES.get(algorithm[0].body) if algorithm else None
    if name is None:
        raise DerError("the timestamp uses an unknown or weak hash")
    return TimeInfo(_seconds(der.expect(fields[4], der.GENERALIZED_TIME, "genTime").body), name, imprint[1].body)


def _seconds(text: bytes) -> int:
    match = _TIME.match(text)
    if match is None:
        raise DerError(f"genTime {text[:40]!r} cannot be read")
    year, month, day, hour, minute, second = (int(group) for group in match.groups())
    if not (year >= 1970 and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 61):
        raise DerError(f"genTime {text[:40]!r} is no time")
    return ((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second


def _days(year: int, month: int, day: int) -> int:
    """Return the days since 1970-01-01; the year is taken to begin in March, so that its last day is the odd one."""
    years = year - (month < 3)
    leap_days = years // 4 - years // 100 + years // 400
    return years * 365 + leap_days + (153 * ((month + 9) % 12) + 2) // 5 + day - 719469


def _signed_data(message: bytes) -> list[Element]:
    """Return the fields of a ``SignedData``."""
    outer = der.expect(der.parse(message), der.SEQUENCE, "a CMS message").children()
    if len(outer) != 2 or outer[0].tag != der.OID or outer[0].body != _SIGNED_DATA:
        raise DerError("no CMS SignedData")
    inner = der.expect(outer[1], der.CONTEXT_0, "SignedData").children()
    if len(inner) != 1:
        raise DerError("SignedData is no single element")
    return der.expect(inner[0], der.SEQUENCE, "SignedData").children()
