"""What a machine leaves behind outside the agent's own directories (cli §5.2, provisioning §18.3)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from waagent import AgentError, StateError, read_limited
from waagent_deprovision import emptying

if TYPE_CHECKING:
    from waagent import Agent

LEASE_DIRECTORIES = ("/var/lib/dhclient", "/var/lib/dhcpcd", "/var/lib/dhcp")
LEASE_FILES = (
    "/var/db/dhclient.leases.*",
    "/var/lib/NetworkManager/dhclient-*.lease",
    "/run/systemd/netif/leases/*",
)
DROP_IN_NAMES = ("10-Slice.conf", "11-CPUAccounting.conf", "12-CPUQuota.conf", "13-MemoryAccounting.conf")
ACCOUNT_FILES = ("passwd", "shadow", "group", "gshadow", "subuid", "subgid")
"""In ``/etc``; the tools for accounts keep the content from before their last change in a file with a hyphen."""
COLLECTOR_SLICE = "azure-walinuxagent-logcollector.slice"
_ACCOUNTS_LIMIT = 64 << 20
_SERVICE_NAMES = ("waagent", "walinuxagent")
_FIREWALL_UNIT = "waagent-firewall.service"
_OLD_UNIT_DIRECTORIES = ("/lib/systemd/system", "/usr/lib/systemd/system")


def host_keys(agent: Agent) -> list[str]:
    """Return the SSH host keys."""
    directory = agent.config.text("OS.SshDir") or "/etc/ssh"
    return emptying.matches(agent.paths, [os.path.join(directory, "ssh_host_*key*")])


def leases(agent: Agent) -> list[str]:
    """Return cached DHCP leases, of a directory the first few."""
    found = emptying.matches(agent.paths, LEASE_FILES)
    for directory in LEASE_DIRECTORIES:
        found += emptying.remaining(agent.paths.at(directory))
    return found


def delete_leases(agent: Agent) -> None:
    """Delete cached DHCP leases; what is mounted in their directories stays.

    Raises:
        AgentError: some cannot be deleted; the others are.
    """
    outcome = emptying.Outcome()
    for directory in LEASE_DIRECTORIES:
        part = emptying.empty(agent.paths.at(directory))
        outcome.failed += part.failed
        for kept in part.kept:
            agent.log.info(f"{kept} stays: something is mounted there")
    emptying.unlink(emptying.matches(agent.paths, LEASE_FILES))
    outcome.check()


def unit_directories(agent: Agent) -> list[str]:
    """Return where units lie that an agent wrote while it ran, former ones in the packages' own directory."""
    places = [agent.distro.unit_directory(), *map(agent.paths.at, _OLD_UNIT_DIRECTORIES)]
    return list({os.path.realpath(place): place for place in reversed(places)}.values())[::-1]


def units(agent: Agent) -> list[str]:
    """Return the units that set up the firewall at boot: what they would read is in the state directory.

    One in the packages' directory counts only if it is of an agent that wrote it there itself.
    """
    own, *others = unit_directories(agent)
    script = agent.paths.lib("waagent-network-setup.py")
    old = [f"{service}-network-setup.service" for service in services(agent)]
    found = [os.path.join(own, name) for name in (*old, _FIREWALL_UNIT)]
    written = os.path.basename(script)
    found += [
        path for place in others for path in (os.path.join(place, name) for name in old) if written in _text(path)
    ]
    found += [script, *emptying.matches(agent.paths, _links(agent, own, (*old, _FIREWALL_UNIT)))]
    return [path for path in found if os.path.lexists(path)]


def drop_ins(agent: Agent) -> list[str]:
    """Return the drop-ins that an agent wrote for its own service, and its log collector's slice."""
    found = []
    for place in unit_directories(agent):
        for service in services(agent):
            found += [os.path.join(place, f"{service}.service.d", name) for name in DROP_IN_NAMES]
        found.append(os.path.join(place, COLLECTOR_SLICE))
    return [path for path in found if os.path.lexists(path)]


def machine_id(agent: Agent) -> list[str]:
    """Return the file that tells this installation from others."""
    path = agent.paths.at("/etc/machine-id")
    return [path] if os.path.lexists(path) else []


def uid(agent: Agent, name: str) -> int | None:
    """Return the number of the user *name* in the password file, ``None`` for one that is not there."""
    for line in _text(agent.paths.at("/etc/passwd"), _ACCOUNTS_LIMIT).split("\n"):
        fields = line.split(":")
        if len(fields) == 7 and fields[0] == name and fields[2].isdigit():
            return int(fields[2])
    return None


def refresh_backups(agent: Agent) -> None:
    """Give the backups of the account files what these hold now: a deleted user and an old password are still in them.

    They are written in place, so that owner, mode and security label stay.

    Raises:
        AgentError: some cannot be written; the others are.
    """
    failed = []
    for name in ACCOUNT_FILES:
        path = agent.paths.at(f"/etc/{name}")
        try:
            present = read_limited(path, _ACCOUNTS_LIMIT)
            descriptor = os.open(path + "-", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except (OSError, StateError) as problem:
            failed.append(f"{path}-: {getattr(problem, 'strerror', None) or problem}")
            continue
        with open(descriptor, "r+b") as stream:
            if stream.read(len(present) + 1) != present:
                stream.seek(0)
                stream.write(present)
                stream.truncate()
                stream.flush()
                os.fsync(stream.fileno())
    if failed:
        raise AgentError("; ".join(failed))


def services(agent: Agent) -> list[str]:
    """Return what the service is called here, and what a former agent may have called it."""
    return list(dict.fromkeys([str(agent.distro.service_name()), *_SERVICE_NAMES]))


def _links(agent: Agent, directory: str, names: Sequence[str]) -> list[str]:
    root = agent.paths.root
    inner = "/" + os.path.relpath(directory, root) if root != "/" else directory
    return [os.path.join(inner, pattern, name) for pattern in ("*.wants", "*.requires") for name in names]


def _text(path: str, limit: int = 1 << 20) -> str:
    try:
        return read_limited(path, limit).decode("utf-8", "replace")
    except (OSError, StateError):
        return ""
