"""What runs in which order, what waits, and what a failure takes with it (extensions §11.3-§11.7)."""

from __future__ import annotations

import pytest

from waagent import Dependency, ExtensionSettings, Handler
from waagent_extensions import order, validity
from waagent_extensions.order import Outcome, Run, Skip, Wait


def handler(name: str, level: int = 0, state: str = "enabled", depends: tuple[str, ...] = ()) -> Handler:
    edges = tuple(Dependency(one) for one in depends)
    settings = ExtensionSettings(name, 1, state=state, dependency_level=level, depends_on=edges)
    return Handler(name, "1.0", state, extensions=(settings,))


def multi(name: str, *extensions: tuple[str, str, int]) -> Handler:
    settings = tuple(
        ExtensionSettings(one, index, state=state, dependency_level=level)
        for index, (one, state, level) in enumerate(extensions)
    )
    return Handler(name, "1.0", multi_config=True, extensions=settings)


def names(handlers: list[Handler]) -> list[str]:
    return [unit.full_name for unit in order.units(handlers)]


@pytest.mark.parametrize(
    ("handlers", "expected"),
    [
        ([handler("A", 1), handler("B"), handler("C", 2)], ["B", "A", "C"]),
        ([handler("A"), handler("B", state="uninstall")], ["B", "A"]),
        # Removals: the most dependent one first.
        ([handler("A", 0, "uninstall"), handler("B", 2, "uninstall")], ["B", "A"]),
        ([handler("A"), handler("B", state="disabled")], ["B", "A"]),
        ([multi("M", ("x", "enabled", 1), ("y", "disabled", 0), ("z", "enabled", 0))], ["M.y", "M.z", "M.x"]),
        ([Handler("N", "1.0"), handler("A", 1)], ["N", "A"]),
        # The document's order where nothing else decides.
        ([handler("C"), handler("A"), handler("B")], ["C", "A", "B"]),
    ],
)
def test_removals_come_first_then_levels_ascend(handlers: list[Handler], expected: list[str]) -> None:
    assert names(handlers) == expected


def test_without_edges_a_level_waits_for_every_lower_one() -> None:
    units = order.units([handler("A"), handler("B"), handler("C", 1), handler("D", 2)])
    assert order.waits(units) == {"A": (), "B": (), "C": ("A", "B"), "D": ("A", "B", "C")}


def test_edges_limit_the_wait_to_what_they_name() -> None:
    units = order.units([handler("A"), handler("B"), handler("C", 1, depends=("a",))])
    assert order.waits(units)["C"] == ("A",)


def test_edges_to_what_is_not_there_or_not_lower_fall_back_to_levels() -> None:
    units = order.units([handler("A"), handler("B", 1, depends=("Absent", "C")), handler("C", 1, depends=("B",))])
    assert order.waits(units)["B"] == ("A",)
    assert order.waits(units)["C"] == ("A",)


def test_an_edge_may_name_one_extension_of_a_handler() -> None:
    runner = multi("M", ("x", "enabled", 0), ("y", "enabled", 0))
    settings = ExtensionSettings("A", 1, dependency_level=1, depends_on=(Dependency("M", "Y"),))
    units = order.units([runner, Handler("A", "1.0", extensions=(settings,))])
    assert order.waits(units)["A"] == ("M.y",)


THREE = [handler("A"), handler("B"), handler("C", 1)]


def move(
    outcomes: dict[str, Outcome], status: dict[str, str | None], now: float = 0.0, deadline: float = 100.0
) -> object:
    units = order.units(THREE)
    return order.next_move(units, order.waits(units), outcomes, status.get, now, deadline)


DONE = Outcome("done")


@pytest.mark.parametrize(
    ("outcomes", "status", "expected"),
    [
        ({}, {}, "A"),
        # B does not depend on A: nobody waits for A's end.
        ({"A": DONE}, {"A": "transitioning"}, "B"),
        ({"A": DONE, "B": DONE}, {"A": "success", "B": "success"}, "C"),
        # What has no settings reports no status and is not waited for.
        ({"A": DONE, "B": DONE}, {"A": None, "B": "success"}, "C"),
        # What waits for its next try does not hold up the others.
        ({"A": Outcome("retry", "cut short", 9.0)}, {}, "B"),
    ],
)
def test_the_next_unit_is_the_first_that_may_start(
    outcomes: dict[str, Outcome], status: dict[str, str | None], expected: str
) -> None:
    found = move(outcomes, status)
    assert isinstance(found, Run)
    assert found.unit.full_name == expected


@pytest.mark.parametrize("word", ["transitioning", "warning"])
def test_a_status_that_is_not_terminal_is_looked_at_again_in_five_seconds(word: str) -> None:
    assert move({"A": DONE, "B": DONE}, {"A": word, "B": "success"}, now=10.0) == Wait(15.0, ("A",))


def test_waiting_ends_at_the_deadline_but_a_terminal_status_seen_then_counts() -> None:
    both = {"A": DONE, "B": DONE}
    assert move(both, {"A": "transitioning", "B": "success"}, now=98.0) == Wait(100.0, ("A",))
    late = move(both, {"A": "transitioning", "B": "success"}, now=100.0)
    assert isinstance(late, Skip)
    assert "did not reach a terminal state within 90 minutes" in late.reason
    assert isinstance(move(both, {"A": "success", "B": "success"}, now=100.0), Run)


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (Outcome("failed", "exit 1"), None),
        (Outcome("skipped", "x"), None),
        (Outcome("blocked", "no"), None),
        (DONE, "error"),
    ],
)
def test_what_depends_on_a_failed_unit_is_skipped_and_says_which(outcome: Outcome, word: str | None) -> None:
    found = move({"A": outcome, "B": DONE}, {"A": word, "B": "success"})
    assert isinstance(found, Skip)
    assert found.unit.full_name == "C"
    assert "Dependent Extension A" in found.reason


def test_a_failed_unit_takes_nothing_with_it_that_does_not_depend_on_it() -> None:
    units = order.units([handler("A"), handler("B"), handler("C", 1, depends=("B",))])
    outcomes = {"A": Outcome("failed", "exit 1"), "B": DONE}
    found = order.next_move(units, order.waits(units), outcomes, {"B": "success"}.get, 0.0, 100.0)
    assert isinstance(found, Run)
    assert found.unit.full_name == "C"


def test_dependants_wait_while_a_download_is_tried_again_and_then_run() -> None:
    retry = {"A": Outcome("retry", "cut short", 30.0), "B": DONE}
    assert move(retry, {"B": "success"}, now=10.0) == Wait(30.0, ("A",))
    again = move(retry, {"B": "success"}, now=30.0)
    assert isinstance(again, Run)
    assert again.unit.full_name == "A"


def test_the_pass_is_over_when_everything_has_an_outcome() -> None:
    assert move({"A": DONE, "B": Outcome("failed", ""), "C": Outcome("skipped", "")}, {}) is None


@pytest.mark.parametrize(
    ("required", "self_update", "expected"),
    [
        ((), False, ()),
        (("MultipleExtensionsPerHandler",), False, ()),
        (("VersioningGovernance",), False, ("VersioningGovernance",)),
        (("VersioningGovernance",), True, ()),
        (("MultipleExtensionsPerHandler", "TimeTravel"), False, ("TimeTravel",)),
    ],
)
def test_unknown_required_features_are_named(
    required: tuple[str, ...], self_update: bool, expected: tuple[str, ...]
) -> None:
    assert order.unsupported_features(required, self_update) == expected


def test_only_handlers_that_the_goal_state_does_not_name_are_orphans() -> None:
    assert order.orphans(["A.B", "C.D", "c.d", "E.F"], [handler("a.b"), handler("E.F", state="uninstall")]) == (
        "C.D",
        "c.d",
    )


@pytest.mark.parametrize(
    ("bad", "part"),
    [
        (Handler("../etc", "1.0"), "handler name"),
        (Handler("", "1.0"), "handler name"),
        (Handler("A.B", "1/0"), "version"),
        (Handler("A.B", ""), "version"),
        (multi("A.B", ("../x", "enabled", 0)), "extension name"),
        (multi("A.B", ("job\n2026", "enabled", 0)), "extension name"),
        (multi("A.B", ("x", "enabled", 0), ("x", "enabled", 0)), "twice"),
    ],
)
def test_names_that_cannot_be_file_names_are_refused(bad: Handler, part: str) -> None:
    assert part in (validity.problem(bad) or "")


def test_usual_names_are_taken() -> None:
    assert validity.problem(multi("Contoso.Tools-2.Sample_1", ("job.A-1", "enabled", 0))) is None
