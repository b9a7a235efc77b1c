"""What an image builder may ask for beyond what is documented: ``Deprovision.Also`` (ruling 45, provisioning §18.6)."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from waagent import AgentError, NotOnThisRoot, StateError, read_limited, write_atomic
from waagent_deprovision import emptying

if TYPE_CHECKING:
    from waagent import Agent

    Extra = tuple[Callable[[], Sequence[str]], Callable[[], None], str]

_HISTORIES = (".bash_history", ".zsh_history", ".ash_history", ".sh_history", ".python_history")
_CLEAN = ("cloud-init", "clean", "--logs")
_NO_SUCH_COMMAND = 127
_CLOUD_DISK = "/dev/disk/cloud/azure_resource"
_FILES = {
    "rotated-logs": ("/var/log/waagent.log.*", "/var/log/waagent.log-*"),
    "network-manager": ("/var/lib/NetworkManager/internal-*.lease",),
    "sudoers": ("/etc/sudoers.d/90-cloud-init-users",),
}
_SUMMARIES = {
    "machine-id": "empty /etc/machine-id",
    "cloud-init": f"run `{' '.join(_CLEAN)}`",
    "histories": "delete shell histories",
    "rotated-logs": "delete rotated logs of the agent",
    "network-manager": "delete NetworkManager's internal leases",
    "sudoers": "delete /etc/sudoers.d/90-cloud-init-users",
    "fstab": "delete the resource disk's entry in /etc/fstab",
}


def removal_of(agent: Agent, word: str) -> Extra:
    """Return for one word of the option: what is there to be removed, what removes it, and that for people."""
    summary = _SUMMARIES[word]
    if word == "machine-id":
        return lambda: _machine_ids(agent), lambda: _empty_machine_ids(agent), summary
    if word == "cloud-init":
        return tuple, lambda: _clean_cloud_init(agent), summary
    if word == "fstab":
        return lambda: _fstab(agent)[1], lambda: _write_fstab(agent), summary

    def find() -> list[str]:
        return _histories(agent) if word == "histories" else emptying.matches(agent.paths, _FILES[word])

    return find, lambda: emptying.unlink(find()), summary


def _machine_ids(agent: Agent) -> list[str]:
    places = [agent.paths.at(path) for path in ("/etc/machine-id", "/var/lib/dbus/machine-id")]
    return [path for path in places if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path)]


def _empty_machine_ids(agent: Agent) -> None:
    for path in _machine_ids(agent):
        if path.endswith("/etc/machine-id"):
            # Empty, not absent: then systemd makes a new one, on a read-only root too.
            os.truncate(path, 0)
        else:
            emptying.unlink([path])


def _clean_cloud_init(agent: Agent) -> None:
    if not agent.paths.is_real:
        raise NotOnThisRoot(f"`{' '.join(_CLEAN)}` acts on the machine itself")
    done = agent.run(_CLEAN, timeout=120)
    if not done.ok and done.returncode != _NO_SUCH_COMMAND:
        raise AgentError(done.describe())


def _histories(agent: Agent) -> list[str]:
    homes = agent.config.text("OS.HomeDir") or "/home"
    places = [os.path.join(place, name) for place in ("/root", os.path.join(homes, "*")) for name in _HISTORIES]
    return emptying.matches(agent.paths, places)


def _fstab(agent: Agent) -> tuple[str, list[str]]:
    """Return ``/etc/fstab`` without the resource disk, and the lines that go."""
    try:
        text = read_limited(agent.paths.at("/etc/fstab"), 1 << 20).decode("utf-8", "surrogateescape")
    except (OSError, StateError):
        return "", []
    mount_point = agent.config.text("ResourceDisk.MountPoint") or "/mnt/resource"
    kept: list[str] = []
    gone: list[str] = []
    for line in text.splitlines(keepends=True):
        words = line.split()
        ours = len(words) > 1 and not words[0].startswith("#")
        ours = ours and (words[0].startswith(_CLOUD_DISK) or words[1].rstrip("/") == mount_point.rstrip("/"))
        (gone if ours else kept).append(line)
    return "".join(kept), gone


def _write_fstab(agent: Agent) -> None:
    text, gone = _fstab(agent)
    if gone:
        path = agent.paths.at("/etc/fstab")
        mode = stat.S_IMODE(os.stat(path).st_mode)
        write_atomic(path, text.encode("utf-8", "surrogateescape"), mode)
