"""Read the little of a CMS message that a timestamp needs: DER, one element after the other. Pure.

What the message claims is only taken apart here; whether it is true, openssl says.
"""

from __future__ import annotations

from collections.abc import Iterator

SEQUENCE, SET, OCTET_STRING, OID, GENERALIZED_TIME = 0x30, 0x31, 0x04, 0x06, 0x18
CONTEXT_0, CONTEXT_1 = 0xA0, 0xA1


class DerError(ValueError):
    """The bytes are not what was expected there."""


class Element:
    """One element.

    Attributes:
        tag: the tag's byte; tags of several bytes do not occur where this looks.
        body: its content.
        whole: with tag and length.
    """

    __slots__ = ("body", "tag", "whole")

    def __init__(self, tag: int, body: bytes, whole: bytes) -> None:
        self.tag = tag
        self.body = body
        self.whole = whole

    def children(self) -> list[Element]:
        """Return the elements inside.

        Raises:
            DerError: there is something else inside.
        """
        return list(_elements(self.body))


def parse(data: bytes) -> Element:
    """Return the one element that *data* consists of.

    Raises:
        DerError: it is none, or more than one.
    """
    found = list(_elements(data))
    if len(found) != 1:
        raise DerError(f"one element was expected, not {len(found)}")
    return found[0]


def expect(element: Element, tag: int, what: str) -> Element:
    """Return *element* when it has *tag*.

    Raises:
        DerError: it has another; names *what* was expected.
    """
    if element.tag != tag:
        raise DerError(f"{what}: tag {tag:#04x} was expected, not {element.tag:#04x}")
    return element


def _elements(data: bytes) -> Iterator[Element]:
    position, end = 0, len(data)
    while position < end:
        start = position
        if end - position < 2:
            raise DerError("an element is cut short")
        tag, length = data[position], data[position + 1]
        position += 2
        if tag & 0x1F == 0x1F:
            raise DerError("a tag of several bytes")
        if length >= 0x80:
            count = length & 0x7F
            if not 1 <= count <= 4 or position + count > end:
                raise DerError("a length that cannot be read")
            length = int.from_bytes(data[position : position + count], "big")
            position += count
        if position + length > end:
            raise DerError("an element is cut short")
        yield Element(tag, data[position : position + length], data[start : position + length])
        position += length
