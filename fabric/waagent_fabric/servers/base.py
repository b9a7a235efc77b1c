"""What all servers share: reading a request as it came, faults, the request log, listening and outages."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qs, urlsplit

import attrs
from aiohttp import web

from waagent_fabric.faults import Fault
from waagent_fabric.records import RequestRecord
from waagent_fabric.state import Platform

MAX_BODY = 256 * 1024 * 1024
KEEP_ALIVE = 3600.0


@attrs.define(eq=False)
class Exchange:
    """One request, read whole.

    Attributes:
        target: path and query exactly as sent.
        path: path exactly as sent.
        query: decoded parameters; of a repeated one the first counts.
        headers: names in lower case.
        stale: a fault asks for the goal state before the current one.
    """

    server: str
    method: str
    target: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    platform: Platform
    stale: bool = False

    def complain(self, rule: str, text: str) -> None:
        """Record a violation of *rule* by this request."""
        self.platform.complain(self.server, f"{self.method} {self.target.partition('?')[0]}", rule, text)


@attrs.frozen
class Answer:
    """What a server says: status, body, headers."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = attrs.field(factory=dict)


Handler = Callable[[Exchange], Answer]
OnFault = Callable[[Fault], Awaitable[None]]


def xml(text: str, platform: Platform, status: int = 200) -> Answer:
    """Return an XML answer, with a byte-order mark when the platform is told to send one."""
    body = text.encode("utf-8-sig" if platform.bom else "utf-8")
    return Answer(status, body, {"Content-Type": "text/xml; charset=utf-8"})


def plain(status: int, text: str = "") -> Answer:
    """Return a text answer."""
    return Answer(status, text.encode(), {"Content-Type": "text/plain; charset=utf-8"})


class Server:
    """One listening server.

    Args:
        name: as in the request log.
        handler: called in the servers' thread; must not block for long.
    """

    def __init__(self, name: str, platform: Platform, handler: Handler, host: str, port: int, banner: str) -> None:
        self.name = name
        self.host = host
        self.port = port
        self._platform = platform
        self._handler = handler
        self._banner = banner
        self._runner: web.ServerRunner | None = None
        self._site: web.SockSite | None = None
        self._transports: set[asyncio.BaseTransport] = set()
        self._held: set[asyncio.Event] = set()

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"

    async def start(self) -> None:
        """Listen; fills in the port when it was 0.

        Raises:
            OSError: the address cannot be bound.
        """
        server = web.Server(
            self._serve, keepalive_timeout=KEEP_ALIVE, access_log=None, handler_cancellation=True, auto_decompress=False
        )
        self._runner = web.ServerRunner(server)
        await self._runner.setup()
        await self.listen()

    async def listen(self) -> None:
        """Open the listening socket (again)."""
        if self._site is not None or self._runner is None:
            return
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
            self.port = listener.getsockname()[1]
            site = web.SockSite(self._runner, listener, backlog=1024)
            await site.start()
        except BaseException:
            listener.close()
            raise
        self._site = site

    async def vanish(self) -> None:
        """Close the listening socket and every connection: an outage."""
        if self._site is not None:
            await self._site.stop()
            self._site = None
        self.release()
        for transport in list(self._transports):
            if isinstance(transport, asyncio.Transport):
                transport.abort()
        self._transports.clear()

    def release(self) -> None:
        """End the waiting of all requests that a fault holds."""
        for event in list(self._held):
            event.set()

    async def stop(self) -> None:
        """Stop listening, end every connection."""
        await self.vanish()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # -- one request

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        began = time.time()
        clock = time.monotonic()
        transport = request.transport
        if transport is not None:
            self._transports = {known for known in self._transports if not known.is_closing()} | {transport}
        body = await self._read(request)
        target = request.raw_path
        if "://" in target.partition("?")[0]:  # absolute form, as sent to a proxy
            parts = urlsplit(target)
            target = parts.path + (f"?{parts.query}" if parts.query else "")
        path, _, query = target.partition("?")
        exchange = Exchange(
            self.name,
            request.method,
            target,
            path,
            {key: values[0] for key, values in parse_qs(query, keep_blank_values=True).items()},
            {key.lower(): value for key, value in reversed(list(request.headers.items()))},
            body,
            self._platform,
        )
        with self._platform.changed:
            fault = self._platform.faults.pick(self.name, request.method, target)
        status = answered = 0
        try:
            response = await self._answer(request, exchange, fault)
            if response is not None:
                status = response.status
                content = getattr(response, "body", None)
                answered = len(content) if isinstance(content, bytes) else 0
        except Exception:
            # An error of the fabric must not pass for one of the platform's answers.
            exchange.complain("fabric", traceback.format_exc())
            raise
        finally:
            peer = request.transport.get_extra_info("peername") if request.transport else None
            self._platform.add_request(
                RequestRecord(
                    time=began,
                    server=self.name,
                    method=request.method,
                    path=target,
                    headers=dict(request.headers),
                    size=len(body),
                    status=status,
                    peer=tuple(peer[:2]) if peer else ("", 0),
                    seconds=time.monotonic() - clock,
                    fault=None if fault is None else fault.kind,
                    answered=answered,
                )
            )
        if response is None:
            self._abort(request, reset=fault is not None and fault.kind == "reset")
            return web.Response(status=500)  # never sent: the connection is gone
        return response

    async def _read(self, request: web.BaseRequest) -> bytes:
        waits = request.headers.get("Expect", "").lower() == "100-continue"
        if waits and isinstance(request.transport, asyncio.WriteTransport):
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        pieces, size = [], 0
        async for piece in request.content.iter_chunked(1 << 20):
            size += len(piece)
            if size > MAX_BODY:
                raise web.HTTPRequestEntityTooLarge(MAX_BODY, size)
            pieces.append(piece)
        return b"".join(pieces)

    async def _answer(
        self, request: web.BaseRequest, exchange: Exchange, fault: Fault | None
    ) -> web.StreamResponse | None:
        kind = None if fault is None else fault.kind
        if fault is None or kind == "latency" or kind == "truncate" or kind == "stale":
            if fault is not None and kind == "latency":
                await self._hold(1.0 if fault.seconds is None else fault.seconds)
            exchange.stale = kind == "stale"
            answer = self._handler(exchange)
            if kind == "truncate":
                return await self._truncated(request, answer)
            return self._response(request, answer)
        if kind == "drop":
            await self._hold(3600.0 if fault.seconds is None else fault.seconds)
            return None
        if kind == "reset":
            return None
        if kind == "status":
            headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            return self._response(request, Answer(fault.status_now(), fault.body, headers))
        if kind == "oversize":
            return await self._oversize(request, fault.size)
        body = fault.body if kind == "replace" else b"\x00\xff<<<\x80garbage{[" + os.urandom(64)
        return self._response(request, Answer(200, body))

    def _response(self, request: web.BaseRequest, answer: Answer) -> web.Response:
        body = None if answer.status == 304 else answer.body
        response = web.Response(status=answer.status, body=body, headers=dict(answer.headers))
        response.headers.setdefault("Server", self._banner)
        return response

    async def _hold(self, seconds: float) -> None:
        event = asyncio.Event()
        self._held.add(event)
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except asyncio.TimeoutError:
            pass
        finally:
            self._held.discard(event)

    async def _truncated(self, request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=dict(answer.headers))
        response.content_length = max(2, len(answer.body))
        await response.prepare(request)
        await response.write(answer.body[: len(answer.body) // 2])
        await asyncio.sleep(0)
        if request.transport is not None:
            request.transport.close()
        return response

    async def _oversize(self, request: web.BaseRequest, size: int) -> web.StreamResponse:
        response = web.StreamResponse(status=200, headers={"Content-Type": "application/octet-stream"})
        response.content_length = size
        await response.prepare(request)
        piece = b" " * 65536
        try:
            while size > 0:
                await response.write(piece[:size])
                size -= len(piece)
        except (ConnectionError, asyncio.CancelledError):
            self._abort(request, reset=False)
        return response

    @staticmethod
    def _abort(request: web.BaseRequest, *, reset: bool) -> None:
        transport = request.transport
        if not isinstance(transport, asyncio.Transport):
            return
        if reset:
            connection = transport.get_extra_info("socket")
            if connection is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
