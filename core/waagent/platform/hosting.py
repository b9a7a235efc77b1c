"""The hosting environment and the shared configuration (wireserver §7). Both hold account keys: never log them."""

from __future__ import annotations

from waagent.platform import xmldoc
from waagent.platform.models import HostingEnvironment


def parse_hosting_environment(data: bytes) -> HostingEnvironment:
    """Return the names that telemetry and tools want; an absent one is ``""``.

    Raises:
        ProtocolError: no such document.
    """
    root = xmldoc.parse(data, "HostingEnvironmentConfig", "HostingEnvironmentConfig")

    def name(tag: str, attribute: str) -> str:
        element = root.find(tag)
        return element.get(attribute) if element else ""

    return HostingEnvironment(
        vm_name=name("Incarnation", "instance"),
        role_name=name("Role", "name"),
        deployment_name=name("Deployment", "name"),
    )


def check_shared_config(data: bytes) -> None:
    """Make sure that *data* is a shared configuration; nothing in it is interpreted, others read the saved file.

    Raises:
        ProtocolError: no such document.
    """
    xmldoc.parse(data, "SharedConfig", "SharedConfig")
