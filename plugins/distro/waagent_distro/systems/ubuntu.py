"""``ubuntu``: what differs from Debian (spec/distro.md §4.1, ruling 43)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from waagent import Veto, hookimpl

if TYPE_CHECKING:
    from waagent import Agent


@hookimpl
def find_resolver_files() -> tuple[str, ...]:
    """None: the resolver's configuration is made at each boot and deprovisioning leaves it."""
    return ()


@hookimpl
def decide_resource_disk(agent: Agent, facts: dict[str, Any]) -> Veto | None:
    """Leave the disk to cloud-init where that is in charge: there the ``ResourceDisk`` options have no effect."""
    from waagent_distro.steps import cloudinit

    if agent.distro.id != "ubuntu" or not cloudinit.is_enabled(agent):
        return None
    return Veto("cloud-init is in charge of the resource disk on Ubuntu; the options ResourceDisk.* have no effect")
