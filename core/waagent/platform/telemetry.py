"""Events for the platform's telemetry, and what only the platform package knows about them (wireserver §19)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from waagent.platform import imdsdoc, telemetrydoc
from waagent.platform.endpoint import Endpoint
from waagent.platform.imds import Imds
from waagent.platform.models import TelemetryEvent, TelemetryReceipt
from waagent.platform.transfers import Transfers
from waagent.platform.wire import WireServer


class Telemetry:
    """The platform's telemetry; every method may be called from any lane.

    Args:
        wire: takes the events.
        host: the host plugin's requests, of which failures are counted.
        imds, transfers: likewise.
    """

    def __init__(self, wire: WireServer, host: Endpoint, imds: Imds, transfers: Transfers) -> None:
        self._wire = wire
        self._host = host
        self._others = (imds.endpoint, transfers)

    def send(self, events: Sequence[TelemetryEvent]) -> TelemetryReceipt:
        """Send one request with the first of *events*: as many as fit, of one provider (wireserver §19.2).

        Tried three times (§3.3). A throttled one is not repeated here, and keeps nothing else from being sent: the next
        is due after what ``Retry-After`` says, and 8 s at least.

        Raises:
            Throttled: too many requests; ``retry_after`` says for how many seconds there should be none.
            ProtocolError: it was not taken; none of the events was.
        """
        body, done, oversize = telemetrydoc.build_request(events)
        if body:
            self._wire.send_telemetry(body)
        return TelemetryReceipt(done, oversize)

    def parse_legacy_event(self, data: bytes) -> TelemetryEvent:
        """Return the event in an XML event file that a handler or an agent of old left (wireserver §19.3).

        Raises:
            ProtocolError: it is none.
        """
        return telemetrydoc.parse_legacy_event(data)

    def image_origin(self, compute: Mapping[str, Any] | None) -> int:
        """Return where the machine's image came from: 0 unknown, 1 custom, 2 endorsed, 3 another platform image.

        Args:
            compute: as :meth:`~waagent.platform.client.Platform.imds_compute` gave it.
        """
        return imdsdoc.image_origin(dict(compute) if compute is not None else None)

    def take_http_errors(self) -> dict[str, int]:
        """Return how many requests got no answer since the last call of this, by peer (wireserver §19.6)."""
        return {
            "hostplugin": self._host.take_connection_errors(),
            "protocol": self._wire.endpoint.take_connection_errors(),
            "other": sum(peer.take_connection_errors() for peer in self._others),
        }
