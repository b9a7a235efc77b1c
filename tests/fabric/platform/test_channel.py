"""The channel against servers that close, cut, stall, send garbage, too much, or nothing (wireserver §3; ruling 24)."""

from __future__ import annotations

import gc
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from tests.fabric.platform.rawserver import Connection, always, serving
from waagent.errors import HttpError
from waagent.platform.channel import BODY_LIMIT, KEPT, Channels, TooLarge, Unreachable, split_url

pytestmark = pytest.mark.fabric


@pytest.fixture
def channels() -> Iterator[Channels]:
    made = Channels("WALinuxAgent/3.0.0.0")
    yield made
    made.close()


def one(data: bytes) -> Callable[[Connection], None]:
    """Serve one request with exactly *data* and close."""

    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(data)

    return serve


def test_a_request_goes_out_byte_for_byte(channels: Channels) -> None:
    with serving(always(b"<xml/>")) as server:
        path = "/machine/a%2Db/%5Fvm?comp=config&type=x&sig=a%2bb%3d&incarnation=1"
        headers = (("x-ms-agent-name", "WALinuxAgent"), ("x-ms-version", "2012-11-30"))
        answer = channels.request("GET", server.url(path), headers)
        assert (answer.status, answer.reason, answer.body) == (200, "OK", b"<xml/>")
        channels.request("POST", server.url("/x"), (("Content-Type", "text/xml"),), b"body")
        channels.request("PUT", server.url("/x"), (("User-Agent", "other"),), b"")
        assert server.requests == [
            (
                f"GET {path} HTTP/1.1\r\nHost: {server.address}\r\nUser-Agent: WALinuxAgent/3.0.0.0\r\n"
                "Accept-Encoding: identity\r\nx-ms-agent-name: WALinuxAgent\r\nx-ms-version: 2012-11-30\r\n\r\n"
            ).encode(),
            (
                f"POST /x HTTP/1.1\r\nHost: {server.address}\r\nUser-Agent: WALinuxAgent/3.0.0.0\r\n"
                "Accept-Encoding: identity\r\nContent-Type: text/xml\r\nContent-Length: 4\r\n\r\nbody"
            ).encode(),
            (
                f"PUT /x HTTP/1.1\r\nHost: {server.address}\r\nAccept-Encoding: identity\r\nUser-Agent: other\r\n"
                "Content-Length: 0\r\n\r\n"
            ).encode(),
        ]


def test_the_connection_is_kept(channels: Channels) -> None:
    with serving(always(b"x" * 1000)) as server:
        for _ in range(50):
            assert len(channels.request("GET", server.url()).body) == 1000
        assert server.connections == 1


def test_each_thread_has_its_own_connection(channels: Channels) -> None:
    with serving(always()) as server:
        channels.request("GET", server.url())

        def lane() -> None:
            channels.request("GET", server.url())
            channels.close()

        thread = threading.Thread(target=lane)
        thread.start()
        thread.join()
        channels.request("GET", server.url())
        assert server.connections == 2


def test_a_connection_that_died_while_idle_is_replaced(channels: Channels) -> None:
    closed = threading.Event()

    def serve(connection: Connection) -> None:
        connection.request()
        connection.answer(b"one")
        connection.raw.close()
        closed.set()

    with serving(serve) as server:
        for _ in range(3):
            closed.clear()
            assert channels.request("GET", server.url()).body == b"one"
            assert closed.wait(5)
        assert (server.connections, len(server.requests)) == (3, 3)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_kept_connection_that_dies_before_the_first_byte_is_resent_once(channels: Channels, how: str) -> None:
    def serve(connection: Connection) -> None:
        connection.request()
        connection.answer(b"one")
        connection.request()  # dies with the second request
        if how == "reset":
            connection.reset()

    with serving(serve) as server:
        channels.request("GET", server.url("/1"))
        assert channels.request("POST", server.url("/2"), (), b"body").body == b"one"
        assert [request.split()[1] for request in server.requests] == [b"/1", b"/2", b"/2"]
        assert server.connections == 2


def test_a_new_connection_that_dies_is_not_resent(channels: Channels) -> None:
    def serve(connection: Connection) -> None:
        connection.request()

    with serving(serve) as server:
        with pytest.raises(Unreachable) as caught:
            channels.request("GET", server.url("/x?sig=SECRET"))
        assert caught.value.kind == "connection"
        assert len(server.requests) == 1
        assert "SECRET" not in str(caught.value)
        assert "/x" in str(caught.value)


def test_a_kept_connection_that_dies_within_the_answer_is_not_resent(channels: Channels) -> None:
    def serve(connection: Connection) -> None:
        connection.request()
        connection.answer(b"one")
        connection.request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Le")

    with serving(serve) as server:
        channels.request("GET", server.url())
        with pytest.raises(Unreachable):
            channels.request("GET", server.url())
        assert len(server.requests) == 2


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("at_once", [True, False])
def test_bytes_that_nobody_asked_for_end_a_kept_connection(channels: Channels, at_once: bool, chunked: bool) -> None:
    sent = threading.Event()
    one = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"
    if chunked:
        one = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n"
    more = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"

    def serve(connection: Connection) -> None:
        connection.request()
        for data in (one + more,) if at_once else (one, more):
            connection.send(data)
        sent.set()
        connection.wait_for_close()

    with serving(serve) as server:
        assert channels.request("GET", server.url()).body == b"one"
        assert sent.wait(5)
        assert channels.request("GET", server.url()).body == b"one"
        assert server.connections == 2


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10",
        b"HTTP/1.1 200 OK\r\nX: y\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n10\r\nonly",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnothex\r\nhello\r\n",
    ],
)
def test_a_body_cut_short_is_no_answer(channels: Channels, data: bytes) -> None:
    with serving(one(data)) as server:
        with pytest.raises(Unreachable, match="cut short") as caught:
            channels.request("GET", server.url())
        assert caught.value.kind == "protocol"


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not http at all\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 99999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"x" * 200_000,
    ],
)
def test_garbage_is_no_answer(channels: Channels, data: bytes) -> None:
    with serving(one(data)) as server, pytest.raises(Unreachable):
        channels.request("GET", server.url())


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: x\r\n\r\n",
         b"hello world"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nok", b"ok"),
    ],
)  # fmt: skip
def test_every_way_to_end_a_body(channels: Channels, data: bytes, body: bytes) -> None:
    with serving(one(data)) as server:
        assert channels.request("GET", server.url()).body == body


def test_headers_are_found_in_any_case_and_the_first_counts(channels: Channels) -> None:
    with serving(always(b"", "200 OK", "eTaG: one", "ETag: two", "Retry-After: 5")) as server:
        headers = channels.request("GET", server.url()).headers
        assert (headers["etag"], headers["retry-after"]) == ("one", "5")


def test_redirects_are_answers(channels: Channels) -> None:
    with serving(always(b"", "302 Found", "Location: http://127.0.0.1:1/")) as server:
        answer = channels.request("GET", server.url())
        assert (answer.status, len(server.requests)) == (302, 1)


@pytest.mark.parametrize("announced", [True, False])
def test_a_hundred_megabytes_are_refused(channels: Channels, announced: bool) -> None:
    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(b"HTTP/1.1 200 OK\r\n" + (b"Content-Length: 104857600\r\n" if announced else b"") + b"\r\n")
        for _ in range(1600):
            connection.send(b"x" * 65536)

    with serving(serve) as server:
        gc.collect()
        tracemalloc.start()
        with pytest.raises(TooLarge):
            channels.request("GET", server.url())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < BODY_LIMIT * 1.5 if not announced else peak < 1 << 20
    with serving(always(b"fine")) as server:
        assert channels.request("GET", server.url()).body == b"fine"


def test_the_caller_sets_the_limit(channels: Channels) -> None:
    with serving(always(b"x" * 11)) as server:
        assert len(channels.request("GET", server.url(), limit=11).body) == 11
        with pytest.raises(TooLarge):
            channels.request("GET", server.url(), limit=10)


def test_a_server_that_stalls_is_left(channels: Channels) -> None:
    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        connection.server.over.wait(30)

    with serving(serve) as server:
        started = time.monotonic()
        with pytest.raises(Unreachable) as caught:
            channels.request("GET", server.url(), timeout=0.2)
        assert caught.value.kind == "timeout"
        assert time.monotonic() - started < 5


def test_a_server_that_never_answers_is_left_and_not_asked_again(channels: Channels) -> None:
    def serve(connection: Connection) -> None:
        connection.request()
        connection.answer()
        connection.request()
        connection.server.over.wait(30)

    with serving(serve) as server:
        channels.request("GET", server.url())
        with pytest.raises(Unreachable) as caught:
            channels.request("GET", server.url(), timeout=0.2)
        assert caught.value.kind == "timeout"
        assert len(server.requests) == 2


@pytest.mark.parametrize("where", ["head", "body"])
def test_a_server_that_drips_is_left_when_the_whole_takes_too_long(where: str) -> None:
    ticks = iter(range(0, 100_000, 3))
    channels = Channels("agent", clock=lambda: float(next(ticks)))

    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(b"HTTP/1.1 200 OK\r\n")
        if where == "body":
            connection.send(b"Content-Length: 100000\r\n\r\n")
        while not connection.server.over.wait(0.01):
            connection.send(b"x")

    with serving(serve) as server:
        started = time.monotonic()
        with pytest.raises(Unreachable) as caught:
            channels.request("GET", server.url())
        assert caught.value.kind == "timeout"
        assert time.monotonic() - started < 10


def test_nobody_listens(channels: Channels) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Unreachable, match="Connection refused"):
        channels.request("GET", f"http://127.0.0.1:{port}/?sig=SECRET")


def test_few_connections_are_kept(channels: Channels) -> None:
    closed = threading.Semaphore(0)

    def serve(connection: Connection) -> None:
        while connection.request():
            connection.answer()
        closed.release()

    from contextlib import ExitStack

    with ExitStack() as stack:
        servers = [stack.enter_context(serving(serve)) for _ in range(KEPT + 2)]
        for server in servers:
            channels.request("GET", server.url())
        assert closed.acquire(timeout=5)
        assert closed.acquire(timeout=5)
        channels.request("GET", servers[-1].url())
        assert servers[-1].connections == 1


def test_a_header_that_cannot_be_sent_is_an_error_and_not_a_second_request(channels: Channels) -> None:
    with serving(always()) as server:
        with pytest.raises(HttpError, match="cannot be sent"):
            channels.request("GET", server.url(), (("x", "a\r\nInjected: yes"),))
        assert channels.request("GET", server.url()).status == 200


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://168.63.129.16:80/machine/?comp=x", ("168.63.129.16", 80, "/machine/?comp=x")),
        ("http://host/a%2Db", ("host", 80, "/a%2Db")),
        ("HTTP://host", ("host", 80, "/")),
        ("http://host?x=1", ("host", 80, "/?x=1")),
        ("http://host:8080/a#fragment", ("host", 8080, "/a")),
        ("http://[::1]:81/a", ("::1", 81, "/a")),
        ("http://[::1]/a", ("::1", 80, "/a")),
    ],
)
def test_split_url(url: str, parts: tuple[str, int, str]) -> None:
    assert split_url(url) == parts


@pytest.mark.parametrize(
    "url",
    ["https://host/", "host/x", "", "http://", "http:///x", "http://h:0/", "http://h:99999/", "http://h:x/",
     "http://user@host/", "http://host/a b", "http://host/\n", "http://host/ä", "file:///etc/passwd"],
)  # fmt: skip
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(HttpError):
        split_url(url)
