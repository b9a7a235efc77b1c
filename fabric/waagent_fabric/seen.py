"""What the platform saw of an agent: records, and waiting for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from waagent_fabric.records import HealthRecord, RequestRecord, StatusRecord, TelemetryRecord, Violation
from waagent_fabric.state import Platform

T = TypeVar("T")


def find_handler(
    document: Mapping[str, Any] | None, handler: str, extension: str | None = None
) -> dict[str, Any] | None:
    """Return the item of *handler* in a status document (of the named extension), or ``None``."""
    for item in (document or {}).get("aggregateStatus", {}).get("handlerAggregateStatus", ()):
        name = (item.get("runtimeSettingsStatus") or {}).get("extensionName")
        if item.get("handlerName") == handler and extension in (None, name):
            return dict(item)
    return None


class Seen:
    """The observing half of :class:`waagent_fabric.api.Fabric`. Thread-safe."""

    platform: Platform

    @property
    def statuses(self) -> list[StatusRecord]:
        """Every complete status document, in order."""
        return self._copy(self.platform.statuses)

    @property
    def status(self) -> dict[str, Any] | None:
        """The last status document."""
        with self.platform.changed:
            return self.platform.statuses[-1].document if self.platform.statuses else None

    @property
    def requests(self) -> list[RequestRecord]:
        """Every request that was answered or dropped, in order of their ends."""
        return self._copy(self.platform.requests)

    @property
    def connections(self) -> int:
        """How many different connections the recorded requests came through."""
        return len({(record.server, record.peer) for record in self.requests})

    @property
    def violations(self) -> list[Violation]:
        """What agents did against the rules. The list itself: tests may clear it."""
        return self.platform.violations

    @property
    def health_reports(self) -> list[HealthRecord]:
        """Every health report, in order."""
        return self._copy(self.platform.health)

    @property
    def role_properties(self) -> list[dict[str, str]]:
        """Every set of role properties, in order."""
        return self._copy(self.platform.role_properties)

    @property
    def telemetry(self) -> list[TelemetryRecord]:
        """Every telemetry event, in order."""
        return self._copy(self.platform.telemetry)

    @property
    def observations(self) -> list[dict[str, Any]]:
        """Every observation told to the HealthService."""
        return self._copy(self.platform.observations)

    @property
    def log_uploads(self) -> list[bytes]:
        """Every uploaded log archive."""
        return self._copy(self.platform.log_uploads)

    def _copy(self, records: Iterable[T]) -> list[T]:
        with self.platform.changed:
            return list(records)

    def clear_records(self) -> None:
        """Forget requests, statuses, reports and violations."""
        state = self.platform
        with state.changed:
            for records in (
                state.requests, state.statuses, state.health, state.role_properties, state.telemetry,
                state.observations, state.log_uploads, state.violations,
            ):  # fmt: skip
                records.clear()

    def wait_for(self, condition: Callable[[], T], timeout: float = 30.0, what: str = "the condition") -> T:
        """Wait until *condition* returns something true, and return that; looked at after every new record.

        Raises:
            TimeoutError: it stayed false for *timeout* seconds.
        """
        deadline = time.monotonic() + timeout
        with self.platform.changed:
            while True:
                value = condition()
                if value:
                    return value
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{what} did not come true within {timeout} s")
                self.platform.changed.wait(min(left, 0.5))

    def wait_for_status(
        self, predicate: Callable[[dict[str, Any]], Any] | None = None, timeout: float = 30.0
    ) -> dict[str, Any]:
        """Wait for a status document for which *predicate* is true (any one without it), those before included.

        Raises:
            TimeoutError: none came; the message holds the last document.
        """
        seen = 0

        def found() -> dict[str, Any] | None:
            nonlocal seen
            records = list(self.platform.statuses)
            fresh = records if seen == 0 else records[-max(1, self.platform.status_count - seen) :]
            seen = self.platform.status_count
            for record in fresh:
                if predicate is None or predicate(record.document):
                    return record.document
            return None

        try:
            return self.wait_for(found, timeout) or {}
        except TimeoutError:
            raise TimeoutError(f"no such status within {timeout} s; the last of {seen}: {self.status!r}") from None

    def wait_for_request(
        self, server: str, path: str = "", *, method: str | None = None, count: int = 1, timeout: float = 30.0
    ) -> list[RequestRecord]:
        """Wait until *count* requests whose path and query hold *path* were made; return them.

        Raises:
            TimeoutError: fewer came.
        """

        def found() -> list[RequestRecord] | None:
            matching = [
                record
                for record in self.platform.requests
                if record.server == server and path in record.path and method in (None, record.method)
            ]
            return matching if len(matching) >= count else None

        return self.wait_for(found, timeout, f"{count} requests to {server} with {path!r}") or []

    def extension_status(self, handler: str, extension: str | None = None) -> dict[str, Any] | None:
        """Return the handler's item in the last status document (of the named extension), or ``None``."""
        return find_handler(self.status, handler, extension)

    def wait_for_extension(
        self,
        handler: str,
        status: str = "success",
        *,
        extension: str | None = None,
        version: str | None = None,
        sequence_number: int | None = None,
        timeout: float = 30.0,
    ) -> dict[str, Any]:
        """Wait until the newest document reports the extension with *status*; return the handler's item.

        Raises:
            TimeoutError: it did not; the message holds the last document.
        """

        def found() -> dict[str, Any] | None:
            item = self.extension_status(handler, extension)
            settings = (item or {}).get("runtimeSettingsStatus") or {}
            if item is None or (version is not None and item["handlerVersion"] != version):
                return None
            if sequence_number is not None and str(settings.get("sequenceNumber")) != str(sequence_number):
                return None
            reported = settings.get("settingsStatus", {}).get("status", {}).get("status")
            return item if reported == status else None

        try:
            return self.wait_for(found, timeout) or {}
        except TimeoutError:
            raise TimeoutError(
                f"{handler} not {status} within {timeout} s; the last document: {self.status!r}"
            ) from None
