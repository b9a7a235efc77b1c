"""Version manifests of handlers and of the agent: one format (wireserver §13, extensions §4.1)."""

from __future__ import annotations

import re

from waagent.platform import xmldoc
from waagent.platform.models import Manifest, ManifestVersion

_DOCUMENT = "PluginVersionManifest"
# A version becomes part of directory names, so nothing but these characters passes.
_VERSION = re.compile(r"[0-9]{1,10}(?:\.[0-9]{1,10}){0,7}(?:[._-]?(?:alpha|beta|rc)[._-]?[0-9]{0,10})?\Z")


def parse_manifest(data: bytes, uri: str = "", notes: list[str] | None = None) -> Manifest:
    """Parse a manifest.

    Args:
        data: the document.
        uri: where it came from; packages are asked for with it.
        notes: takes one line for each entry that cannot be used.

    Returns:
        The versions of ``Plugins``, then those of ``InternalPlugins``, in document order. Either list may be missing.
        An entry without locations stays (its package is not downloadable); one whose version is no version is left out.

    Raises:
        ProtocolError: no such document.
    """
    root = xmldoc.parse(data, _DOCUMENT, _DOCUMENT)
    versions: list[ManifestVersion] = []
    for name, internal in (("Plugins", False), ("InternalPlugins", True)):
        group = root.find(name)
        for plugin in group.find_all("Plugin") if group else ():
            version = plugin.find_text("Version") or ""
            if not _VERSION.match(version):
                if notes is not None:
                    notes.append(f"{_DOCUMENT}: {name}/Plugin/Version: expected a version, entry left out")
                continue
            uris = plugin.find("Uris")
            versions.append(
                ManifestVersion(
                    version=version,
                    uris=tuple(item.text for item in uris.find_all("Uri") if item.text) if uris else (),
                    internal=internal,
                    disallow_major_upgrade=(plugin.find_text("DisallowMajorVersionUpgrade") or "").lower() == "true",
                )
            )
    return Manifest(versions=tuple(versions), uri=uri)
