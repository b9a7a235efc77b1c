"""``chainguard``: Chainguard's image for virtual machines (spec/distro.md §4.6)."""

from waagent_distro.systems.shared import binary_directory

__all__ = ["binary_directory"]
