"""What else matters: the mount point, ``fstab``, cloud-init, the tools (spec/resourcedisk.md §4.2, §8)."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from waagent_resourcedisk import filesystems
from waagent_resourcedisk.records import Surroundings
from waagent_resourcedisk.system import unescaped

if TYPE_CHECKING:
    from waagent import Agent
    from waagent_resourcedisk.records import Candidate, Wishes
    from waagent_resourcedisk.system import System

_SYSTEM_DIRECTORIES = frozenset(
    ("/", "/bin", "/boot", "/boot/efi", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root", "/run",
     "/sbin", "/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/log", "/var/run", "/var/tmp")
)  # fmt: skip
"""Where a mount would hide the system."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LINKS = ("/dev/disk/cloud/azure_resource", "/dev/disk/azure/resource")
_TAGS = {"UUID": "by-uuid", "LABEL": "by-label", "PARTUUID": "by-partuuid", "PARTLABEL": "by-partlabel"}
_ENABLED = frozenset(("enabled", "enabled-runtime", "static", "alias", "generated"))
_NEVER_DESTROY = re.compile(
    r"^[^#\n]*\bnever_destroy_ntfs['\"]?\s*:\s*['\"]?(?:true|yes|on|1)\b", re.IGNORECASE | re.MULTILINE
)


def look(
    system: System, candidate: Candidate | None, wishes: Wishes, *, cloud_init: bool, waited: bool, gave_up: str
) -> Surroundings:
    """Look around. Nothing is written, and no command is run: whoever waits for others looks twice a second."""
    line, is_service = fstab_line(system, candidate, wishes.mount_point) if candidate is not None else ("", False)
    occupant = system.mounted_at(system.paths.at(wishes.mount_point))
    if occupant is not None and candidate is not None and occupant.numbers & set(system.numbers(candidate.name)):
        occupant = None  # the disk itself
    return Surroundings(
        mount_point_problem=mount_point_problem(system, wishes.mount_point),
        occupied_by=occupant.source if occupant is not None else "",
        fstab=line,
        ephemeral_service=is_service,
        cloud_init=progress(system) if cloud_init else "",
        never_destroy_ntfs=never_destroy_ntfs(system),
        missing_tool=missing_tool(wishes.filesystem),
        gave_up=gave_up,
        waited=waited,
    )


def mount_point_problem(system: System, mount_point: str) -> str:
    """Return why nothing may be mounted at *mount_point*; empty: it may."""
    place = system.paths.at(mount_point)
    if not mount_point.startswith("/") or ".." in mount_point.split("/"):
        return f"ResourceDisk.MountPoint {mount_point!r} is no absolute path"
    inner = os.path.relpath(os.path.realpath(place), os.path.realpath(system.paths.root))
    if {os.path.normpath(mount_point).replace("//", "/"), os.path.normpath("/" + inner)} & _SYSTEM_DIRECTORIES:
        return f"ResourceDisk.MountPoint {mount_point} belongs to the system"
    if os.path.islink(place):
        return f"ResourceDisk.MountPoint {mount_point} is a link"
    if os.path.lexists(place) and not os.path.isdir(place):
        return f"ResourceDisk.MountPoint {mount_point} is no directory"
    return ""


def fstab_line(system: System, candidate: Candidate, mount_point: str) -> tuple[str, bool]:
    """Return the first line of ``/etc/fstab`` that mounts the disk, and whether azure-vm-utils' service wrote it."""
    numbers = system.numbers(candidate.name)
    for line in system.whole("/etc/fstab").split("\n"):
        words = line.split()
        if len(words) < 2 or line.lstrip().startswith("#"):
            continue
        point = unescaped(words[1])
        if "comment=azure-ephemeral-disk-setup" in line and point == mount_point:
            return f"{words[0]} at {point}", True
        source = _source(unescaped(words[0]))
        if source.startswith(_LINKS) or (source.startswith("/") and system.number_of(source) in numbers):
            return f"{words[0]} at {point}", False
    return "", False


def _source(text: str) -> str:
    tag, equals, value = text.partition("=")
    if equals and tag in _TAGS:
        return f"/dev/disk/{_TAGS[tag]}/" + value.strip("\"'")
    return text


def progress(system: System) -> str:
    """Return how far cloud-init is, where it is enabled: ``running`` (not finished yet) or ``done``."""
    return "done" if system.exists("/run/cloud-init/result.json") else "running"


def cloud_init_is_enabled(agent: Agent, system: System) -> bool:
    """Ask cloud-init's own switches in its own order, then the init system (provisioning §1.1)."""
    words = system.text("/proc/cmdline").split()
    if "cloud-init=enabled" not in words:
        switches = ("/etc/cloud/cloud-init.disabled", "/run/cloud-init/disabled")
        if "cloud-init=disabled" in words or any(system.exists(path) for path in switches):
            return False
    if not (system.exists("/usr/bin/cloud-init") or system.exists("/etc/cloud")):
        return False  # most machines without it are known to be so without starting a command
    if not system.exists("/run/systemd/system"):
        return any(system.exists(f"/etc/runlevels/{level}/cloud-init-local") for level in ("boot", "default"))
    done = agent.run(("systemctl", "is-enabled", "cloud-init-local.service"), timeout=20)
    return done.stdout.strip() in _ENABLED


def never_destroy_ntfs(system: System) -> bool:
    """Return whether cloud-init is configured never to format NTFS."""
    names = [f"/etc/cloud/cloud.cfg.d/{name}" for name in system.listed("/etc/cloud/cloud.cfg.d")]
    files = ["/etc/cloud/cloud.cfg", *(name for name in names if name.endswith(".cfg"))]
    return any(_NEVER_DESTROY.search(system.whole(name)) for name in files)


def missing_tool(filesystem: str) -> str:
    """Return the first program that formatting needs and that is not installed; empty when all are."""
    if not filesystems.may_be_made(filesystem):
        return ""  # refused for another reason
    for program in (f"mkfs.{filesystem}", "wipefs"):
        if not installed(program):
            return program
    return "" if installed("sfdisk") or installed("parted") else "sfdisk"


def installed(program: str) -> bool:
    """Return whether *program* is on the path that commands are started with."""
    places = os.environ.get("PATH", _PATH).split(os.pathsep)
    return any(os.access(os.path.join(place, program), os.X_OK) for place in places if place)
