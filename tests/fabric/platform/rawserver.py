"""A TCP server that says exactly what a test wants, also what no HTTP server would."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator


class Connection:
    """One accepted connection, in the server's thread."""

    def __init__(self, raw: socket.socket, server: RawServer) -> None:
        self.raw = raw
        self.server = server
        self._buffer = b""

    def request(self) -> bytes:
        """Read one request, head and body; empty when the peer closed."""
        while b"\r\n\r\n" not in self._buffer:
            data = self.raw.recv(65536)
            if not data:
                return b""
            self._buffer += data
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        while len(rest) < length:
            rest += self.raw.recv(65536)
        self._buffer = rest[length:]
        whole = head + b"\r\n\r\n" + rest[:length]
        self.server.requests.append(whole)
        return whole

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.raw.sendall(data)

    def answer(self, body: bytes = b"", status: str = "200 OK", *headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.raw.close()

    def wait_for_close(self) -> None:
        """Wait until the client closed."""
        with contextlib.suppress(OSError):
            while self.raw.recv(65536):
                continue


class RawServer:
    """Calls *serve* with each connection, each in its own thread.

    Attributes:
        requests: whole requests, in order.
        connections: how many were accepted.
        over: set when the test is.
    """

    def __init__(self, serve: Callable[[Connection], None]) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.over = threading.Event()
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, path: str = "/") -> str:
        return f"http://{self.address}{path}"

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._handle, args=(raw,), daemon=True).start()

    def _handle(self, raw: socket.socket) -> None:
        with contextlib.suppress(OSError), raw:
            self._serve(Connection(raw, self))

    def close(self) -> None:
        self.over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextlib.contextmanager
def serving(serve: Callable[[Connection], None]) -> Iterator[RawServer]:
    """Serve for the length of the block."""
    server = RawServer(serve)
    try:
        yield server
    finally:
        server.close()


def always(body: bytes = b"", status: str = "200 OK", *headers: str) -> Callable[[Connection], None]:
    """Answer every request of every connection alike."""

    def serve(connection: Connection) -> None:
        while connection.request():
            connection.answer(body, status, *headers)

    return serve
