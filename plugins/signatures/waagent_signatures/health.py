"""The signatures' part of ``waagent doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import HealthCheck
from waagent_signatures import anchors, openssl

if TYPE_CHECKING:
    from waagent import Agent


def checks(agent: Agent) -> list[HealthCheck]:
    """Return whether openssl and the two trust anchors can be used. Writes nothing."""
    reason = openssl.unusable(agent)
    found = [
        HealthCheck("signatures.openssl", "ok", f"{openssl.program(agent)} can verify package signatures")
        if reason is None
        else HealthCheck("signatures.openssl", "warning", reason, "install OpenSSL 1.1.0 or newer (OS.OpensslPath)")
    ]
    for what, option, root in (
        ("signatures.anchor", anchors.PACKAGE_OPTION, anchors.PACKAGES),
        ("signatures.timestamps", anchors.TIMESTAMP_OPTION, anchors.TIMESTAMPS),
    ):
        try:
            place = anchors.look(agent, option, root)
        except anchors.NoAnchor as problem:
            found.append(HealthCheck(what, "warning", str(problem), f"name a file with {option}"))
        else:
            found.append(HealthCheck(what, "ok", place))
    return found
