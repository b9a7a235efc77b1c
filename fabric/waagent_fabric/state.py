"""What the platform knows and has seen: the one state behind all its servers."""

from __future__ import annotations

import collections
import datetime as dt
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
from cryptography import x509

from waagent_fabric import crypto, documents, pfx, vmsettings
from waagent_fabric.documents import ExtensionsSpec, Identity, ManifestEntry
from waagent_fabric.faults import FaultBoard
from waagent_fabric.records import (
    FamilySpec,
    HandlerSpec,
    HealthRecord,
    RemoteUserSpec,
    RequestRecord,
    StatusRecord,
    TelemetryRecord,
    Violation,
    VirtualMachine,
)
from waagent_fabric.statusrules import status_problems
from waagent_fabric.store import BlobStore

MAX_REQUESTS = 200_000
ALL_PARTS = ("hostingEnvironmentConfig", "sharedConfig", "extensionsConfig", "fullConfig", "certificates")
_YEAR_ONE = dt.datetime(1, 1, 1, tzinfo=dt.timezone.utc)


def ticks_now() -> int:
    """The time in 100 ns units since year 1 (wireserver §8.5)."""
    passed = dt.datetime.now(dt.timezone.utc) - _YEAR_ONE
    return (passed.days * 86_400_000_000 + passed.seconds * 1_000_000 + passed.microseconds) * 10


@attrs.define
class CertificateOptions:
    """How the Certificates document is made (wireserver §11.2 to §11.4).

    Attributes:
        data_format: text of ``Format``; ``None`` leaves the element out.
        empty: no data at all.
        mac, key_protection, encrypt_certificates: see :func:`waagent_fabric.pfx.build_pfx`.
        broken_ciphers: requests for these get a message for somebody else's key.
        extra_recipients: further certificates that the message is also encrypted for.
    """

    data_format: str | None = "Pkcs7BlobWithPfxContents"
    empty: bool = False
    mac: bool = True
    key_protection: str = "3des"
    encrypt_certificates: bool = False
    broken_ciphers: Sequence[str] = ()
    extra_recipients: Sequence[crypto.Certificate] = ()


@attrs.frozen
class Snapshot:
    """One Fabric goal state."""

    incarnation: int
    identity: Identity
    extensions_config: str
    parts: Sequence[str]
    role_instance: bool
    users: Sequence[RemoteUserSpec] | None


class Platform:
    """The state behind the servers. Every method is thread-safe; ``changed`` is notified at every new record."""

    def __init__(self, vm: VirtualMachine, *, host_plugin_version: str, fast_track: bool) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.vm = vm
        self.host_plugin_version = host_plugin_version
        self.fast_track = fast_track
        self.stale_answer = 410
        self.bom = False
        self.store = BlobStore(vm.vm_id)
        self.faults = FaultBoard()
        self.wire_base = ""
        self.certificates: list[crypto.Certificate] = []
        self.certificate_options = CertificateOptions()
        self.transport_certificate: x509.Certificate | None = None
        self.previous: Snapshot | None = None
        self.reprovision_data: bytes | None = None
        self.imds_overrides: dict[str, Any] = {}
        self.vm_settings: tuple[str, bytes] = ("", b"")
        self.requests: collections.deque[RequestRecord] = collections.deque(maxlen=MAX_REQUESTS)
        self.request_count = 0
        self.statuses: collections.deque[StatusRecord] = collections.deque(maxlen=20_000)
        self.status_count = 0
        self.health: list[HealthRecord] = []
        self.role_properties: list[dict[str, str]] = []
        self.telemetry: collections.deque[TelemetryRecord] = collections.deque(maxlen=100_000)
        self.observations: collections.deque[dict[str, Any]] = collections.deque(maxlen=20_000)
        self.log_uploads: list[bytes] = []
        self.violations: list[Violation] = []
        self._manifests: dict[str, dict[str, ManifestEntry]] = {}
        self._known_containers: set[str] = set()
        self._known_config_names: set[str] = set()
        self.sequence = 0
        self._rotations = 0
        self._last_ticks = 0
        self._etag = int(time.time())
        self._status_blob_type = "BlockBlob"
        self.identity = self._new_identity()
        self.current = Snapshot(0, self.identity, "", (), False, None)

    # -- identity and certificates

    def _new_identity(self) -> Identity:
        number = len(self._known_containers) + 1
        deployment = self.vm.deployment_id
        identity = Identity(
            str(uuid.uuid4()),
            self.vm.role_instance_id,
            f"{deployment}.{number}.{deployment}.{number}._{self.vm.name}.1.xml",
        )
        self._known_containers.add(identity.container_id)
        self._known_config_names.add(identity.config_name)
        return identity

    def reallocate(self, incarnation: int | None) -> None:
        """Move the machine: new container id and configuration name; the incarnation stays unless given."""
        with self.changed:
            self.identity = self._new_identity()
            number = self.current.incarnation if incarnation is None else incarnation
            self._adopt(attrs.evolve(self.current, identity=self.identity, incarnation=number))

    def tenant(self) -> crypto.Certificate:
        """The certificate that protected settings are encrypted for: the first with a key; made when first asked."""
        with self.changed:
            for certificate in self.certificates:
                if certificate.key is not None and certificate.friendly_name == "TenantEncryptionCert":
                    return certificate
            made = crypto.make_tenant_certificate()
            self.certificates.insert(0, made)
            if len(self.certificates) == 1:
                self.certificates.append(crypto.make_certificate("CRP", kind="ec", with_key=False))
            return made

    def rotate_tenant(self) -> crypto.Certificate:
        """Replace the tenant certificate; goal states published before keep the old thumbprint."""
        with self.changed:
            self.certificates = [item for item in self.certificates if item.friendly_name != "TenantEncryptionCert"]
            self._rotations += 1
            made = crypto.make_tenant_certificate(f"tenant {self._rotations}")
            self.certificates.insert(0, made)
            return made

    def certificate_file(self, recipient: x509.Certificate, cipher: str) -> str:
        """Return the Certificates document for the holder of *recipient*."""
        with self.changed:
            self.tenant()
            self.transport_certificate = recipient
            options, incarnation = self.certificate_options, self.current.incarnation
            certificates = list(self.certificates)
        if options.empty:
            return documents.certificate_file(incarnation, None, options.data_format)
        if cipher in options.broken_ciphers:
            recipient = crypto.make_certificate("Somebody else").certificate
        content = pfx.build_pfx(
            certificates,
            mac=options.mac,
            key_protection=options.key_protection,
            encrypt_certificates=options.encrypt_certificates,
        )
        recipients = [recipient, *(item.certificate for item in options.extra_recipients)]
        data = crypto.envelope(content, recipients, cipher=cipher, oaep=cipher != "DES_EDE3_CBC")
        return documents.certificate_file(incarnation, data, options.data_format)

    def remote_access(self, recipient: x509.Certificate) -> str:
        """Return the RemoteAccess document for the holder of *recipient*."""
        with self.changed:
            snapshot = self.current
        users = [
            (user.name, crypto.encrypt_password(user.password, recipient), user.expiration, user.groups)
            for user in snapshot.users or ()
        ]
        return documents.remote_access(snapshot.incarnation, users)

    # -- packages

    def add_package(self, name: str, version: str, package: bytes | None, entry: Mapping[str, bool]) -> str:
        """Store a package and list it in its manifest; return the manifest's URL."""
        with self.changed:
            uris: tuple[str, ...] = ()
            if package is not None:
                file_name = f"{name.replace('.', '_')}__{version}.zip"
                uris = tuple(
                    self.store.put(f"/{account}/{file_name}", package, "application/zip") for account in ("a", "b")
                )
            self._manifests.setdefault(name, {})[version] = ManifestEntry(version, uris, **entry)
            return self._write_manifest(name)[0]

    def remove_package(self, name: str, version: str) -> None:
        """Take a version out of its manifest; its package is gone too."""
        with self.changed:
            entry = self._manifests[name].pop(version)
            for account in ("a", "b"):
                if entry.uris:
                    self.store.delete(f"/{account}/{name.replace('.', '_')}__{version}.zip")
            self._write_manifest(name)

    def _write_manifest(self, name: str) -> tuple[str, str]:
        text = documents.manifest(list(self._manifests.get(name, {}).values())).encode()
        first, second = (
            self.store.put(f"/{account}/{name}_manifest.xml", text, "application/xml") for account in ("a", "b")
        )
        return first, second

    def manifest_urls(self, name: str) -> tuple[str, str]:
        """The manifest's location and failover location; an empty manifest is made for an unknown name."""
        with self.changed:
            if name not in self._manifests:
                self._manifests[name] = {}
                return self._write_manifest(name)
            return self.store.grant(f"/a/{name}_manifest.xml"), self.store.grant(f"/b/{name}_manifest.xml")

    # -- goal states

    @property
    def status_path(self) -> str:
        """Where the status blob lies."""
        return f"/$system/{self.vm.name}.{self.vm.vm_id}.status"

    def publish(
        self,
        handlers: Iterable[HandlerSpec],
        *,
        channel: str,
        created_ticks: int | None,
        on_hold: bool | None,
        required_features: Sequence[str],
        families: Sequence[FamilySpec] | None,
        status_blob: str | None,
        users: Sequence[RemoteUserSpec] | None,
        incarnation: int | None,
        parts: Sequence[str],
        role_instance: bool,
        activity_id: str | None,
        correlation_id: str | None,
    ) -> str:
        """Publish one goal state; see :meth:`waagent_fabric.api.Fabric.publish`."""
        listed = tuple(handlers)
        if channel not in ("fabric", "fasttrack"):
            raise ValueError(f"channel {channel!r} is neither fabric nor fasttrack")
        with self.changed:
            spec = self._spec(
                listed, created_ticks, on_hold, required_features, families, status_blob, activity_id, correlation_id
            )
            self._etag += 1
            source = "FastTrack" if channel == "fasttrack" else "Fabric"
            settings = vmsettings.vm_settings(
                spec, self.vm, source=source, host_plugin_version=self.host_plugin_version
            )
            self.vm_settings = (str(self._etag), settings)
            if channel == "fasttrack":
                return f"etag_{self._etag}"
            number = self.current.incarnation + 1 if incarnation is None else incarnation
            named = [*parts, *(["remoteAccessInfo"] if users is not None else [])]
            text = documents.extensions_config(spec, self.vm, number)
            self._adopt(Snapshot(number, self.identity, text, named, role_instance, users))
            return f"incarnation_{number}"

    def _adopt(self, snapshot: Snapshot) -> None:
        self.previous, self.current = self.current, snapshot
        self.changed.notify_all()

    def _spec(
        self,
        handlers: tuple[HandlerSpec, ...],
        created_ticks: int | None,
        on_hold: bool | None,
        required_features: Sequence[str],
        families: Sequence[FamilySpec] | None,
        status_blob: str | None,
        activity_id: str | None,
        correlation_id: str | None,
    ) -> ExtensionsSpec:
        self.sequence += 1
        if created_ticks is None:
            created_ticks = self._last_ticks = max(ticks_now(), self._last_ticks + 10)
        protected = {}
        for index, handler in enumerate(handlers):
            for number, item in enumerate(handler.settings):
                if item.protected is not None:
                    tenant = self.tenant()
                    secret = crypto.encrypt_protected_settings(item.protected, tenant)
                    protected[index, number] = (secret, tenant.thumbprint)
        manifests: list[tuple[str, str, Sequence[str]]] = []
        for handler in handlers:
            first, second = self.manifest_urls(handler.name) if handler.location is None else (handler.location, "")
            failover = handler.failover_location
            manifests.append((first, second if failover is None else failover, handler.additional_locations))
        if status_blob is not None and status_blob != self._status_blob_type:
            self.store.delete(self.status_path)
            self._status_blob_type = status_blob
        profile = None
        if on_hold is not None:
            data = vmsettings.artifacts_profile(on_hold, self.sequence)
            profile = self.store.put(f"/$system/{self.vm.name}.{self.vm.vm_id}.vmSettings", data)
        return ExtensionsSpec(
            handlers=handlers,
            protected=protected,
            manifests=manifests,
            families=[self._family(item) for item in ((FamilySpec(),) if families is None else families)],
            required_features=required_features,
            status_url=None if status_blob is None else self.store.grant(self.status_path, "rw"),
            status_blob_type=status_blob or "BlockBlob",
            profile_url=profile,
            on_hold=bool(on_hold),
            created_ticks=created_ticks,
            activity_id=str(uuid.uuid4()) if activity_id is None else activity_id,
            correlation_id=str(uuid.uuid4()) if correlation_id is None else correlation_id,
            sequence=self.sequence,
        )

    def _family(self, family: FamilySpec) -> FamilySpec:
        if family.uris is not None:
            return family
        return attrs.evolve(family, uris=self.manifest_urls(f"Contoso.Agent.{family.name}"))

    # -- what is seen

    def complain(self, server: str, request: str, rule: str, text: str) -> None:
        """Record a violation."""
        with self.changed:
            self.violations.append(Violation(time.time(), server, request, rule, text))
            self.changed.notify_all()

    def stale_identity(
        self, headers: Mapping[str, str], complain: Callable[[str, str], None], *, config_name: bool = True
    ) -> int:
        """Return 0, or the status that refuses the request's container id or configuration name (wireserver §15.4).

        A value that this platform gave out before is merely stale; one it never gave out is a violation.
        """
        rule = "wireserver §14"
        asked = [("x-ms-containerid", self._known_containers, self.identity.container_id)]
        if config_name:
            asked.append(("x-ms-host-config-name", self._known_config_names, self.identity.config_name))
        with self.changed:
            for name, known, current in asked:
                given = headers.get(name)
                if given is None:
                    complain(rule, f"header {name} is missing")
                    return 400
                if given != current:
                    if given not in known:
                        complain(rule, f"{name} is {given!r}, which was never given out")
                    return self.stale_answer
        return 0

    def add_request(self, record: RequestRecord) -> None:
        """Record one request."""
        with self.changed:
            self.requests.append(record)
            self.request_count += 1
            self.changed.notify_all()

    def status_written(self, channel: str, complain: Callable[[str, str], None]) -> None:
        """Look at the status blob after a write; record the document when it is whole."""
        blob = self.store.blob(self.status_path)
        if blob is None or blob.missing:
            return
        if blob.blob_type != self._status_blob_type:
            complain("wireserver §8.1", f"the status blob is to be a {self._status_blob_type}, not a {blob.blob_type}")
        text = bytes(blob.data).rstrip(b"\0 \t\r\n")
        try:
            document = json.loads(text.decode("ascii"))
        except ValueError as error:
            complain("wireserver §17.2", f"the status is not ASCII JSON: {error}")
            return
        for problem in status_problems(document):
            complain("wireserver §17", problem)
        if re.search(rb"[?&]sig=", text):
            complain("wireserver §22", "the status document holds a shared access signature")
        with self.changed:
            self.statuses.append(StatusRecord(time.time(), channel, blob.blob_type, len(blob.data), document))
            self.status_count += 1
            self.changed.notify_all()

    def add_health(self, record: HealthRecord) -> None:
        """Record one health report."""
        with self.changed:
            self.health.append(record)
            self.changed.notify_all()

    def add_to(self, records: Any, items: Iterable[Any]) -> None:
        """Append *items* to one of the collections of this object."""
        with self.changed:
            records.extend(items)
            self.changed.notify_all()
