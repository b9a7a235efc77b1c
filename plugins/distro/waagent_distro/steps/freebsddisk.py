"""The resource disk and swap of FreeBSD (spec/resourcedisk.md §7)."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from waagent import AgentError
from waagent_distro.steps import bsd

if TYPE_CHECKING:
    from waagent import Agent

_BUS = re.compile(r"dev\.storvsc\.(\d+)\.%pnpinfo:.*deviceid=00000000-0001", re.IGNORECASE)
_SCHEME = re.compile(r"^scheme: (\w+)$", re.MULTILINE)
_TABLES = {"GPT": "gpt", "MBR": "mbr"}


def find(agent: Agent) -> str:
    """Return the disk behind the second channel of the virtual controller, empty when there is none."""
    buses = _BUS.findall(agent.run(("sysctl", "dev.storvsc")).stdout)
    listing = agent.run(("camcontrol", "devlist", "-v")).stdout
    for bus in buses:
        lines = listing.partition(f" on storvsc{bus} ")[2].split("\nscbus", 1)[0]
        match = re.search(r"\b(da\d+)\b", lines)
        if match:
            return agent.paths.at("/dev/" + match.group(1))
    for place in ("2:1:0", "3:1:0"):
        match = re.match(r"(da\d+):", agent.run(("camcontrol", "periphlist", place)).stdout)
        if match:
            return agent.paths.at("/dev/" + match.group(1))
    return ""


def read(agent: Agent, device: str) -> dict[str, Any]:
    """Return the facts that ``read_resource_disk`` documents; what this system does not tell is left at "no"."""
    name = os.path.basename(device)
    listing = agent.run(("gpart", "list", name)).stdout
    scheme = _SCHEME.search(listing)
    mounts = bsd.mount_table(agent)
    found = []
    for number, block in enumerate(re.split(r"^\d+\. Name: ", listing.partition("Consumers:")[0], flags=re.MULTILINE)):
        if number == 0:
            continue
        part = block.split("\n", 1)[0].strip()
        values = dict(re.findall(r"^   (\w+): (.*)$", block, re.MULTILINE))
        size = values.get("Mediasize", "0").split()[0]
        node = agent.paths.at("/dev/" + part)
        found.append({
            "device": node, "type": values.get("type", ""), "label": values.get("label", "").strip("()"),
            "filesystem": agent.run(("fstyp", node)).stdout.strip(), "size": int(size), "contents": None,
            "problem": "",
        })  # fmt: skip
    size_words = agent.run(("diskinfo", name)).stdout.split()
    own = [point for source, point, _kind in mounts if source.startswith(device)]
    return {
        "device": device, "table": _TABLES.get(scheme.group(1)) if scheme else None, "partitions": found,
        "mounted": own[0] if own else None, "size": int(size_words[2]) if len(size_words) > 2 else 0,
        "read_only": False, "serial": "", "signature": "", "blank": False, "holders": (),
    }  # fmt: skip


def make(agent: Agent, device: str, filesystem: str) -> str:
    """Make the first slice a UFS file system; on a GPT disk that is the second partition, after the reserved one.

    Raises:
        AgentError: another file system is wanted, or there is no partition.
        CommandError: ``newfs`` failed.
    """
    if filesystem not in ("ufs", "ufs2"):
        raise AgentError(f"FreeBSD's resource disk takes ufs, not {filesystem}")
    facts = read(agent, device)
    if facts["mounted"]:
        raise AgentError(f"{device} is not formatted: mounted {facts['mounted']}")
    wanted = {"mbr": device + "s1", "gpt": device + "p2"}.get(facts["table"] or "", "")
    if wanted not in [one["device"] for one in facts["partitions"]]:
        raise AgentError(f"there is no partition to use on {device}")
    agent.run(("newfs", "-U", wanted), timeout=300, check=True)
    return wanted


def mount(agent: Agent, partition: str, mount_point: str) -> bool:
    """Mount the partition.

    Raises:
        AgentError: the place is taken.
        CommandError: it cannot be mounted.
    """
    taken = bsd.mounted_at(agent, mount_point)
    if taken == partition:
        return True
    if taken:
        raise AgentError(f"{mount_point} is taken by {taken}")
    os.makedirs(mount_point, 0o755, exist_ok=True)
    agent.run(("mount", "-t", "ufs", partition, mount_point), timeout=60, check=True)
    return True


def enable_swap(agent: Agent, path: str, size_mib: int) -> bool:
    """Use a file as swap through a memory disk; one that stands for this file already is used again.

    Raises:
        AgentError: the size is none.
        CommandError: a tool failed.
    """
    unit = _unit(agent, path)
    if unit and os.path.getsize(path) != size_mib << 20:
        raise AgentError(f"{path} is in use with another size: remove it for the next boot")
    if not unit:
        bsd.write_swap_file(agent, path, size_mib)
        unit = agent.run(("mdconfig", "-a", "-t", "vnode", "-f", path), check=True).stdout.strip()
    node = "/dev/" + unit
    os_node = agent.paths.at(node)
    if os.path.exists(os_node):
        os.chmod(os_node, 0o600)
    if not any(line.split()[:1] == [node] for line in agent.run(("swapctl", "-l")).stdout.splitlines()):
        agent.run(("swapon", node), check=True)
    return True


def _unit(agent: Agent, path: str) -> str:
    for line in agent.run(("mdconfig", "-l", "-v")).stdout.splitlines():
        words = line.split()
        if len(words) >= 4 and words[1] == "vnode" and path in words[3:]:
            return words[0]
    return ""
