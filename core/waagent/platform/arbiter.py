"""Which goal state counts: the decisions of wireserver §15.2 to §15.5 as pure functions.

Two channels say what the machine should be: the fabric (GoalState and its ExtensionsConfig) and fast track
(vmSettings). Nothing here talks to anybody; :mod:`waagent.platform.goalstates` does what is decided.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from waagent.platform import ticks
from waagent.platform.goalstate import GoalStateDocument
from waagent.platform.models import CertificateInfo, ExtensionsGoalState, GoalState
from waagent.platform.vmsettings import VmSettings

FABRIC = "Fabric"
FAST_TRACK = "FastTrack"


@attrs.frozen(eq=False, repr=False)
class Need:
    """What an update has to do (steps 3 and 4).

    Attributes:
        full: fetch all parts of the fabric goal state.
        vm: the vmSettings that take part, ``None`` when there are none or they came from the fabric.
        vm_is_new: whether they are new.
    """

    full: bool
    vm: ExtensionsGoalState | None
    vm_is_new: bool

    @property
    def nothing(self) -> bool:
        """Whether the update ends here."""
        return not self.full and not self.vm_is_new


def fabric_is_new(adopted: GoalState | None, seen: GoalStateDocument, force: bool) -> bool:
    """Whether the fabric's goal state has to be fetched as a whole.

    A new incarnation says so; so does another container or role instance under the same one: the machine was allocated
    anew and its certificates are others (DIFF-10).
    """
    if force or adopted is None:
        return True
    return (adopted.incarnation, adopted.container_id, adopted.role_instance_id) != (
        seen.incarnation,
        seen.container_id,
        seen.role_instance_id,
    )


def need(fabric_new: bool, vm: VmSettings | None, done: str | None) -> Need:
    """Return what there is to do.

    Args:
        fabric_new: see :func:`fabric_is_new`.
        vm: what the host plugin serves, ``None`` when nothing.
        done: id of the vmSettings that the last complete update took into account.
    """
    if vm is None or vm.source == FABRIC:
        return Need(fabric_new, None, False)
    return Need(fabric_new, vm.extensions, vm.extensions.id != done)


def choose(
    adopted: ExtensionsGoalState | None,
    extensions_config: ExtensionsGoalState | None,
    vm: ExtensionsGoalState | None,
) -> ExtensionsGoalState:
    """Return the extension goal state to adopt (steps 7 and 8).

    Args:
        adopted: the present one.
        extensions_config: of the fabric, when it was fetched in this update.
        vm: that take part in this update, new or cached.

    The newer of the two is the candidate, ExtensionsConfig in a tie. It is adopted unless the present one is newer.
    """
    if extensions_config is not None and (vm is None or vm.created <= extensions_config.created):
        candidate: ExtensionsGoalState | None = extensions_config
    else:
        candidate = vm
    if candidate is None or (adopted is not None and candidate.created < adopted.created):
        assert adopted is not None
        return adopted
    return candidate


def after_support_stopped(extensions_config: ExtensionsGoalState, fast_track: str) -> ExtensionsGoalState:
    """Return what is adopted when the host plugin no longer serves vmSettings (§15.5).

    Args:
        extensions_config: of the fabric, adopted whatever it is.
        fast_track: created-on of the last fast-track goal state.

    An older one is marked outdated: it is reported, not executed.
    """
    return attrs.evolve(extensions_config, outdated=ticks.is_older(extensions_config.created, fast_track))


def missing_certificates(extensions: ExtensionsGoalState, certificates: Iterable[CertificateInfo]) -> tuple[str, ...]:
    """Return the thumbprints that protected settings name and the certificates do not have, sorted (§15.3)."""
    known = {item.thumbprint.upper() for item in certificates}
    wanted = {
        settings.thumbprint.upper()
        for handler in extensions.handlers
        for settings in handler.extensions
        if settings.protected and settings.thumbprint
    }
    return tuple(sorted(wanted - known))


def must_be_consistent(extensions: ExtensionsGoalState, before: ExtensionsGoalState | None) -> bool:
    """Whether an update adopted a new fast-track goal state, whose certificates come over the other channel (§15.3)."""
    return extensions.source == FAST_TRACK and (before is None or before.id != extensions.id)
