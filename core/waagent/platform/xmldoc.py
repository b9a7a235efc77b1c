"""Platform XML to a small tree, safe against hostile documents (wireserver §4, §6, §22, §23).

What is accepted: UTF-8 with or without a byte order mark, UTF-16 with a mark or a declaration that starts in UTF-16,
and US-ASCII. A declaration that says ``utf-16`` over UTF-8 bytes is accepted too: that is what a .NET string writer
leaves behind. Every other encoding, a document type declaration, any entity but XML's own five, more than 16 MiB, more
than 64 levels and more than 250 000 elements are refused.

Elements are known by their local name; namespaces carry no meaning in most of these documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.parsers import expat

from waagent.errors import ProtocolError

MAX_BYTES = 16 << 20
MAX_DEPTH = 64
MAX_ELEMENTS = 250_000

_ENCODINGS = frozenset({"utf-8", "utf8", "utf-16", "utf-16le", "utf-16be", "us-ascii", "ascii"})
_DECLARED = re.compile(r"<\?xml\s[^>]{0,200}?\sencoding\s*=\s*[\"']([^\"'>]{1,40})[\"']")
_TEXT_LIMIT = 40
_SEPARATOR = " "


class Element:
    """One element: its local name, attributes, children in order, and its own text.

    Attributes:
        tag: the name without a namespace prefix; ``{uri}name`` where the parser was asked for namespaces.
        attributes: as written; values are not stripped.
        children: the child elements, in document order.
        text: the element's own text and CDATA, joined, and stripped of surrounding white space (DIFF-6) unless the
            parser was asked to leave it.
    """

    __slots__ = ("attributes", "children", "tag", "text")

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag = tag
        self.attributes = attributes
        self.children: list[Element] = []
        self.text = ""

    def __iter__(self) -> Iterator[Element]:
        """Yield all descendants in document order."""
        waiting = [iter(self.children)]
        while waiting:
            for element in waiting[-1]:
                yield element
                if element.children:
                    waiting.append(iter(element.children))
                    break
            else:
                waiting.pop()

    def find(self, tag: str) -> Element | None:
        """Return the first descendant called *tag*, at any depth: the search rule of these documents (§6)."""
        for element in self:
            if element.tag == tag:
                return element
        return None

    def find_all(self, tag: str) -> list[Element]:
        """Return all descendants called *tag*, in document order."""
        return [element for element in self if element.tag == tag]

    def find_text(self, tag: str) -> str | None:
        """Return the text of the first descendant called *tag*, ``None`` when there is none."""
        element = self.find(tag)
        return None if element is None else element.text

    def get(self, name: str) -> str:
        """Return the attribute *name* without surrounding white space, ``""`` when it is absent."""
        return self.attributes.get(name, "").strip()


def decode(data: bytes, document: str) -> str:
    """Return the text of an XML document as the module says.

    Raises:
        ProtocolError: too large, or not in an accepted encoding.
    """
    if len(data) > MAX_BYTES:
        raise ProtocolError(f"{document}: expected at most {MAX_BYTES} bytes, found {len(data)}")
    encoding = "utf-8-sig"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif data[:4] == b"<\0?\0":
        encoding = "utf-16-le"
    elif data[:4] == b"\0<\0?":
        encoding = "utf-16-be"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as problem:
        raise ProtocolError(
            f"{document}: expected {encoding.replace('-sig', '').upper()} text, found a bad byte at {problem.start}"
        ) from None
    declared = _DECLARED.match(text.lstrip())
    if declared and declared.group(1).lower() not in _ENCODINGS:
        raise ProtocolError(f"{document}: expected the encoding UTF-8 or UTF-16, found another one declared")
    return text


def parse(
    data: bytes, document: str, root: str | None = None, *, namespaces: bool = False, strip: bool = True
) -> Element:
    """Parse *data* into its root element.

    Args:
        data: the bytes as they came.
        document: the document's name, for messages.
        root: the name that the root element must have, ``None`` for any.
        namespaces: names are ``{uri}name``, for documents whose prefixes are not stable.
        strip: take white space off the ends of texts.

    Raises:
        ProtocolError: not well-formed, refused by the rules of this module, or another root.
    """
    text = decode(data, document)
    # The expat binding goes on in C after a handler has raised, so the declaration is refused before it sees it.
    if _has_doctype(text):
        raise ProtocolError(f"{document}: expected no document type declaration, found one")
    builder = _Builder(document, namespaces, strip)
    parser = expat.ParserCreate(namespace_separator=_SEPARATOR if namespaces else None)
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.characters
    parser.StartDoctypeDeclHandler = builder.doctype
    try:
        parser.Parse(text, True)
    except expat.ExpatError as problem:
        raise ProtocolError(f"{document}: expected well-formed XML, found: {problem}") from None
    element = builder.root
    if element is None:  # expat answers "no element found" before this
        raise ProtocolError(f"{document}: expected an element, found none")
    if root is not None and element.tag != root:
        raise ProtocolError(f"{document}: expected the element {root}, found {shown(element.tag)}")
    return element


def shown(name: str) -> str:
    """Return an element or attribute name for a message: printable, and not longer than forty characters."""
    kept = "".join(letter if letter.isprintable() else "?" for letter in name[:_TEXT_LIMIT])
    return kept + ("..." if len(name) > _TEXT_LIMIT else "")


def _has_doctype(text: str) -> bool:
    """Whether the prolog holds a declaration; inside the root element such text can only be data or malformed."""
    position = 1 if text.startswith("\ufeff") else 0
    while True:
        while position < len(text) and text[position] in " \t\r\n":
            position += 1
        if text.startswith("<?", position):
            end = text.find("?>", position)
        elif text.startswith("<!--", position):
            end = text.find("-->", position + 4)
        else:
            return text.startswith("<!", position)
        if end < 0:
            return False
        position = end + (2 if text[end] == "?" else 3)


class _Builder:
    """Builds the tree from the parser's calls."""

    def __init__(self, document: str, namespaces: bool, strip: bool) -> None:
        self.document = document
        self.namespaces = namespaces
        self.strip = strip
        self.root: Element | None = None
        self.stack: list[Element] = []
        self.pieces: list[list[str]] = []
        self.count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self.count += 1
        if self.count > MAX_ELEMENTS:
            raise ProtocolError(f"{self.document}: expected at most {MAX_ELEMENTS} elements, found more")
        if len(self.stack) >= MAX_DEPTH:
            raise ProtocolError(f"{self.document}: expected at most {MAX_DEPTH} levels of elements, found more")
        if self.namespaces:
            uri, separator, local = name.rpartition(_SEPARATOR)
            name = f"{{{uri}}}{local}" if separator else name
        else:
            name = name.rpartition(":")[2]
        element = Element(name, attributes)
        if self.stack:
            self.stack[-1].children.append(element)
        else:
            self.root = element
        self.stack.append(element)
        self.pieces.append([])

    def end(self, _name: str) -> None:
        text = "".join(self.pieces.pop())
        self.stack.pop().text = text.strip() if self.strip else text

    def characters(self, text: str) -> None:
        self.pieces[-1].append(text)

    def doctype(self, *_arguments: object) -> None:
        raise ProtocolError(f"{self.document}: expected no document type declaration, found one")
