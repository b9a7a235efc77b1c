"""The instance metadata service: facts about this machine, and its health (wireserver §20)."""

from __future__ import annotations

from typing import Any

from waagent.errors import HttpError, ProtocolError
from waagent.platform import imdsdoc, jsondoc, observations, retry
from waagent.platform.endpoint import Endpoint
from waagent.platform.observations import Observations
from waagent.platform.wire import without_bom
from waagent.version import NAME, WIRE_VERSION

ADDRESS = "169.254.169.254:80"
HEADERS = (("Metadata", "true"),)
HEALTH_AGENT = f"{NAME}/{WIRE_VERSION}+health"


class Imds:
    """Questions to the instance metadata service. Its absence must never stop the agent."""

    def __init__(self, endpoint: Endpoint, health: Observations) -> None:
        self.endpoint = endpoint
        self._health = health

    def get(self, path: str, api_version: str, query: str = "") -> bytes:
        """Return the answer to ``/metadata/<path>``.

        Args:
            path: such as ``instance``.
            api_version: such as ``2021-08-01``.
            query: more of the query, such as ``&extended=true``.

        Raises:
            HttpError: ``IMDS error in /metadata/<path>: …``; ``status`` says which answer came last.
        """
        return self._get(path, api_version, query, HEADERS)

    def _get(self, path: str, api_version: str, query: str, headers: tuple[tuple[str, str], ...]) -> bytes:
        url = self.endpoint.url(f"/metadata/{path}?api-version={api_version}{query}")
        try:
            return without_bom(self.endpoint.call("imds", "GET", url, headers))
        except HttpError as problem:
            raise HttpError(imdsdoc.failure(path, str(problem)), problem.status, problem.retry_after) from None

    def compute(self) -> dict[str, Any]:
        """Return the facts about this machine that telemetry wants.

        Raises:
            ProtocolError: no usable answer.
        """
        return imdsdoc.parse_compute(self.get(imdsdoc.COMPUTE_PATH, imdsdoc.API_VERSION))

    def instance(self) -> dict[str, Any]:
        """Return all there is for provisioning: the newest form, or the older one where that is unknown.

        Raises:
            ProtocolError: no usable answer.
        """
        try:
            data = self.get("instance", "2021-08-01", "&extended=true")
        except HttpError as problem:
            if problem.status != 400:
                raise
            data = self.get("instance", "2019-06-01")
        document = jsondoc.parse(data, "IMDS instance")
        if not isinstance(document, dict):
            raise ProtocolError(f"IMDS instance: expected an object, found {jsondoc.kind(document)}")
        return document

    def check(self) -> str:
        """Ask as the health probe does, and note the result for the HealthService.

        Returns:
            One of the words of :data:`waagent.platform.imdsdoc.IS_UNHEALTHY`.
        """
        headers = (*HEADERS, ("User-Agent", HEALTH_AGENT))
        text = ""
        try:
            data = self._get(imdsdoc.INSTANCE_PATH, imdsdoc.API_VERSION, "", headers)
        except HttpError as problem:
            exhausted = retry.is_retried(problem, retry.POLICIES["imds"])
            text, verdict = str(problem), imdsdoc.judge(problem.status, exhausted=exhausted)
        else:
            try:
                imdsdoc.check_instance(data)
                verdict = imdsdoc.HEALTHY
            except ProtocolError as problem:
                text, verdict = imdsdoc.failure(imdsdoc.INSTANCE_PATH, str(problem)), imdsdoc.BAD_DOCUMENT
        self._health.note(observations.IMDS, not imdsdoc.IS_UNHEALTHY[verdict], text)
        return verdict
