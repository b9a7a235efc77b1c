"""The blob service: what agents reach over the internet, here on loopback without TLS (wireserver §16, §17.4)."""

from __future__ import annotations

from urllib.parse import unquote

from waagent_fabric.servers.base import Answer, Exchange, plain
from waagent_fabric.state import Platform
from waagent_fabric.store import Reply

BANNER = "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0"


def _answer(reply: Reply) -> Answer:
    return Answer(reply.status, reply.body, reply.headers)


class BlobService:
    """Answers requests to the blob store."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def __call__(self, exchange: Exchange) -> Answer:
        """Answer one request."""
        store = self._platform.store
        for name in exchange.headers:
            if name in ("x-ms-containerid", "x-ms-host-config-name", "x-ms-guest-agent-public-x509-cert"):
                exchange.complain("wireserver §16", f"header {name} is of no concern to storage")
        with self._platform.changed:
            if exchange.method in ("GET", "HEAD"):
                return _answer(store.read(exchange.target, exchange.headers))
            if exchange.method == "PUT":
                reply = store.write(exchange.target, exchange.headers, exchange.body, exchange.complain)
                if reply.status == 201 and unquote(exchange.path) == self._platform.status_path:
                    self._platform.status_written("direct", exchange.complain)
                return _answer(reply)
        exchange.complain("wireserver §16", f"method {exchange.method}")
        return plain(405)
