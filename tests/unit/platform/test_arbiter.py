"""The arbitration tables of wireserver §15.2 to §15.5, row by row."""

from __future__ import annotations

from typing import Any

import pytest

from waagent.platform import arbiter
from waagent.platform.goalstate import GoalStateDocument
from waagent.platform.models import (
    MINIMUM_TIMESTAMP,
    CertificateInfo,
    ExtensionSettings,
    ExtensionsGoalState,
    GoalState,
    Handler,
)
from waagent.platform.vmsettings import VmSettings


def at(day: int, id_: str, source: str = "Fabric", **changes: Any) -> ExtensionsGoalState:
    channel = "WireServer" if source == "Fabric" else "HostGAPlugin"
    created = f"2026-01-{day:02}T00:00:00.000000Z" if day else MINIMUM_TIMESTAMP
    return ExtensionsGoalState(id=id_, channel=channel, source=source, sequence=1, created=created, **changes)


def vm(extensions: ExtensionsGoalState, source: str = "FastTrack") -> VmSettings:
    return VmSettings(host_plugin_version="1.0.8.175", source=source, extensions=extensions, etag="e")


OLD_FABRIC = at(2, "incarnation_1")
OLD_FAST = at(2, "etag_1", "FastTrack")


@pytest.mark.parametrize(
    ("adopted", "extensions_config", "settings", "expected"),
    [
        # nothing adopted yet
        (None, at(3, "incarnation_1"), None, "incarnation_1"),
        (None, at(3, "incarnation_1"), at(4, "etag_1", "FastTrack"), "etag_1"),
        (None, at(3, "incarnation_1"), at(2, "etag_1", "FastTrack"), "incarnation_1"),
        (None, at(3, "incarnation_1"), at(3, "etag_1", "FastTrack"), "incarnation_1"),
        (None, at(0, "incarnation_1"), at(0, "etag_1", "FastTrack"), "incarnation_1"),
        # no fabric change, new fast track
        (OLD_FABRIC, None, at(3, "etag_2", "FastTrack"), "etag_2"),
        (OLD_FABRIC, None, at(2, "etag_2", "FastTrack"), "etag_2"),
        (OLD_FABRIC, None, at(1, "etag_2", "FastTrack"), "incarnation_1"),
        (OLD_FAST, None, at(3, "etag_2", "FastTrack"), "etag_2"),
        (OLD_FAST, None, at(1, "etag_2", "FastTrack"), "etag_1"),
        # new incarnation, no fast track
        (OLD_FABRIC, at(3, "incarnation_2"), None, "incarnation_2"),
        (OLD_FABRIC, at(2, "incarnation_2"), None, "incarnation_2"),
        (OLD_FABRIC, at(1, "incarnation_2"), None, "incarnation_1"),
        (OLD_FAST, at(1, "incarnation_2"), None, "etag_1"),
        (OLD_FAST, at(3, "incarnation_2"), None, "incarnation_2"),
        (OLD_FABRIC, at(0, "incarnation_2"), None, "incarnation_1"),
        # new incarnation, fast track newer: certificate rotation, the id stays
        (OLD_FAST, at(1, "incarnation_2"), OLD_FAST, "etag_1"),
        (OLD_FABRIC, at(3, "incarnation_2"), at(4, "etag_2", "FastTrack"), "etag_2"),
        # new incarnation, fast track older or equal
        (OLD_FAST, at(3, "incarnation_2"), OLD_FAST, "incarnation_2"),
        (OLD_FAST, at(2, "incarnation_2"), OLD_FAST, "incarnation_2"),
        # a source that says nothing of itself counts like fast track
        (OLD_FABRIC, None, at(3, "etag_2", "UNKNOWN"), "etag_2"),
    ],
)
def test_which_goal_state_is_adopted(
    adopted: ExtensionsGoalState | None,
    extensions_config: ExtensionsGoalState | None,
    settings: ExtensionsGoalState | None,
    expected: str,
) -> None:
    assert arbiter.choose(adopted, extensions_config, settings).id == expected


@pytest.mark.parametrize(
    ("fabric_new", "settings", "done", "full", "takes_part", "nothing"),
    [
        (False, None, None, False, False, True),
        (False, vm(OLD_FAST), "etag_1", False, True, True),
        (False, vm(OLD_FAST), "etag_0", False, True, False),
        (False, vm(OLD_FAST), None, False, True, False),
        (False, vm(OLD_FAST, "Fabric"), None, False, False, True),
        (False, vm(OLD_FAST, "UNKNOWN"), None, False, True, False),
        (True, None, None, True, False, False),
        (True, vm(OLD_FAST), "etag_1", True, True, False),
        (True, vm(OLD_FAST, "Fabric"), None, True, False, False),
    ],
)
def test_what_an_update_has_to_do(
    fabric_new: bool, settings: VmSettings | None, done: str | None, full: bool, takes_part: bool, nothing: bool
) -> None:
    need = arbiter.need(fabric_new, settings, done)
    assert (need.full, need.vm is not None, need.nothing) == (full, takes_part, nothing)


def document(incarnation: str | None = "1", container: str = "c", role: str = "r") -> GoalStateDocument:
    return GoalStateDocument(incarnation, container, role, "x.y", "http://h/1", "http://h/2")


ADOPTED = GoalState("1", "c", "r", "x.y", OLD_FABRIC)


@pytest.mark.parametrize(
    ("adopted", "seen", "force", "new"),
    [
        (None, document(), False, True),
        (ADOPTED, document(), False, False),
        (ADOPTED, document(), True, True),
        (ADOPTED, document("2"), False, True),
        (ADOPTED, document("0"), False, True),
        (ADOPTED, document(None), False, True),
        (ADOPTED, document(container="other"), False, True),
        (ADOPTED, document(role="other"), False, True),
    ],
)
def test_when_the_fabric_is_new(adopted: GoalState | None, seen: GoalStateDocument, force: bool, new: bool) -> None:
    assert arbiter.fabric_is_new(adopted, seen, force) is new


@pytest.mark.parametrize(
    ("created", "fast_track", "outdated"),
    [
        (1, "2026-01-02T00:00:00.000000Z", True),
        (2, "2026-01-02T00:00:00.000000Z", False),
        # the former agent's file is off by some microseconds
        (2, "2026-01-02T00:00:00.000008Z", False),
        (2, "2026-01-02T00:00:00.001000Z", True),
        (3, "2026-01-02T00:00:00.000000Z", False),
        (1, MINIMUM_TIMESTAMP, False),
        (0, "2026-01-02T00:00:00.000000Z", True),
    ],
)
def test_when_support_stops(created: int, fast_track: str, outdated: bool) -> None:
    found = arbiter.after_support_stopped(at(created, "incarnation_1"), fast_track)
    assert (found.outdated, found.id) == (outdated, "incarnation_1")


def with_settings(*settings: ExtensionSettings, source: str = "FastTrack") -> ExtensionsGoalState:
    return at(1, "etag_1", source, handlers=(Handler("A.B", "1.0", extensions=settings),))


@pytest.mark.parametrize(
    ("settings", "known", "missing"),
    [
        ((), (), ()),
        ((ExtensionSettings("a", 1),), (), ()),
        ((ExtensionSettings("a", 1, protected="x", thumbprint="AA"),), ("AA",), ()),
        ((ExtensionSettings("a", 1, protected="x", thumbprint="aa"),), ("AA",), ()),
        ((ExtensionSettings("a", 1, protected="x", thumbprint="AA"),), ("BB",), ("AA",)),
        ((ExtensionSettings("a", 1, thumbprint="AA"),), (), ()),
        (
            (
                ExtensionSettings("a", 1, protected="x", thumbprint="CC"),
                ExtensionSettings("b", 1, protected="x", thumbprint="AA"),
                ExtensionSettings("c", 1, protected="x", thumbprint="AA"),
            ),
            (),
            ("AA", "CC"),
        ),
    ],
)
def test_missing_certificates(
    settings: tuple[ExtensionSettings, ...], known: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    certificates = tuple(CertificateInfo(name, True) for name in known)
    assert arbiter.missing_certificates(with_settings(*settings), certificates) == missing


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        (at(1, "etag_1", "FastTrack"), None, True),
        (at(1, "etag_1", "FastTrack"), at(1, "incarnation_1"), True),
        (at(1, "etag_2", "FastTrack"), at(1, "etag_1", "FastTrack"), True),
        (at(1, "etag_1", "FastTrack"), at(1, "etag_1", "FastTrack"), False),
        (at(1, "incarnation_1"), None, False),
    ],
)
def test_when_consistency_is_checked(
    now: ExtensionsGoalState, before: ExtensionsGoalState | None, expected: bool
) -> None:
    assert arbiter.must_be_consistent(now, before) is expected
