"""Keeps the goal state current: the update algorithm of wireserver §15 over both channels."""

from __future__ import annotations

import threading
from collections.abc import Callable

import attrs

from waagent.errors import (
    HttpError,
    InvalidContainer,
    ProtocolError,
    ResourceGone,
    VmSettingsNotSupported,
    VmSettingsParseError,
    VmSettingsSupportStopped,
)
from waagent.log import INFO, VERBOSE, WARNING, Log
from waagent.platform import arbiter, names
from waagent.platform.fabricparts import FabricParts, Parts
from waagent.platform.goalstate import GoalStateDocument
from waagent.platform.history import History
from waagent.platform.hostplugin import HostPlugin, Identity
from waagent.platform.models import ExtensionsGoalState, GoalState
from waagent.platform.vmsettings import VmSettings
from waagent.platform.wire import WireServer

CONSISTENCY_TRIES = 3
HOST_PATIENCE = 300.0
"""Seconds without an answer of the host plugin after which the fabric's goal state has to do (service §16)."""


class GoalStates:
    """The present goal state and the way to a newer one. Updates are made by one lane at a time; reading is free.

    Attributes:
        current: the adopted snapshot, ``None`` before the first.
        identity: of the last ``GET``, also when nothing else was new.
        last_document: of the last ``GET``.

    Args:
        wire: the WireServer.
        parts: fetches what a goal state names.
        history: where documents are kept for people.
        log: the log contract of wireserver §15.8.
        period: seconds between polls.
        fast_track: ``Debug.EnableFastTrack``.
    """

    def __init__(
        self,
        wire: WireServer,
        parts: FabricParts,
        *,
        history: History,
        log: Log,
        period: Callable[[], float],
        fast_track: bool,
    ) -> None:
        self.current: GoalState | None = None
        self.identity: Identity | None = None
        self.last_document: GoalStateDocument | None = None
        self._wire = wire
        self._parts = parts
        self._host: HostPlugin | None = None
        self._history = history
        self._log = log
        self._period = period
        self._fast_track = fast_track
        self._lock = threading.Lock()
        self._vm_done: str | None = None
        self._unparsed_etag: str | None = None
        self._unfinished: str | None = None
        self._early: tuple[GoalStateDocument, bytes, float] | None = None
        self._stopped_at: str | None = None
        self._compared_at_start = False
        self._unchecked = False
        self._host_out_since: float | None = None
        self._judged_alone = False

    def attach(self, host: HostPlugin) -> None:
        """Say which host plugin serves vmSettings."""
        self._host = host

    def prefetch(self) -> GoalStateDocument:
        """Read the goal state and write nothing (ruling 19b); an update within a period begins with this answer."""
        document, text = self._get()
        self._early = (document, text, self._wire.endpoint.clock())
        return document

    def refresh_identity(self) -> None:
        """Read the goal state once more for the host plugin's headers (wireserver §15.4)."""
        self._get()

    def update(self, force: bool = False) -> bool:
        """Bring :attr:`current` up to date (wireserver §15.2, §15.3).

        Args:
            force: fetch everything, whatever changed.

        Returns:
            Whether :attr:`current` is another snapshot now.

        Raises:
            ProtocolError: nothing was adopted; the snapshot before stays.
        """
        with self._lock:
            before = self.current
            adopted = self._update_once(force, before)
            if adopted is None:
                return False
            checked = before if before is not None and not self._unchecked else None
            # Without certificates there is nothing to compare; the update that brings them makes up for it.
            self._unchecked = self._parts.hold_certificates
            if not self._unchecked and arbiter.must_be_consistent(
                adopted.extensions, checked.extensions if checked else None
            ):
                adopted = self._make_consistent(adopted)
            self.current = adopted
            return adopted != before

    def _update_once(self, force: bool, before: GoalState | None) -> GoalState | None:
        document, text = self._take_early() or self._get()
        fabric_new = arbiter.fabric_is_new(before, document, force)
        if fabric_new and (before is None or before.incarnation != document.incarnation):
            self._say(
                INFO, f"Fetched a new incarnation for the WireServer goal state [incarnation {document.incarnation}]"
            )
        vm = self._vm_settings(force, document)
        if vm is not None:
            self._stopped_at = None
        elif self._stopped_at is not None:
            return self._support_stopped(document, text, self._stopped_at)
        # What was judged without fast track is judged anew once that answers again.
        is_back = self._judged_alone and self._host_out_since is None
        need = arbiter.need(fabric_new or is_back, vm, self._vm_done)
        if need.nothing:
            return self._with_owed_certificates(before, document)
        self._begin_history(document, text, need.full, vm if need.vm_is_new else None)
        parts = self._parts.fetch(document) if need.full else None
        if parts is not None:
            self._judged_alone = vm is None and self._host_out_since is not None
            if self._judged_alone and self._host is not None:
                # Nobody says what fast track wants; what is older than the last of it is not executed.
                timestamp = self._host.settings.fast_track_timestamp
                parts = attrs.evolve(parts, extensions=arbiter.after_support_stopped(parts.extensions, timestamp))
        chosen = arbiter.choose(before.extensions if before else None, parts.extensions if parts else None, need.vm)
        adopted = _assemble(document, chosen, parts, before)
        if adopted.extensions.source == arbiter.FAST_TRACK:
            adopted = self._parts.with_files(adopted, document)
        if need.vm is not None:
            self._vm_done = need.vm.id
        self._unfinished = None
        return adopted

    def _with_owed_certificates(self, before: GoalState | None, document: GoalStateDocument) -> GoalState | None:
        if before is None or not self._parts.owes_certificates:
            return None
        found = self._parts.certificates(document, again=True)
        return attrs.evolve(before, certificates=found) if found else None

    def _say(self, level: int, message: str) -> None:
        self._log.log(VERBOSE if self._parts.quiet else level, message)

    def _take_early(self) -> tuple[GoalStateDocument, bytes] | None:
        early, self._early = self._early, None
        if early is None or self._wire.endpoint.clock() - early[2] > self._period():
            return None
        return early[:2]

    def _get(self) -> tuple[GoalStateDocument, bytes]:
        document, text = self._wire.goal_state()
        # Both can change while the incarnation does not, so they are taken from every answer (wireserver §6).
        self.identity = Identity(document.container_id, document.role_config_name)
        self.last_document = document
        return document, text

    def _vm_settings(self, force: bool, document: GoalStateDocument) -> VmSettings | None:
        if self._host is None:
            return None
        if not self._fast_track:
            if not self._compared_at_start:
                # Switched off since: the same comparison as when support stops, made once (wireserver §15.5).
                self._compared_at_start = True
                if self._host.settings.supported:
                    self._stopped_at = self._host.settings.fast_track_timestamp
            return None
        try:
            found = self._host.vm_settings(force)
            self._host_out_since = None
            return found
        except VmSettingsSupportStopped as problem:
            self._host_out_since = None
            # Kept until the fabric's goal state was adopted: the host plugin says it only once.
            self._stopped_at = problem.timestamp
            return None
        except VmSettingsNotSupported:
            self._host_out_since = None
            return None
        except VmSettingsParseError as problem:
            self._host_out_since = None
            if problem.etag != self._unparsed_etag:
                self._unparsed_etag = problem.etag
                self._history.begin(names.history_tag(document.incarnation, problem.etag))
                self._history.save(names.VM_SETTINGS, problem.redacted)
            raise
        except (ResourceGone, InvalidContainer):
            self._host_out_since = None
            raise
        except HttpError as problem:
            now = self._wire.endpoint.clock()
            if self._host_out_since is None:
                self._host_out_since = now
            if now - self._host_out_since < HOST_PATIENCE:
                raise
            message = f"Going on without the host plugin, with the fabric's goal state alone: {problem}"
            self._log.periodic(6 * 3600, "without host plugin", WARNING, message)
            return self._host.settings.cached

    def _support_stopped(self, document: GoalStateDocument, text: bytes, timestamp: str) -> GoalState:
        self._begin_history(document, text, True, None)
        parts = self._parts.fetch(document)
        extensions = arbiter.after_support_stopped(parts.extensions, timestamp)
        if extensions.outdated:
            self._say(
                INFO,
                f"The Fabric goal state is older than the most recent FastTrack goal state; will skip it. "
                f"Fabric: {extensions.created} FastTrack: {timestamp}",
            )
        self._stopped_at = self._vm_done = self._unfinished = None
        self._judged_alone = False
        return _assemble(document, extensions, parts, None)

    def outdated_was_reported(self) -> None:
        """Forget the last fast track, once status was uploaded for an outdated goal state (wireserver §15.5)."""
        current = self.current
        if current is not None and current.extensions.outdated and self._host is not None and not self._judged_alone:
            self._host.settings.forget_fast_track()

    def _begin_history(self, document: GoalStateDocument, text: bytes, full: bool, vm: VmSettings | None) -> None:
        tag = names.history_tag(document.incarnation, vm.etag if vm is not None else None)
        if tag != self._unfinished:
            # An update that fails every period goes on in the directory of its first try.
            self._history.begin(tag)
            self._unfinished = tag
        if full:
            self._history.save(names.GOAL_STATE, text)
        if vm is not None and self._host is not None and self._host.settings.redacted:
            self._history.save(names.VM_SETTINGS, self._host.settings.redacted)
            self._host.settings.redacted = ""

    def _make_consistent(self, adopted: GoalState) -> GoalState:
        """Wait until the certificates have what a new fast-track goal state names; three tries (wireserver §15.3)."""
        for tries in range(1, CONSISTENCY_TRIES + 1):
            missing = arbiter.missing_certificates(adopted.extensions, adopted.certificates)
            if not missing:
                if tries > 1:
                    self._log.info("The extensions goal state is now in sync with the tenant cert.")
                return adopted
            named = ", ".join(missing)
            if tries == CONSISTENCY_TRIES or self._wire.endpoint.stopping.is_set():
                break
            self._log.info(
                f"The extensions goal state is out of sync with the tenant cert [{named}]. Will refresh the goal state."
            )
            if tries > 1:
                self._wire.endpoint.sleep(self._period())
            try:
                adopted = self._update_once(True, adopted) or adopted
            except ProtocolError as problem:
                self._log.warning(f"Cannot refresh the goal state: {problem}")
        self._log.warning(
            f"The extensions goal state is still out of sync with the tenant cert [{named}]. "
            "Will continue, but extensions with protected settings may fail."
        )
        return adopted


def _assemble(
    document: GoalStateDocument,
    extensions: ExtensionsGoalState,
    parts: Parts | None,
    before: GoalState | None,
) -> GoalState:
    if parts is None:
        assert before is not None
        return attrs.evolve(before, role_config_name=document.role_config_name, extensions=extensions)
    return GoalState(
        incarnation=document.incarnation,
        container_id=document.container_id,
        role_instance_id=document.role_instance_id,
        role_config_name=document.role_config_name,
        extensions=extensions,
        certificates=parts.certificates,
        remote_access=parts.remote_access,
        hosting=parts.hosting,
    )
