"""What the agent remembers of the host plugin's vmSettings, in memory and in ``fast_track.json`` (wireserver §14.3)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from waagent.errors import (
    HttpError,
    ProtocolError,
    StateError,
    VmSettingsNotSupported,
    VmSettingsSupportStopped,
)
from waagent.files import read_json, write_json
from waagent.log import Log
from waagent.platform import ticks
from waagent.platform.arbiter import FAST_TRACK
from waagent.platform.models import MINIMUM_TIMESTAMP
from waagent.platform.observations import EventSink
from waagent.platform.vmsettings import VmSettings, redact_vm_settings

RECHECK = 6 * 3600.0
"""Seconds until a host plugin without vmSettings is asked again."""
REPORTED_ERRORS = 3
REPORT_ERRORS_EVERY = 3600.0


class SettingsMemory:
    """What is remembered of vmSettings: whether they are served, the last document, the time of the last fast track.

    Attributes:
        supported: they were served last time, or by ``fast_track.json`` in an earlier life.
        cached: the last document that could be used.
        redacted: it, without its secrets, for the history.
    """

    def __init__(self, path: str, clock: Callable[[], float], log: Log, events: EventSink | None) -> None:
        self.supported = os.path.exists(path)
        self.cached: VmSettings | None = None
        self.redacted = ""
        self._path = path
        self._clock = clock
        self._log = log
        self._events = events
        self._next_check = float("-inf")
        self._version = ""
        self._counts: dict[str, int] = {}
        self._hour_started = clock()
        self._events_this_hour = 0

    @property
    def fast_track_timestamp(self) -> str:
        """Created-on of the last fast-track goal state; the minimum when there was none, now when it is unreadable."""
        try:
            value = read_json(self._path, 1 << 16)
        except StateError as problem:
            self._log.warning(f"Cannot read the time of the last fast-track goal state: {problem}; will use now")
            return ticks.timestamp()
        if value is None:
            return MINIMUM_TIMESTAMP
        text = value.get("timestamp") if isinstance(value, dict) else None
        try:
            ticks.microseconds(text if isinstance(text, str) else "")
        except ProtocolError:
            self._log.warning(f"{self._path}: no timestamp in it; will use now")
            return ticks.timestamp()
        assert isinstance(text, str)
        return text

    def forget_fast_track(self) -> None:
        """Delete ``fast_track.json``."""
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass
        except OSError as problem:
            self._log.warning(f"Cannot delete {self._path}: {problem.strerror}")

    def check_due(self) -> None:
        """Raise :class:`VmSettingsNotSupported` while a plugin that does not serve them is not asked."""
        if not self.supported and self._clock() < self._next_check:
            raise VmSettingsNotSupported("the host plugin serves no vmSettings; it is asked again every 6 hours")

    def not_supported(self, message: str) -> VmSettingsNotSupported:
        """Note that they are not served and return the error to raise."""
        self._next_check = self._clock() + RECHECK
        if not self.supported:
            return VmSettingsNotSupported(message)
        self.supported = False
        self.cached = None
        return VmSettingsSupportStopped(self.fast_track_timestamp)

    def adopt(self, settings: VmSettings, data: bytes) -> bool:
        """Remember a document, given as parsed and as sent; return whether it differs from the one before."""
        is_new = self.cached is None or self.cached.etag != settings.etag
        if is_new:
            self.redacted = redact_vm_settings(data)
        self.supported = True
        self.cached = settings
        if settings.host_plugin_version != self._version:
            self._version = settings.host_plugin_version
            self._log.info(f"HostGAPlugin version: {self._version}")
        if settings.source != FAST_TRACK:
            self.forget_fast_track()
        elif is_new:
            try:
                write_json(self._path, {"timestamp": settings.extensions.created})
            except OSError as problem:
                self._log.warning(f"Cannot write {self._path}: {problem.strerror}")
        return is_new

    def count(self, kind: str) -> None:
        """Count a request or a kind of error; once an hour a summary becomes an event."""
        now = self._clock()
        if now - self._hour_started >= REPORT_ERRORS_EVERY:
            self._summarise()
            self._hour_started = now
        self._counts[kind] = self._counts.get(kind, 0) + 1

    def failed(self, kind: str, message: str, status: int | None = None) -> HttpError:
        """Count a failure and return the error to raise; the first three of an hour become events."""
        self.count(kind)
        if self._events_this_hour < REPORTED_ERRORS:
            self._events_this_hour += 1
            if self._events is not None:
                self._events.add("VmSettings", success=False, message=message)
        return HttpError(message, status)

    def _summarise(self) -> None:
        kinds = ("serverErrors", "clientErrors", "timeouts", "failedRequests")
        errors = sum(self._counts.get(kind, 0) for kind in kinds)
        summary = {"requests": self._counts.get("requests", 0), "errors": errors}
        summary.update((kind, self._counts.get(kind, 0)) for kind in kinds)
        self._counts.clear()
        self._events_this_hour = 0
        text = json.dumps(summary)
        if errors:
            self._log.info(f"[VmSettingsSummary] {text}")
        if self._events is not None:
            self._events.add("VmSettingsSummary", success=not errors, message=text)
