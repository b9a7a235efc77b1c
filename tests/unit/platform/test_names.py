from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.platform import names


@pytest.mark.parametrize("text", ["Contoso.Handlers.Single", "1.2.3", "job A", "é", "x" * 200])
def test_names_that_can_be_part_of_a_file_name(text: str) -> None:
    assert names.is_file_name(text)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "../x", "a/b", "a\\b", ".hidden", "a\0", "a\n", "x" * 201, "é" * 101, "\ud800"]
)
def test_names_that_cannot(text: str) -> None:
    assert not names.is_file_name(text)


def test_history_directory() -> None:
    assert names.history_directory(names.history_tag("7"), 1_700_000_000) == "2023-11-14T22-13-20__7"
    assert names.history_directory(names.history_tag("7", "123"), 0) == "1970-01-01T00-00-00__7-123"
    assert names.history_tag("7", '"a/b"') == "7-_a_b_"
    assert names.manifest_name("Contoso.Handlers.Single") == "Contoso.Handlers.Single.manifest.xml"
    assert names.manifest_name("waagent.Prod") == "waagent.Prod.manifest.xml"


@given(st.text(), st.none() | st.text())
def test_every_tag_makes_a_recognised_directory(incarnation: str, etag: str | None) -> None:
    name = names.history_directory(names.history_tag(incarnation, etag))
    assert names.is_file_name(name)
    assert names.is_history_item(name)
    assert names.is_history_item(name + ".zip")
    assert names.is_file_name(names.manifest_name(incarnation))


@pytest.mark.parametrize("name", ["", "GoalState.xml", "2023-11-14__7", "lost+found", "2023-11-14T22-13-20__"])
def test_other_names_are_not_ours(name: str) -> None:
    assert not names.is_history_item(name)
