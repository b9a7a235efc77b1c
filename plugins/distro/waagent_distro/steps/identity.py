"""What the machine is: its unique id, its size, and the files that deprovisioning asks about."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from waagent_distro.steps import textfiles

if TYPE_CHECKING:
    from waagent import Agent

_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_PRODUCT_UUID = "/sys/class/dmi/id/product_uuid"
_ENTRY_POINT = "/sys/firmware/dmi/tables/smbios_entry_point"
_LITTLE_ENDIAN_SINCE = (2, 6)
_OWNER_QUERIES = (("dpkg-query", "--search"), ("rpm", "-qf"), ("pacman", "-Qo"), ("apk", "info", "--who-owns"))
"""What succeeds with a path behind it when a package owns the file (provisioning §18.4)."""


def vm_id(agent: Agent) -> str:
    """Return the machine's unique id as the platform writes it, empty when the firmware tells none.

    Before SMBIOS 2.6 the byte order of the first three groups was not said, and the kernel shows them as they are
    stored; the platform means little-endian. From 2.6 on the kernel turns them round itself.
    """
    found = textfiles.first_line(agent.paths.at(_PRODUCT_UUID))
    if not found:
        done = agent.run(("dmidecode", "--string", "system-uuid"))
        found = done.stdout.strip() if done.ok else ""
    if not _GUID.match(found):
        return ""
    return (swapped(found) if _is_old_firmware(agent) else found).upper()


def swapped(guid: str) -> str:
    """Return a GUID with the bytes of its first three groups in the opposite order."""
    groups = guid.split("-")
    return "-".join([bytes.fromhex(group)[::-1].hex() for group in groups[:3]] + groups[3:])


def machine() -> dict[str, str | int]:
    """Return memory, processors and architecture."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return {"memory_mib": memory, "processors": os.cpu_count() or 1, "architecture": os.uname().machine}


def resolver_files(agent: Agent) -> tuple[str, ...]:
    """Return ``/etc/resolv.conf`` when it is a file that no package owns; a link leads to what is made at each boot."""
    path = agent.paths.at("/etc/resolv.conf")
    if not os.path.isfile(path) or os.path.islink(path):
        return ()
    queries = _OWNER_QUERIES if agent.distro.may_change and agent.distro.facts.base == "linux" else ()
    return () if any(agent.run((*query, path), timeout=30).ok for query in queries) else (path,)


def _is_old_firmware(agent: Agent) -> bool:
    try:
        with open(agent.paths.at(_ENTRY_POINT), "rb") as stream:
            data = stream.read(64)
    except OSError:
        data = b""
    if data[:5] == b"_SM3_" and len(data) > 8:
        return (data[7], data[8]) < _LITTLE_ENDIAN_SINCE
    if data[:4] == b"_SM_" and len(data) > 7:
        return (data[6], data[7]) < _LITTLE_ENDIAN_SINCE
    # Generation 1 machines have a BIOS of before 2.6 and no EFI, generation 2 the opposite.
    return not os.path.isdir(agent.paths.at("/sys/firmware/efi"))
