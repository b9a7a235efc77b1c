"""``azurelinux``, ``mariner``, ``azurecontainerlinux``: Azure's own distributions (spec/distro.md §4.6)."""

from waagent_distro.systems.shared import binary_directory, configure_sshd

__all__ = ["binary_directory", "configure_sshd"]
