"""The host plugin (HGAP): vmSettings, artifacts, status and log uploads (wireserver §14)."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

import attrs

from waagent.errors import HttpError, InvalidContainer, ProtocolError, ResourceGone, Throttled, VmSettingsNotSupported
from waagent.log import Log
from waagent.platform import jsondoc, observations, retry
from waagent.platform.channel import Answer, Unreachable
from waagent.platform.endpoint import Endpoint
from waagent.platform.fasttrack import SettingsMemory
from waagent.platform.observations import EventSink, Observations, counts_as_healthy
from waagent.platform.statusblob import StorageCall, host_plugin_body
from waagent.platform.vmsettings import VmSettings, parse_vm_settings
from waagent.platform.wire import header_pairs, without_bom
from waagent.version import NAME, WIRE_VERSION

API_VERSION = "2015-09-01"
PORT = 32526
PROXY_AGENT_LIMIT = 100 << 10
"""Bytes; the guest proxy agent refuses larger bodies (ruling 29)."""

_T = TypeVar("_T")


@attrs.frozen(eq=False, repr=False)
class Identity:
    """Who this machine is to the host plugin: from the last ``GET`` of the goal state."""

    container_id: str
    role_config_name: str

    @property
    def deployment_id(self) -> str | None:
        """The text before the first dot of the configuration name."""
        head, dot, _ = self.role_config_name.partition(".")
        return head if dot and head else None


class HostPlugin:
    """The host plugin's requests and what it remembers of its vmSettings.

    Args:
        endpoint: ``<host>:32526``.
        identity: the present one, ``None`` before the first goal state.
        refresh: reads the goal state once more, so that *identity* is fresh (wireserver §15.4).
        fast_track_file: ``<lib>/fast_track.json``.
        log: for the log contract.
        events: for VmSettings events.
        health: takes the results of artifact and status calls.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        identity: Callable[[], Identity | None],
        refresh: Callable[[], None],
        fast_track_file: str,
        log: Log,
        events: EventSink | None,
        health: Observations,
    ) -> None:
        self.endpoint = endpoint
        self.health = health
        self._identity = identity
        self._refresh = refresh
        self._log = log
        self._events = events
        self._is_initialised = False
        self._lock = threading.Lock()
        self.settings = SettingsMemory(fast_track_file, endpoint.clock, log, events)

    def ensure_initialised(self) -> None:
        """Ask once whether the plugin speaks our version (wireserver §14.1).

        Raises:
            HttpError: no answer.
            ProtocolError: it does not.
        """
        if self._is_initialised:
            return
        headers = header_pairs({"x-ms-containerid": self.known().container_id})
        try:
            answer = self.endpoint.call("host-versions", "GET", self.endpoint.url("/versions"), headers)
        except Throttled as problem:
            if problem.status is not None:
                self.health.note(observations.VERSIONS, counts_as_healthy(problem.status), str(problem))
            raise
        except HttpError as problem:
            self.health.note(observations.VERSIONS, counts_as_healthy(problem.status), str(problem))
            raise
        versions = jsondoc.parse(without_bom(answer), "HostGAPlugin versions")
        if not isinstance(versions, list) or API_VERSION not in versions:
            self.health.note(observations.VERSIONS, True)
            raise ProtocolError("HostGAPlugin: Host plugin channel is not available")
        self.health.note(observations.VERSIONS, True)
        self._is_initialised = True

    def artifact_headers(
        self, uri: str, *, verify: bool, manifest_uri: str | None = None
    ) -> tuple[tuple[str, str], ...]:
        """Return the headers that make ``GET /extensionArtifact`` fetch *uri* (wireserver §14).

        Args:
            uri: what is wanted, unmodified.
            verify: the goal state is a fast-track one.
            manifest_uri: for a package: where its manifest came from (DIFF-17).
        """
        known = self.known()
        return header_pairs(
            {
                "x-ms-version": API_VERSION,
                "x-ms-containerid": known.container_id,
                "x-ms-host-config-name": known.role_config_name,
                "x-ms-artifact-location": uri,
                "x-ms-verify-from-artifacts-blob": "true" if verify else None,
                "x-ms-artifact-manifest-location": manifest_uri or None,
            }
        )

    def put_status(self, call: StorageCall) -> None:
        """Have the plugin make one storage call (wireserver §14.4).

        Raises:
            ResourceGone, InvalidContainer: the identity is stale.
            HttpError: or :class:`~waagent.errors.ProtocolError`: it was not made.
        """
        self.ensure_initialised()
        body = host_plugin_body(call)
        if self.endpoint.saw_proxy_agent and len(body) > PROXY_AGENT_LIMIT:
            raise ProtocolError(f"the status has {len(body)} bytes, more than the guest proxy agent lets through")
        known = self.known()
        headers = header_pairs(
            {
                "x-ms-version": API_VERSION,
                "Content-type": "application/json",
                "x-ms-containerid": known.container_id,
                "x-ms-host-config-name": known.role_config_name,
            }
        )
        try:
            self.endpoint.call("host-status", "PUT", self.endpoint.url("/status"), headers, body)
        except HttpError as problem:
            self.note(observations.STATUS, problem)
            raise
        self.note(observations.STATUS, None)

    def put_log(self, archive: bytes) -> None:
        """Upload the collected logs (wireserver §14.5); the body is never logged.

        Raises:
            HttpError: ``HostGAPlugin: Upload VM logs failed: …``.
        """
        try:
            self.ensure_initialised()
            self.with_fresh_identity(lambda: self._put_log_once(archive))
        except ProtocolError as problem:
            raise HttpError(f"HostGAPlugin: Upload VM logs failed: {problem}") from None

    def _put_log_once(self, archive: bytes) -> Answer:
        known = self.known()
        headers = header_pairs(
            {
                "x-ms-version": API_VERSION,
                "x-ms-containerid": known.container_id,
                "x-ms-vmagentlog-deploymentid": known.deployment_id,
                "x-ms-client-name": NAME,
                "x-ms-client-version": WIRE_VERSION,
                "x-ms-client-correlationid": fresh_id(),
            }
        )
        return self.endpoint.call("host-log", "PUT", self.endpoint.url("/vmAgentLog"), headers, archive)

    def ask_health(self) -> None:
        """``GET /health``, once; raises when the plugin is not well."""
        self.endpoint.call("host-health", "GET", self.endpoint.url("/health"))

    def note(self, signal: str, problem: HttpError | None) -> None:
        """Take the result of an artifact or status call for the health signals."""
        if problem is None:
            self.health.note(signal, True)
        elif not isinstance(problem, Throttled) or problem.status is not None:
            # Throttled without a status is our own pause: nothing was asked.
            self.health.note(signal, counts_as_healthy(problem.status), str(problem))

    def with_fresh_identity(self, call: Callable[[], _T]) -> _T:
        """Make a call; when the identity is stale read the goal state and make it once more (wireserver §15.4)."""
        try:
            return call()
        except (ResourceGone, InvalidContainer):
            self._refresh()
            return call()

    def refresh_identity(self) -> None:
        """Read the goal state once more, after an answer that says that the identity is stale."""
        self._refresh()

    def known(self) -> Identity:
        """Return who this machine is; reads the goal state when that was not done yet.

        Raises:
            ProtocolError: it cannot be read.
        """
        known = self._identity()
        if known is None:
            self._refresh()
            known = self._identity()
        if known is None:
            raise ProtocolError("HostGAPlugin is not available: no goal state was read yet")
        return known

    def vm_settings(self, force: bool = False) -> VmSettings:
        """Ask for vmSettings (wireserver §14.3).

        Args:
            force: take the whole document, also when it did not change.

        Returns:
            The document, or the one before when the plugin says that it did not change.

        Raises:
            VmSettingsSupportStopped: they were served and are no longer.
            VmSettingsNotSupported: they are not served; asked again after six hours.
            VmSettingsParseError: the document cannot be used.
            ResourceGone: twice in a row.
            ProtocolError: any other failure.
        """
        with self._lock:
            self.settings.check_due()
            return self.with_fresh_identity(lambda: self._vm_settings_once(force))

    def _vm_settings_once(self, force: bool) -> VmSettings:
        known = self.known()
        memory = self.settings
        correlation = fresh_id()
        cached = None if force else memory.cached
        headers = header_pairs(
            {
                "x-ms-version": API_VERSION,
                "x-ms-containerid": known.container_id,
                "x-ms-host-config-name": known.role_config_name,
                "x-ms-client-correlationid": correlation,
                "If-None-Match": cached.etag if cached else None,
            }
        )
        self.endpoint.check()
        what = f"GET vmSettings [correlation ID: {correlation} eTag: {cached.etag if cached else None}]"
        memory.count("requests")
        try:
            answer = self.endpoint.send("GET", self.endpoint.url("/vmSettings"), headers)
        except HttpError as problem:
            is_late = isinstance(problem, Unreachable) and problem.kind == "timeout"
            raise memory.failed("timeouts" if is_late else "failedRequests", f"{what}: {problem}") from None
        if not retry.is_throttled(answer.status, answer.body):
            self.endpoint.answered()
        return self._read_vm_settings(answer, what, correlation)

    def _read_vm_settings(self, answer: Answer, what: str, correlation: str) -> VmSettings:
        memory = self.settings
        text = retry.error_text(answer.status, answer.reason, answer.body)
        if answer.status == 410:
            raise ResourceGone(f"{what}: {text}", 410)
        if answer.status == 404:
            raise memory.not_supported(f"{what}: {text}")
        if answer.status == 304 and memory.cached is not None:
            return memory.cached
        if answer.status == 400 and b"InvalidContainerConfiguration" in answer.body:
            raise InvalidContainer(f"{what}: {text}", 400)
        if answer.status != 200:
            kind = {4: "clientErrors", 5: "serverErrors"}.get(answer.status // 100, "failedRequests")
            prefix = "[Internal error in HostGAPlugin] " if answer.status == 502 else ""
            problem = memory.failed(kind, f"{what}: {prefix}{text}", answer.status)
            if retry.is_throttled(answer.status, answer.body):
                asked = retry.retry_after(answer.headers)
                self.endpoint.throttled(asked)
                raise Throttled(str(problem), answer.status, asked)
            raise problem
        etag = answer.headers.get("etag")
        if not etag:
            raise memory.failed("failedRequests", f"{what}: the response does not include an Etag header", 200)
        notes: list[str] = []
        try:
            settings = parse_vm_settings(without_bom(answer), etag, notes)
        except VmSettingsNotSupported as problem:
            raise memory.not_supported(str(problem)) from None
        if memory.adopt(settings, answer.body):
            self._log.info(
                f"Fetched new vmSettings [HostGAPlugin correlation ID: {correlation} eTag: {etag} "
                f"source: {settings.source}]"
            )
            for note in notes:
                self._log.warning(note)
            if settings.source == "Fabric":
                self._log.info("The vmSettings originated via Fabric; will ignore them.")
        return settings


def fresh_id() -> str:
    """Return a random UUID (version 4) as text; the library's module would load three more for this."""
    data = bytearray(os.urandom(16))
    data[6] = data[6] & 0x0F | 0x40
    data[8] = data[8] & 0x3F | 0x80
    text = data.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
