"""What a goal state makes the agent fetch: manifests, packages, the artifacts profile (wireserver §9, §13, §16)."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

from waagent.errors import ExtensionDownloadError, ProtocolError
from waagent.log import Log
from waagent.platform import names
from waagent.platform.artifactsprofile import parse_on_hold
from waagent.platform.history import History
from waagent.platform.manifest import parse_manifest
from waagent.platform.models import GoalState, Handler, Manifest, ManifestVersion
from waagent.platform.transfers import Transfers
from waagent.redaction import redact

PROFILE_SECONDS = 60.0


class Artifacts:
    """Fetches artifacts for the present goal state.

    Args:
        transfers: the channels.
        current: the present goal state.
        history: keeps manifests.
        log: what was let pass.
    """

    def __init__(
        self, transfers: Transfers, current: Callable[[], GoalState | None], history: History, log: Log
    ) -> None:
        self._transfers = transfers
        self._current = current
        self._history = history
        self._log = log
        self._lock = threading.Lock()
        self._manifests: dict[tuple[str, tuple[str, ...]], Manifest] = {}
        self._manifests_of: str | None = None

    def manifest(self, handler: Handler, stop: threading.Event | None = None) -> Manifest:
        """Return a handler's manifest; see :meth:`waagent.platform.client.Platform.fetch_manifest`."""
        state = self._current()
        key = (handler.name.lower(), handler.manifest_uris)
        with self._lock:
            present = state.extensions.id if state is not None else None
            if self._manifests_of != present:
                self._manifests = {}
                self._manifests_of = present
            manifests = self._manifests
        if key in manifests:
            return manifests[key]
        notes: list[str] = []
        try:
            found = self._transfers.fetch(
                f"the manifest of {handler.name}", handler.manifest_uris, verify=self._is_fast_track(), stop=stop
            )
            manifest = parse_manifest(found.body, found.uri, notes)
        except ProtocolError as problem:
            raise ExtensionDownloadError(f"Failed to retrieve extension manifest. Error: {problem}") from None
        for note in notes:
            self._log.warning(f"Manifest of {handler.name}: {note}")
        # The locations of packages open doors too (wireserver §22).
        self._history.save(names.manifest_name(handler.name), redact(found.body.decode("utf-8", "replace")))
        manifests[key] = manifest
        return manifest

    def package(
        self,
        handler: Handler,
        version: ManifestVersion,
        manifest: Manifest,
        target: str,
        *,
        stop: threading.Event | None,
        check: Callable[[str], None] | None,
        limit: int,
    ) -> None:
        """Download a package; see :meth:`waagent.platform.client.Platform.download_package`."""
        partial = target + ".partial"
        try:
            self._transfers.fetch(
                f"{handler.name} {version.version}",
                version.uris,
                verify=self._is_fast_track(),
                kind="host-package",
                manifest_uri=manifest.uri,
                target=partial,
                limit=limit,
                check=check,
                stop=stop,
            )
            os.replace(partial, target)
        except OSError as problem:
            raise ExtensionDownloadError(f"{target}: {problem.strerror or problem}") from None
        finally:
            with contextlib.suppress(OSError):
                os.unlink(partial)

    def on_hold(self, stop: threading.Event | None = None) -> bool:
        """Return whether extensions are to wait; see :meth:`waagent.platform.client.Platform.fetch_on_hold`."""
        state = self._current()
        if state is None:
            return False
        uri = state.extensions.artifacts_profile_uri.strip()
        if state.extensions.channel != "WireServer" or not uri:
            return state.extensions.on_hold
        try:
            found = self._transfers.fetch(
                "the artifacts profile", (uri,), verify=False, seconds=PROFILE_SECONDS, stop=stop
            )
            return parse_on_hold(found.body)
        except ProtocolError as problem:
            self._log.warning(f"Cannot read the artifacts profile, extensions are not held: {problem}")
            return False

    def _is_fast_track(self) -> bool:
        state = self._current()
        return state is not None and state.extensions.source == "FastTrack"
