"""The host plugin on port 32526: vmSettings, artifacts, status and log upload (wireserver §14)."""

from __future__ import annotations

import base64
import binascii
import io
import json
import uuid
import zipfile
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from waagent_fabric.servers.base import Answer, Exchange, plain
from waagent_fabric.state import Platform

BANNER = "Microsoft-HTTPAPI/2.0"
API_VERSION = "2015-09-01"
INVALID_CONTAINER = (
    b'{"errorCode":"InvalidContainerConfiguration","message":"The request is not from a valid container."}'
)


class HostPlugin:
    """Answers requests to the host plugin."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def __call__(self, exchange: Exchange) -> Answer:
        """Answer one request."""
        routes = {
            ("GET", "/versions"): self._versions,
            ("GET", "/health"): self._health,
            ("GET", "/vmSettings"): self._vm_settings,
            ("GET", "/extensionArtifact"): self._artifact,
            ("PUT", "/status"): self._status,
            ("PUT", "/vmAgentLog"): self._log,
        }
        handler = routes.get((exchange.method, exchange.path))
        if handler is None:
            exchange.complain("wireserver §14", "no such resource")
            return plain(404)
        return handler(exchange)

    def _check(self, exchange: Exchange, *, version: bool = True, config_name: bool = True) -> Answer | None:
        if version and exchange.headers.get("x-ms-version") != API_VERSION:
            exchange.complain("wireserver §14", f"x-ms-version is {exchange.headers.get('x-ms-version')!r}")
            return plain(400, "x-ms-version is not supported")
        status = self._platform.stale_identity(exchange.headers, exchange.complain, config_name=config_name)
        if not status:
            return None
        if status == 400:
            return Answer(400, INVALID_CONTAINER, {"Content-Type": "application/json"})
        return plain(status, "Gone")

    @staticmethod
    def _check_guid(exchange: Exchange, name: str) -> None:
        try:
            uuid.UUID(exchange.headers.get(name, ""))
        except ValueError:
            exchange.complain("wireserver §14", f"{name} is {exchange.headers.get(name)!r}, not a GUID")

    def _versions(self, exchange: Exchange) -> Answer:
        if exchange.headers.get("x-ms-containerid") is None:
            exchange.complain("wireserver §14", "header x-ms-containerid is missing")
        return Answer(200, json.dumps([API_VERSION]).encode(), {"Content-Type": "application/json; charset=utf-8"})

    def _health(self, exchange: Exchange) -> Answer:
        return plain(200)

    def _vm_settings(self, exchange: Exchange) -> Answer:
        if not self._platform.fast_track:
            return plain(404)
        refusal = self._check(exchange)
        if refusal is not None:
            return refusal
        self._check_guid(exchange, "x-ms-client-correlationid")
        with self._platform.changed:
            etag, document = self._platform.vm_settings
        given = exchange.headers.get("if-none-match")
        headers = {"ETag": etag, "Content-Type": "application/json; charset=utf-8"}
        if given is not None and not given.isdigit():
            exchange.complain("wireserver §14.3", f"If-None-Match is {given!r}, not the etag as it was given")
        if given == etag:
            return Answer(304, b"", headers)
        return Answer(200, document, headers)

    def _artifact(self, exchange: Exchange) -> Answer:
        rule = "wireserver §14"
        refusal = self._check(exchange)
        if refusal is not None:
            return refusal
        location = exchange.headers.get("x-ms-artifact-location")
        if location is None:
            exchange.complain(rule, "header x-ms-artifact-location is missing")
            return plain(400, "x-ms-artifact-location is required")
        verify = exchange.headers.get("x-ms-verify-from-artifacts-blob")
        if verify not in (None, "true"):
            exchange.complain(rule, f"x-ms-verify-from-artifacts-blob is {verify!r}")
        manifest = exchange.headers.get("x-ms-artifact-manifest-location")
        store = self._platform.store
        if manifest is not None and store.owns(manifest) and not store.issued(manifest):
            exchange.complain(rule, "x-ms-artifact-manifest-location is not the URL as it was given")
        if not store.owns(location):
            return plain(502, "the artifact's host cannot be reached")
        if not store.issued(location):
            exchange.complain(rule, "x-ms-artifact-location is not the URL as it was given")
        with self._platform.changed:
            reply = store.read(location[len(store.base) :], {})
        if reply.status != 200:
            return plain(502 if reply.status >= 500 else reply.status, reply.code)
        return Answer(200, reply.body, {"Content-Type": reply.headers["Content-Type"]})

    def _status(self, exchange: Exchange) -> Answer:
        rule = "wireserver §14.4"
        refusal = self._check(exchange)
        if refusal is not None:
            return refusal
        if exchange.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            exchange.complain(rule, f"Content-Type is {exchange.headers.get('content-type')!r}")
        try:
            order = json.loads(exchange.body)
            uri = order["requestUri"]
            headers: Mapping[str, str] = {item["headerName"].lower(): item["headerValue"] for item in order["headers"]}
            content = base64.b64decode(order.get("content") or b"", validate=True)
            if not isinstance(uri, str) or not all(isinstance(value, str) for value in headers.values()):
                raise TypeError("requestUri and header values are text")
        except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as problem:
            exchange.complain(rule, f"the body is not a status request: {type(problem).__name__}: {problem}")
            return plain(400, "the body is not valid")
        store = self._platform.store
        if not store.owns(uri):
            exchange.complain(rule, "requestUri points elsewhere")
            return plain(502, "the blob's host cannot be reached")
        if not store.issued(uri):
            exchange.complain(rule, "requestUri is not the URL as it was given")
        target = uri[len(store.base) :]
        with self._platform.changed:
            reply = store.write(target, headers, content, exchange.complain)
            if reply.status == 201 and unquote(urlsplit(target).path) == self._platform.status_path:
                self._platform.status_written("hostplugin", exchange.complain)
        return plain(200) if reply.status == 201 else plain(502, f"storage answered {reply.status} {reply.code}")

    def _log(self, exchange: Exchange) -> Answer:
        rule = "wireserver §14.5"
        refusal = self._check(exchange, config_name=False)
        if refusal is not None:
            return refusal
        for name in ("x-ms-vmagentlog-deploymentid", "x-ms-client-name", "x-ms-client-version"):
            if not exchange.headers.get(name):
                exchange.complain(rule, f"header {name} is missing")
        self._check_guid(exchange, "x-ms-client-correlationid")
        if not zipfile.is_zipfile(io.BytesIO(exchange.body)):
            exchange.complain(rule, "the body is not a zip archive")
            return plain(400, "not a zip archive")
        self._platform.add_to(self._platform.log_uploads, [exchange.body])
        return plain(200)
