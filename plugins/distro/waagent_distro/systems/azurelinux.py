"""``azurelinux``, ``mariner``, ``azurecontainerlinux``: Azure's own (spec/distro.md §4.6). networkd runs the network."""

from waagent_distro.systems.shared import binary_directory, configure_sshd

__all__ = ["binary_directory", "configure_sshd"]
