"""What the agent reports besides status: provisioning health, role properties, host health (wireserver §18)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from waagent.redaction import redact

MAX_DESCRIPTION = 3600
"""Bytes of a description after escaping, in UTF-8; the service refuses more than 4096 (provisioning §11)."""

MAX_OBSERVATIONS = 10

_DECLARATION = '<?xml version="1.0" encoding="utf-8"?>'
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_CUT = "..."


def build_health_report(
    incarnation: str | None,
    container_id: str,
    role_instance_id: str,
    state: str,
    substatus: str | None = None,
    description: str = "",
) -> bytes:
    """Return the body of ``POST /machine?comp=health``: one line, no white space between elements.

    Args:
        incarnation: of the goal state.
        container_id: likewise.
        role_instance_id: likewise.
        state: ``Ready`` or ``NotReady``.
        substatus: ``None`` or empty leaves out the details.
        description: redacted, then cut so that its escaped UTF-8 has at most 3600 bytes (DIFF-4).
    """
    details = ""
    if substatus:
        details = (
            f"<Details><SubStatus>{escape(substatus)}</SubStatus>"
            f"<Description>{fit(redact(description))}</Description></Details>"
        )
    return (
        f"{_DECLARATION}"
        '<Health xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        'xmlns:xsd="http://www.w3.org/2001/XMLSchema">'
        f"<GoalStateIncarnation>{escape(incarnation or '')}</GoalStateIncarnation>"
        f"<Container><ContainerId>{escape(container_id)}</ContainerId>"
        f"<RoleInstanceList><Role><InstanceId>{escape(role_instance_id)}</InstanceId>"
        f"<Health><State>{escape(state)}</State>{details}</Health>"
        "</Role></RoleInstanceList></Container></Health>"
    ).encode()


def build_role_properties(container_id: str, role_instance_id: str, thumbprint: str) -> bytes:
    """Return the body of ``POST /machine?comp=roleProperties``: the fingerprint of the SSH host key."""
    value = escape(thumbprint).replace('"', "&quot;")
    return (
        f"{_DECLARATION}<RoleProperties><Container><ContainerId>{escape(container_id)}</ContainerId>"
        f"<RoleInstances><RoleInstance><Id>{escape(role_instance_id)}</Id><Properties>"
        f'<Property name="CertificateThumbprint" value="{value}" />'
        "</Properties></RoleInstance></RoleInstances></Container></RoleProperties>"
    ).encode()


@attrs.frozen(eq=False, repr=False)
class Observation:
    """One observation about the health of a host service.

    Attributes:
        name: such as ``GuestAgentPluginHeartbeat``; sent cut to 64 characters.
        healthy: what was seen.
        description: sent cut to 128 characters.
        value: likewise.
    """

    name: str
    healthy: bool
    description: str = ""
    value: str = ""


def build_host_health(observations: Iterable[Observation]) -> bytes:
    """Return the body of ``POST /HealthService``; at most ten observations, the newest of more."""
    kept = list(observations)[-MAX_OBSERVATIONS:]
    return _json(
        {
            "Api": "reporttargethealth",
            "Version": "1.0",
            "Source": "WALinuxAgent",
            "Observations": [
                {
                    "ObservationName": item.name[:64],
                    "IsHealthy": bool(item.healthy),
                    "Description": redact(item.description)[:128],
                    "Value": redact(item.value)[:128],
                }
                for item in kept
            ],
        }
    )


def build_provisioning_health(state: str, substatus: str = "", description: str = "") -> bytes:
    """Return the body of ``POST /provisioning/health``, the report that needs no goal state (wireserver §18.4)."""
    report: dict[str, Any] = {"state": state}
    if substatus:
        report["details"] = {"subStatus": substatus, "description": _within(redact(description), _json_size)}
    return _json(report)


def escape(text: str) -> str:
    """Return *text* for XML content, ``& < >`` escaped; what XML cannot hold becomes ``?``."""
    return _xml_text(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def fit(description: str) -> str:
    """Return a description escaped for XML content (``& < >``) and cut to the service's limit.

    No escape and no character is cut in two, and three dots show the cut.
    """
    return escape(_within(_xml_text(description), _xml_size))


def _xml_text(text: str) -> str:
    """Return *text* with ``?`` for what XML cannot hold: control characters, lone surrogates, U+FFFE and U+FFFF."""
    if text.isprintable():
        return text
    return "".join(
        letter
        if " " <= letter < "\ud800" or "\udfff" < letter < "\ufffe" or letter > "\uffff" or letter in "\t\n\r"
        else "?"
        for letter in text
    )


def _within(text: str, size: Callable[[str], int]) -> str:
    # Every character takes a byte at least, so longer texts need not be measured to their end.
    sizes = [size(letter) for letter in text[: MAX_DESCRIPTION + 1]]
    if len(text) <= MAX_DESCRIPTION and sum(sizes) <= MAX_DESCRIPTION:
        return text
    room = MAX_DESCRIPTION - len(_CUT)
    kept = 0
    while sizes[kept] <= room:
        room -= sizes[kept]
        kept += 1
    return text[:kept] + _CUT


def _xml_size(letter: str) -> int:
    return len(_ESCAPES.get(letter, letter).encode("utf-8"))


def _json_size(letter: str) -> int:
    return len(json.dumps(letter)) - 2


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode("ascii")
