"""The control endpoint of ``waagent-fabric serve``: the fabric's interface as JSON over HTTP, on loopback."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import attrs

from waagent_fabric import scenario
from waagent_fabric.api import Fabric

MAX_BODY = 64 * 1024 * 1024


class Control:
    """Serves a :class:`Fabric` on a port of its own, from threads of its own. A context manager.

    ========================  =====================================================================
    ``POST /publish``         a goal state (:func:`waagent_fabric.scenario.publish`) → ``{"id": …}``
    ``POST /packages``        a package → ``{"manifest": …}``
    ``POST /faults``          a fault; ``DELETE /faults`` ends all
    ``POST /reallocate``      a new container; optional ``{"incarnation": n}``
    ``GET /status``           the last status document with its time and channel, or ``null``
    ``GET /statuses`` …       also ``/requests``, ``/health``, ``/observations``, ``/roles``,
                              ``/telemetry``, ``/violations``: lists; ``?last=N`` for the newest only
    ``GET /info``             the addresses
    ========================  =====================================================================
    """

    def __init__(self, fabric: Fabric, port: int = 0) -> None:
        self._fabric = fabric
        control = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                control.answer(self)

            do_POST = do_DELETE = do_GET

            def log_message(self, *_: Any) -> None:
                """Say nothing: what is asked here is nobody's business."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="control", daemon=True)

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Control:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def info(self) -> dict[str, str]:
        """The addresses of all servers."""
        return {
            "wireserver": self._fabric.wireserver,
            "host_plugin": self._fabric.host_plugin,
            "imds": self._fabric.imds,
            "blobs": self._fabric.blobs,
            "control": self.address,
        }

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        try:
            size = int(request.headers.get("Content-Length") or 0)
            if size > MAX_BODY:
                raise scenario.ScenarioError(f"{size} bytes are too many")
            raw = request.rfile.read(size)
            body = json.loads(raw) if raw else {}
            status, value = self._route(request.command, request.path, body)
        except (ValueError, OSError) as error:
            status, value = 400, {"error": str(error)}
        text = json.dumps(value, indent=2, default=str).encode() + b"\n"
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(text)))
        request.end_headers()
        request.wfile.write(text)

    def _route(self, method: str, target: str, body: Any) -> tuple[int, Any]:
        parts = urlsplit(target)
        fabric = self._fabric
        lists: dict[str, Callable[[], Any]] = {
            "/statuses": lambda: fabric.statuses,
            "/requests": lambda: fabric.requests,
            "/health": lambda: fabric.health_reports,
            "/observations": lambda: fabric.observations,
            "/roles": lambda: fabric.role_properties,
            "/telemetry": lambda: fabric.telemetry,
            "/violations": lambda: list(fabric.violations),
        }
        if method == "GET" and parts.path in lists:
            records = [record if isinstance(record, dict) else attrs.asdict(record) for record in lists[parts.path]()]
            last = parse_qs(parts.query).get("last")
            return 200, records[-int(last[0]) :] if last and int(last[0]) > 0 else records
        if method == "GET" and parts.path == "/status":
            statuses = fabric.statuses
            return 200, attrs.asdict(statuses[-1]) if statuses else None
        if method == "GET" and parts.path == "/info":
            return 200, self.info()
        if method == "POST" and parts.path == "/publish":
            return 200, {"id": scenario.publish(fabric, body)}
        if method == "POST" and parts.path == "/packages":
            return 200, {"manifest": scenario.add_package(fabric, body)}
        if method == "POST" and parts.path == "/faults":
            fabric.inject(scenario.fault_from(body))
            return 200, {}
        if method == "DELETE" and parts.path == "/faults":
            fabric.clear_faults()
            return 200, {}
        if method == "POST" and parts.path == "/reallocate":
            fabric.reallocate(body.get("incarnation"))
            return 200, {"container_id": fabric.platform.identity.container_id}
        return 404, {"error": f"{method} {parts.path} is not known here"}
