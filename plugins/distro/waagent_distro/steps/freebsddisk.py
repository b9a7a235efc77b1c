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
_CLOSED = "r0w0e0"
_ENCRYPTED = ".eli"
_OFF_TIMEOUT = 7200.0  # all that is swapped is read back


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
    mounted = bsd.mounts_of(agent, device, r"([sp]\d+[a-h]?)?")
    found, holders = [], []
    for block in re.split(r"^\d+\. Name: ", listing.partition("Consumers:")[0], flags=re.MULTILINE)[1:]:
        part = block.split("\n", 1)[0].strip()
        values = dict(re.findall(r"^   (\w+): (.*)$", block, re.MULTILINE))
        node = agent.paths.at("/dev/" + part)
        if values.get("Mode", _CLOSED) != _CLOSED and not any(source.startswith(node) for source, _ in mounted):
            holders.append(f"{part}, which is open ({values['Mode']})")
        found.append({
            "device": node, "type": _type(values), "label": values.get("label", "").strip("()"),
            # -u: also what cannot be mounted, such as ZFS and GELI
            "filesystem": agent.run(("fstyp", "-u", node)).stdout.strip(),
            "size": int(values.get("Mediasize", "0").split()[0]), "contents": None, "problem": "",
        })  # fmt: skip
    size_words = agent.run(("diskinfo", name)).stdout.split()
    return {
        "device": device, "table": _TABLES.get(scheme.group(1)) if scheme else None, "partitions": found,
        "mounted": mounted[0][1] if mounted else None, "mounted_device": mounted[0][0] if mounted else "",
        "size": int(size_words[2]) if len(size_words) > 2 else 0,
        "read_only": False, "serial": "", "signature": "", "blank": False, "holders": tuple(holders),
    }  # fmt: skip


def _type(values: dict[str, str]) -> str:
    """Return the type of a partition: a GUID, or the number of an MBR in hexadecimal."""
    raw = values.get("rawtype", "").strip()
    return f"{int(raw):x}" if raw.isdigit() else raw.lower()


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


def enable_swap(agent: Agent, path: str, size_mib: int, encrypted: bool) -> bool:
    """Use a file as swap through a memory disk; one that stands for this file already is used again.

    Args:
        agent: runs the commands.
        path: of the file.
        size_mib: its size.
        encrypted: put GELI with a key that nobody knows in between.

    Raises:
        AgentError: the size is none, or there is no room.
        CommandError: a tool failed. Swap that memory does not take back stays in use.
    """
    unit = _unit(agent, path)
    if unit and (size_mib <= 0 or os.path.getsize(path) != size_mib << 20):
        _swap_off(agent, unit)
        agent.run(("mdconfig", "-d", "-u", unit), check=True)
        unit = ""
    if not unit:
        bsd.write_swap_file(agent, path, size_mib)
        unit = agent.run(("mdconfig", "-a", "-t", "vnode", "-f", path), check=True).stdout.strip()
    node = "/dev/" + unit
    wanted = node + _ENCRYPTED if encrypted else node
    if wanted in _active(agent):
        return True
    _swap_off(agent, unit)
    if os.path.exists(agent.paths.at(node)):
        os.chmod(agent.paths.at(node), 0o600)
    if encrypted and not os.path.exists(agent.paths.at(wanted)):
        agent.run(("kldload", "-n", "aesni", "cryptodev", "geom_eli"))  # geli says what is really missing
        agent.run(("geli", "onetime", "-e", "AES-XTS", "-l", "256", "-d", node), check=True)
    agent.run(("swapon", wanted), check=True)
    agent.log.info(f"Enabled {size_mib << 10}KB of swap at {path}")
    return True


def _active(agent: Agent) -> set[str]:
    return {line.split()[0] for line in agent.run(("swapctl", "-l")).stdout.splitlines() if line.split()}


def _swap_off(agent: Agent, unit: str) -> None:
    """Stop using a memory disk; GELI's device goes with its last user."""
    for node in sorted(_active(agent) & {f"/dev/{unit}", f"/dev/{unit}{_ENCRYPTED}"}):
        agent.run(("swapoff", node), timeout=_OFF_TIMEOUT, check=True)


def _unit(agent: Agent, path: str) -> str:
    for line in agent.run(("mdconfig", "-l", "-v")).stdout.splitlines():
        words = line.split()
        if len(words) >= 4 and words[1] == "vnode" and path in words[3:]:
            return words[0]
    return ""
