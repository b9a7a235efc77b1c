"""``Fabric``: the embedded platform as one object, for tests, the demo and the benchmarks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from waagent_fabric import crypto
from waagent_fabric.faults import Fault
from waagent_fabric.packages import build_zip, with_manifest
from waagent_fabric.records import (
    FamilySpec,
    HandlerSpec,
    RemoteUserSpec,
    VirtualMachine,
)
from waagent_fabric.seen import Seen
from waagent_fabric.servers import blobs, hostplugin, imds, wireserver
from waagent_fabric.servers.base import Server
from waagent_fabric.state import ALL_PARTS, CertificateOptions, Platform

T = TypeVar("T")

WIRE_ADDRESS = "168.63.129.16"
IMDS_ADDRESS = "169.254.169.254"
START_TIMEOUT = 20.0


class Fabric(Seen):
    """The platform on loopback, served from a background thread. Thread-safe; a context manager.

    It starts with a goal state of incarnation 1 that holds no extensions.

    Args:
        host: where all servers listen; 0 as a port takes a free one.
        imds_host, blob_host: *host* unless given.
        vm: the machine that the platform believes it runs.
        host_plugin_version: version in vmSettings.
        fast_track: whether the host plugin serves vmSettings at all (404 otherwise).
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        wireserver_port: int = 0,
        host_plugin_port: int = 0,
        imds_port: int = 0,
        blob_port: int = 0,
        *,
        imds_host: str | None = None,
        blob_host: str | None = None,
        vm: VirtualMachine | None = None,
        host_plugin_version: str = "1.0.8.175",
        fast_track: bool = True,
    ) -> None:
        self.platform = Platform(vm or VirtualMachine(), host_plugin_version=host_plugin_version, fast_track=fast_track)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        state = self.platform
        self._servers = {
            "wireserver": Server(
                "wireserver", state, wireserver.WireServer(state), host, wireserver_port, wireserver.BANNER
            ),
            "hostplugin": Server(
                "hostplugin", state, hostplugin.HostPlugin(state), host, host_plugin_port, hostplugin.BANNER
            ),
            "imds": Server("imds", state, imds.Imds(state), imds_host or host, imds_port, imds.BANNER),
            "blobs": Server("blobs", state, blobs.BlobService(state), blob_host or host, blob_port, blobs.BANNER),
        }

    @classmethod
    def at_real_addresses(cls, blob_port: int = 10000, **options: Any) -> Fabric:
        """Return a fabric at the platform's own addresses; they must be on an interface (a network namespace's lo)."""
        return cls(WIRE_ADDRESS, 80, 32526, 80, blob_port, imds_host=IMDS_ADDRESS, **options)

    # -- life

    def start(self) -> Fabric:
        """Start the servers; returns itself.

        Raises:
            OSError: an address cannot be bound.
        """
        if self._thread is not None:
            return self
        loop = asyncio.new_event_loop()
        self._loop = loop
        self._thread = threading.Thread(target=self._run, args=(loop,), name="fabric", daemon=True)
        self._thread.start()
        try:
            self._await(self._start())
        except BaseException:
            self.stop()
            raise
        self.platform.wire_base = f"http://{self.wireserver}"
        self.platform.store.base = f"http://{self.blobs}"
        if self.platform.current.incarnation == 0:
            self.publish()
        return self

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            pending = asyncio.all_tasks(loop)
            for task in pending:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    async def _start(self) -> None:
        for server in self._servers.values():
            await server.start()

    async def _stop(self) -> None:
        for server in self._servers.values():
            await server.stop()

    def stop(self) -> None:
        """Stop the servers; what was recorded stays readable."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        try:
            self._await(self._stop())
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(START_TIMEOUT)
            self._loop = self._thread = None

    def __enter__(self) -> Fabric:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_TIMEOUT)

    # -- addresses

    @property
    def wireserver(self) -> str:
        """``host:port`` of the WireServer."""
        return self._servers["wireserver"].address

    @property
    def host_plugin(self) -> str:
        """``host:port`` of the host plugin."""
        return self._servers["hostplugin"].address

    @property
    def imds(self) -> str:
        """``host:port`` of the metadata service."""
        return self._servers["imds"].address

    @property
    def blobs(self) -> str:
        """``host:port`` of the blob store."""
        return self._servers["blobs"].address

    def conf(self) -> str:
        """Return the lines of ``waagent.conf`` that lead an agent here."""
        return (
            f"Platform.WireServer={self.wireserver}\nPlatform.HostPlugin={self.host_plugin}\n"
            f"Platform.Imds={self.imds}\n"
        )

    # -- what the platform offers

    def add_package(
        self,
        name: str,
        version: str,
        files: Mapping[str, bytes | str] | bytes | None,
        *,
        manifest_command: str | Mapping[str, str] | None = None,
        internal: bool = False,
        disallow_major_upgrade: bool = False,
    ) -> str:
        """Put a handler's package into the store and its version manifest; return the manifest's URL.

        Args:
            files: path → content, zipped here; or a whole zip; ``None`` lists a version without package.
            manifest_command: with *files* that hold no ``HandlerManifest.json``: the script all five commands call
                with the operation's word as argument, or operation → command line.
        """
        if files is None or isinstance(files, bytes):
            package = files
        else:
            package = build_zip(with_manifest(files, manifest_command))
        entry = {"internal": internal, "disallow_major_upgrade": disallow_major_upgrade}
        return self.platform.add_package(name, version, package, entry)

    def remove_package(self, name: str, version: str) -> None:
        """Take a version out of its manifest and its package out of the store."""
        self.platform.remove_package(name, version)

    def publish(
        self,
        handlers: Iterable[HandlerSpec] = (),
        channel: str = "fabric",
        *,
        created_ticks: int | None = None,
        on_hold: bool | None = None,
        required_features: Sequence[str] = ("MultipleExtensionsPerHandler",),
        families: Sequence[FamilySpec] | None = None,
        status_blob: str | None = "BlockBlob",
        users: Sequence[RemoteUserSpec] | None = None,
        incarnation: int | None = None,
        parts: Sequence[str] = ALL_PARTS,
        role_instance: bool = True,
        activity_id: str | None = None,
        correlation_id: str | None = None,
    ) -> str:
        """Publish a goal state; return its id, ``incarnation_<n>`` or ``etag_<e>``.

        Args:
            handlers: the whole desired state.
            channel: ``fabric`` (new incarnation) or ``fasttrack`` (new vmSettings only).
            created_ticks: creation time in ticks; now unless given, and never earlier than the one before.
            on_hold: ``None`` leaves the artifacts profile out.
            families: agent families; one named Prod with an empty manifest unless given.
            status_blob: ``BlockBlob``, ``PageBlob``, or ``None`` for no status blob.
            users: just-in-time accounts; ``None`` names no document.
            incarnation: explicit number instead of the next.
            parts: which parts the goal state names.
            role_instance: whether it holds the machine's instance.
        """
        return self.platform.publish(
            handlers,
            channel=channel,
            created_ticks=created_ticks,
            on_hold=on_hold,
            required_features=required_features,
            families=families,
            status_blob=status_blob,
            users=users,
            incarnation=incarnation,
            parts=parts,
            role_instance=role_instance,
            activity_id=activity_id,
            correlation_id=correlation_id,
        )

    def reallocate(self, incarnation: int | None = None) -> None:
        """Move the machine: new container id and configuration name; the incarnation stays unless given."""
        self.platform.reallocate(incarnation)

    def add_certificate(
        self, common_name: str, *, kind: str = "rsa", with_key: bool = True, key_only: bool = False
    ) -> crypto.Certificate:
        """Attach one more certificate to the machine (a Key Vault secret, an SSH key), in the next goal state on."""
        made = crypto.make_certificate(common_name, kind=kind, with_key=with_key)
        if key_only:
            made = crypto.Certificate(made.certificate, made.key, made.friendly_name, key_only=True)
        self.platform.tenant()
        with self.platform.changed:
            self.platform.certificates.append(made)
        return made

    def rotate_tenant_certificate(self) -> crypto.Certificate:
        """Replace the certificate that protected settings are encrypted for; publish to make agents see it."""
        return self.platform.rotate_tenant()

    @property
    def tenant(self) -> crypto.Certificate:
        """The certificate that protected settings are encrypted for."""
        return self.platform.tenant()

    @property
    def certificate_options(self) -> CertificateOptions:
        """How the Certificates document is made; change its fields at will."""
        return self.platform.certificate_options

    def set_instance_metadata(self, **changes: Any) -> None:
        """Lay values over the IMDS instance document: ``compute={...}``, ``network={...}``; ``None`` removes a key."""
        with self.platform.changed:
            self.platform.imds_overrides = dict(changes)

    # -- faults

    def inject(self, fault: Fault) -> Fault:
        """Put *fault* in force; an outage begins at once and ends after its ``seconds`` or :meth:`clear_faults`."""
        if fault.kind == "outage":
            names = [fault.server] if fault.server is not None else list(self._servers)
            self._await(self._outage(names, fault.seconds))
            fault.hits += 1
            return fault
        with self.platform.changed:
            self.platform.faults.add(fault)
        return fault

    async def _outage(self, names: Sequence[str], seconds: float | None) -> None:
        for name in names:
            await self._servers[name].vanish()
        if seconds is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(seconds, lambda: loop.create_task(self._return(names)))

    async def _return(self, names: Iterable[str]) -> None:
        for name in names:
            await self._servers[name].listen()
            self._servers[name].release()

    def clear_faults(self) -> None:
        """End all faults: held requests go on, servers listen again."""
        with self.platform.changed:
            self.platform.faults.clear()
        self._await(self._return(list(self._servers)))
