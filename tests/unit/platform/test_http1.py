"""The framing of answers, whatever pieces they come in and whatever nonsense comes (RFC 9112)."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.platform import http1

BODY = b"hello world"
BY_LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\nETag:  7 \r\n\r\n" + BODY
BY_CHUNKS = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\nETag: 7\nTransfer-Encoding: Chunked\r\n\r\n"
    b"5;name=value\r\nhello\r\n006\r\n world\r\n0\r\nTrailer: x\r\n\r\n"
)
BY_THE_END = b"HTTP/1.0 200 OK\r\nETag: 7\r\nContent-Length: many\r\n\r\n" + BODY


class Pieces:
    """A socket that hands out what it was given, piece by piece."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = [piece for piece in pieces if piece]

    def settimeout(self, seconds: float) -> None:
        assert seconds > 0

    def recv(self, count: int) -> bytes:
        if not self.pieces:
            return b""
        piece = self.pieces.pop(0)
        if len(piece) > count:
            self.pieces.insert(0, piece[count:])
        return piece[:count]


def wire(*pieces: bytes) -> http1.Wire:
    raw: Any = Pieces(list(pieces))
    made = http1.Wire(raw, lambda: 0.0)
    made.prepare(1.0, 10.0)
    return made


def exchange(source: http1.Wire, limit: int = 1 << 20) -> tuple[http1.Head, bytes]:
    head = http1.read_head(source)
    return head, http1.read_body(source, head, limit)


@pytest.mark.parametrize("data", [BY_LENGTH, BY_CHUNKS, BY_THE_END])
@given(cuts=st.lists(st.integers(0, 200), max_size=20))
def test_the_pieces_do_not_matter(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(data)]
    source = wire(*(data[start:end] for start, end in zip(edges, edges[1:])))
    head, body = exchange(source)
    assert (head.status, head.reason, head.headers["etag"], body) == (200, "OK", "7", BODY)
    assert head.keeps is (data is not BY_THE_END)
    assert not source.has_surplus


@pytest.mark.parametrize("data", [BY_LENGTH, BY_CHUNKS, BY_THE_END])
@given(
    edits=st.lists(st.tuples(st.integers(0, 120), st.sampled_from([b"\r\n", b"\n", b"\r", b" ", b"\r\n "])), max_size=6)
)
def test_one_piece_and_single_bytes_are_read_alike(data: bytes, edits: list[tuple[int, bytes]]) -> None:
    for at, what in edits:
        data = data[:at] + what + data[at:]

    def read(source: http1.Wire) -> tuple[Any, ...]:
        try:
            head, body = exchange(source)
        except (http1.Malformed, http1.NothingCame, http1.CutShort) as problem:
            return (type(problem),)
        return head.status, head.reason, head.headers, head.keeps, body

    assert read(wire(data)) == read(wire(*(bytes([byte]) for byte in data)))


@pytest.mark.parametrize("data", [BY_LENGTH, BY_CHUNKS])
def test_every_cut_is_noticed(data: bytes) -> None:
    for end in range(1, len(data)):
        with pytest.raises(http1.CutShort):
            exchange(wire(data[:end]))
    with pytest.raises(http1.NothingCame):
        exchange(wire())


@pytest.mark.parametrize("data", [BY_LENGTH, BY_CHUNKS, BY_THE_END])
def test_no_byte_more_than_allowed(data: bytes) -> None:
    assert exchange(wire(data), limit=len(BODY))[1] == BODY
    with pytest.raises(http1.Oversized):
        exchange(wire(data), limit=len(BODY) - 1)


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=100).map(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail)))
def test_nonsense_ends_in_an_error_or_an_answer(data: bytes) -> None:
    try:
        head, body = exchange(wire(data), limit=1000)
    except (http1.Malformed, http1.NothingCame, http1.CutShort, http1.Oversized):
        return
    assert head.status == 200
    assert len(body) <= len(data)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nna me: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: x\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 11,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"T: x\r\n" * 101,
    ],
)
def test_what_is_no_http(data: bytes) -> None:
    with pytest.raises(http1.Malformed):
        exchange(wire(data))


def test_a_folded_header_is_one_value() -> None:
    head, _ = exchange(wire(b"HTTP/1.1 204 No Content\r\nA: one\r\n\ttwo\r\nB: x\r\n\r\n"))
    assert head.headers == {"a": "one two", "b": "x"}


def test_the_time_for_the_whole_exchange_counts() -> None:
    raw: Any = Pieces([BY_LENGTH])
    late = http1.Wire(raw, lambda: 11.0)
    late.prepare(1.0, 10.0)
    with pytest.raises(socket.timeout):
        http1.read_head(late)


@pytest.mark.parametrize("header", [("X", "a\r\nB: c"), ("X\n", "a"), ("X", "snow \u2603")])
def test_a_header_that_would_be_two(header: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match=r"line break|latin-1"):
        http1.request("GET", "/", "host", [header], None)
