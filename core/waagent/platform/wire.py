"""The requests to the WireServer, byte for byte (wireserver §4)."""

from __future__ import annotations

from collections.abc import Mapping

from waagent.errors import HttpError, InvalidContainer, ResourceGone, Throttled
from waagent.platform.channel import Answer
from waagent.platform.endpoint import Endpoint
from waagent.platform.goalstate import GoalStateDocument, NoRoleInstance, parse_goal_state
from waagent.platform.versions import ProtocolVersions, parse_versions
from waagent.redaction import bare_url
from waagent.version import NAME

BASE = (("x-ms-agent-name", NAME), ("x-ms-version", "2012-11-30"))
XML = (*BASE, ("Content-Type", "text/xml;charset=utf-8"))
JSON = (("Content-Type", "application/json"),)

AES, TRIPLE_DES = "AES128_CBC", "DES_EDE3_CBC"
CIPHERS = (AES, TRIPLE_DES)
"""The ciphers that certificates are asked for with, in this order (wireserver §11.2)."""

ROLE_INSTANCE_TRIES = 6
ROLE_INSTANCE_PAUSE = 0.5

_BOM = b"\xef\xbb\xbf"


class WireServer:
    """The WireServer's requests over one :class:`~waagent.platform.endpoint.Endpoint`.

    Every failure is a :class:`~waagent.errors.ProtocolError` that names the URI without its query; 410 stays
    :class:`~waagent.errors.ResourceGone`, throttling :class:`~waagent.errors.Throttled`, and a stale identity
    :class:`~waagent.errors.InvalidContainer`: each has a cure of its own (wireserver §3.2).
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._last: tuple[GoalStateDocument, bytes] | None = None

    def versions(self) -> ProtocolVersions:
        """Request 1: which protocol versions the fabric offers."""
        return parse_versions(self._get("versions", self.endpoint.url("/?comp=versions"), ()))

    def goal_state(self) -> tuple[GoalStateDocument, bytes]:
        """Request 2: the goal state, and the document as sent (for the history).

        A goal state without a role instance is asked for again, six times in all, half a second apart (wireserver §6).
        The same bytes as before are not parsed again: that is every poll but a few.
        """
        url = self.endpoint.url("/machine/?comp=goalstate")
        tries = 0
        while True:
            data = self._get("goal-state", url, BASE)
            tries += 1
            last = self._last
            if last is not None and last[1] == data:
                return last
            try:
                self._last = last = parse_goal_state(data), data
                return last
            except NoRoleInstance:
                if tries >= ROLE_INSTANCE_TRIES or self.endpoint.stopping.is_set():
                    raise
            self.endpoint.sleep(ROLE_INSTANCE_PAUSE)

    def part(self, uri: str) -> bytes:
        """Requests 3 to 5: a document that the goal state names."""
        return self._get("goal-state-part", uri, BASE)

    def encrypted_part(self, uri: str, certificate: str, cipher: str = AES) -> bytes:
        """Requests 6 and 7: a document that is encrypted for the transport certificate.

        Args:
            uri: from the goal state.
            certificate: base64 of the transport certificate's DER, one line.
            cipher: one of :data:`CIPHERS`.
        """
        headers = (*BASE, ("x-ms-guest-agent-public-x509-cert", certificate), ("x-ms-cipher-name", cipher))
        return self._get("goal-state-part", uri, headers)

    def report_health(self, document: bytes) -> None:
        """Request 8: the health of the machine as XML; tried for five minutes (ruling 27)."""
        self._post("health", "/machine?comp=health", XML, document)

    def report_role_properties(self, document: bytes) -> None:
        """Request 9: role properties as XML; any answer but 202 is a failure."""
        self._post("role-properties", "/machine?comp=roleProperties", XML, document)

    def send_telemetry(self, document: bytes) -> None:
        """Request 10: one provider's events as XML, at most 64512 bytes of them."""
        self._post("telemetry", "/machine?comp=telemetrydata", XML, document)

    def report_observations(self, document: bytes) -> None:
        """Request 11: observations for the HealthService as JSON; tried once (DIFF-5)."""
        self._post("health-service", "/HealthService", JSON, document)

    def report_provisioning(self, document: bytes) -> None:
        """Request 12: health as JSON, for a machine that cannot read its goal state (wireserver §18.4)."""
        self._post("provisioning-health", "/provisioning/health", (*JSON, ("x-ms-guest-agent-name", NAME)), document)

    def _get(self, kind: str, url: str, headers: tuple[tuple[str, str], ...]) -> bytes:
        try:
            return without_bom(self.endpoint.call(kind, "GET", url, headers))
        except (ResourceGone, Throttled):
            raise
        except HttpError as problem:
            raise _wrapped(url, problem) from None

    def _post(self, kind: str, path: str, headers: tuple[tuple[str, str], ...], document: bytes) -> None:
        url = self.endpoint.url(path)
        try:
            self.endpoint.call(kind, "POST", url, headers, document, heed=not kind.endswith("health"))
        except (ResourceGone, Throttled):
            raise
        except HttpError as problem:
            raise _wrapped(url, problem) from None


def without_bom(answer: Answer) -> bytes:
    """Return the body without a UTF-8 byte order mark."""
    return answer.body.removeprefix(_BOM)


def header_pairs(headers: Mapping[str, str | None]) -> tuple[tuple[str, str], ...]:
    """Return headers as pairs; those without a value are left out."""
    return tuple((name, value) for name, value in headers.items() if value is not None)


def _wrapped(url: str, problem: HttpError) -> HttpError:
    if problem.status is None:
        text = f"[Wireserver Exception] {problem}"
    else:
        text = f"[Wireserver Failed] URI {bare_url(url)}  [HTTP Failed] Status Code {problem.status} -- {problem}"
    return (InvalidContainer if isinstance(problem, InvalidContainer) else HttpError)(text, problem.status)
