"""The resource disk plugin: its hooks. The rest is loaded when it is needed: in the boot stage and by the command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waagent import Command, HealthCheck, LogSource, Plan, hookimpl

if TYPE_CHECKING:
    from waagent import Agent


@hookimpl
def on_boot(agent: Agent) -> list[Plan]:
    """Make the disk usable beside provisioning, then swap on it, which nobody waits for."""
    wanted = [agent.config.boolean(name) for name in ("ResourceDisk.Format", "ResourceDisk.EnableSwap")]
    if not agent.paths.is_real or not any(wanted):
        return []  # another root has no disks (ruling 7)
    from waagent_resourcedisk.engine import Engine

    engine = Engine(agent)
    background = engine.background_plan()
    return [engine.disk_plan(), background] if wanted[0] else [background]


@hookimpl
def declare_commands() -> Command:
    """Offer to show what would be done, and to do it."""
    from waagent_resourcedisk import command

    return command.COMMAND


@hookimpl
def declare_log_files() -> list[LogSource]:
    """Name what tells most about disks."""
    return [
        LogSource("command", "lsblk --all --output NAME,MAJ:MIN,SIZE,RO,TYPE,FSTYPE,LABEL,MOUNTPOINT,MODEL,SERIAL", 60),
        LogSource("listing", "/dev/disk/azure", 60),
        LogSource("file", "/proc/swaps", 60),
    ]


@hookimpl
def check_health(agent: Agent) -> HealthCheck | None:
    """Tell whether the disk is used as configured, from the kernel's tables alone."""
    if not agent.paths.is_real or not agent.config.boolean("ResourceDisk.Format"):
        return None
    from waagent_resourcedisk import health

    return health.check(agent)
