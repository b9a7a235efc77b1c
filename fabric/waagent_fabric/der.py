"""The few lines of DER writing that CMS and PKCS#12 need."""

from __future__ import annotations


def tlv(tag: int, content: bytes) -> bytes:
    """Return one element with a definite length."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def sequence(*items: bytes) -> bytes:
    """Return SEQUENCE."""
    return tlv(0x30, b"".join(items))


def set_of(*items: bytes) -> bytes:
    """Return SET OF, sorted as DER asks."""
    return tlv(0x31, b"".join(sorted(items)))


def integer(value: int) -> bytes:
    """Return INTEGER of a number that is not negative."""
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def octets(value: bytes) -> bytes:
    """Return OCTET STRING."""
    return tlv(0x04, value)


def null() -> bytes:
    """Return NULL."""
    return b"\x05\x00"


def bmp_string(value: str) -> bytes:
    """Return BMPString."""
    return tlv(0x1E, value.encode("utf-16-be"))


def explicit(number: int, content: bytes) -> bytes:
    """Return ``[number] EXPLICIT`` (or a constructed IMPLICIT) around *content*."""
    return tlv(0xA0 | number, content)


def implicit(number: int, content: bytes) -> bytes:
    """Return a primitive ``[number] IMPLICIT``."""
    return tlv(0x80 | number, content)


def oid(dotted: str) -> bytes:
    """Return OBJECT IDENTIFIER."""
    first, second, *rest = (int(part) for part in dotted.split("."))
    content = bytearray()
    for number in (first * 40 + second, *rest):
        left, piece = number >> 7, [number & 0x7F]
        while left:
            piece.append(0x80 | (left & 0x7F))
            left >>= 7
        content.extend(reversed(piece))
    return tlv(0x06, bytes(content))


def algorithm(dotted: str, parameters: bytes = b"") -> bytes:
    """Return AlgorithmIdentifier."""
    return sequence(oid(dotted), parameters)
