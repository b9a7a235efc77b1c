"""The upload of a status document: through the host plugin, and directly when that fails (wireserver §17.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from waagent.errors import InvalidContainer, ProtocolError, ResourceGone
from waagent.platform.hostplugin import HostPlugin
from waagent.platform.models import StatusBlob
from waagent.platform.observations import EventSink
from waagent.platform.statusblob import StorageCall, encode_status, storage_calls
from waagent.platform.transfers import Transfers

PATIENCE = 900.0
"""Seconds of failures after which ``ReportStatusExtended`` is raised; then the time starts anew."""


class StatusUploader:
    """Uploads documents and minds how long that has failed."""

    def __init__(
        self, host: HostPlugin, transfers: Transfers, events: EventSink | None, clock: Callable[[], float]
    ) -> None:
        self._host = host
        self._transfers = transfers
        self._events = events
        self._clock = clock
        self._failing_since: float | None = None
        self._told = False

    def upload(self, blob: StatusBlob, document: Mapping[str, Any]) -> bool:
        """Upload a document.

        Returns:
            ``False`` when the host plugin did not know this machine: its identity was refreshed, and the next upload
            will do.

        Raises:
            ProtocolError: neither channel took it.
        """
        calls = storage_calls(blob.url, blob.blob_type, encode_status(dict(document)))
        try:
            self._all(self._host.put_status, calls)
        except (ResourceGone, InvalidContainer):
            self._host.refresh_identity()
            return False
        except ProtocolError as through_host:
            try:
                self._all(self._transfers.upload, calls)
            except ProtocolError as direct:
                self._failed()
                raise ProtocolError(
                    "Failed to upload status blob via either channel. "
                    f"Through the host plugin: {through_host}. Directly: {direct}"
                ) from None
        self._failing_since = None
        self._told = False
        return True

    @staticmethod
    def _all(make: Callable[[StorageCall], None], calls: list[StorageCall]) -> None:
        for call in calls:
            make(call)

    def _failed(self) -> None:
        now = self._clock()
        if self._failing_since is None:
            self._failing_since = now
        elif now - self._failing_since >= PATIENCE:
            if self._events is not None:
                minutes = (now - self._failing_since) / 60
                message = f"{minutes:.0f} min of failed status uploads"
                # One line for an outage; telemetry gets every one.
                self._events.add("ReportStatusExtended", success=False, message=message, logged=self._told)
                self._told = True
            self._failing_since = now
