"""Facts to missing steps: pure tables, one for each way of provisioning (architecture §5; provisioning §6, §13, §14).

Facts are a mapping: ``mode``, ``problem``, ``marker`` (its content, ``None`` when it is absent), ``vm_id``, ``open``
(provisioning was begun by us and something is left after the marker), ``wanted`` (a :class:`Wanted`, ``None`` before
the document was read), the options by name, and for each step whether it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from waagent_provisioning.modes import CLOUD_INIT, DISABLED, OURS

Facts = Mapping[str, Any]


@attrs.frozen
class Wanted:
    """What the provisioning document asks for, as far as it decides about steps."""

    password: bool = False
    public_keys: bool = False
    key_pairs: bool = False
    custom_data: bool = False


TYPICAL = Wanted(public_keys=True)
"""What a dry run supposes of a document that nobody has read yet."""


def _always(facts: Facts) -> bool:
    return True


def _asked(name: str) -> Callable[[Facts], bool]:
    return lambda facts: bool(getattr(facts["wanted"], name))


def _option(name: str) -> Callable[[Facts], bool]:
    return lambda facts: bool(facts[name])


def _runs_custom_data(facts: Facts) -> bool:
    return bool(facts["wanted"].custom_data and facts["execute_custom_data"])


FIRST = "medium"
"""The step that reads the document; nothing else can be said before."""

OURS_STEPS: tuple[tuple[str, Callable[[Facts], bool]], ...] = (
    # The network is touched only when the owner can log in already, and custom data sees the final keys (§6).
    ("starting", _always),
    ("host-name", _always),
    ("user", _always),
    ("password", _asked("password")),
    ("sudo", _always),
    ("sshd", _always),
    ("public-keys", _asked("public_keys")),
    ("key-pairs", _asked("key_pairs")),
    ("root-password", _option("delete_root_password")),
    ("host-keys", _option("regenerate_host_keys")),
    ("restart-ssh", _always),
    ("publish", _always),
    ("custom-data", _asked("custom_data")),
    ("run-custom-data", _runs_custom_data),
    ("marker", _always),
)
AFTER_MARKER = ("guest-agent", "eject")
CLOUD_INIT_STEPS = ("wait-document", "guest-agent", "starting", "wait-host-key", "marker")


def missing(facts: Facts) -> tuple[str, ...]:
    """Return the names of the steps that are missing, in their order; none when the machine is provisioned."""
    if facts["marker"] is not None:
        named = () if facts["marker"] or not facts["vm_id"] else ("marker",)
        left = AFTER_MARKER if facts["open"] else ()
        return named + tuple(name for name in left if not facts[name])
    if facts["problem"]:
        return ("refuse",)
    if facts["mode"] == DISABLED:
        return ("marker",)
    if facts["mode"] == CLOUD_INIT:
        return tuple(name for name in CLOUD_INIT_STEPS if not facts[name])
    assert facts["mode"] == OURS, facts["mode"]
    if not facts[FIRST] or facts["wanted"] is None:
        return (FIRST,)
    return tuple(name for name, wanted in OURS_STEPS if wanted(facts) and not facts[name])


def missing_reports(facts: Facts) -> tuple[str, ...]:
    """Return the names of the reports that the platform has not got yet.

    Args:
        facts: ``owed``: a report is owed; ``fingerprint``: of a new host key, untold.
    """
    return tuple(name for name in ("report", "fingerprint") if facts[name])
