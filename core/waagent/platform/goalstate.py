"""The goal state document: who this machine is, and where the parts of its desired state lie (wireserver §6)."""

from __future__ import annotations

import attrs

from waagent.errors import ProtocolError
from waagent.platform import xmldoc

_DOCUMENT = "GoalState"


class NoRoleInstance(ProtocolError):
    """The goal state holds no RoleInstance yet; asking again soon may help (six tries, 0.5 s apart).

    Attributes:
        incarnation: of the document, ``None`` when it had none.
    """

    def __init__(self, incarnation: str | None) -> None:
        super().__init__(f"Fetched goal state without a RoleInstance [incarnation {incarnation}]")
        self.incarnation = incarnation


@attrs.frozen(eq=False)
class GoalStateDocument:
    """What one ``GET /machine/?comp=goalstate`` said.

    Attributes:
        incarnation: opaque, compared for inequality; it can go down. ``None`` when absent.
        container_id: ``""`` when absent; can change while the incarnation does not.
        role_instance_id: ``InstanceId`` of the first role instance.
        role_config_name: the first ``ConfigName``, ``""`` when absent.
        hosting_environment: URI of the hosting environment.
        shared_config: URI of the shared configuration.
        extensions_config: URI of the extension part; ``None`` means an empty one.
        certificates: URI of the certificates; ``None`` means there are none.
        remote_access: URI of the just-in-time accounts; ``None`` means there are none.
    """

    incarnation: str | None
    container_id: str
    role_instance_id: str
    role_config_name: str
    hosting_environment: str
    shared_config: str
    extensions_config: str | None = None
    certificates: str | None = None
    remote_access: str | None = None


def parse_goal_state(data: bytes) -> GoalStateDocument:
    """Parse a goal state.

    Raises:
        NoRoleInstance: it holds no role instance.
        ProtocolError: no such document, a mandatory URI is missing, or a URI cannot be one.
    """
    root = xmldoc.parse(data, _DOCUMENT, "GoalState")
    incarnation = root.find_text("Incarnation") or None
    container = root.find("Container")
    role = root.find("RoleInstance")
    if role is None:
        raise NoRoleInstance(incarnation)
    configuration = role.find("Configuration")
    if configuration is None:
        raise ProtocolError(f"{_DOCUMENT}: RoleInstance/Configuration: expected an element, found none")
    return GoalStateDocument(
        incarnation=incarnation,
        container_id=(container.find_text("ContainerId") or "") if container else "",
        role_instance_id=role.find_text("InstanceId") or "",
        role_config_name=configuration.find_text("ConfigName") or "",
        hosting_environment=_mandatory(configuration, "HostingEnvironmentConfig"),
        shared_config=_mandatory(configuration, "SharedConfig"),
        extensions_config=_uri(configuration, "ExtensionsConfig"),
        certificates=_uri(configuration, "Certificates"),
        remote_access=_uri(container, "RemoteAccessInfo") if container else None,
    )


def _mandatory(parent: xmldoc.Element, tag: str) -> str:
    uri = _uri(parent, tag)
    if uri is None:
        raise ProtocolError(f"{_DOCUMENT}: {tag}: expected a URI, found nothing")
    return uri


def _uri(parent: xmldoc.Element, tag: str) -> str | None:
    """Return a URI unmodified but for surrounding white space; white space inside would end up in a request line."""
    uri = parent.find_text(tag)
    if not uri:
        return None
    if not uri.isascii() or any(letter <= " " or letter == "\x7f" for letter in uri):
        raise ProtocolError(f"{_DOCUMENT}: {tag}: expected a URI, found text with white space or odd characters")
    return uri
