from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent.errors import ProtocolError
from waagent.platform import ticks
from waagent.platform.models import MINIMUM_TIMESTAMP

LARGEST = 3155378975999999999


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (637726657706205217, "2021-11-16T13:22:50.620522Z"),
        ("637726657706205217", "2021-11-16T13:22:50.620522Z"),
        (" 637726657706205299 ", "2021-11-16T13:22:50.620530Z"),
        (0, MINIMUM_TIMESTAMP),
        (4, MINIMUM_TIMESTAMP),
        (5, "0001-01-01T00:00:00.000001Z"),
        (LARGEST - 9, "9999-12-31T23:59:59.999999Z"),
        (LARGEST, MINIMUM_TIMESTAMP),  # would round into year 10000
        (LARGEST + 1, MINIMUM_TIMESTAMP),
        ("", MINIMUM_TIMESTAMP),
        (None, MINIMUM_TIMESTAMP),
        ("soon", MINIMUM_TIMESTAMP),
        ("-1", MINIMUM_TIMESTAMP),
        (-1, MINIMUM_TIMESTAMP),
        (True, MINIMUM_TIMESTAMP),
        ("9" * 100_000, MINIMUM_TIMESTAMP),
    ],
)
def test_ticks_become_text(value: str | int | None, text: str) -> None:
    assert ticks.ticks_to_timestamp(value) == text


@given(st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59)))
def test_every_moment_of_the_calendar(moment: dt.datetime) -> None:
    microseconds = (moment - dt.datetime(1, 1, 1)) // dt.timedelta(microseconds=1)
    text = ticks.ticks_to_timestamp(microseconds * 10)
    assert text == moment.isoformat(timespec="microseconds") + "Z"
    assert ticks.microseconds(text) == microseconds


@given(st.integers(0, LARGEST - 10), st.integers(0, LARGEST - 10))
def test_texts_compare_like_the_moments(one: int, other: int) -> None:
    texts = ticks.ticks_to_timestamp(one), ticks.ticks_to_timestamp(other)
    assert (texts[0] < texts[1]) == ((one + 5) // 10 < (other + 5) // 10)


def test_a_difference_below_a_millisecond_is_none() -> None:
    created = "2021-11-16T13:22:50.620522Z"
    assert not ticks.is_older(created, than="2021-11-16T13:22:50.620530Z")
    assert not ticks.is_older(created, than=created)
    assert not ticks.is_older(created, than=MINIMUM_TIMESTAMP)
    assert ticks.is_older(created, than="2021-11-16T13:22:50.621522Z")
    assert ticks.is_older(MINIMUM_TIMESTAMP, than=created)


def test_now_is_written_like_ticks() -> None:
    assert ticks.timestamp(1_637_068_970_620_522_999) == "2021-11-16T13:22:50.620522Z"
    assert ticks.seconds_text(1_637_068_970) == "2021-11-16T13:22:50Z"
    assert ticks.microseconds(ticks.timestamp()) > ticks.microseconds("2024-01-01T00:00:00Z")


@pytest.mark.parametrize(
    "text",
    ["", "now", "2021-13-01T00:00:00Z", "2021-02-29T00:00:00Z", "2021-01-01T24:00:00Z", "2021-01-01", "０" * 20],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match=r"^timestamp: expected"):
        ticks.microseconds(text)
