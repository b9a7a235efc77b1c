"""Downloads and direct uploads: which channel, which location, how often (wireserver §16, extensions §4.3)."""

from __future__ import annotations

import binascii
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from waagent.errors import ExtensionDownloadError, HttpError, InvalidContainer, ProtocolError, ResourceGone, Throttled
from waagent.log import Log
from waagent.platform import observations, retry
from waagent.platform.channel import TooLarge, Unreachable
from waagent.platform.helperprocess import HelperFailed, Stopped, TransferHelper
from waagent.platform.hostplugin import HostPlugin
from waagent.platform.observations import EventSink
from waagent.platform.proxy import ProxyRules
from waagent.platform.retry import POLICIES
from waagent.platform.statusblob import StorageCall
from waagent.redaction import bare_url

DIRECT = "Direct"
HOST = "HostGAPlugin"

ARTIFACT_SECONDS = 300.0
"""Seconds for one artifact over all its locations, reads under way included."""
UPLOAD_SECONDS = 60.0
DOCUMENT_LIMIT = 16 << 20
PACKAGE_LIMIT = 1 << 30
"""Bytes (wireserver §23, DIFF-14)."""


@attrs.frozen(eq=False, repr=False)
class Fetched:
    """An artifact that was had.

    Attributes:
        uri: where it came from.
        size: bytes.
        body: its content, empty when it went to a file.
    """

    uri: str = attrs.field(repr=False)
    size: int
    body: bytes = attrs.field(default=b"", repr=False)


class Transfers:
    """Fetches artifacts over two channels, directly and through the host plugin, and remembers which of them works.

    A round asks every location once, over the default channel and then the other one. Rounds are repeated as the retry
    table says while an error may pass. Waiting for a throttled server happens between rounds: nobody else would ask
    again for this artifact.

    Attributes:
        channel: the default channel, ``Direct`` at first; the other one once that worked where this one did not.

    Args:
        host: the host plugin.
        helper: the process that transfers.
        proxies: for the direct channel; the host plugin is never asked through a proxy.
        log: for the log contract.
        events: for ``DefaultChannelChange``.
        period: seconds between polls: the least pause after a throttled round.
    """

    def __init__(
        self,
        host: HostPlugin,
        helper: TransferHelper,
        proxies: ProxyRules,
        *,
        log: Log,
        events: EventSink | None,
        period: Callable[[], float],
    ) -> None:
        self.channel = DIRECT
        self.helper = helper
        self._host = host
        self._endpoint = host.endpoint
        self._proxies = proxies
        self._log = log
        self._events = events
        self._period = period
        self._lock = threading.Lock()
        self._missing = 0

    def fetch(
        self,
        what: str,
        uris: Sequence[str],
        *,
        verify: bool,
        kind: str = "host-artifact",
        manifest_uri: str | None = None,
        target: str | None = None,
        limit: int = DOCUMENT_LIMIT,
        seconds: float = ARTIFACT_SECONDS,
        check: Callable[[str], None] | None = None,
        stop: threading.Event | None = None,
    ) -> Fetched:
        """Fetch one artifact from the first location and channel that has it.

        Args:
            what: for messages.
            uris: the locations, asked in random order.
            verify: the goal state is a fast-track one.
            kind: retry policy of the host channel.
            manifest_uri: for a package: where its manifest came from.
            target: a file to write; ``None`` returns the content.
            limit: bytes allowed.
            seconds: for the artifact as a whole.
            check: called with *target*; when it raises, this location counts as failed.
            stop: gives the transfer up within a second, whatever it waits for.

        Raises:
            ExtensionDownloadError: code 1001; names the last error.
        """
        locations = [uri for uri in uris if uri]
        locations.sort(key=lambda _: os.urandom(8))
        if not locations:
            raise ExtensionDownloadError(f"Failed to download {what}: there is no location to get it from")
        task = _Task(what, verify, kind, manifest_uri, target, limit, self._endpoint.clock() + seconds, check, stop)
        policy = POLICIES["direct"]
        tries = 0
        last: BaseException | None = None
        while locations:
            tries += 1
            pause = policy.pause(tries)
            for uri in tuple(locations):
                try:
                    return self._one(task, uri)
                except _Final as problem:
                    locations.remove(uri)
                    last = problem.__cause__ or problem
                except HttpError as problem:
                    last = problem
                    if isinstance(problem, Throttled):
                        pause = max(pause, problem.retry_after or 0.0, self._period())
            left = task.deadline - self._endpoint.clock()
            if not locations or tries >= policy.attempts or self._is_stopping(stop):
                break
            if left <= pause:
                raise ExtensionDownloadError(f"Timeout downloading {what}. Last error: {last}")
            self._pause(pause, stop)
        raise ExtensionDownloadError(f"Failed to download {what} from all URIs. Last error: {last}")

    def upload(self, call: StorageCall) -> None:
        """Make one storage call on the direct channel; any answer but 201 is a failure (wireserver §17.4).

        Raises:
            ProtocolError: it was not made.
        """
        way = {
            "url": call.url,
            "method": "PUT",
            "headers": [list(pair) for pair in call.headers],
            "proxy": self._proxy(call.url),
            "body": binascii.b2a_base64(call.body or b"", newline=False).decode("ascii"),
            "success": [201],
        }
        job = {"ways": [way], "target": None, "limit": DOCUMENT_LIMIT, "deadline": UPLOAD_SECONDS, "timeout": 10.0}
        answer = self._run(job, None)
        if answer["way"] is None:
            problem = _error(answer["failures"][-1], POLICIES["direct"])
            self._count(DIRECT, problem)
            raise problem

    def take_connection_errors(self) -> int:
        """Return how often storage gave no answer since the last call of this (wireserver §19.6)."""
        with self._lock:
            count, self._missing = self._missing, 0
            return count

    def _count(self, channel: str, problem: HttpError) -> None:
        if not isinstance(problem, Unreachable):
            return
        if channel == HOST:
            self._endpoint.count_missing()
        else:
            with self._lock:
                self._missing += 1

    def _one(self, task: _Task, uri: str) -> Fetched:
        if self._is_stopping(task.stop):
            raise ExtensionDownloadError(f"Downloading {task.what} was given up")
        left = task.deadline - self._endpoint.clock()
        if left <= 0:
            raise ExtensionDownloadError(f"Timeout downloading {task.what}")
        default = self.channel
        problems: list[HttpError] = []
        channels = (default, HOST if default == DIRECT else DIRECT)
        ways: list[tuple[str, dict[str, Any]]] = []
        for channel in channels:
            try:
                ways.append((channel, self._way(channel, task, uri)))
            except ProtocolError as problem:
                problems.append(_as_http(problem))
        fetched = self._try_ways(task, uri, ways, left, problems)
        if fetched is None and any(isinstance(problem, (ResourceGone, InvalidContainer)) for problem in problems):
            fetched = self._again_through_host(task, uri, problems)
        if fetched is None:
            raise self._verdict(problems, task)
        channel, found = fetched
        if channel != default:
            self._change_channel(channel)
        if task.check is not None and task.target is not None:
            try:
                task.check(task.target)
            except Exception as problem:
                raise _Final(str(problem)) from problem
        return found

    def _try_ways(
        self, task: _Task, uri: str, ways: list[tuple[str, dict[str, Any]]], left: float, problems: list[HttpError]
    ) -> tuple[str, Fetched] | None:
        if not ways:
            return None
        job = {
            "ways": [way for _, way in ways],
            "target": task.target,
            "limit": task.limit,
            "deadline": left,
            "timeout": POLICIES["direct"].timeout,
        }
        answer = self._run(job, task.stop)
        for failure in answer["failures"]:
            channel = ways[failure["way"]][0]
            problem = _error(failure, POLICIES["direct" if channel == DIRECT else task.kind])
            if failure["kind"] == "file":
                raise ExtensionDownloadError(f"Failed to download {task.what}: {problem}")
            problems.append(problem)
            self._count(channel, problem)
            if channel == HOST:
                self._host.note(observations.ARTIFACT, problem)
                if isinstance(problem, Throttled):
                    self._endpoint.throttled(problem.retry_after)
        if answer["way"] is None:
            return None
        channel = ways[answer["way"]][0]
        if channel == HOST:
            self._host.note(observations.ARTIFACT, None)
            self._endpoint.answered()
        body = binascii.a2b_base64(answer["body"]) if answer["body"] else b""
        return channel, Fetched(uri, answer["size"], body.removeprefix(b"\xef\xbb\xbf"))

    def _again_through_host(self, task: _Task, uri: str, problems: list[HttpError]) -> tuple[str, Fetched] | None:
        """The host plugin did not know this machine: take its identity anew and ask once more (wireserver §15.4)."""
        try:
            self._host.refresh_identity()
            way = self._way(HOST, task, uri)
        except ProtocolError as problem:
            problems.append(_as_http(problem))
            return None
        return self._try_ways(task, uri, [(HOST, way)], max(0.0, task.deadline - self._endpoint.clock()), problems)

    def _way(self, channel: str, task: _Task, uri: str) -> dict[str, Any]:
        if channel == DIRECT:
            return {"url": uri, "proxy": self._proxy(uri)}
        self._endpoint.check()
        self._host.ensure_initialised()
        headers = self._host.artifact_headers(uri, verify=task.verify, manifest_uri=task.manifest_uri)
        return {
            "url": self._endpoint.url("/extensionArtifact"),
            "headers": [list(pair) for pair in headers],
            "proxy": None,
        }

    def _proxy(self, url: str) -> str | None:
        chosen = self._proxies.choose(url)
        return chosen.url if chosen else None

    def _run(self, job: dict[str, Any], stop: threading.Event | None) -> dict[str, Any]:
        try:
            return self.helper.run(job, lambda: self._is_stopping(stop))
        except (HelperFailed, Stopped) as problem:
            raise ExtensionDownloadError(str(problem)) from None

    def _is_stopping(self, stop: threading.Event | None) -> bool:
        return self._endpoint.stopping.is_set() or (stop is not None and stop.is_set())

    def _pause(self, seconds: float, stop: threading.Event | None) -> None:
        while seconds > 0 and not self._is_stopping(stop):
            piece = seconds if stop is None else min(1.0, seconds)
            self._endpoint.sleep(piece)
            seconds -= piece

    def _verdict(self, problems: list[HttpError], task: _Task) -> Exception:
        """Return what a location's failure means: worth another round, or final."""
        throttled = [problem for problem in problems if isinstance(problem, Throttled)]
        if throttled:
            return throttled[-1]
        policies = (POLICIES["direct"], POLICIES[task.kind])
        hopeful = [item for item in problems if any(retry.is_retried(item, policy) for policy in policies)]
        if hopeful:
            return hopeful[-1]
        return _Final("; ".join(str(problem) for problem in problems))

    def _change_channel(self, channel: str) -> None:
        with self._lock:
            if self.channel == channel:
                return
            self.channel = channel
        message = f"Default channel changed to {channel} channel."
        self._log.info(message)
        if self._events is not None:
            self._events.add("DefaultChannelChange", message=message)


@attrs.frozen(eq=False, repr=False)
class _Task:
    what: str
    verify: bool
    kind: str
    manifest_uri: str | None
    target: str | None
    limit: int
    deadline: float
    check: Callable[[str], None] | None
    stop: threading.Event | None


class _Final(Exception):
    """This location will not work, however often it is asked."""


def _as_http(problem: ProtocolError) -> HttpError:
    return problem if isinstance(problem, HttpError) else HttpError(str(problem))


def _error(failure: dict[str, Any], policy: retry.Policy) -> HttpError:
    """Return the error for one failure that the helper told."""
    kind, message = failure["kind"], failure["message"]
    if kind == "status":
        body = failure["body"].encode("ascii", "ignore")
        found = retry.failure(failure["status"], "", failure["headers"], body, policy)
        if found is not None:
            text = retry.error_text(failure["status"], message.rpartition(f"{failure['status']} ")[2], body)
            found.args = (f"{bare_url(message.partition(' ')[0]).rstrip(':')}: {text}",)
            return found
        return HttpError(message, failure["status"])
    if kind == "large":
        return TooLarge(message)
    if kind in ("connection", "timeout", "cut"):
        return Unreachable(message, {"cut": "protocol"}.get(kind, kind))
    return HttpError(message)
