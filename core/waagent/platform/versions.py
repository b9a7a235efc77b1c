"""The versions document: does the fabric speak the one protocol version that this agent speaks? (wireserver §5)."""

from __future__ import annotations

import attrs

from waagent.errors import ProtocolNotFound
from waagent.platform import xmldoc

PROTOCOL_VERSION = "2012-11-30"

_DOCUMENT = "Versions"


@attrs.frozen
class ProtocolVersions:
    """What the fabric offers.

    Attributes:
        preferred: its preferred version, ``""`` when it names none; need not be repeated in ``supported``.
        supported: the other versions, in document order.
    """

    preferred: str = ""
    supported: tuple[str, ...] = ()

    def accepts(self, version: str = PROTOCOL_VERSION) -> bool:
        """Whether *version* is the preferred one or among the supported ones."""
        return version == self.preferred or version in self.supported


def parse_versions(data: bytes) -> ProtocolVersions:
    """Parse the answer to ``GET /?comp=versions``.

    Raises:
        ProtocolError: no such document.
    """
    root = xmldoc.parse(data, _DOCUMENT, "Versions")
    preferred = root.find("Preferred")
    supported = root.find("Supported")
    return ProtocolVersions(
        preferred=(preferred.find_text("Version") or "") if preferred else "",
        supported=tuple(item.text for item in supported.find_all("Version") if item.text) if supported else (),
    )


def negotiate(offered: ProtocolVersions) -> str:
    """Return the version to speak.

    Raises:
        ProtocolNotFound: the fabric does not offer it.
    """
    if not offered.accepts():
        raise ProtocolNotFound(f"Agent supported wire protocol version: {PROTOCOL_VERSION} was not advised by Fabric.")
    return PROTOCOL_VERSION
