"""Whatever bytes a signature consists of: it is taken apart, or it is a clear error."""

from __future__ import annotations

import calendar
import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waagent_signatures import timestamp
from waagent_signatures.der import DerError


def tlv(tag: int, *bodies: bytes) -> bytes:
    body = b"".join(bodies)
    return bytes([tag, len(body)]) + body


def info(time: bytes) -> bytes:
    imprint = tlv(0x30, tlv(0x30, tlv(0x06, bytes.fromhex("608648016503040201"))), tlv(0x04, b"\0" * 32))
    return tlv(0x30, tlv(0x02, b"\1"), tlv(0x06, b"\x2a"), imprint, tlv(0x02, b"\1"), tlv(0x18, time))


@given(st.datetimes(min_value=dt.datetime(1970, 1, 1)), st.sampled_from([b"", b".1", b".123456"]))
def test_times_are_read_as_the_calendar_has_them(moment: dt.datetime, fraction: bytes) -> None:
    text = moment.strftime("%m%d%H%M%S")
    whole = b"%04d" % moment.year + text.encode() + fraction + b"Z"
    assert timestamp.read(info(whole)).seconds == calendar.timegm(moment.timetuple())


@pytest.mark.parametrize(
    "text", [b"", b"20250331220112", b"20251331220112Z", b"20250331250112Z", b"19691231235959Z", b"2025033122011Z"]
)
def test_other_times_are_refused(text: bytes) -> None:
    with pytest.raises(DerError):
        timestamp.read(info(text))


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_clear_error(data: bytes) -> None:
    for function in (timestamp.find, timestamp.claimed, timestamp.read):
        with pytest.raises(DerError):
            function(data)


@given(st.data())
def test_a_cut_or_changed_timestamp_is_no_crash(data: st.DataObject) -> None:
    content = bytearray(info(b"20250331220112Z"))
    position = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[position:]
    else:
        content[position] ^= data.draw(st.integers(1, 255))
    try:
        timestamp.read(bytes(content))
    except DerError as problem:
        assert str(problem)
