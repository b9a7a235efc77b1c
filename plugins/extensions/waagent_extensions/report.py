"""The extensions' part of the status blob: handlers, extensions, goal state (extensions §8, §9, §13.3).

Built in the status lane from the engine's view and the disk, while the engine's lane works. One handler that cannot
be reported never spoils the others.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import attrs

from waagent import ExtensionReport, ExtensionsGoalState, Handler, HandlerReport, StatusReport
from waagent_extensions import codes, facts, heartbeat, order, records, settings, statusfile
from waagent_extensions.layout import HandlerDir
from waagent_extensions.moments import utc
from waagent_extensions.order import Outcome, Unit
from waagent_extensions.records import HandlerStatus
from waagent_extensions.site import Site, View

FEATURES = ("MultipleExtensionsPerHandler",)
_SETTLED_BADLY = (order.FAILED, order.SKIPPED, order.BLOCKED)
_SETTLING = 300.0
"""Seconds after the machine's start until an older status is remarked on: the extension may be about to replace it."""
_INSTALLING = ("install", "update", "uninstall", "disable")


class Reporter:
    """Build reports; remembers what it read as long as files do not change.

    Args:
        site: the engine's surroundings.
        reader: reads status files.
    """

    def __init__(self, site: Site, reader: statusfile.StatusReader) -> None:
        self._site = site
        self._reader = reader
        self._records: dict[str, tuple[tuple[int, int, int], HandlerStatus | None]] = {}
        self._heartbeats: dict[str, tuple[tuple[int, int, int], bool]] = {}
        self._unreported: set[tuple[str, str]] = set()
        self._booted = _booted()

    def build(self) -> StatusReport:
        """Return the plugin's part of the status."""
        view = self._site.view
        goal_state = view.goal_state or self._adopted()
        if goal_state is None:
            return StatusReport(features=FEATURES, busy=view.busy)
        handlers = tuple(self._from_disk() if view.from_disk else self._from_goal_state(view, goal_state))
        return StatusReport(
            handlers=handlers,
            goal_state=view.aggregate,
            features=FEATURES,
            details=_details(view, goal_state, handlers),
            busy=view.busy,
        )

    def _adopted(self) -> ExtensionsGoalState | None:
        """Return what the engine is about to see: a handler that vanished for one report would count as removed."""
        platform = self._site.agent.platform
        state = platform.goal_state if platform is not None else None
        return state.extensions if state is not None else None

    def _from_goal_state(self, view: View, goal_state: ExtensionsGoalState) -> Iterator[HandlerReport]:
        for handler in goal_state.handlers:
            try:
                if handler.name in view.unknown:
                    yield from view.unknown[handler.name]
                else:
                    yield from self._handler(view, handler)
            except Exception as problem:  # the others are reported all the same
                self._site.log.periodic(
                    1800, f"report {handler.name}", 2, f"The status of {handler.name} cannot be read: {problem!r}"
                )

    def _handler(self, view: View, handler: Handler) -> Iterator[HandlerReport]:
        units = order.units([handler])
        place = self._place(view, handler)
        recorded = self._record(place)
        busy = _busy(view, units)
        outcomes = [view.outcomes.get(unit.full_name) for unit in units]
        if recorded is None:
            # A disk that took no record of a failure does not hide it from the platform.
            recorded = _unrecorded(place, outcomes)
        if recorded is None and not (busy and handler.state == order.ENABLED):
            self._say_unreported(view, handler, units)
            return
        status = self._handler_status(view, place, recorded, busy, outcomes)
        items = [self._extension(view, unit, place, status) for unit in units if unit.sequence is not None]
        reported = [item for item in items if item is not None]
        if not reported:
            # Every extension of a multi-config handler may be gone by now; without settings there never was one.
            yield _item(handler, status, None)
        for item in reported:
            yield _item(handler, status, item)

    def _place(self, view: View, handler: Handler) -> HandlerDir:
        layout = self._site.layout
        version = view.versions.get(handler.name)
        if version is not None:
            return layout.handler(handler.name, version)
        exact = layout.handler(handler.name, handler.version)
        if os.path.exists(exact.status_record):
            return exact
        return facts.installed_version(layout, handler.name) or exact

    def _handler_status(
        self, view: View, place: HandlerDir, recorded: HandlerStatus | None, busy: str, outcomes: list[Outcome | None]
    ) -> HandlerStatus:
        if recorded is None or _is_installing(view, place, recorded, busy):
            return HandlerStatus(place.name, place.version, records.INSTALLING, 0, busy)
        if recorded.code != 0 and all(outcome is None or outcome.kind == order.RETRY for outcome in outcomes):
            # What is on record failed in an earlier goal state, or is tried again: it is not this one's last word.
            again = [f"{outcome.reason}; it is tried again" for outcome in outcomes if outcome is not None]
            text = busy or (again or ["Waiting to be processed"])[0]
            return HandlerStatus(place.name, place.version, records.NOT_READY, 0, text)
        if recorded.code == 0 and busy:
            # What runs is more telling than a heartbeat; the next report has that again.
            return HandlerStatus(place.name, place.version, recorded.status, 0, f"{recorded.message}. {busy}")
        return self._with_heartbeat(place, recorded, any(o is not None and o.kind == order.BLOCKED for o in outcomes))

    def _with_heartbeat(self, place: HandlerDir, recorded: HandlerStatus, blocked: bool) -> HandlerStatus:
        if not self._reports_heartbeat(place) or records.read_state(place) == records.NOT_INSTALLED:
            return recorded
        try:
            enabled_at = os.stat(place.status_record).st_mtime
        except OSError:
            enabled_at = None
        beat = heartbeat.read(place, time.time(), enabled_at)
        if beat is None:
            return recorded
        if blocked:
            text = f"{recorded.message} {beat.message or ''}".strip()
            return HandlerStatus(recorded.name, recorded.version, recorded.status, recorded.code, text)
        if recorded.code != 0 and beat.status == records.READY:
            return recorded  # a failed operation is not made good by a process that lives
        message = beat.message if beat.message is not None else recorded.message
        return HandlerStatus(recorded.name, recorded.version, beat.status, beat.code, message)

    def _reports_heartbeat(self, place: HandlerDir) -> bool:
        stamp = _stamp(place.manifest)
        if stamp is None:
            return False
        known = self._heartbeats.get(place.manifest)
        if known is None or known[0] != stamp:
            manifest = facts.manifest_of(place)
            known = self._heartbeats[place.manifest] = (stamp, manifest is not None and manifest.report_heartbeat)
        return known[1]

    def _record(self, place: HandlerDir) -> HandlerStatus | None:
        stamp = _stamp(place.status_record)
        if stamp is None:
            return None
        known = self._records.get(place.status_record)
        if known is None or known[0] != stamp:
            if len(self._records) > 2000:
                self._records.clear()
            known = self._records[place.status_record] = (stamp, records.read_status(place))
        return known[1]

    def _extension(self, view: View, unit: Unit, place: HandlerDir, status: HandlerStatus) -> ExtensionReport | None:
        sequence = unit.sequence
        assert sequence is not None
        outcome = view.outcomes.get(unit.full_name)
        if unit.extension and not unit.enables and outcome is not None and outcome.kind == order.DONE:
            return None  # disabled, and recorded as such
        name = unit.extension or unit.handler.name
        said = self._reader.read(place, unit.extension, sequence, unit.full_name)
        written = os.path.exists(place.status_file(unit.extension, sequence))
        if outcome is None or outcome.kind == order.RETRY:
            if written and outcome is None:
                return said
            return _transitioning(name, sequence, unit.full_name, _why(view, unit, outcome))
        if outcome.kind not in _SETTLED_BADLY:
            if unit.enables and outcome.kind == order.DONE and not written:
                # A process of the handler may be at work; people who wait should know that it is all there is.
                why = "its enable command has ended without an error and without writing a status file"
                return _transitioning(name, sequence, unit.full_name, why)
            return self._with_age(said, place.status_file(unit.extension, sequence))
        # The platform looks at the extension first: a failure without an item of its own sequence number could be
        # taken for the previous operation's result (extensions §13.3 N). The extension's own words count when it wrote
        # them this time and they tell of an error.
        if said.status == "error" and _is_since(place.status_file(unit.extension, sequence), outcome.began):
            return said
        operation = outcome.operation or "Enable"
        return ExtensionReport(
            name, sequence, "error", outcome.code or codes.UNKNOWN, outcome.reason, operation=operation
        )

    def _with_age(self, said: ExtensionReport, path: str) -> ExtensionReport:
        """Say so when an extension is transitioning since before the machine started: nobody may be at work on it."""
        if said.status != "transitioning" or self._booted is None or time.time() - self._booted < _SETTLING:
            return said
        stamp = _stamp(path)
        if stamp is None or stamp[0] / 1e9 > self._booted:
            return said
        note = f"this status is from {utc(stamp[0] / 1e9)}, before the machine started at {utc(self._booted)}"
        return attrs.evolve(said, message=f"{said.message or ''} [{note}]".strip())

    def _from_disk(self) -> Iterator[HandlerReport]:
        """Report what is there, as the goal state cannot be understood (extensions §11.3)."""
        for place in self._site.layout.installed():
            recorded = self._record(place)
            if recorded is None:
                continue
            names = self._extensions_on_disk(place)
            for extension in names or [None]:
                sequence = settings.newest_sequence(place, extension)
                full_name = f"{place.name}.{extension}" if extension else place.name
                said = self._reader.read(place, extension, sequence, full_name) if sequence >= 0 else None
                yield HandlerReport(
                    place.name, place.version, recorded.status, recorded.code, recorded.message, bool(extension), said
                )

    @staticmethod
    def _extensions_on_disk(place: HandlerDir) -> list[str | None]:
        found: dict[str | None, None] = {}
        try:
            entries = sorted(os.listdir(place.config_dir))
        except OSError:
            return []
        for entry in entries:
            # Names may hold dots and dashes: the last two dots divide (extensions §10.6 N).
            parts = entry.rsplit(".", 2)
            if len(parts) == 3 and parts[2] == "settings" and parts[1].isdigit():
                found[parts[0]] = None
        return list(found)

    def _say_unreported(self, view: View, handler: Handler, units: tuple[Unit, ...]) -> None:
        if handler.state == order.UNINSTALL or not view.processed or view.goal_state is None:
            return
        if any(unit.full_name not in view.outcomes for unit in units):
            return
        key = (view.goal_state.id, handler.name)
        if key not in self._unreported:
            self._unreported = {known for known in self._unreported if known[0] == view.goal_state.id} | {key}
            self._site.log.warning(f"There is no status of {handler.name} to report")


def _item(handler: Handler, status: HandlerStatus, extension: ExtensionReport | None) -> HandlerReport:
    return HandlerReport(
        handler.name, status.version, status.status, status.code, status.message, handler.multi_config, extension
    )


def _transitioning(name: str, sequence: int, full_name: str, why: str) -> ExtensionReport:
    return statusfile.missing(name, sequence, full_name, why)


def _unrecorded(place: HandlerDir, outcomes: list[Outcome | None]) -> HandlerStatus | None:
    for outcome in outcomes:
        if outcome is not None and outcome.kind in _SETTLED_BADLY:
            return HandlerStatus(place.name, place.version, records.NOT_READY, outcome.code, outcome.reason)
    return None


def _is_since(path: str, moment: float) -> bool:
    """Return whether a file was written after *moment*; the kernel's clock for files may be a tick late."""
    stamp = _stamp(path)
    return stamp is not None and stamp[0] / 1e9 > moment - 0.1


def _booted() -> float | None:
    try:
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    except (AttributeError, OSError):
        return None


def _busy(view: View, units: tuple[Unit, ...]) -> str:
    """Return what goes on for one of *units*, for people; "" when nothing does."""
    names = {unit.full_name for unit in units}
    running = view.running
    if running is not None and view.running_unit in names:
        until = running.started + running.order.timeout
        text = f"Running {running.order.operation} since {utc(running.started)}, at most until {utc(until)}"
        last = running.last_line
        return f"{text}; last output: {last}" if last else text
    activity = view.activity
    if activity is not None and activity.unit in names:
        return f"{activity.words[:1].upper()}{activity.words[1:]} since {utc(activity.since)}"
    return ""


def _is_installing(view: View, place: HandlerDir, recorded: HandlerStatus, busy: str) -> bool:
    if not busy or (recorded.status == records.READY and not _is_changing(view)):
        return False
    if view.running is not None:
        return view.running.order.operation in _INSTALLING
    return view.activity is not None and not records.is_installed(records.read_state(place))


def _is_changing(view: View) -> bool:
    return view.running is not None and view.running.order.operation in _INSTALLING


def _why(view: View, unit: Unit, outcome: Outcome | None) -> str:
    if outcome is not None:
        return f"{outcome.reason}; it is tried again"
    busy = _busy(view, (unit,))
    return busy or view.waiting.get(unit.full_name) or "it waits to be processed"


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _bare(item: HandlerReport) -> dict[str, Any]:
    extension = item.extension
    document: dict[str, Any] = {
        "name": item.name,
        "version": item.version,
        "status": item.status,
        "code": item.code,
        "extension": None,
    }
    if extension is not None:
        document["extension"] = {
            "name": extension.name if item.multi_config else None,
            "sequenceNumber": extension.sequence_number,
            "status": extension.status,
            "code": extension.code,
        }
    return document


def _details(view: View, goal_state: ExtensionsGoalState, handlers: tuple[HandlerReport, ...]) -> dict[str, Any]:
    """Return what the public status copy shows: no output of commands, no messages of handlers."""
    details: dict[str, Any] = {
        "goalState": goal_state.id,
        "busy": view.busy,
        "outcomes": {name: outcome.kind for name, outcome in view.outcomes.items()},
        "handlers": [_bare(item) for item in handlers],
    }
    running = view.running
    if running is not None:
        details["running"] = {
            "extension": view.running_unit or running.order.handler,
            "version": running.order.version,
            "operation": running.order.operation,
            "id": running.order.id,
            "since": utc(running.started),
            "deadline": utc(running.started + running.order.timeout),
        }
    elif view.activity is not None:
        details["activity"] = {
            "extension": view.activity.unit,
            "doing": view.activity.words,
            "since": utc(view.activity.since),
        }
    if view.waiting:
        details["waiting"] = dict(view.waiting)
    return details
