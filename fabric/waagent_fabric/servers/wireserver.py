"""The WireServer: goal state and its parts, health, role properties, telemetry (wireserver §4 to §8, §11, §18, §19)."""

from __future__ import annotations

import json
import re
import time
import uuid
from typing import Any
from xml.etree import ElementTree as ET

from waagent_fabric import crypto, documents
from waagent_fabric.records import HealthRecord, TelemetryRecord
from waagent_fabric.servers.base import Answer, Exchange, plain, xml
from waagent_fabric.state import Platform, Snapshot

BANNER = "Microsoft-IIS/10.0"
PROTOCOL = "2012-11-30"
MAX_TELEMETRY = 65536
_OBSERVATIONS = {
    "GuestAgentPluginHeartbeat",
    "GuestAgentPluginStatus",
    "GuestAgentPluginVersions",
    "GuestAgentPluginArtifact",
    "InstanceMetadataHeartbeat",
}


class _Refused(Exception):
    """A request that the server answers with an error."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def error(status: int, code: str, message: str, platform: Platform) -> Answer:
    """Return an error in the WireServer's form."""
    text = (
        '<?xml version="1.0" encoding="utf-8"?>\n<Error xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        f'xmlns:xsd="http://www.w3.org/2001/XMLSchema">\n  <Code>{code}</Code>\n  <Message>{message}</Message>\n'
        f"  <Details />\n</Error>"
    )
    return xml(text, platform, status)


def parse_document(exchange: Exchange, rule: str, root: str) -> ET.Element:
    """Return the request's XML body, or refuse it."""
    try:
        text = exchange.body.decode("utf-8-sig")
        if "<!DOCTYPE" in text:
            raise ValueError("a document type")
        element = ET.fromstring(text.encode())
        if element.tag != root:
            raise ValueError(f"root element {element.tag}")
    except (ValueError, ET.ParseError) as problem:
        exchange.complain(rule, f"not a well-formed {root} document: {problem}")
        raise _Refused(error(400, "InvalidRequest", "The request body is invalid.", exchange.platform)) from None
    return element


class WireServer:
    """Answers requests to port 80 of the platform's address."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def __call__(self, exchange: Exchange) -> Answer:
        """Answer one request."""
        try:
            return self._route(exchange)
        except _Refused as refused:
            return refused.answer

    def _route(self, exchange: Exchange) -> Answer:
        comp = exchange.query.get("comp", "").lower()
        path = exchange.path.lower()
        head = path.rstrip("/")
        if exchange.method == "GET" and head == "" and comp == "versions":
            return xml(documents.VERSIONS, self._platform)
        if exchange.method == "GET" and head == "/machine" and comp == "goalstate":
            self._check_version(exchange)
            return self._goal_state(exchange)
        if exchange.method == "GET" and head.startswith("/machine/"):
            self._check_version(exchange)
            return self._part(exchange, comp)
        if exchange.method == "POST" and head == "/machine":
            posts = {
                "health": self._health,
                "roleproperties": self._role_properties,
                "telemetrydata": self._telemetry,
            }
            if comp in posts:
                self._check_version(exchange)
                self._check_content(exchange, "text/xml")
                return posts[comp](exchange)
        if exchange.method == "POST" and head == "/healthservice":
            return self._health_service(exchange)
        if exchange.method == "POST" and head == "/provisioning/health":
            return self._provisioning_health(exchange)
        exchange.complain("wireserver §4", "no such resource")
        return error(404, "ResourceNotFound", "The resource was not found.", self._platform)

    def _refuse(self, exchange: Exchange, rule: str, text: str, status: int = 400) -> _Refused:
        exchange.complain(rule, text)
        return _Refused(error(status, "InvalidRequest", text, self._platform))

    def _check_version(self, exchange: Exchange) -> None:
        version = exchange.headers.get("x-ms-version")
        if version != PROTOCOL:
            raise self._refuse(exchange, "wireserver §4", f"x-ms-version is {version!r}, not {PROTOCOL!r}")
        if not exchange.headers.get("x-ms-agent-name"):
            exchange.complain("wireserver §4", "header x-ms-agent-name is missing")

    def _check_content(self, exchange: Exchange, wanted: str) -> None:
        given = exchange.headers.get("content-type", "")
        if given.partition(";")[0].strip().lower() != wanted:
            raise self._refuse(exchange, "wireserver §4", f"Content-Type is {given!r}, not {wanted}", 415)

    # -- what it hands out

    def _goal_state(self, exchange: Exchange) -> Answer:
        platform = self._platform
        with platform.changed:
            snapshot = platform.previous if exchange.stale and platform.previous is not None else platform.current
        text = documents.goal_state(
            platform.wire_base,
            snapshot.identity,
            snapshot.incarnation,
            parts=snapshot.parts,
            role_instance=snapshot.role_instance,
        )
        return xml(text, platform)

    def _part(self, exchange: Exchange, comp: str) -> Answer:
        platform = self._platform
        with platform.changed:
            snapshot = platform.current
        kinds = {"config": exchange.query.get("type", ""), "certificates": "certificates"}
        kinds["remoteaccessinfo"] = "remoteAccessInfo"
        what = kinds.get(comp, "")
        expected = documents.part_path(snapshot.identity, what, snapshot.incarnation)
        if exchange.target.lower() not in self._spellings(expected):
            # Another incarnation or container: gone, as the agent may have read the goal state before it changed.
            return error(410, "ResourceNotAvailable", "The resource is no longer available.", platform)
        if what not in snapshot.parts:
            exchange.complain("wireserver §6", f"the goal state does not name {what}")
            return error(404, "ResourceNotFound", "The resource was not found.", platform)
        return self._document(exchange, snapshot, what)

    @staticmethod
    def _spellings(expected: str) -> tuple[str, ...]:
        # Clients may undo escapes that need none (wireserver §3.1, pitfall 3).
        lower = expected.lower()
        return lower, lower.replace("%2d", "-").replace("%5f", "_"), lower.replace("%2d", "-")

    def _document(self, exchange: Exchange, snapshot: Snapshot, what: str) -> Answer:
        platform = self._platform
        if what == "hostingEnvironmentConfig":
            return xml(documents.hosting_environment(platform.vm, snapshot.incarnation), platform)
        if what == "sharedConfig":
            return xml(documents.shared_config(platform.vm, snapshot.incarnation), platform)
        if what == "extensionsConfig":
            return xml(snapshot.extensions_config, platform)
        if what == "fullConfig":
            return xml(f'<FullConfig version="1.0.0.0" goalStateIncarnation="{snapshot.incarnation}" />', platform)
        rule = "wireserver §11.1" if what == "certificates" else "wireserver §12"
        header = exchange.headers.get("x-ms-guest-agent-public-x509-cert")
        if not header:
            raise self._refuse(exchange, rule, "header x-ms-guest-agent-public-x509-cert is missing")
        try:
            recipient = crypto.read_transport_certificate(header)
        except crypto.BadTransportCertificate as problem:
            raise self._refuse(exchange, rule, str(problem)) from None
        cipher = exchange.headers.get("x-ms-cipher-name", "AES128_CBC")
        if cipher not in ("AES128_CBC", "DES_EDE3_CBC"):
            raise self._refuse(exchange, rule, f"x-ms-cipher-name is {cipher!r}")
        if what == "certificates":
            return xml(platform.certificate_file(recipient, cipher), platform)
        return xml(platform.remote_access(recipient), platform)

    # -- what it is told

    def _check_instance(self, exchange: Exchange, rule: str, container: str, instance: str) -> None:
        identity = self._platform.identity
        status = self._platform.stale_identity(
            {"x-ms-containerid": container}, lambda _, text: exchange.complain(rule, text), config_name=False
        )
        if status:
            raise _Refused(error(410, "ResourceNotAvailable", "The container is not here.", self._platform))
        if instance != identity.role_instance_id:
            raise self._refuse(exchange, rule, f"instance is {instance!r}, not {identity.role_instance_id!r}")

    def _health(self, exchange: Exchange) -> Answer:
        rule = "wireserver §18.1"
        root = parse_document(exchange, rule, "Health")
        role = "Container/RoleInstanceList/Role"
        self._check_instance(
            exchange, rule, root.findtext("Container/ContainerId", ""), root.findtext(f"{role}/InstanceId", "")
        )
        state = root.findtext(f"{role}/Health/State", "")
        substatus = root.findtext(f"{role}/Health/Details/SubStatus", "")
        description = root.findtext(f"{role}/Health/Details/Description", "")
        incarnation = root.findtext("GoalStateIncarnation", "")
        if state not in ("Ready", "NotReady"):
            raise self._refuse(exchange, rule, f"State is {state!r}")
        if not re.fullmatch(r"\d+", incarnation):
            exchange.complain(rule, f"GoalStateIncarnation is {incarnation!r}")
        self._check_description(exchange, rule, substatus, description, state)
        self._platform.add_health(
            HealthRecord(time.time(), state, substatus, description, incarnation, body=exchange.body)
        )
        return plain(200)

    @staticmethod
    def _check_description(exchange: Exchange, rule: str, substatus: str, description: str, state: str) -> None:
        escaped = description.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        if len(escaped.encode()) > 4096:
            exchange.complain(rule, f"the description has {len(escaped.encode())} bytes; the limit is 4096")
        if state == "NotReady" and substatus not in ("Provisioning", "ProvisioningFailed"):
            exchange.complain(rule, f"SubStatus is {substatus!r}")
        if re.search(r"[?&]sig=", description):
            exchange.complain("wireserver §22", "the description holds a shared access signature")

    def _role_properties(self, exchange: Exchange) -> Answer:
        rule = "wireserver §18.2"
        root = parse_document(exchange, rule, "RoleProperties")
        instance = "Container/RoleInstances/RoleInstance"
        self._check_instance(
            exchange, rule, root.findtext("Container/ContainerId", ""), root.findtext(f"{instance}/Id", "")
        )
        properties = {
            item.get("name", ""): item.get("value", "") for item in root.findall(f"{instance}/Properties/Property")
        }
        self._platform.add_to(self._platform.role_properties, [properties])
        return plain(202)

    def _telemetry(self, exchange: Exchange) -> Answer:
        rule = "wireserver §19"
        root = parse_document(exchange, rule, "TelemetryData")
        if len(exchange.body) > MAX_TELEMETRY:
            raise self._refuse(exchange, rule, f"{len(exchange.body)} bytes in one request", 413)
        providers = root.findall("Provider")
        if len(providers) != 1:
            exchange.complain(rule, f"{len(providers)} providers in one request")
        found = [
            self._event(exchange, rule, provider.get("id", ""), event)
            for provider in providers
            for event in provider.findall("Event")
        ]
        self._platform.add_to(self._platform.telemetry, found)
        return plain(200)

    @staticmethod
    def _event(exchange: Exchange, rule: str, provider: str, event: ET.Element) -> TelemetryRecord:
        parameters: dict[str, str] = {}
        try:
            for item in ET.fromstring(f"<e>{event.text or ''}</e>".encode()).findall("Param"):
                parameters[item.get("Name", "")] = item.get("Value", "")
        except ET.ParseError as problem:
            exchange.complain(rule, f"event parameters are not XML: {problem}")
        for value in parameters.values():
            if re.search(r"[?&]sig=", value):
                exchange.complain("wireserver §22", "an event holds a shared access signature")
        return TelemetryRecord(time.time(), provider, event.get("id", ""), parameters)

    def _json(self, exchange: Exchange, rule: str) -> dict[str, Any]:
        self._check_content(exchange, "application/json")
        try:
            value = json.loads(exchange.body)
        except ValueError as problem:
            raise self._refuse(exchange, rule, f"not JSON: {problem}") from None
        if not isinstance(value, dict):
            raise self._refuse(exchange, rule, "not a JSON object")
        return value

    def _health_service(self, exchange: Exchange) -> Answer:
        rule = "wireserver §18.3"
        report = self._json(exchange, rule)
        if report.get("Api") != "reporttargethealth" or report.get("Version") != "1.0" or not report.get("Source"):
            exchange.complain(rule, f"Api, Version or Source are wrong: {sorted(report)}")
        observations = report.get("Observations")
        if not isinstance(observations, list) or len(observations) > 10:
            raise self._refuse(exchange, rule, "Observations is not a list of at most 10")
        for item in observations:
            limits = (("ObservationName", 64), ("Description", 128), ("Value", 128))
            if any(len(str(item.get(key, ""))) > limit for key, limit in limits):
                exchange.complain(rule, f"an observation has a text over its limit: {item.get('ObservationName')}")
            if item.get("ObservationName") not in _OBSERVATIONS or not isinstance(item.get("IsHealthy"), bool):
                exchange.complain(rule, f"observation {item.get('ObservationName')!r} with {item.get('IsHealthy')!r}")
        self._platform.add_to(self._platform.observations, observations)
        return plain(200)

    def _provisioning_health(self, exchange: Exchange) -> Answer:
        rule = "wireserver §18.4"
        report = self._json(exchange, rule)
        if not exchange.headers.get("x-ms-guest-agent-name"):
            exchange.complain(rule, "header x-ms-guest-agent-name is missing")
        state = report.get("state")
        details = report.get("details") or {}
        if state not in ("Ready", "NotReady"):
            raise self._refuse(exchange, rule, f"state is {state!r}")
        substatus, description = str(details.get("subStatus", "")), str(details.get("description", ""))
        self._check_description(exchange, rule, substatus, description, state)
        self._platform.add_health(HealthRecord(time.time(), state, substatus, description, "", "json", exchange.body))
        return Answer(201, b"", {"x-ms-request-id": str(uuid.uuid4())})
