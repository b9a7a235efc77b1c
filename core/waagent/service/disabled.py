"""Whether this machine wants no agent: ``disable_agent`` and ``ProvisionGuestAgent=false`` (ruling 16)."""

from __future__ import annotations

import os
import re

from waagent.errors import StateError
from waagent.files import read_limited, write_atomic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from waagent.agent import Agent

MARKER = "disable_agent"
_SEEN = "provision_guest_agent"
_SETTING = re.compile(rb"<(?:[\w.-]+:)?ProvisionGuestAgent(?:\s[^>]*)?>\s*([^<\s]*)\s*<", re.IGNORECASE)


def reason(agent: Agent) -> str | None:
    """Return why the agent is to do nothing, ``None`` when it is wanted (provisioning §14.2).

    The provisioning document is looked at here as well, whichever plugins are installed: its ``false`` makes the
    marker, once per document, so that removing the marker and restarting the service brings the agent back.
    """
    marker = agent.paths.lib(MARKER)
    _follow_document(agent, marker)
    if not os.path.lexists(marker):
        return None
    return (
        f"{marker} exists: the agent handles no extensions and reports no status. To enable it, delete the file, set "
        f"osProfile.allowExtensionOperations to true and restart the service"
    )


def _follow_document(agent: Agent, marker: str) -> None:
    path = agent.paths.lib("ovf-env.xml")
    try:
        stamp = os.stat(path).st_mtime_ns
        if agent.state.load(_SEEN) == stamp:
            return
        found = _SETTING.search(read_limited(path, 1 << 20))
        if found is not None and found.group(1).lower() == b"false":
            agent.events.add("ProvisionGuestAgent", message="false")
            write_atomic(marker, b"")
        agent.state.save(_SEEN, stamp)
    except FileNotFoundError:
        return
    except (OSError, StateError) as problem:
        agent.log.warning(f"{path} cannot be looked at for ProvisionGuestAgent: {problem}")
