"""Plain HTTP to the platform: kept connections, requests byte for byte as written, answers never larger than allowed.

The resident worker talks to the WireServer, the host plugin and the instance metadata service, all plain HTTP (what
needs TLS or a proxy goes through the transfer helper). One channel serves one host for one thread; connections are kept
between requests (ruling 24).
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

import attrs

from waagent.errors import HttpError
from waagent.platform import http1
from waagent.redaction import bare_url, redact

BODY_LIMIT = 16 << 20
"""Bytes of an answer that are read into memory (wireserver §23, DIFF-14)."""
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


@attrs.frozen(eq=False, repr=False)
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
        self._wire: http1.Wire | None = None
        self.opened = 0

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

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
        if self._wire is not None and self._wire.is_dead():
            self.close()
        kept = self._wire
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
        except (OSError, http1.NothingCame, http1.CutShort, http1.Malformed) as problem:
            self.close()
            raise self._unreachable(method, target, problem) from None
        except ValueError as problem:
            self.close()
            where = f"{method} http://{self.host}:{self.port}{bare_url(target)}"
            raise HttpError(f"{where}: the request cannot be sent ({type(problem).__name__})") from None
        except HttpError:
            self.close()
            raise

    def _open(self, timeout: float) -> http1.Wire:
        # Bytes spare the process the codec for international names and its tables, 0.4 MB.
        raw = socket.create_connection((self.host.encode("ascii"), self.port), timeout)  # type: ignore[arg-type]
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._wire = http1.Wire(raw, self._clock)
        self.opened += 1
        return self._wire

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
        own = [("Accept-Encoding", "identity"), *headers]
        if not any(name.lower() == "user-agent" for name, _ in own):
            own.insert(0, ("User-Agent", self._user_agent))
        data = http1.request(method, target, self._host_header, own, body)
        wire = self._wire or self._open(min(timeout, max(0.001, deadline - self._clock())))
        wire.prepare(timeout, deadline)
        wire.send(data)
        head = http1.read_head(wire)
        try:
            content = http1.read_body(wire, head, limit)
        except http1.Oversized as problem:
            raise TooLarge(str(problem), status=head.status) from None
        if not head.keeps or wire.has_surplus:
            self.close()
        return Answer(head.status, head.reason, head.headers, content)

    @property
    def _host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 80 else f"{host}:{self.port}"

    def _unreachable(self, method: str, target: str, problem: Exception) -> Unreachable:
        where = f"{method} http://{self.host}:{self.port}{bare_url(target)}"
        if isinstance(problem, socket.timeout):
            return Unreachable(f"{where}: no complete answer in time ({problem})", "timeout")
        if isinstance(problem, http1.NothingCame):
            return Unreachable(f"{where}: the connection was closed without an answer", "connection")
        if isinstance(problem, http1.CutShort):
            missing = f" ({problem})" if problem.missing else ""
            return Unreachable(f"{where}: the answer was cut short{missing}", "protocol")
        if isinstance(problem, OSError):
            return Unreachable(f"{where}: {problem.strerror or problem}", "connection", problem.errno)
        return Unreachable(f"{where}: no HTTP: {redact(str(problem))[:200]}", "protocol")


@lru_cache(maxsize=8)  # a period asks for the same two every time
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
