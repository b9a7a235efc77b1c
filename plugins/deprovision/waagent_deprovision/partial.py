"""The clean-up when this disk turns out to be in another machine: no questions asked, at boot (cli §5.3)."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from waagent import Plan, StateError, Step, read_json
from waagent_deprovision import emptying, leftovers

if TYPE_CHECKING:
    from waagent import Agent

STATE_FILES = (
    "HostingEnvironmentConfig.xml",
    "Incarnation",
    "partition",
    "Protocol",
    "SharedConfig.xml",
    "WireServerEndpoint",
    "published_hostname",
    "fast_track.json",
    "initial_goal_state",
    "waagent_rsm_update",
    "waagent_initial_update",
    "Extensions.*.xml",
    "ExtensionsConfig.*.xml",
    "GoalState.*.xml",
)
"""Below the state directory."""

HANDLER_FILES = ("status/*.status", "config/*.settings", "config/HandlerStatus", "mrseq")
"""Below a handler's directory: what would keep this machine's settings from being executed. Its state stays."""

KEY_RECORD = "transport-key.json"
KEY_FILES = ("TransportPrivate.pem", "TransportCert.pem", KEY_RECORD)

_HANDLER = re.compile(r".+-\d[\w.]*\Z")
_AGENTS = "WALinuxAgent-"


def plan(agent: Agent, old: str, new: str) -> Plan:
    """Return the plan for a machine that was *old* and is *new*; both are unique ids."""

    def files(names: Sequence[str]) -> list[str]:
        inner = "/" + os.path.relpath(agent.paths.lib_dir, agent.paths.root)
        return emptying.matches(agent.paths, [os.path.join(inner, name) for name in names])

    def keys() -> list[str]:
        """The transport key of another machine; one that was made for this one already stays."""
        return files(KEY_FILES) if is_of_another(_key_owner(agent), new) else []

    table: dict[str, tuple[str, Callable[[], Sequence[str]], Callable[[], None]]] = {
        "leases": (
            "delete cached DHCP leases",
            lambda: leftovers.leases(agent),
            lambda: leftovers.delete_leases(agent),
        ),
        "network units": (
            "delete units that set up the firewall",
            lambda: leftovers.units(agent),
            lambda: emptying.unlink(leftovers.units(agent)),
        ),
        "service drop-ins": (
            "delete drop-ins of the service",
            lambda: leftovers.drop_ins(agent),
            lambda: emptying.unlink(leftovers.drop_ins(agent)),
        ),
        "state files": (
            "delete what the platform told the other machine",
            lambda: files(STATE_FILES),
            lambda: emptying.unlink(files(STATE_FILES)),
        ),
        # The extensions plugin does the same; it may be off here and on again on the next machine.
        "handler files": (
            "delete status, settings and sequence numbers that extensions kept of the other machine",
            lambda: handler_files(agent),
            lambda: emptying.unlink(handler_files(agent)),
        ),
        "transport key": ("delete the other machine's transport key", keys, lambda: emptying.unlink(keys())),
    }

    def probe() -> dict[str, Any]:
        return {name: bool(left()) for name, (_summary, left, _run) in table.items()}

    def missing(facts: Mapping[str, Any]) -> list[Step]:
        return [
            Step(name, summary, run, gives={name: False}, optional=True)
            for name, (summary, _left, run) in table.items()
            if facts[name]
        ]

    return Plan(f"clean-up after {old}", probe, missing)


def handler_files(agent: Agent) -> list[str]:
    """Return what extensions kept of one machine; links are not followed, strangers' directories are left alone."""
    lib_dir = os.path.realpath(agent.paths.lib_dir)
    found = []
    for name in sorted(os.listdir(lib_dir)) if os.path.isdir(lib_dir) else ():
        base = os.path.join(lib_dir, name)
        marks = (os.path.join(base, "HandlerEnvironment.json"), os.path.join(base, "config", "HandlerState"))
        if _HANDLER.match(name) and not name.startswith(_AGENTS) and any(map(os.path.isfile, marks)):
            inner = "/" + os.path.relpath(base, os.path.realpath(agent.paths.root))
            paths = emptying.matches(agent.paths, [os.path.join(glob.escape(inner), one) for one in HANDLER_FILES])
            found += [
                path
                for path in paths
                if os.path.join(os.path.realpath(os.path.dirname(path)), "").startswith(base + "/")
            ]
    return found


def is_of_another(owner: str, machine: str) -> bool:
    """Return whether *owner*, a unique id, is known and neither *machine* nor *machine* with its bytes swapped."""
    known = owner.strip().upper()
    return bool(known) and known not in (machine.strip().upper(), _swapped(machine.strip().upper()))


def _swapped(identity: str) -> str:
    """Return an id with the byte order of its first three groups reversed (provisioning §12)."""
    groups = identity.split("-")
    if len(groups) != 5:
        return identity
    turned = ["".join(reversed([group[i : i + 2] for i in range(0, len(group), 2)])) for group in groups[:3]]
    return "-".join([*turned, *groups[3:]])


def _key_owner(agent: Agent) -> str:
    try:
        content = read_json(agent.paths.lib(KEY_RECORD), 64 << 10)
    except StateError:
        return ""
    owner = content.get("vmId") if isinstance(content, dict) else None
    return owner if isinstance(owner, str) else ""
