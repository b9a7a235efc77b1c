"""The platform, as the rest of the agent sees it: one object for the process, used from several lanes."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from waagent.config import Config
from waagent.errors import AgentError, CryptError, ProtocolError, ProtocolNotFound, Throttled
from waagent.log import VERBOSE, Log
from waagent.paths import Paths
from waagent.platform import healthdoc, imds, names, observations
from waagent.platform.artifacts import Artifacts
from waagent.platform.channel import Channels
from waagent.platform.detection import Detection, dhcp_question, with_port
from waagent.platform.discovery import Discovery
from waagent.platform.endpoint import Endpoint
from waagent.platform.fabricparts import FabricParts, Opener, summary
from waagent.platform.goalstate import GoalStateDocument
from waagent.platform.goalstates import GoalStates
from waagent.platform.helperprocess import HelperFailed, Stopped, TransferHelper
from waagent.platform.history import History
from waagent.platform.hostplugin import HostPlugin
from waagent.platform.imds import Imds
from waagent.platform.models import CertificateInfo, GoalState, Handler, Manifest, ManifestVersion
from waagent.platform.observations import EventSink, Observations
from waagent.platform.proxy import ProxyRules
from waagent.platform.statusblob import timeless
from waagent.platform.statusupload import StatusUploader
from waagent.platform.telemetry import Telemetry
from waagent.platform.transfers import PACKAGE_LIMIT, Transfers
from waagent.platform.wire import WireServer
from waagent.version import NAME, WIRE_VERSION

APART_DEADLINE = 600.0
DETECT_PAUSE = 10.0
LOGGED_FAILURES = 3
FAILING_EVERY = 6 * 3600.0


class Platform:
    """The WireServer, the host plugin, the metadata service and storage.

    Every method blocks and belongs into a lane; all of them may be called from several threads. They return early when
    *stopping* is set. What they raise is a :class:`~waagent.errors.ProtocolError` that holds no secret.

    Args:
        config: the options of wireserver §15, ``HttpProxy.*``, ``Protocol.*`` and ``Platform.*``.
        paths: where state lies.
        log: the log contract of wireserver §15.8.
        events: takes what telemetry wants to know; may be ``None``.
        version: four parts, for ``User-Agent``.
        clock: monotonic seconds.
        sleep: waits; the default returns early when *stopping* is set.
        stopping: the process is being ended.
        environment: where proxy variables are looked up.
        distro: gives the operations of the operating system, for leases and the DHCP exchange; ``None`` as long as no
            plugins are loaded.
        channels: the connections; others than ours in tests.
        opener: opens certificates; likewise.

    Attributes:
        telemetry: sends events, and knows what they tell of this machine.
    """

    def __init__(
        self,
        config: Config,
        paths: Paths,
        log: Log,
        events: EventSink | None = None,
        *,
        version: str = WIRE_VERSION,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        stopping: threading.Event | None = None,
        environment: Mapping[str, str] | None = None,
        distro: Callable[[], Any] = lambda: None,
        channels: Channels | None = None,
        opener: Opener | None = None,
    ) -> None:
        self.config = config
        self.paths = paths
        self.log = log
        self.events = events
        self._clock = clock
        self._stopping = stopping or threading.Event()
        self._sleep = sleep or self._stopping.wait
        agent = f"{NAME}/{version}"
        connections = channels or Channels(agent, clock)

        def endpoint(name: str, address: str) -> Endpoint:
            return Endpoint(
                name,
                address,
                connections,
                period=self._period,
                clock=clock,
                sleep=self._sleep,
                stopping=self._stopping,
            )

        self._health = Observations(events, clock)
        question = dhcp_question(distro, paths.is_real, log, self._sleep, paths.run("dhcp-routes.json"))
        self._discovery = Discovery(paths, log, distro, question)
        self.wire = WireServer(endpoint("WireServer", ""))
        self.history = History(paths.lib("history"), log)
        self._parts = FabricParts(
            self.wire,
            opener or Opener(self._transport_certificate, self._open_certificates),
            paths=paths,
            history=self.history,
            log=log,
            events=events,
        )
        self._goal_states = GoalStates(
            self.wire,
            self._parts,
            history=self.history,
            log=log,
            period=self._period,
            fast_track=config.boolean("Debug.EnableFastTrack"),
        )
        self.host = HostPlugin(
            endpoint("HostGAPlugin", ""),
            identity=lambda: self._goal_states.identity,
            refresh=self._refresh_identity,
            fast_track_file=paths.lib("fast_track.json"),
            log=log,
            events=events,
            health=self._health,
        )
        self._goal_states.attach(self.host)
        self._detection = Detection(config, self._discovery, self.wire, self.host.endpoint, log=log, events=events)
        self.imds = Imds(endpoint("IMDS", with_port(config.text("Platform.Imds"), 80) or imds.ADDRESS), self._health)
        host, port = config.http_proxy or (None, None)
        rules = ProxyRules(host, port, os.environ if environment is None else environment)
        self.transfers = Transfers(self.host, TransferHelper(agent), rules, log=log, events=events, period=self._period)
        self._artifacts = Artifacts(self.transfers, lambda: self.goal_state, self.history, log)
        self.telemetry = Telemetry(self.wire, self.host.endpoint, self.imds, self.transfers)
        self._uploader = StatusUploader(self.host, self.transfers, events, clock)
        self._failures = 0
        self._failing_reported = 0.0
        self._reset_for: str | None = None
        self._status_saved: tuple[GoalState | None, dict[str, Any]] = (None, {})

    # -- endpoint ---------------------------------------------------------------------------------------------------

    @property
    def endpoint(self) -> str | None:
        """``host:port`` of the WireServer, ``None`` before it answered."""
        return self._detection.found

    def detect(self, attempts: int = 1, pause: float = DETECT_PAUSE, *, save: bool = True) -> str:
        """Find the WireServer and agree on the protocol version (wireserver §2.2, §5).

        Args:
            attempts: tries; the reference uses 360.
            pause: seconds between them.
            save: write ``WireServerEndpoint`` and ``Protocol``; ``False`` while another process owns the state
                directory (ruling 19b).

        Returns:
            The endpoint.

        Raises:
            ProtocolNotFound: nobody speaks our version, or all of several attempts failed.
            ProtocolError: nobody answers, or nobody knows where to ask.
        """
        if attempts > 1:
            return self._detection.repeat(attempts, pause, save)
        return self._detection.ensure(save)

    # -- goal state -------------------------------------------------------------------------------------------------

    @property
    def goal_state(self) -> GoalState | None:
        """The adopted goal state, a snapshot; ``None`` before the first."""
        return self._goal_states.current

    @property
    def supports_fast_track(self) -> bool:
        """Whether ``FastTrack`` is announced: it is enabled and the host plugin serves vmSettings."""
        return self.config.boolean("Debug.EnableFastTrack") and self.host.settings.supported

    @property
    def hold_certificates(self) -> bool:
        """Whether goal states come without their certificates, while another process owns the state directory.

        They are owed: the first update after this was set back to ``False`` fetches them (ruling 19b).
        """
        return self._parts.hold_certificates

    @hold_certificates.setter
    def hold_certificates(self, hold: bool) -> None:
        self._parts.hold_certificates = hold

    def prefetch(self) -> GoalStateDocument:
        """Find the WireServer and read the goal state, without writing any file (ruling 19b).

        The next :meth:`update_goal_state` begins with this answer when it comes within a period.

        Raises:
            ProtocolError: no usable answer.
        """
        self._detection.ensure(save=False)
        return self._goal_states.prefetch()

    def update_goal_state(self, force: bool = False) -> bool:
        """Bring :attr:`goal_state` up to date; finds the WireServer first when that was not done.

        Failures are logged here: the first three in a row, then one line every six hours, then the recovery
        (wireserver §15.6). While an endpoint asked for fewer requests this raises at once, without asking.

        Args:
            force: fetch everything, whatever changed.

        Returns:
            Whether :attr:`goal_state` is another snapshot now.

        Raises:
            ProtocolError: the goal state before stays.
        """
        try:
            self._detection.ensure(save=True)
            changed = self._goal_states.update(force)
        except ProtocolError as problem:
            self._failed(problem)
            raise
        self._recovered()
        return changed

    def _failed(self, problem: ProtocolError) -> None:
        self._failures += 1
        if self._failures <= LOGGED_FAILURES:
            message = f"Error fetching the goal state: {problem}"
            self._failing_reported = self._clock()
            self.log.error(message)
            if self.events is not None:
                self.events.add("FetchGoalState", success=False, message=message, logged=True)
        elif self._clock() - self._failing_reported >= FAILING_EVERY:
            self._failing_reported = self._clock()
            message = f"Fetching the goal state is still failing: {problem}"
            self.log.error(message)
        self._parts.quiet = self._failures >= LOGGED_FAILURES

    def _recovered(self) -> None:
        self._parts.quiet = False
        if self._failures:
            self._failures = 0
            current = self.goal_state
            if current is not None:
                self.log.info(
                    "Fetching the goal state recovered from previous errors. "
                    f"Fetched {current.extensions.id} (certificates: {summary(current.certificates)})"
                )

    def _refresh_identity(self) -> None:
        self._detection.ensure(save=False)
        self._goal_states.refresh_identity()

    def _period(self) -> float:
        return float(self.config.integer("Extensions.GoalStatePeriod"))

    def _transport_certificate(self) -> str:
        path = self.paths.lib("TransportCert.pem")
        try:
            with open(path, encoding="ascii") as stream:
                lines = stream.read().split("\n")
        except (OSError, UnicodeDecodeError) as problem:
            raise ProtocolError(f"{path}: {getattr(problem, 'strerror', None) or 'not a certificate'}") from None
        content = "".join(line.strip() for line in lines if line and not line.startswith("-----"))
        if not content:
            raise CryptError(f"{path}: not a certificate")
        return content

    def _open_certificates(self, data: bytes) -> tuple[CertificateInfo, ...]:
        from waagent.platform import certificates  # starts a process: only when there is something to open

        openssl = self.config.text("OS.OpensslPath") or certificates.OPENSSL
        return certificates.open_certificates(self.paths, data, openssl=openssl, log=self.log)

    def decrypt_password(self, encrypted: str) -> str:
        """Return the password of a just-in-time account (wireserver §12); a secret.

        Args:
            encrypted: as the goal state has it, base64 of a message for the transport key.

        Raises:
            CryptError: it cannot be opened with the transport key, or is malformed.
        """
        from waagent.platform import certificates

        openssl = self.config.text("OS.OpensslPath") or certificates.OPENSSL
        return certificates.decrypt_password(self.paths, encrypted, openssl=openssl)

    def tidy(self) -> None:
        """Zip and thin out the history of goal states; to be called when nothing waits for this lane."""
        self.history.archive(self.apart)

    def apart(self, function: str, arguments: dict[str, Any], *, deadline: float = APART_DEADLINE) -> Any:
        """Call a function in the process that transfers files, and return its result.

        For what is rare and would leave much memory behind in the resident worker.

        Args:
            function: ``module:name``.
            arguments: by keyword; they and the result have to be JSON.
            deadline: seconds.

        Raises:
            AgentError: it raised something, took too long, or the agent is being stopped.
        """
        try:
            return self.transfers.helper.call(function, arguments, deadline, self._stopping.is_set)
        except (HelperFailed, Stopped) as problem:
            raise AgentError(str(problem)) from None

    # -- artifacts --------------------------------------------------------------------------------------------------

    def fetch_manifest(self, handler: Handler, *, stop: threading.Event | None = None) -> Manifest:
        """Return a handler's version manifest; it is fetched once per goal state.

        Args:
            handler: whose.
            stop: gives the download up.

        Raises:
            ExtensionDownloadError: code 1001.
        """
        return self._artifacts.manifest(handler, stop)

    def download_package(
        self,
        handler: Handler,
        version: ManifestVersion,
        manifest: Manifest,
        target: str,
        *,
        stop: threading.Event | None = None,
        check: Callable[[str], None] | None = None,
        limit: int = PACKAGE_LIMIT,
    ) -> None:
        """Download a handler's package to the file *target* (0600), from the first location that has it.

        Args:
            handler: whose.
            version: which; its locations.
            manifest: where the version was found.
            target: written whole or not at all; ``<target>.partial`` beside it is used meanwhile.
            stop: gives the download up.
            check: called with the path of the complete partial file; when it raises, the next location is tried.
            limit: bytes allowed.

        Raises:
            ExtensionDownloadError: code 1001; names the last error. A full disk is named as such.
        """
        self._artifacts.package(handler, version, manifest, target, stop=stop, check=check, limit=limit)

    def fetch_on_hold(self, *, stop: threading.Event | None = None) -> bool:
        """Return whether the platform wants extensions to wait (wireserver §9); any failure means no.

        Args:
            stop: gives the question up.
        """
        return self._artifacts.on_hold(stop)

    # -- reports ----------------------------------------------------------------------------------------------------

    def upload_status(self, document: Mapping[str, Any]) -> bool:
        """Upload a status document (:func:`waagent.platform.statusblob.build_status`): host plugin first, then direct.

        Returns:
            ``False`` when the host plugin did not know this machine: its identity was refreshed, and the next upload
            will do (wireserver §15.4).

        Raises:
            ProtocolNotFound: the goal state names no status blob, not even after it was fetched anew.
            ProtocolError: neither channel took it.
        """
        state = self.goal_state
        if state is None or state.extensions.status_blob is None:
            state = self._state_with_status_blob()
        blob = state.extensions.status_blob
        assert blob is not None
        if not self._uploader.upload(blob, document):
            return False
        self._goal_states.outdated_was_reported()
        return True

    def _state_with_status_blob(self) -> GoalState:
        state = self.goal_state
        # Once for each goal state: a machine without a status blob is not asked for everything at every upload.
        if state is not None and self._reset_for != state.extensions.id:
            self._reset_for = state.extensions.id
            self.update_goal_state(force=True)
            state = self.goal_state
        if state is None or state.extensions.status_blob is None:
            raise ProtocolNotFound("Status upload uri is missing")
        return state

    def save_status_copy(self, document: Mapping[str, Any]) -> None:
        """Keep a status document in the history of the present goal state, unless only moments changed in it."""
        known = (self.goal_state, timeless(document))
        if known[0] is self._status_saved[0] and known[1] == self._status_saved[1]:
            return
        if self.history.save(names.STATUS, json.dumps(document).encode("ascii") + b"\n"):
            self._status_saved = known

    def report_health(self, state: str, substatus: str = "", description: str = "") -> None:
        """Report ``Ready`` or ``NotReady`` to the fabric; tries for five minutes (wireserver §18.1, ruling 27).

        Args:
            state: ``Ready`` or ``NotReady``.
            substatus: ``Provisioning`` or ``ProvisioningFailed``; empty for none.
            description: shown to the user by the platform; cut to 3600 bytes.

        Raises:
            ProtocolError: it was not taken.
        """
        seen = self._seen()
        self.wire.report_health(
            healthdoc.build_health_report(
                seen.incarnation, seen.container_id, seen.role_instance_id, state, substatus, description
            )
        )

    def report_provisioning_health(self, state: str, substatus: str = "", description: str = "") -> None:
        """Report as :meth:`report_health` does, where the goal state cannot be read (wireserver §18.4).

        Raises:
            ProtocolError: it was not taken.
        """
        self._detection.ensure(save=False)
        self.wire.report_provisioning(healthdoc.build_provisioning_health(state, substatus, description))

    def report_role_properties(self, thumbprint: str) -> None:
        """Report the fingerprint of the SSH host key (wireserver §18.2).

        Raises:
            ProtocolError: it was not taken.
        """
        seen = self._seen()
        self.wire.report_role_properties(
            healthdoc.build_role_properties(seen.container_id, seen.role_instance_id, thumbprint)
        )

    def _seen(self) -> GoalStateDocument:
        if self._goal_states.last_document is None:
            self._refresh_identity()
        seen = self._goal_states.last_document
        assert seen is not None
        return seen

    def report_host_health(self) -> None:
        """Ask metadata service and host plugin how they are, and tell the HealthService all that was observed.

        To be called every minute. Never raises: this is a hint for the platform.
        """
        self.check_imds()
        try:
            self.host.ensure_initialised()
            self.host.ask_health()
            self._health.note(observations.HEARTBEAT, True)
        except Throttled:
            pass  # it is alive, and asked not to be asked
        except ProtocolError as problem:
            self._health.note(observations.HEARTBEAT, False, str(problem))
            failing = self._health.failing_seconds(observations.HEARTBEAT)
            if failing >= observations.HOST_PLUGIN_PATIENCE and self.events is not None:
                # The log has the line of the observation; telemetry hears of every minute.
                self.events.add(
                    "HostPluginHeartbeatExtended",
                    success=False,
                    message=f"{failing / 60:.0f} min since successful heartbeat",
                    logged=True,
                )
        self._send_observations()

    def _send_observations(self) -> None:
        document = self._health.take()
        if document is None or self.endpoint is None:
            return
        try:
            self.wire.report_observations(document)
        except ProtocolError as problem:
            message = f"The HealthService did not take the observations: {problem}"
            self.log.periodic(3600, "observations", VERBOSE, message)

    def upload_logs(self, archive: bytes) -> None:
        """Upload the collected logs through the host plugin (wireserver §14.5).

        Raises:
            HttpError: it was not taken.
        """
        self.host.put_log(archive)

    # -- metadata ---------------------------------------------------------------------------------------------------

    def imds_compute(self) -> dict[str, Any] | None:
        """Return what the metadata service knows of this machine, ``None`` when it does not answer."""
        try:
            return self.imds.compute()
        except ProtocolError as problem:
            self.log.verbose(str(problem))
            return None

    def check_imds(self) -> str:
        """Probe the metadata service for the health report; returns a word of :mod:`waagent.platform.imdsdoc`."""
        return self.imds.check()
