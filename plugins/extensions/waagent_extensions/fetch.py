"""Choose a handler's version, get its package, and make it ready (extensions §4)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable

from waagent import ExtensionDownloadError, Log, Manifest, ManifestVersion, NoAnswer, Package, ProtocolError, Veto
from waagent_extensions import codes, facts, handlermanifest, package, records, versions
from waagent_extensions.codes import HandlerError
from waagent_extensions.handlerlog import INFO, tell_event
from waagent_extensions.layout import HandlerDir
from waagent_extensions.order import ENABLED, Unit
from waagent_extensions.site import Site


class DownloadFailed(HandlerError):
    """A manifest or package could not be had; another try may help."""


def is_given_up(site: Site, problem: DownloadFailed, log: Log) -> bool:
    """Return whether a download ended because the agent stops, or for a newer goal state: then it is no failure."""
    if site.leave():
        return True
    if site.newer.is_set():
        log.info(f"Given up, as there is a newer goal state: {problem}")
        return True
    return False


class Catalogue:
    """The version manifests of one goal state, each fetched once."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._manifests: dict[str, Manifest] = {}

    def choose(self, unit: Unit, log: Log) -> tuple[str, Manifest | None]:
        """Return the version to work on, and the manifest when a package may be needed.

        Raises:
            DownloadFailed: the manifest could not be had, and is needed.
            HandlerError: the manifest names no such version (code -1).
        """
        handler = unit.handler
        layout = self._site.layout
        installed = facts.installed_version(layout, handler.name)
        if handler.state != ENABLED:
            # The local files are all that a removal needs, whatever became of the version in the repository.
            return (installed.version if installed is not None else handler.version), None
        log.info("Decide which version to use")
        try:
            manifest = self._manifest(unit)
        except DownloadFailed:
            exact = layout.handler(handler.name, handler.version)
            if records.is_installed(records.read_state(exact)):
                log.warning("The version manifest cannot be fetched; the requested version is installed and is used")
                return handler.version, None
            raise
        version = versions.choose(handler.version, [item.version for item in manifest.versions])
        if version is None:
            raise HandlerError(
                f"Unable to find version {handler.version} in manifest for extension {handler.name}",
                codes.UNKNOWN,
                "Download",
            )
        if installed is not None and versions.key(installed.version) == versions.key(version):
            version = installed.version  # 1.0 and 1.0.0 are one version: what is installed keeps its directory
        log.info(f"Use version: {version}")
        if version != handler.version:
            place = layout.handler(handler.name, version)
            self._site.event("RequestedVersionMismatch", place, f"requested {handler.version}, chosen {version}")
        return version, manifest

    def _manifest(self, unit: Unit) -> Manifest:
        name = unit.handler.name
        if name not in self._manifests:
            self._site.doing(unit.full_name, "reading the version manifest")
            self._manifests[name] = fetch_manifest(self._site, unit)
        return self._manifests[name]


def fetch_manifest(site: Site, unit: Unit) -> Manifest:
    """Fetch the handler's version manifest.

    Raises:
        DownloadFailed: it could not be had; says why.
    """
    platform = site.agent.platform
    if platform is None:
        raise DownloadFailed("Failed to download artifacts: no platform", codes.DOWNLOAD_FAILED, "Download")
    try:
        manifest: Manifest = platform.fetch_manifest(unit.handler, stop=site.newer)
    except (ProtocolError, OSError) as problem:
        code = problem.code if isinstance(problem, ExtensionDownloadError) else codes.DOWNLOAD_FAILED
        raise DownloadFailed(f"Failed to download artifacts: {problem}", code, "Download") from problem
    return manifest


def fetch_package(site: Site, unit: Unit, handler: HandlerDir, manifest: Manifest | None, log: Log) -> None:
    """Get the package of *handler*'s version and expand it; whatever happens, no zip stays.

    Raises:
        DownloadFailed: it could not be had, or came broken; another try may help.
        HandlerError: it is not acceptable: unsafe, without a manifest, refused by a plugin.
    """
    started = time.monotonic()
    package.recover(handler)
    if not _expand_left_over(site, unit, handler, log):
        _download(site, unit, handler, manifest, log)
    milliseconds = int((time.monotonic() - started) * 1000)
    tell_event(log, INFO, f"name={handler.name}, op=Download, message=Download succeeded, duration={milliseconds}")
    site.event("Download", handler, "Download succeeded", started=started)
    log.info("Initialize extension directory")
    log.info(f"Initializing extension {unit.full_name}")
    site.doing(unit.full_name, "initializing the package")
    try:
        package.initialize(handler)
    except HandlerError as problem:
        if isinstance(problem.__cause__, OSError):
            # Half-initialized it would look like more than it is (extensions §3).
            with contextlib.suppress(OSError):
                package.remove_version(handler)
        raise
    commands = handlermanifest.load(handler.manifest)
    if commands.odd_booleans:
        odd = ", ".join(commands.odd_booleans)
        log.warning(f"HandlerManifest.json holds values that are neither true nor false: {odd}; taken as false")
        site.event("ExtensionHandlerManifest", handler, f"Non-boolean values: {odd}")
    _accept(site, unit, handler, log)


def _expand_left_over(site: Site, unit: Unit, handler: HandlerDir, log: Log) -> bool:
    """Use a package that an earlier agent left whole; one that cannot be used goes."""
    if not os.path.exists(handler.zip):
        return False
    try:
        _verify(site, unit, handler, handler.zip)
        _expand(site, unit, handler, handler.zip, log)
    except HandlerError as problem:
        log.warning(f"The package that was there cannot be used and is fetched again: {problem}")
        return False
    finally:
        _unlink(handler.zip)
    return True


def _download(site: Site, unit: Unit, handler: HandlerDir, manifest: Manifest | None, log: Log) -> None:
    """Download and expand: a package that cannot be expanded sends the download to the next location."""
    log.info("Download extension package")
    log.info(f"Downloading {unit.full_name}")
    site.doing(unit.full_name, "downloading the package")
    if manifest is None:
        manifest = fetch_manifest(site, unit)
    chosen = _chosen(manifest, handler.version)
    platform = site.agent.platform
    if chosen is None or platform is None:
        raise HandlerError(
            f"Unable to find version {handler.version} in manifest for extension {handler.name}",
            codes.UNKNOWN,
            "Download",
        )
    refused: list[HandlerError] = []

    def check(path: str) -> None:
        try:
            _verify(site, unit, handler, path)
            _expand(site, unit, handler, path, log)
        except HandlerError as problem:
            refused.append(problem)
            raise

    try:
        platform.download_package(unit.handler, chosen, manifest, handler.zip, stop=site.newer, check=check)
    except HandlerError:
        raise
    except (ProtocolError, OSError) as problem:
        if refused:
            # What came could not be used: that says more than that no location had anything better.
            raise refused[-1] from problem
        code = problem.code if isinstance(problem, ExtensionDownloadError) else codes.DOWNLOAD_FAILED
        raise DownloadFailed(f"Failed to download artifacts: {problem}", code, "Download") from problem
    finally:
        _unlink(handler.zip)


def _chosen(manifest: Manifest, version: str) -> ManifestVersion | None:
    return next((item for item in manifest.versions if versions.key(item.version) == versions.key(version)), None)


def _verify(site: Site, unit: Unit, handler: HandlerDir, path: str) -> None:
    offered = Package(handler.name, handler.version, path, unit.handler.signature)
    refused = _refusal("verified", lambda: site.agent.hooks.verify_package(site.agent, offered))
    if refused is not None:
        raise HandlerError(*refused, "PackageSignatureResult")


def _accept(site: Site, unit: Unit, handler: HandlerDir, log: Log) -> None:
    """Ask plugins about the unpacked package; what they refuse is gone before a command could run from it."""
    offered = Package(handler.name, handler.version, handler.zip, unit.handler.signature)
    refused = _refusal("accepted", lambda: site.agent.hooks.accept_package(site.agent, offered, handler.base))
    if refused is not None:
        log.info(f"Remove refused extension package: {handler.base}")
        package.remove_version(handler)
        raise HandlerError(*refused, "ExtensionPolicy")


def _refusal(verb: str, ask: Callable[[], Veto | None]) -> tuple[str, int] | None:
    """Return why plugins refuse a package, with the code for it, or ``None``; a plugin's failure refuses it too."""
    try:
        veto = ask()
    except NoAnswer as problem:
        veto = Veto(f"The package cannot be {verb}: {problem}")
    if veto is None:
        return None
    return veto.reason, veto.code if veto.code is not None else codes.ENABLE_FAILED


def _expand(site: Site, unit: Unit, handler: HandlerDir, path: str, log: Log) -> None:
    log.info("Unpack extension package")
    log.info(f"Unzipping {unit.full_name}: {path}")
    site.doing(unit.full_name, "unpacking the package")
    try:
        platform = site.agent.platform
        if platform is not None:
            package.expand_apart(platform.apart, path, handler)
        else:
            package.expand(path, handler, stopped=site.leave)
        _unlink(handler.validated)  # the mark is the agent's to make, not the package's
    except HandlerError as problem:
        if site.leave() or isinstance(problem, package.UnsafePackage):
            raise
        # A package that was cut short or garbled on its way is worth another download.
        raise DownloadFailed(str(problem), problem.code, problem.operation) from problem


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
