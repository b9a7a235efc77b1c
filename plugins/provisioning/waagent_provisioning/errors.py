"""Why provisioning does not go on."""

from __future__ import annotations

from waagent import AgentError


class ProvisioningError(AgentError):
    """Provisioning failed; the message is shown to the owner by the platform and holds no secret."""
