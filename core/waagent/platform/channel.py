"""Plain HTTP to the platform: kept connections, requests byte for byte as written, answers never larger than allowed.

The resident worker talks to the WireServer, the host plugin and the instance metadata service, all plain HTTP. It does
so over ``http.client`` without TLS (measured.md §4): a third of the CPU and 12 MB less memory than the usual library.
One channel serves one host for one thread; connections are kept between requests (ruling 24).
"""

from __future__ import annotations

import io
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from waagent.errors import HttpError
from waagent.redaction import bare_url, redact

if TYPE_CHECKING:
    import http.client as http_client


def _plain_http_client() -> Any:
    """Return ``http.client`` without loading ssl, which would cost 4 MB in a process that never speaks TLS.

    The module made here is ours alone: whoever imports ``http.client`` later, like a plugin that wants HTTPS, gets a
    complete one.
    """
    if "ssl" in sys.modules or "http.client" in sys.modules:
        import http.client

        return http.client
    sys.modules["ssl"] = None  # type: ignore[assignment]  # makes "import ssl" fail, which http.client expects
    try:
        import http.client
    finally:
        del sys.modules["ssl"]
    module = sys.modules.pop("http.client")
    del http.client
    return module


if not TYPE_CHECKING:
    http_client = _plain_http_client()

BODY_LIMIT = 16 << 20
"""Bytes of an answer that are read into memory (wireserver §23, DIFF-14)."""
PIECE = 64 << 10
TIMEOUT = 10.0
"""Seconds for connecting and for each read (wireserver §3.1)."""
EXCHANGE_TIMEOUT = 60.0
"""Seconds for one whole answer: a peer that sends a byte now and then does not hold a lane for ever."""
KEPT = 4
"""Connections that one thread keeps; the least recently used one is closed."""


class Unreachable(HttpError):
    """No answer came: refused, reset, no route, or out of time.

    Attributes:
        kind: ``timeout``, ``connection`` or ``protocol`` (what came is no HTTP, or was cut short).
        errno: of the operating system, ``None`` when there is none.
    """

    def __init__(self, message: str, kind: str = "connection", errno: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.errno = errno


class TooLarge(HttpError):
    """The answer is larger than the caller allows; trying again does not help."""


@attrs.frozen(eq=False)
class Answer:
    """One complete answer.

    Attributes:
        status: the status code.
        reason: its text, as sent.
        headers: names in lower case; of a repeated one the first.
        body: the whole body, as sent.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)


class _Socket:
    """What ``http.client`` sees of the connection: counts bytes and keeps the deadline of the whole exchange."""

    def __init__(self, raw: socket.socket, clock: Callable[[], float]) -> None:
        self.received = 0
        self.ended = False
        self.has_surplus = False
        self._raw = raw
        self._clock = clock
        self._timeout = TIMEOUT
        self._deadline = 0.0
        self._readers = 0
        self._closing = False

    def prepare(self, timeout: float, deadline: float) -> None:
        """Start an exchange: *timeout* seconds for each step, all of them before *deadline*."""
        self.received = 0
        self._timeout = timeout
        self._deadline = deadline

    def _arm(self) -> None:
        left = self._deadline - self._clock()
        if left <= 0:
            raise socket.timeout("the exchange took too long as a whole")
        self._raw.settimeout(min(self._timeout, left))

    def sendall(self, data: bytes) -> None:
        self._arm()
        self._raw.sendall(data)

    def recv_into(self, buffer: Any) -> int:
        self._arm()
        count = self._raw.recv_into(buffer)
        self.received += count
        self.ended = not count
        return count

    def makefile(self, mode: str) -> io.BufferedReader:
        self._readers += 1
        return _Buffer(_Reader(self))

    def close(self) -> None:
        # http.client closes a connection that will not be kept as soon as it has the headers.
        self._closing = True
        self._close_if_done()

    def reader_closed(self) -> None:
        self._readers -= 1
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._closing and self._readers <= 0:
            self._raw.close()

    def is_dead(self) -> bool:
        """Whether the peer closed the kept connection, or sent something nobody asked for."""
        poll = select.poll()
        poll.register(self._raw, select.POLLIN)
        return bool(poll.poll(0))


class _Reader(io.RawIOBase):
    def __init__(self, wrapped: _Socket) -> None:
        super().__init__()
        self.wrapped = wrapped
        self.is_dry = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        return None if self.is_dry else self.wrapped.recv_into(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self.wrapped.reader_closed()


class _Buffer(io.BufferedReader):
    """The buffer of one answer; it notices bytes behind the answer, which would be lost with it."""

    def __init__(self, reader: _Reader) -> None:
        super().__init__(reader, PIECE)
        self._reader = reader

    def close(self) -> None:
        if not self.closed:
            self._reader.is_dry = True
            if self.peek(1):
                self._reader.wrapped.has_surplus = True
        super().close()


class Channel:
    """A kept connection to one host, used by one thread.

    Args:
        host, port: where to connect.
        user_agent: sent when the caller names none.
        clock: monotonic seconds.
    """

    def __init__(self, host: str, port: int, user_agent: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.host = host
        self.port = port
        self._user_agent = user_agent
        self._clock = clock
        self._connection: http_client.HTTPConnection | None = None
        self._wrapped: _Socket | None = None
        self.opened = 0

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = self._wrapped = None

    def exchange(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
        *,
        timeout: float = TIMEOUT,
        total: float = EXCHANGE_TIMEOUT,
        limit: int = BODY_LIMIT,
    ) -> Answer:
        """Send one request and return its answer, whatever its status; redirects are answers like others.

        A kept connection that dies before the first byte of the answer is replaced, and the request sent once more.

        Args:
            method: ``GET``, ``POST`` or ``PUT``.
            target: path and query, sent unmodified.
            headers: sent in this order, after ``Host``.
            body: ``None`` for none.
            timeout: seconds for connecting and for each read.
            total: seconds for the exchange as a whole.
            limit: bytes of body to accept.

        Raises:
            Unreachable: no complete answer came.
            TooLarge: the body is larger than *limit*.
        """
        deadline = self._clock() + total
        if self._wrapped is not None and self._wrapped.is_dead():
            self.close()
        kept = self._wrapped
        try:
            return self._once(method, target, headers, body, timeout, deadline, limit)
        except Unreachable as problem:
            # Out of time is not how a connection looks that the peer dropped while it was idle.
            if kept is None or kept.received or problem.kind == "timeout":
                raise
        return self._once(method, target, headers, body, timeout, deadline, limit)

    def _once(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]],
        body: bytes | None,
        timeout: float,
        deadline: float,
        limit: int,
    ) -> Answer:
        try:
            return self._send_and_read(method, target, headers, body, timeout, deadline, limit)
        except (OSError, http_client.HTTPException) as problem:
            self.close()
            raise self._unreachable(method, target, problem) from None
        except ValueError as problem:
            self.close()
            where = f"{method} http://{self.host}:{self.port}{bare_url(target)}"
            raise HttpError(f"{where}: the request cannot be sent ({type(problem).__name__})") from None
        except HttpError:
            self.close()
            raise

    def _open(self, timeout: float) -> http_client.HTTPConnection:
        # Bytes spare the process the codec for international names and its tables, 0.4 MB.
        raw = socket.create_connection((self.host.encode("ascii"), self.port), timeout)  # type: ignore[arg-type]
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wrapped = _Socket(raw, self._clock)
        connection = http_client.HTTPConnection(self.host, self.port)
        connection.auto_open = 0
        connection.sock = self._wrapped  # all that http.client uses of a socket
        self._connection = connection
        self.opened += 1
        return connection

    def _send_and_read(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]],
        body: bytes | None,
        timeout: float,
        deadline: float,
        limit: int,
    ) -> Answer:
        connection = self._connection or self._open(min(timeout, max(0.001, deadline - self._clock())))
        wrapped = self._wrapped
        assert wrapped is not None
        wrapped.prepare(timeout, deadline)
        connection.putrequest(method, target, skip_accept_encoding=True)
        given = tuple(headers)
        if not any(name.lower() == "user-agent" for name, _ in given):
            connection.putheader("User-Agent", self._user_agent)
        connection.putheader("Accept-Encoding", "identity")
        for name, value in given:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        try:
            if wrapped.ended:
                # http.client takes the end of the stream for the end of the headers: an empty success.
                raise http_client.IncompleteRead(b"")
            content = self._read(response, limit)
        finally:
            response.close()
        if response.will_close or wrapped.has_surplus:
            self.close()
        names: dict[str, str] = {}
        for name, value in response.getheaders():
            names.setdefault(name.lower(), value)
        return Answer(response.status, response.reason, names, content)

    def _read(self, response: http_client.HTTPResponse, limit: int) -> bytes:
        expected = response.length
        if expected is not None and expected > limit:
            raise TooLarge(f"the answer has {expected} bytes, allowed are {limit}", status=response.status)
        pieces: list[bytes] = []
        count = 0
        while expected is None or count < expected:
            # read1 returns after each piece from the network, so the deadline of the whole holds.
            wanted = PIECE if expected is None else min(PIECE, expected - count)
            piece = response.read1(wanted)
            if not piece:
                break
            count += len(piece)
            if count > limit:
                raise TooLarge(f"the answer is larger than the {limit} bytes allowed", status=response.status)
            pieces.append(piece)
        if expected is not None and count < expected:
            raise http_client.IncompleteRead(b"", expected - count)
        return b"".join(pieces)

    def _unreachable(self, method: str, target: str, problem: Exception) -> Unreachable:
        where = f"{method} http://{self.host}:{self.port}{bare_url(target)}"
        if isinstance(problem, socket.timeout):
            return Unreachable(f"{where}: no complete answer in time ({problem})", "timeout")
        if isinstance(problem, http_client.IncompleteRead):
            missing = f" ({problem.expected} bytes missing)" if problem.expected else ""
            return Unreachable(f"{where}: the answer was cut short{missing}", "protocol")
        if isinstance(problem, OSError) and not isinstance(problem, http_client.HTTPException):
            return Unreachable(f"{where}: {problem.strerror or problem}", "connection", problem.errno)
        said = redact(f"{type(problem).__name__}: {problem}")[:200]
        kind = "connection" if isinstance(problem, http_client.RemoteDisconnected) else "protocol"
        return Unreachable(f"{where}: {said}", kind)


def split_url(url: str) -> tuple[str, int, str]:
    """Return host, port and the unmodified rest of an ``http`` URL.

    Raises:
        HttpError: it is no such URL, or has characters that cannot stand in a request line.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() != "http":
        raise HttpError(f"{bare_url(url)[:200]!r}: expected an http URL")
    cut = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    authority, target = rest[:cut], rest[cut:].split("#", 1)[0]
    host, colon, number = authority.rpartition(":")
    if not colon or number.endswith("]"):
        host, number = authority, "80"
    if not host or "@" in host or not number.isdecimal() or not 0 < int(number) < 65536:
        raise HttpError(f"{bare_url(url)[:200]!r}: expected host and port")
    if not url.isascii() or any(letter <= " " or letter == "\x7f" for letter in url):
        raise HttpError(f"{bare_url(url)[:200]!r}: characters that no URL holds")
    return host.strip("[]"), int(number), target if target.startswith("/") else "/" + target


class Channels:
    """The channels of a process: each thread has its own, one per host (ruling 30a).

    Args:
        user_agent: ``WALinuxAgent/<version>``.
        clock: monotonic seconds.
    """

    def __init__(self, user_agent: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._user_agent = user_agent
        self._clock = clock
        self._local = threading.local()

    def request(
        self,
        method: str,
        url: str,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | None = None,
        *,
        timeout: float = TIMEOUT,
        limit: int = BODY_LIMIT,
    ) -> Answer:
        """Send one request on this thread's channel to the URL's host; see :meth:`Channel.exchange`."""
        host, port, target = split_url(url)
        kept: dict[tuple[str, int], Channel] = self._local.__dict__.setdefault("kept", {})
        channel = kept.pop((host, port), None) or Channel(host, port, self._user_agent, self._clock)
        kept[host, port] = channel  # most recently used last
        if len(kept) > KEPT:
            kept.pop(next(iter(kept))).close()
        total = max(EXCHANGE_TIMEOUT, 2 * timeout)
        return channel.exchange(method, target, headers, body, timeout=timeout, total=total, limit=limit)

    def close(self) -> None:
        """Close the channels of this thread."""
        for channel in self._local.__dict__.pop("kept", {}).values():
            channel.close()
