"""A small walker over DER and the BER forms that the platform may send: constructed strings, indefinite lengths.

Hostile bytes cost bounded time and memory: size, depth and number of values are capped, and every fault is a
:class:`CryptError` (wireserver §11.3).
"""

from __future__ import annotations

from collections.abc import Iterator

from waagent.errors import CryptError

MAX_SIZE = 4 << 20
MAX_DEPTH = 32
MAX_VALUES = 20_000

INTEGER, OCTETS, NULL, OID, SEQUENCE, SET = 0x02, 0x04, 0x05, 0x06, 0x30, 0x31
_CONSTRUCTED = 0x20
_TAG_NAMES = {INTEGER: "an integer", OCTETS: "an octet string", OID: "an OID", SEQUENCE: "a sequence", SET: "a set"}


class Value:
    """One value: its tag, its content, and for constructed ones the values inside.

    Attributes:
        tag: the identifier octet, with class and the constructed bit.
        children: what a constructed value holds, ``()`` for a primitive one.
    """

    __slots__ = ("_body", "_data", "_end", "_start", "_stop", "children", "tag")

    def __init__(self, tag: int, data: bytes, start: int, body: int, stop: int, end: int) -> None:
        self.tag = tag
        self.children: tuple[Value, ...] = ()
        self._data = data
        self._start = start
        self._body = body
        self._stop = stop
        self._end = end

    @property
    def raw(self) -> bytes:
        """The whole encoding, as it came."""
        return self._data[self._start : self._end]

    @property
    def content(self) -> bytes:
        """The content octets, as they came."""
        return self._data[self._body : self._stop]

    @property
    def constructed(self) -> bool:
        """Whether it holds values."""
        return bool(self.tag & _CONSTRUCTED)

    def expect(self, tag: int, what: str) -> Value:
        """Return the value itself when it has *tag*; *what* names it in the error.

        Raises:
            CryptError: it has another one.
        """
        if self.tag != tag:
            raise CryptError(f"{what} is not {_TAG_NAMES.get(tag, f'tag 0x{tag:02x}')} but tag 0x{self.tag:02x}")
        return self

    def sequence(self, what: str, least: int = 0) -> tuple[Value, ...]:
        """Return the members of a SEQUENCE that has at least *least* of them.

        Raises:
            CryptError: it is none, or has fewer.
        """
        members = self.expect(SEQUENCE, what).children
        if len(members) < least:
            raise CryptError(f"{what} has {len(members)} members, expected {least}")
        return members

    def explicit(self, number: int, what: str) -> Value:
        """Return what a ``[number] EXPLICIT`` tag holds.

        Raises:
            CryptError: it is none.
        """
        self.expect(0xA0 | number, what)
        if len(self.children) != 1:
            raise CryptError(f"{what} holds {len(self.children)} values, expected 1")
        return self.children[0]

    def octets(self, what: str, tag: int = OCTETS) -> bytes:
        """Return the bytes of an octet string, whole or in pieces; *tag* for an implicitly tagged one.

        Raises:
            CryptError: it is none.
        """
        if self.tag == tag:
            return self.content
        if self.tag != tag | _CONSTRUCTED:
            self.expect(tag, what)
        return b"".join(piece.octets(what) for piece in self.children)

    def oid(self, what: str) -> str:
        """Return an object identifier as dotted numbers.

        Raises:
            CryptError: it is none.
        """
        content = self.expect(OID, what).content
        if not content or len(content) > 64 or content[-1] & 0x80:
            raise CryptError(f"{what} is malformed")
        numbers: list[int] = []
        number = 0
        for octet in content:
            number = number << 7 | octet & 0x7F
            if not octet & 0x80:
                numbers.append(number)
                number = 0
        first = min(numbers[0] // 40, 2)
        return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]]))

    def integer(self, what: str, most: int | None = None) -> int:
        """Return an integer, between 0 and *most* when that is given.

        Raises:
            CryptError: it is none, or out of range.
        """
        content = self.expect(INTEGER, what).content
        if not content:
            raise CryptError(f"{what} is empty")
        number = int.from_bytes(content, "big", signed=True)
        if most is not None and not 0 <= number <= most:
            raise CryptError(f"{what} is out of range")
        return number


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.count = 0

    def value(self, position: int, end: int, depth: int) -> Value:
        """Read the value at *position*, which must lie before *end*."""
        data = self.data
        self.count += 1
        if self.count > MAX_VALUES or depth > MAX_DEPTH:
            raise CryptError("the structure holds too many values or is too deep")
        if end - position < 2:
            raise CryptError("the structure is cut short")
        tag = data[position]
        if tag & 0x1F == 0x1F:
            raise CryptError("a tag number is too large")
        length = data[position + 1]
        body = position + 2
        if length == 0x80:
            return self.indefinite(tag, position, body, end, depth)
        if length & 0x80:
            size = length & 0x7F
            if size > 8 or end - body < size:
                raise CryptError("a length is malformed")
            length = int.from_bytes(data[body : body + size], "big")
            body += size
        stop = body + length
        if stop > end:
            raise CryptError("the structure is cut short")
        value = Value(tag, data, position, body, stop, stop)
        if value.constructed:
            members: list[Value] = []
            at = body
            while at < stop:
                members.append(self.value(at, stop, depth + 1))
                at = members[-1]._end
            value.children = tuple(members)
        return value

    def indefinite(self, tag: int, start: int, body: int, end: int, depth: int) -> Value:
        if not tag & _CONSTRUCTED:
            raise CryptError("a primitive value has no length")
        members: list[Value] = []
        at = body
        while True:
            if self.data[at : min(at + 2, end)] == b"\0\0":
                break
            members.append(self.value(at, end, depth + 1))
            at = members[-1]._end
        value = Value(tag, self.data, start, body, at, at + 2)
        value.children = tuple(members)
        return value


def parse(data: bytes, what: str) -> Value:
    """Return the first value in *data*; bytes behind it are passed over, as other readers do.

    Args:
        data: DER or BER, at most 4 MiB.
        what: names it in errors.

    Raises:
        CryptError: it cannot be read; says why.
    """
    if len(data) > MAX_SIZE:
        raise CryptError(f"{what} is larger than {MAX_SIZE} bytes")
    try:
        return _Reader(data).value(0, len(data), 0)
    except CryptError as problem:
        raise CryptError(f"{what} cannot be read: {problem}") from None


def context(members: tuple[Value, ...]) -> Iterator[tuple[int, Value]]:
    """Yield the context-specific members of a sequence with their numbers."""
    for member in members:
        if member.tag & 0xC0 == 0x80:
            yield member.tag & 0x1F, member


class CertificateFacts:
    """What the recipient and the key of a certificate are found by, as it is encoded.

    Attributes:
        issuer: the encoded issuer.
        serial: the serial number.
        public_key: the encoded SubjectPublicKeyInfo.
        key_id: the SubjectKeyIdentifier, ``None`` when it has none.
    """

    __slots__ = ("issuer", "key_id", "public_key", "serial")

    def __init__(self, certificate: bytes) -> None:
        """Read a DER certificate.

        Raises:
            CryptError: it is none.
        """
        members = parse(certificate, "the certificate").sequence("the certificate", 3)
        fields = members[0].sequence("the certificate's content", 6)
        at = 1 if fields[0].tag == 0xA0 else 0
        if len(fields) < at + 6:
            raise CryptError("the certificate's content is incomplete")
        self.serial = fields[at].integer("the serial number")
        self.issuer = fields[at + 2].expect(SEQUENCE, "the issuer").raw
        self.public_key = fields[at + 5].expect(SEQUENCE, "the public key").raw
        self.key_id: bytes | None = None
        for number, field in context(fields[at + 6 :]):
            if number != 3 or not field.children:
                continue
            for extension in field.children[0].sequence("the extensions"):
                parts = extension.sequence("an extension", 2)
                if parts[0].oid("an extension's name") == "2.5.29.14":
                    inner = parse(parts[-1].octets("an extension"), "the SubjectKeyIdentifier")
                    self.key_id = inner.octets("the SubjectKeyIdentifier")
