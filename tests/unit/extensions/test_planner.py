"""The tables of extensions §10: each row what is wanted and what is there, and which steps are missing."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent_extensions import planner
from waagent_extensions.planner import Facts, Other, Ran
from waagent_extensions.records import ENABLED, FAILED_UPGRADE, INSTALLED, NOT_INSTALLED


def facts(requested: str = "enabled", **more: Any) -> Facts:
    given: dict[str, Any] = {"wanted": requested, "extension": None, "version": "2.0", **more}
    return Facts(requested=requested, **given)


def steps(given: Facts) -> str:
    return " ".join(action.name for action in planner.plan(given))


def commands(given: Facts) -> list[tuple[str, str, str | None]]:
    return [
        (action.operation, action.version, action.extension)
        for action in planner.plan(given)
        if action.kind == "command"
    ]


OLD = Other("1.0", ENABLED)
NEW = Other("3.0", ENABLED, newer=True)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # §10.2
        (facts(), "fetch settings install mark-installed enable mark-enabled"),
        (facts(state=FAILED_UPGRADE), "reset fetch settings install mark-installed enable mark-enabled"),
        (facts(state=INSTALLED), "settings enable mark-enabled"),
        (facts(state=ENABLED), "settings enable mark-enabled"),
        (facts(state=ENABLED, leftovers=("1.0",)), "settings enable mark-enabled tidy"),
        # §10.4
        (
            facts(other=OLD, leftovers=("1.0",)),
            (
                "fetch settings disable-old mark-old-disabled carry update uninstall-old remove-old install "
                "mark-installed enable mark-enabled tidy"
            ),
        ),
        (
            facts(other=OLD, update_with_install=False),
            (
                "fetch settings disable-old mark-old-disabled carry update uninstall-old remove-old mark-installed "
                "enable mark-enabled"
            ),
        ),
        (
            facts(other=Other("1.0", INSTALLED), state=FAILED_UPGRADE),
            "reset fetch settings carry update uninstall-old remove-old install mark-installed enable mark-enabled",
        ),
        (
            facts(other=NEW),
            (
                "fetch settings disable-old mark-old-disabled carry update uninstall-old remove-old install "
                "mark-installed enable mark-enabled"
            ),
        ),
        # §10.3
        (facts("uninstall", state=ENABLED, present=True), "disable mark-disabled uninstall remove"),
        (facts("uninstall", state=INSTALLED, present=True), "uninstall remove"),
        (facts("uninstall", state=FAILED_UPGRADE, present=True), "uninstall remove"),
        (facts("uninstall", state=NOT_INSTALLED, present=True), "remove"),
        (facts("uninstall", state=NOT_INSTALLED), ""),
        (facts("disabled", state=ENABLED), "disable mark-disabled"),
        (facts("disabled", state=INSTALLED), ""),
        (facts("disabled", state=NOT_INSTALLED), ""),
        (facts("disabled", state=FAILED_UPGRADE), ""),
        # §10.5
        (facts(extension="jobA", state=ENABLED), "settings enable mark-enabled"),
        (facts(extension="jobA", recorded="disabled", state=INSTALLED), "settings enable mark-enabled"),
        (
            facts(extension="jobA", wanted="disabled", recorded="enabled", state=ENABLED),
            "settings disable forget-extension",
        ),
        (facts(extension="jobA", wanted="disabled", recorded="disabled", state=ENABLED), "forget-extension"),
        (facts(extension="jobA", wanted="disabled", state=ENABLED), ""),
        (facts(extension="jobA", wanted="disabled"), "fetch install mark-installed"),
        # §10.6: once per handler, disable per extension
        (
            facts(extension="jobA", other=Other("1.0", ENABLED, ("jobA", "jobB"))),
            (
                "fetch settings disable-old:jobA disable-old:jobB mark-old-disabled carry update uninstall-old "
                "remove-old install mark-installed enable mark-enabled"
            ),
        ),
        (
            facts("uninstall", extension="jobA", enabled=("jobA", "jobB"), state=ENABLED, present=True),
            "disable:jobA disable:jobB mark-disabled uninstall remove",
        ),
    ],
)
def test_rows(given: Facts, expected: str) -> None:
    assert steps(given) == expected


def test_an_upgrade_runs_the_new_update_command_and_a_downgrade_the_old_one() -> None:
    assert commands(facts(other=OLD)) == [
        ("disable", "1.0", None),
        ("update", "2.0", None),
        ("uninstall", "1.0", None),
        ("install", "2.0", None),
        ("enable", "2.0", None),
    ]
    assert commands(facts(other=NEW)) == [
        ("disable", "3.0", None),
        ("update", "3.0", None),
        ("uninstall", "3.0", None),
        ("install", "2.0", None),
        ("enable", "2.0", None),
    ]


def test_single_config_does_not_look_at_an_extension_record() -> None:
    assert steps(facts(state=ENABLED, recorded="disabled")) == "settings enable mark-enabled"


@pytest.mark.parametrize("requested", ["", "Enabled", "reinstall"])
def test_an_unknown_request_is_an_error(requested: str) -> None:
    with pytest.raises(planner.NoRow):
        planner.plan(facts(requested))


def test_an_unknown_request_for_an_extension_is_an_error() -> None:
    with pytest.raises(planner.NoRow):
        planner.plan(facts(extension="jobA", wanted="paused", state=ENABLED))


FAILED = Ran(False, "7")
UPDATING = facts(other=OLD, done=frozenset({"fetch", "settings"}))
CARRYING = "carry update uninstall-old remove-old install mark-installed enable mark-enabled"


@pytest.mark.parametrize(
    ("operation", "version", "keeps_going", "expected"),
    [
        # Without the flag the step stays open: it ends the work, and nothing after it happens.
        ("disable", "1.0", False, "disable-old mark-old-disabled " + CARRYING),
        ("uninstall", "1.0", False, "uninstall-old remove-old install mark-installed enable mark-enabled"),
        # With it a failed disable is passed over, and the old version's record stays as it is.
        ("disable", "1.0", True, CARRYING),
        ("uninstall", "1.0", True, "remove-old install mark-installed enable mark-enabled"),
        # Of the new version nothing may fail.
        ("update", "2.0", True, "update uninstall-old remove-old install mark-installed enable mark-enabled"),
        ("update", "2.0", False, "update uninstall-old remove-old install mark-installed enable mark-enabled"),
    ],
)
def test_what_a_failed_command_of_an_update_leaves_to_do(
    operation: str, version: str, keeps_going: bool, expected: str
) -> None:
    given = attrs.evolve(UPDATING, continue_on_failure=keeps_going)
    sequence = [("disable", "1.0"), ("update", "2.0"), ("uninstall", "1.0")]
    ran: dict[tuple[str, str, str | None], Ran] = {}
    done = set(given.done)
    for one, its_version in sequence:
        if (one, its_version) == (operation, version):
            ran[(one, its_version, None)] = FAILED
            break
        ran[(one, its_version, None)] = Ran(True)
        done.update({"mark-old-disabled", "carry"} if one == "disable" else set())
    state = INSTALLED if "mark-old-disabled" in done else ENABLED
    given = attrs.evolve(given, ran=ran, done=frozenset(done), other=Other("1.0", state))
    assert steps(given) == expected


@pytest.mark.parametrize("operation", ["disable", "uninstall"])
@pytest.mark.parametrize("keeps_going", [False, True])
def test_a_failing_old_command_is_tolerated_only_with_the_flag_and_reported_as_a_failed_update(
    operation: str, keeps_going: bool
) -> None:
    found = [
        action
        for action in planner.plan(attrs.evolve(UPDATING, continue_on_failure=keeps_going))
        if (action.operation, action.version) == (operation, "1.0")
    ]
    assert [(action.tolerant, action.gives_code) for action in found] == [(keeps_going, 1008)]


def test_after_the_old_version_is_gone_an_update_still_knows_that_it_is_one() -> None:
    given = facts(done=frozenset({"fetch", "settings"}), updating_from="1.0", update_with_install=False)
    assert "install" not in steps(given).split()
    assert "install" in steps(attrs.evolve(given, update_with_install=True)).split()


def test_a_disable_that_cannot_succeed_does_not_keep_a_handler_from_being_removed() -> None:
    stuck = facts("uninstall", state=ENABLED, present=True, ran={("disable", "2.0", None): FAILED})
    assert steps(stuck).startswith("disable ")
    assert steps(attrs.evolve(stuck, broken_disable=True)) == "mark-disabled uninstall remove"


def test_a_failed_uninstall_is_passed_over() -> None:
    given = facts("uninstall", state=INSTALLED, present=True, ran={("uninstall", "2.0", None): FAILED})
    assert steps(given) == "remove"


EXTENSIONS = st.sampled_from([None, "jobA"])
OTHERS = st.one_of(
    st.none(),
    st.builds(
        Other,
        version=st.sampled_from(["1.0", "3.0"]),
        state=st.sampled_from([INSTALLED, ENABLED]),
        extensions=st.sampled_from([(None,), (), ("jobA",), ("jobA", "jobB")]),
        newer=st.booleans(),
    ),
)
ANY = st.builds(
    Facts,
    requested=st.sampled_from(["enabled", "disabled", "uninstall"]),
    wanted=st.sampled_from(["enabled", "disabled"]),
    extension=EXTENSIONS,
    version=st.just("2.0"),
    state=st.sampled_from([NOT_INSTALLED, INSTALLED, ENABLED, FAILED_UPGRADE]),
    present=st.booleans(),
    other=OTHERS,
    leftovers=st.sampled_from([(), ("1.0",), ("1.0", "3.0")]),
    recorded=st.sampled_from([None, "enabled", "disabled"]),
    enabled=st.sampled_from([(None,), (), ("jobA",), ("jobA", "jobB")]),
    update_with_install=st.booleans(),
    continue_on_failure=st.booleans(),
    broken_disable=st.booleans(),
)


@given(ANY)
def test_walking_the_plan_always_ends_in_what_was_wanted(given: Facts) -> None:
    now = given
    walked = []
    for _ in range(40):
        missing = planner.plan(now)
        if not missing:
            break
        assert len({action.name for action in missing}) == len(missing)
        walked.append(missing[0].name)
        now = planner.after(now, missing[0])
    assert not planner.plan(now), walked
    assert len(walked) == len(set(walked)), "a step was done twice"
    if given.requested == "uninstall":
        assert not now.present
    elif given.requested == "enabled":
        assert now.state in (INSTALLED, ENABLED)
        assert now.other is None or given.state in (INSTALLED, ENABLED)
        if given.extension is None or given.wanted == "enabled":
            assert now.state == ENABLED
            assert walked.count("enable") == 1
    else:
        assert now.state != ENABLED


@given(ANY, st.integers(min_value=0, max_value=30))
def test_a_plan_cut_off_anywhere_and_asked_again_takes_the_same_way(given: Facts, cut: int) -> None:
    """The plan at any point is the rest of the plan before: nothing is remembered, so nothing can be forgotten."""
    now = given
    for _ in range(cut):
        missing = planner.plan(now)
        if not missing:
            return
        now = planner.after(now, missing[0])
        rest = [action.name for action in planner.plan(now)]
        assert missing[0].name not in rest
