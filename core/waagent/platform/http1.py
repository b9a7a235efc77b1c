"""HTTP/1.1 as the platform's plain endpoints speak it: one request, one answer, on a kept connection (RFC 9112).

There are no redirects, cookies, content codings or TLS here. ``http.client`` would do too; but it reads headers as
mail, which costs the resident worker 2.4 MB of mail and calendar modules and half of the CPU of an idle period, and it
takes a connection that ends within the headers for a complete answer.
"""

from __future__ import annotations

import select
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LINE_LIMIT = 64 << 10
"""Bytes of one line."""
HEADER_LIMIT = 100
"""Lines of one header block."""
INTERIM_LIMIT = 10
PIECE = 64 << 10
"""Bytes that are asked of the socket at a time."""


class Malformed(Exception):
    """What came is no HTTP."""


class NothingCame(Exception):
    """The connection ended before the first byte of an answer."""


class CutShort(Exception):
    """The connection ended within the answer, or the answer's own framing breaks off.

    Attributes:
        missing: bytes of the body that did not come, 0 when nobody knows.
    """

    def __init__(self, missing: int = 0) -> None:
        super().__init__(f"{missing} bytes missing" if missing else "")
        self.missing = missing


class Oversized(Exception):
    """The body is larger than the caller allows."""


class Wire:
    """A connected socket, read by lines and pieces, with one deadline for a whole exchange.

    Args:
        raw: the socket; closed by :meth:`close`.
        clock: monotonic seconds.
    """

    def __init__(self, raw: socket.socket, clock: Callable[[], float]) -> None:
        self.received = 0
        self._raw = raw
        self._clock = clock
        self._timeout = self._deadline = 0.0
        self._armed = -1.0
        self._buffer = b""
        self._at = 0

    def prepare(self, timeout: float, deadline: float) -> None:
        """Start an exchange: *timeout* seconds for each step, all of them before *deadline* (of the clock)."""
        self.received = 0
        self._timeout = timeout
        self._deadline = deadline

    def send(self, data: bytes) -> None:
        """Send all of *data*.

        Raises:
            OSError: the connection broke, or the time is over.
        """
        self._arm()
        self._raw.sendall(data)

    def line(self) -> bytes:
        """Return the next line without its end.

        Raises:
            CutShort: the connection ended before the line did.
            Malformed: the line is too long.
            OSError: the connection broke, or the time is over.
        """
        end = self._buffer.find(b"\n", self._at)
        while end < 0:
            known = len(self._buffer) - self._at
            if known > LINE_LIMIT:
                raise Malformed(f"a line of more than {LINE_LIMIT} bytes")
            data = self._receive()
            if not data:
                raise CutShort
            self._buffer, self._at = self._buffer[self._at :] + data, 0
            end = self._buffer.find(b"\n", known)
        line = self._buffer[self._at : end]
        self._at = end + 1
        if len(line) > LINE_LIMIT:
            raise Malformed(f"a line of more than {LINE_LIMIT} bytes")
        return line.removesuffix(b"\r")

    def lines_to_blank(self) -> list[bytes] | None:
        """Return the lines before a blank one when all came already and all end as they should; else ``None``.

        Nearly every head is one such piece; anything else is for :meth:`line` to judge.
        """
        end = self._buffer.find(b"\r\n\r\n", self._at)
        if end < 0 or self._buffer.startswith(b"\r\n", self._at):
            return None
        block = self._buffer[self._at : end]
        lines = block.split(b"\r\n")
        if block.count(b"\n") != len(lines) - 1 or len(block) > LINE_LIMIT:
            return None
        self._at = end + 4
        return lines

    def some(self, most: int) -> bytes:
        """Return what is there, waiting for at least one byte and at most *most*; nothing at the end of the stream.

        Raises:
            OSError: the connection broke, or the time is over.
        """
        if not self.has_surplus:
            self._buffer, self._at = self._receive(), 0
        data = self._buffer[self._at : self._at + most]
        self._at += len(data)
        return data

    @property
    def has_surplus(self) -> bool:
        """Whether bytes came that nobody has read yet."""
        return self._at < len(self._buffer)

    def is_dead(self) -> bool:
        """Whether the peer closed the idle connection, or sent something nobody asked for."""
        poll = select.poll()
        poll.register(self._raw, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close the connection."""
        self._raw.close()

    def _receive(self) -> bytes:
        self._arm()
        data = self._raw.recv(PIECE)
        self.received += len(data)
        return data

    def _arm(self) -> None:
        left = self._deadline - self._clock()
        if left <= 0:
            raise socket.timeout("the exchange took too long as a whole")
        wait = min(self._timeout, left)
        if wait != self._armed:
            self._raw.settimeout(wait)
            self._armed = wait


class Head:
    """Status line and headers of an answer.

    Attributes:
        status: the status code.
        reason: its text, as sent.
        headers: names in lower case; of a repeated one the first.
        chunked: whether the body comes in chunks.
        length: bytes of the body, ``None`` when only its end tells.
        keeps: whether the connection can carry another exchange.
    """

    __slots__ = ("chunked", "headers", "keeps", "length", "reason", "status")

    def __init__(self, status: int, reason: str, headers: dict[str, str], persistent: bool) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        coding = headers.get("transfer-encoding", "").lower()
        if coding not in ("", "chunked", "identity"):
            raise Malformed(f"transfer coding {coding[:40]!r}")
        self.chunked = coding == "chunked"
        length = headers.get("content-length", "")
        self.length: int | None = None
        if status in (204, 304):
            self.length, self.chunked = 0, False
        elif not self.chunked and length.isascii() and length.isdigit():
            self.length = int(length)
        closes = "close" in headers.get("connection", "").lower()
        self.keeps = persistent and not closes and (self.chunked or self.length is not None)


def request(method: str, target: str, host: str, headers: Iterable[tuple[str, str]], body: bytes | None) -> bytes:
    """Return a request as bytes, its headers in the order given.

    Args:
        method: ``GET``, ``POST`` or ``PUT``.
        target: path and query, sent unmodified.
        host: for the first header.
        headers: the others but ``Content-Length``.
        body: ``None`` for none.

    Raises:
        ValueError: something in it would end a line, or is not Latin-1.
    """
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers)]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a line break within a header")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def read_head(wire: Wire) -> Head:
    """Read status line and headers of the final answer; interim ones are skipped.

    Raises:
        NothingCame: the connection ended before the first byte.
        CutShort: it ended later, but before the end of the headers.
        Malformed: no HTTP.
        OSError: the connection broke, or the time is over.
    """
    for _ in range(INTERIM_LIMIT):
        try:
            line = wire.line()
        except CutShort:
            if wire.received:
                raise
            raise NothingCame from None
        version, _, rest = line.partition(b" ")
        code, _, reason = rest.partition(b" ")
        if not version.startswith(b"HTTP/1.") or len(code) != 3 or not code.isdigit() or code < b"100":
            raise Malformed(f"a status line was expected, {line[:40]!r} came")
        headers = _headers(wire)
        if int(code) >= 200:
            return Head(int(code), reason.strip().decode("latin-1"), headers, version != b"HTTP/1.0")
    raise Malformed("one interim answer after the other")


def _headers(wire: Wire) -> dict[str, str]:
    lines: list[bytes] = []
    for line in wire.lines_to_blank() or iter(wire.line, b""):
        if len(lines) == HEADER_LIMIT:
            raise Malformed(f"more than {HEADER_LIMIT} headers")
        if line[:1] in (b" ", b"\t") and lines:
            lines[-1] += b" " + line.strip()
        else:
            lines.append(line)
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name.split() != [name]:
            raise Malformed(f"a header was expected, {line[:40]!r} came")
        found.setdefault(name.decode("latin-1").lower(), value.strip().decode("latin-1"))
    return found


def read_body(wire: Wire, head: Head, limit: int) -> bytes:
    """Read the body that belongs to *head*.

    Raises:
        Oversized: more than *limit* bytes.
        CutShort: the connection ended before the body did.
        Malformed: a line within the body is too long.
        OSError: the connection broke, or the time is over.
    """
    if head.chunked:
        return _chunks(wire, limit)
    if head.length is not None:
        if head.length > limit:
            raise Oversized(f"the answer has {head.length} bytes, allowed are {limit}")
        return _exactly(wire, head.length)
    pieces: list[bytes] = []
    left = limit
    while True:
        piece = wire.some(PIECE)
        if not piece:
            return b"".join(pieces)
        left -= len(piece)
        if left < 0:
            raise _oversized(limit)
        pieces.append(piece)


def _exactly(wire: Wire, count: int) -> bytes:
    pieces: list[bytes] = []
    while count:
        piece = wire.some(count)
        if not piece:
            raise CutShort(count)
        count -= len(piece)
        pieces.append(piece)
    return b"".join(pieces)


def _chunks(wire: Wire, limit: int) -> bytes:
    pieces: list[bytes] = []
    left = limit
    while True:
        digits = wire.line().partition(b";")[0].strip()
        if not digits or digits.strip(b"0123456789abcdefABCDEF"):
            raise CutShort
        size = int(digits, 16)
        if not size:
            break
        left -= size
        if left < 0:
            raise _oversized(limit)
        pieces.append(_exactly(wire, size))
        if wire.line():
            raise CutShort
    for _ in range(HEADER_LIMIT):
        if not wire.line():
            return b"".join(pieces)
    raise Malformed(f"more than {HEADER_LIMIT} trailers")


def _oversized(limit: int) -> Oversized:
    return Oversized(f"the answer is larger than the {limit} bytes allowed")
