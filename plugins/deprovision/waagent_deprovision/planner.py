"""Which actions a deprovision has, in which order, and what each warns of (cli §5.2). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SERVICE = "service"
HOST_KEYS = "host keys"
LEASES = "leases"
HOST_NAME = "host name"
ROOT_PASSWORD = "root password"  # noqa: S105 - the name of an action
RESOLVER = "resolver"
USER = "user"
STATE = "state directory"
LOGS = "logs"
UNITS = "network units"
DROP_INS = "service drop-ins"
MACHINE_ID = "machine id"

EXTRAS = {
    "machine-id": "/etc/machine-id will be emptied.",
    "cloud-init": "The state and the logs of cloud-init will be deleted: it runs anew at the next start.",
    "histories": "The shell histories of root and of every user will be deleted.",
    "rotated-logs": "Rotated logs of the agent will be deleted.",
    "network-manager": "The internal DHCP leases of NetworkManager will be deleted.",
    "sudoers": "/etc/sudoers.d/90-cloud-init-users will be deleted: its users can become root no more.",
    "fstab": "The resource disk's entry in /etc/fstab will be deleted.",
}
"""What is asked for with ``Deprovision.Also``, with its warning (ruling 45)."""

_NO_OVF = {
    "missing": "ovf-env.xml is not found.\nSkip delete user.",
    "unreadable": "ovf-env.xml cannot be read.\nSkip delete user.",
}
_DROPS_MACHINE_ID = ("arch", "flatcar", "coreos")


def actions(facts: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Return every action that is to be done in any case, in order, each with its warning.

    The user goes before the state directory that names it, and the resolver's file before both, so that the warnings
    come in the order of cli §5.2.

    Args:
        facts: ``host_keys``, ``root_password`` (options), ``resolver`` (files), ``resolver_stays`` (files that are left
            alone, which is told), ``delete_user``, ``users`` (names), ``ovf`` (``read``, ``missing``, ``unreadable``),
            ``distribution`` (its ID), ``also`` (words of ``Deprovision.Also``).
    """
    found: list[tuple[str, str | None]] = [(SERVICE, "The waagent service will be stopped.")]
    if facts["host_keys"]:
        found.append((HOST_KEYS, "All SSH host key pairs will be deleted."))
    found.append((LEASES, "Cached DHCP leases will be deleted."))
    found.append((HOST_NAME, None))
    if facts["root_password"]:
        warning = "root password will be disabled. You will not be able to login as root."
        found.append((ROOT_PASSWORD, warning))
    if facts["resolver"]:
        found.append((RESOLVER, "\n".join(f"{path} will be deleted." for path in facts["resolver"])))
    # Warnings of what is not done are shown with the next action.
    left_out = [f"{path} will not be deleted." for path in facts["resolver_stays"]]
    if facts["delete_user"]:
        for name in facts["users"]:
            warning = f"{name} account and entire home directory will be deleted."
            found.append((f"{USER} {name}", "\n".join([*left_out, warning])))
            left_out = []
        if not facts["users"]:
            left_out.append(_NO_OVF.get(facts["ovf"], _NO_OVF["unreadable"]))
    found.append((STATE, "\n".join(left_out) or None))
    found += [(LOGS, None), (UNITS, None), (DROP_INS, None)]
    if facts["distribution"] in _DROPS_MACHINE_ID:
        found.append((MACHINE_ID, "/etc/machine-id will be removed."))
    also = [word for word in EXTRAS if word in facts["also"]]
    if facts["distribution"] in _DROPS_MACHINE_ID and "machine-id" in also:
        also.remove("machine-id")
    found += [(word, EXTRAS[word]) for word in also]
    return found


def unknown(words: Iterable[str]) -> list[str]:
    """Return the words of ``Deprovision.Also`` that nobody knows."""
    return [word for word in words if word not in EXTRAS]
