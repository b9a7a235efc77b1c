"""What a caller asks the fabric for, and what the fabric saw: plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs


def _settings(value: Any) -> tuple[SettingsSpec, ...]:
    return tuple(value)


@attrs.frozen
class SettingsSpec:
    """One settings instance of a handler (wireserver §8.2, §8.3).

    Attributes:
        public: any JSON value; ``None`` leaves the key out.
        protected: any JSON value; the fabric encrypts it for the tenant certificate. ``None`` leaves it out.
        sequence_number: the number; ``None`` writes none, which makes the handler invalid.
        name: the extension's name; needed by multi-config handlers only.
        state: ``enabled`` or ``disabled`` (multi-config).
        level: dependency level; 0 with no ``depends_on`` writes no ``DependsOn``.
        depends_on: handler names, or ``(handler, extension)`` pairs.
        raw: text that stands instead of the settings JSON (to say something broken).
    """

    public: Any = None
    protected: Any = attrs.field(default=None, repr=False)
    sequence_number: int | None = 0
    name: str | None = None
    state: str = "enabled"
    level: int | str = 0
    depends_on: Sequence[str | tuple[str, str]] = ()
    raw: str | None = None


@attrs.frozen
class HandlerSpec:
    """One handler of a goal state (wireserver §8.1).

    Attributes:
        version: as requested; ``settings_version`` differs from it only to publish a mismatch.
        state: ``enabled``, ``disabled`` or ``uninstall``.
        multi_config: settings are named extensions.
        signature: base64 of the package's signature, ``""`` for an unsigned one.
        location: manifest URI; the fabric's own manifest of that name unless given.
        failover_location, additional_locations: likewise.
    """

    name: str
    version: str
    state: str = "enabled"
    settings: tuple[SettingsSpec, ...] = attrs.field(default=(), converter=_settings)
    multi_config: bool = False
    signature: str = ""
    location: str | None = None
    failover_location: str | None = None
    additional_locations: Sequence[str] = ()
    settings_version: str | None = None


@attrs.frozen
class FamilySpec:
    """One family of agent versions (wireserver §8.1); the flags are tri-state."""

    name: str = "Prod"
    version: str | None = None
    from_version: str | None = None
    is_version_from_rsm: bool | None = None
    is_vm_enabled_for_rsm_upgrades: bool | None = None
    uris: Sequence[str] | None = None


@attrs.frozen
class RemoteUserSpec:
    """One just-in-time account (wireserver §12); ``expiration`` as RFC 1123 text."""

    name: str
    password: str = attrs.field(default="P@ssw0rd-of-a-test", repr=False)
    expiration: str = "Fri, 01 Jan 2100 12:00:00 GMT"
    groups: Sequence[str] = ("Administrators",)


@attrs.frozen
class VirtualMachine:
    """The machine that the platform believes it runs."""

    name: str = "demo-vm"
    vm_id: str = "f1ab0000-0000-4000-8000-000000000001"
    subscription_id: str = "f1ab0000-0000-4000-8000-000000000002"
    resource_group: str = "demo-rg"
    location: str = "westeurope"
    size: str = "Standard_B2s"
    deployment_id: str = "f1ab0000-0000-4000-8000-000000000003"
    publisher: str = "contoso"
    offer: str = "linux"
    sku: str = "server"
    image_version: str = "1.0.0"
    mac_address: str = "000D3A000001"
    private_address: str = "10.0.0.4"

    @property
    def role_instance_id(self) -> str:
        """The id that goal state and health report carry."""
        return f"{self.deployment_id}._{self.name}"


@attrs.frozen
class RequestRecord:
    """One request, as it came.

    Attributes:
        time: seconds since the epoch when it was read.
        server: ``wireserver``, ``hostplugin``, ``imds`` or ``blobs``.
        path: target as sent: path and query, percent escapes untouched.
        headers: names as sent.
        size: bytes of the body.
        status: what was answered; 0 when no answer was sent (dropped, reset).
        peer: the client's address; the number of different ones is the number of connections.
        seconds: until the answer was handed over.
        fault: kind of the fault that hit it, ``None`` for none.
        answered: bytes of the answer's body.
    """

    time: float
    server: str
    method: str
    path: str
    headers: Mapping[str, str]
    size: int
    status: int
    peer: tuple[str, int]
    seconds: float
    fault: str | None = None
    answered: int = 0

    def header(self, name: str) -> str | None:
        """Return a header by name in any case."""
        wanted = name.lower()
        return next((value for key, value in self.headers.items() if key.lower() == wanted), None)


@attrs.frozen
class StatusRecord:
    """One complete status document.

    Attributes:
        channel: ``hostplugin`` or ``direct``.
        blob_type: ``BlockBlob`` or ``PageBlob``.
        size: bytes of the blob, padding included.
    """

    time: float
    channel: str
    blob_type: str
    size: int
    document: dict[str, Any]


@attrs.frozen
class HealthRecord:
    """One health report (wireserver §18.1, §18.4).

    Attributes:
        channel: ``xml`` or ``json``.
        body: the report as it came.
    """

    time: float
    state: str
    substatus: str
    description: str
    incarnation: str
    channel: str = "xml"
    body: bytes = attrs.field(default=b"", repr=False)


@attrs.frozen
class TelemetryRecord:
    """One telemetry event with its parameters (wireserver §19.1)."""

    time: float
    provider: str
    event: str
    parameters: Mapping[str, str]


@attrs.frozen
class Violation:
    """Something that the real platform would refuse, ignore or suffer from.

    Attributes:
        rule: the section that says how it should be.
        text: what was sent and what was expected.
    """

    time: float
    server: str
    request: str
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.server}: {self.request}: {self.text} ({self.rule})"
