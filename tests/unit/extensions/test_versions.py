"""Which version is meant (extensions §4.2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent_extensions import versions
from waagent_extensions.layout import split_directory


@pytest.mark.parametrize(
    ("requested", "candidate", "answer"),
    [
        ("1.0", "1.0.5", True),
        ("1.0", "1.0", True),
        ("1", "1.9.9", True),
        ("1.0", "1.1", False),
        ("1.0.0", "1.0", True),
        ("1.0.1", "1.0", False),
        ("1.0", "1.0.0-rc1", False),
        ("1.0-rc1", "1.0-rc1", True),
    ],
)
def test_a_request_names_a_version_exactly_or_as_a_prefix(requested: str, candidate: str, answer: bool) -> None:
    assert versions.matches(requested, candidate) is answer


def test_the_highest_fitting_version_is_taken() -> None:
    assert versions.choose("1.0", ["1.0.9", "1.0.10", "1.1", "0.9"]) == "1.0.10"
    assert versions.choose("2", ["1.0"]) is None


def test_order_is_numeric_and_a_prerelease_comes_before_its_release() -> None:
    shuffled = ["1.0.1", "1.0-rc2", "1.10", "nonsense", "1.0", "0.9", "1.0-beta", "1.0-alpha1"]
    ordered = ["nonsense", "0.9", "1.0-alpha1", "1.0-beta", "1.0-rc2", "1.0", "1.0.1", "1.10"]
    assert sorted(shuffled, key=versions.key) == ordered
    assert versions.key("1.0") == versions.key("1.0.0")


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=4))
def test_every_number_matches_itself_and_its_prefixes(parts: list[int]) -> None:
    text = ".".join(map(str, parts))
    assert versions.matches(text, text)
    for length in range(1, len(parts)):
        assert versions.matches(".".join(map(str, parts[:length])), text)


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        ("Contoso.Tools.Sample-1.4.2", ("Contoso.Tools.Sample", "1.4.2")),
        ("Contoso-Corp.Sample-2.0", ("Contoso-Corp.Sample", "2.0")),
        ("WALinuxAgent-2.15.0.1", None),
        ("custom-script", None),
        ("history", None),
        (".Contoso.Sample-1.0.partial", None),
    ],
)
def test_only_names_with_a_version_are_handler_directories(entry: str, parts: tuple[str, str] | None) -> None:
    assert split_directory(entry) == parts
