"""The parts of a fabric goal state: fetched, checked, saved (wireserver §15.2 step 6)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import attrs

from waagent.errors import AgentError, CryptError
from waagent.files import ensure_dir, write_atomic
from waagent.log import ERROR, INFO, VERBOSE, WARNING, Log
from waagent.paths import Paths
from waagent.platform import names
from waagent.platform.certdoc import parse_certificate_file
from waagent.platform.extensionsconfig import (
    empty_extensions_goal_state,
    parse_extensions_config,
    redact_extensions_config,
)
from waagent.platform.goalstate import GoalStateDocument
from waagent.platform.history import History
from waagent.platform.hosting import check_shared_config, parse_hosting_environment
from waagent.platform.models import (
    CertificateInfo,
    ExtensionsGoalState,
    GoalState,
    HostingEnvironment,
    RemoteAccess,
)
from waagent.platform.observations import EventSink
from waagent.platform.remoteaccess import parse_remote_access
from waagent.platform.wire import CIPHERS, WireServer

ASK_AGAIN = 60.0
"""Seconds until certificates that could not be had are asked for again; two tables of retries take as long."""


@attrs.frozen(eq=False, repr=False)
class Opener:
    """How certificates are opened; both run in a short-lived process, so that keys leave with it.

    Attributes:
        transport: base64 of the transport certificate's DER, one line.
        open: takes the document, writes ``<T>.crt`` and ``<T>.prv``, and returns what there is.
    """

    transport: Callable[[], str]
    open: Callable[[bytes], tuple[CertificateInfo, ...]]


@attrs.frozen(eq=False, repr=False)
class Parts:
    """The fabric's goal state as a whole (step 6)."""

    extensions: ExtensionsGoalState
    hosting: HostingEnvironment
    certificates: tuple[CertificateInfo, ...]
    remote_access: RemoteAccess | None


class FabricParts:
    """Fetches what a goal state names.

    Attributes:
        quiet: fetching has failed for a while: lines go to the verbose log alone (wireserver §15.6).
        owes_certificates: the adopted goal state lacks certificates that may be had by asking again.
        hold_certificates: do without them for now and owe them (ruling 19b).

    Args:
        wire: the WireServer.
        opener: opens certificates.
        paths: where documents are saved.
        history: where they are kept for people.
        log: the log contract of wireserver §15.8.
        events: takes errors that are lived with.
    """

    def __init__(
        self, wire: WireServer, opener: Opener, *, paths: Paths, history: History, log: Log, events: EventSink | None
    ) -> None:
        self.quiet = False
        self.owes_certificates = False
        self.hold_certificates = False
        self._not_before = float("-inf")
        self._wire = wire
        self._opener = opener
        self._paths = paths
        self._history = history
        self._log = log
        self._events = events

    def _say(self, level: int, message: str) -> None:
        self._log.log(VERBOSE if self.quiet else level, message)

    def fetch(self, document: GoalStateDocument) -> Parts:
        """Fetch every part; any failure but that of the certificates aborts (step 6)."""
        self._say(INFO, f"Fetching full goal state from the WireServer [incarnation {document.incarnation}]")
        extensions = self._fetch_extensions(document)
        hosting_text = self._wire.part(document.hosting_environment)
        hosting = parse_hosting_environment(hosting_text)
        self._history.save(names.HOSTING_ENVIRONMENT, hosting_text)
        shared = self._wire.part(document.shared_config)
        check_shared_config(shared)
        self._history.save(names.SHARED_CONFIG, shared)
        self._write(names.SHARED_CONFIG, shared)
        certificates = self.certificates(document)
        remote = self._fetch_remote_access(document)
        self._say(INFO, "Fetch goal state from WireServer completed")
        return Parts(extensions, hosting, certificates, remote)

    def _fetch_extensions(self, document: GoalStateDocument) -> ExtensionsGoalState:
        if document.extensions_config is None:
            return empty_extensions_goal_state(document.incarnation)
        data = self._wire.part(document.extensions_config)
        self._history.save(names.EXTENSIONS_CONFIG, redact_extensions_config(data))
        notes: list[str] = []
        extensions = parse_extensions_config(data, document.incarnation, notes)
        for note in notes:
            self._say(WARNING, note)
        return extensions

    def _fetch_remote_access(self, document: GoalStateDocument) -> RemoteAccess | None:
        if document.remote_access is None:
            return None
        data = self._wire.encrypted_part(document.remote_access, self._opener.transport())
        self._history.save(names.REMOTE_ACCESS, data)
        notes: list[str] = []
        remote = parse_remote_access(data, notes)
        for note in notes:
            self._say(WARNING, note)
        return remote

    def certificates(self, document: GoalStateDocument, *, again: bool = False) -> tuple[CertificateInfo, ...]:
        """Fetch and open the certificates; errors leave the goal state without them (wireserver §11.2).

        Args:
            document: names them.
            again: this was tried before and said so.
        """
        now = self._wire.endpoint.clock()
        if again and now < self._not_before:
            return ()
        self._not_before = float("-inf")
        self.owes_certificates = self.hold_certificates and document.certificates is not None
        if document.certificates is None or self.hold_certificates:
            return ()
        problems: list[Exception] = []
        for cipher in CIPHERS:
            try:
                data = self._wire.encrypted_part(document.certificates, self._opener.transport(), cipher)
                self._write("Certificates.xml", data, 0o400)
                content = parse_certificate_file(data)
                if not content.data:
                    self._say(WARNING if content.is_warning else INFO, content.note)
                    return ()
                found = self._opener.open(data)
            except (AgentError, OSError) as problem:
                problems.append(problem)
                continue
            self._history.save(names.CERTIFICATES, summary(found) + "\n")
            self._say(INFO, f"Downloaded certificates {summary(found)}")
            return found
        # What cannot be opened stays so; what could not be had is asked for again.
        self.owes_certificates = not all(
            isinstance(problem, CryptError) and not problem.passing for problem in problems
        )
        self._not_before = now + ASK_AGAIN
        if not again:
            said = "; ".join(f"{cipher}: {problem}" for cipher, problem in zip(CIPHERS, problems))
            self._say(ERROR, f"Cannot read the certificates: {said}")
            if self._events is not None and not self.quiet:
                self._events.add("GoalStateCertificates", success=False, message=said, logged=True)
        return ()

    def with_files(self, adopted: GoalState, document: GoalStateDocument) -> GoalState:
        """Make sure that every certificate of the summary is on disk (step 9)."""
        lost = [item.thumbprint for item in adopted.certificates if not os.path.exists(self._crt(item.thumbprint))]
        if not lost:
            return adopted
        self._say(WARNING, f"Certificates are missing on disk, will download them again: {', '.join(lost)}")
        found = self.certificates(document)
        return attrs.evolve(adopted, certificates=found) if found else adopted

    def _crt(self, thumbprint: str) -> str:
        return self._paths.lib(names.as_file_name(thumbprint) + ".crt")

    def _write(self, name: str, data: bytes, mode: int = 0o600) -> None:
        try:
            ensure_dir(self._paths.lib_dir)
            placeholder = self._paths.lib(names.PLACEHOLDER)
            if not os.path.exists(placeholder):
                write_atomic(placeholder, names.PLACEHOLDER_CONTENT, durable=False)
            write_atomic(self._paths.lib(name), data, mode)
        except OSError as problem:
            self._say(WARNING, f"Cannot write {self._paths.lib(name)}: {problem.strerror}")


def summary(certificates: tuple[CertificateInfo, ...]) -> str:
    """Return the certificates for a log line."""
    return json.dumps([{"thumbprint": item.thumbprint, "hasPrivateKey": item.has_private_key} for item in certificates])
