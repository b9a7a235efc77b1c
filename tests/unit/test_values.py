"""Public values compare, hash and show themselves by their fields, and keep their secrets."""

from __future__ import annotations

import pytest

from waagent import Dependency, ExtensionSettings, Veto


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
