"""Public values compare, hash and show themselves by their fields, and keep their secrets."""

from __future__ import annotations

from typing import Any

import pytest

from waagent import (
    Command,
    Dependency,
    ExtensionSettings,
    HealthCheck,
    Launch,
    LogSource,
    Option,
    Periodic,
    Plan,
    Step,
    Veto,
)


def test_equal_fields_are_equal_values() -> None:
    assert Dependency("a", "b") == Dependency("a", "b")
    assert Dependency("a", "b") != Dependency("a", "c")
    assert Dependency("a") != Veto("a")
    assert Dependency("a") != ("a", None)
    assert len({Dependency("a"), Dependency("a"), Dependency("b")}) == 2


def test_values_do_not_change() -> None:
    with pytest.raises(AttributeError):
        Dependency("a").handler = "b"  # type: ignore[misc]


def test_a_value_shows_its_fields_but_no_secret() -> None:
    assert repr(Dependency("a")) == "Dependency(handler='a', extension=None)"
    settings = ExtensionSettings("a", 1, protected="SECRET")
    assert "sequence_number=1" in repr(settings)
    assert "SECRET" not in repr(settings)
    assert settings != ExtensionSettings("a", 1, protected="OTHER")


def nothing(*_: object) -> Any:
    return None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Option(5, "int", 1, "x"), "Option.name is int instead of str"),  # type: ignore[arg-type]
        (lambda: Option("A.X", ["int"], 1, "x"), "Option.kind"),  # type: ignore[arg-type]
        (lambda: Option("A.X", "int", 1, None), "Option.help"),  # type: ignore[arg-type]
        (lambda: Option("A.X", "int", 1, "x", aliases="A.Y"), "Option.aliases is str instead of tuple or list"),  # type: ignore[arg-type]
        (lambda: Option("A.X", "int", 1, "x", minimum="1"), "Option.minimum is str instead of int or None"),  # type: ignore[arg-type]
        (lambda: Command(None, "x", nothing), "Command.name"),  # type: ignore[arg-type]
        (lambda: Command("x", "x", "run"), "Command.run is str instead of Callable"),  # type: ignore[arg-type]
        (lambda: Command("x", "x", nothing, configure=1), "Command.configure"),  # type: ignore[arg-type]
        (lambda: Periodic("x", None, nothing), "Periodic.period"),  # type: ignore[arg-type]
        (lambda: Periodic("x", 5, nothing, lane=1), "Periodic.lane"),  # type: ignore[arg-type]
        (lambda: LogSource("file", None), "LogSource.value"),  # type: ignore[arg-type]
        (lambda: HealthCheck("x", True, "x"), "HealthCheck.result"),  # type: ignore[arg-type]
        (lambda: Veto(None), "Veto.reason"),  # type: ignore[arg-type]
        (lambda: Launch("nice", None), "Launch.prefix is str"),  # type: ignore[arg-type]
        (lambda: Plan("x", nothing, nothing, phase=["disk"]), "Plan.phase is list instead of str or None"),  # type: ignore[arg-type]
        (lambda: Plan("x", {}, nothing), "Plan.probe"),  # type: ignore[arg-type]
        (lambda: Step("x", "x", None), "Step.run"),  # type: ignore[arg-type]
        (lambda: Step(b"x", "x", nothing), "Step.name"),  # type: ignore[arg-type]
        (lambda: Step("x", "x", nothing, deadline="5 s"), "Step.deadline"),  # type: ignore[arg-type]
    ],
)
def test_what_a_plugin_makes_wrong_is_an_error_where_it_is_made(make: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said.replace(".", r"\.")):
        make()


def test_what_a_plugin_makes_right_is_taken() -> None:
    Option("A.X", "int", None, "x", aliases=("A.Y",), choices=("1",), minimum=0)
    Periodic("x", "A.X", nothing)
    Periodic("x", 0.5, nothing, lane="x")
    Plan("x", nothing, nothing)
    Step("x", "x", nothing, gives={"a": 1}, settle=nothing, deadline=1)
    Launch(("nice",), "x.scope")
