"""``photon`` and ``photonos``: VMware Photon OS (spec/distro.md §4.6)."""

from __future__ import annotations

from waagent import hookimpl
from waagent_distro.systems.shared import binary_directory, configure_sshd

__all__ = ["binary_directory", "configure_sshd", "supports_remote_access"]


@hookimpl
def supports_remote_access() -> bool:
    """No."""
    return False
