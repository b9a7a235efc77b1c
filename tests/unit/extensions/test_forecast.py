"""What ``waagent extensions plan`` says would happen is what happens; and nothing happens for being asked."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.extensions.fakes import Bench, multi, wanted
from waagent import Handler, Veto
from waagent_extensions.forecast import Outlook, outlook
from waagent_extensions.site import failed_disables

NAME = "Contoso.Tools.Sample"
MANY: dict[str, Any] = {"supportsMultipleExtensions": True}


def foretold(found: Outlook) -> list[str]:
    """Return the commands of *found* as a machine's trace shows them."""
    steps = [step for unit in found.units for step in unit.steps]
    matches = [re.match(r"run (\w+) of \S+ (\S+) \(", step) for step in steps]
    return [f"{match.group(1)} {match.group(2)}" for match in matches if match]


def look(bench: Bench, *handlers: Handler, **more: Any) -> Outlook:
    goal_state = bench.goal(*handlers, **more)
    bench.number -= 1
    return outlook(bench.agent, goal_state, failed_disables(bench.agent))  # type: ignore[arg-type]


def everything_below(root: Path) -> dict[str, tuple[int, int, bytes]]:
    found = {}
    for directory, _, files in os.walk(root):
        for name in files:
            path = Path(directory, name)
            found[str(path)] = (path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes())
    return found


STORIES: list[list[tuple[Handler, ...]]] = [
    [(wanted(NAME, "1.0"),)],
    [(wanted(NAME, "1.0"),), (wanted(NAME, "1.0", sequence=1),)],
    [(wanted(NAME, "1.0"),), (wanted(NAME, "2.0"),)],
    [(wanted(NAME, "2.0"),), (wanted(NAME, "1.0"),)],
    [(wanted(NAME, "1.0"),), (wanted(NAME, "1.0", "uninstall"),)],
    [(wanted(NAME, "1.0"),), (wanted(NAME, "1.0", "disabled"),), (wanted(NAME, "2.0"),)],
    [(wanted(NAME, "1.0"),), ()],
    [(multi("M", "1.0", ("a", 0, "enabled"), ("b", 0, "enabled"), ("c", 0, "disabled")),)],
    [
        (multi("M", "1.0", ("a", 0, "enabled"), ("b", 0, "enabled")),),
        (multi("M", "2.0", ("a", 1, "enabled"), ("b", 1, "disabled")),),
    ],
    [
        (multi("M", "1.0", ("a", 0, "enabled"), ("b", 0, "enabled")),),
        (multi("M", "1.0", ("a", 1, "enabled"), ("b", 1, "enabled"), state="uninstall"), wanted(NAME, "1.0", level=1)),
    ],
]


@pytest.mark.parametrize("story", STORIES)
def test_what_is_foretold_is_what_happens(bench: Bench, story: list[tuple[Handler, ...]]) -> None:
    for version in ("1.0", "2.0"):
        bench.publish(NAME, version)
        bench.publish("M", version, **MANY)
    for handlers in story:
        before = everything_below(bench.root)
        found = look(bench, *handlers)
        assert everything_below(bench.root) == before, "asking changes nothing"
        assert foretold(found) == bench.apply(*handlers)
        for directory in found.removed:
            assert not os.path.exists(directory)


def test_the_commands_carry_their_lines_and_time_limits(bench: Bench) -> None:
    bench.publish(NAME, "1.0")
    bench.apply(wanted(NAME, "1.0"))
    (unit,) = look(bench, wanted(NAME, "1.0", "uninstall")).units
    assert unit.steps[0] == f"run disable of {NAME} 1.0 (bin/run disable; at most 900 s)"
    assert f"remove {NAME}" in unit.steps


def test_what_stands_in_the_way_is_named(bench: Bench) -> None:
    bench.publish(NAME, "1.0")
    assert "TimeTravel" in look(bench, wanted(NAME, "1.0"), required_features=("TimeTravel",)).obstacle
    assert "on hold" in look(bench, wanted(NAME, "1.0"), on_hold=True).obstacle
    bench.agent.hooks.vetoes[NAME] = Veto("it is not on the list")
    (unit,) = look(bench, wanted(NAME, "1.0")).units
    assert (unit.verdict, unit.reason, unit.steps) == ("refused", "it is not on the list", ())
    bad = Handler("Contoso.Bad", "1.0", invalid_reason="two settings")
    assert [(one.verdict, one.reason) for one in look(bench, bad).units] == [("invalid", "two settings")]


def test_it_says_what_waits_for_what_and_what_is_not_known(bench: Bench) -> None:
    first, second = look(bench, wanted("A", "1.4"), wanted("B", "1.0", level=1)).units
    assert second.waits_for == ("A",)
    assert any("which version 1.4 names" in note for note in first.notes)
    assert look(bench, wanted("A", "1.0", "uninstall")).units[0].verdict == "nothing"
