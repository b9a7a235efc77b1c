"""The platform's clock: ticks of 100 ns since year 1, and the text that moments compare as (wireserver §8.5)."""

from __future__ import annotations

import re
import time

from waagent.errors import ProtocolError
from waagent.platform.models import MINIMUM_TIMESTAMP

_MICROSECONDS_PER_DAY = 86_400_000_000
_UNIX_EPOCH_DAYS = 719_162  # days from 0001-01-01 to 1970-01-01
_MAXIMUM = 3_652_059 * _MICROSECONDS_PER_DAY  # the end of year 9999
_TIMESTAMP = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,7}))?(?:Z|\+00:00)?\Z", re.ASCII)
_DIGITS = re.compile(r"[0-9]{1,19}\Z")


def ticks_to_timestamp(value: str | int | None) -> str:
    """Return ticks as ``YYYY-MM-DDTHH:MM:SS.ffffffZ``, rounded to the nearest microsecond.

    Empty, absent, unparsable or out of the calendar: the minimum timestamp. The texts compare like the moments.
    """
    if isinstance(value, str):
        value = int(value.strip()) if _DIGITS.match(value.strip()) else None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        return MINIMUM_TIMESTAMP
    return _format((value + 5) // 10)


def timestamp(nanoseconds: int | None = None) -> str:
    """Return a moment since 1970, now by default, as ``YYYY-MM-DDTHH:MM:SS.ffffffZ``."""
    moment = time.time_ns() if nanoseconds is None else nanoseconds
    return _format(moment // 1000 + _UNIX_EPOCH_DAYS * _MICROSECONDS_PER_DAY)


def seconds_text(seconds: float | None = None) -> str:
    """Return a moment since 1970, now by default, as ``YYYY-MM-DDTHH:MM:SSZ``: for status and storage headers."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def microseconds(text: str) -> int:
    """Return a created-on text as microseconds since year 1.

    Raises:
        ProtocolError: it is no such text.
    """
    match = _TIMESTAMP.match(text.strip())
    if match:
        year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
        days = days_since_year_one(year, month, day)
        if days is not None and hour < 24 and minute < 60 and second < 60:
            fraction = int(((match.group(7) or "") + "0000000")[:7])
            return ((days * 86_400) + hour * 3600 + minute * 60 + second) * 1_000_000 + fraction // 10
    raise ProtocolError("timestamp: expected YYYY-MM-DDTHH:MM:SS.ffffffZ, found something else")


def is_older(created: str, than: str) -> bool:
    """Whether *created* lies before *than* by a millisecond or more.

    Files that the former agent left went through a 53-bit float and are off by some microseconds.

    Raises:
        ProtocolError: one of them is no timestamp.
    """
    return microseconds(than) - microseconds(created) >= 1000


def days_since_year_one(year: int, month: int, day: int) -> int | None:
    """Return the days from 0001-01-01 to a Gregorian date, ``None`` when there is no such day."""
    if not (1 <= year <= 9999 and 1 <= month <= 12 and day >= 1):
        return None
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    lengths = (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    if day > lengths[month - 1]:
        return None
    before = year - 1
    return before * 365 + before // 4 - before // 100 + before // 400 + sum(lengths[: month - 1]) + day - 1


def unix_seconds(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int | None:
    """Return a UTC date and time as seconds since 1970, ``None`` when there is no such moment."""
    days = days_since_year_one(year, month, day)
    if days is None or not (0 <= hour < 24 and 0 <= minute < 60 and 0 <= second < 61):
        return None
    return (days - _UNIX_EPOCH_DAYS) * 86_400 + hour * 3600 + minute * 60 + second


def _format(moment: int) -> str:
    if not 0 <= moment < _MAXIMUM:
        return MINIMUM_TIMESTAMP
    days, rest = divmod(moment, _MICROSECONDS_PER_DAY)
    # Civil date from a day number: years that start in March make the leap day the last one.
    era, day_of_era = divmod(days + 306, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * shifted + 2) // 5 + 1
    month = shifted + 3 if shifted < 10 else shifted - 9
    year = year_of_era + era * 400 + (month <= 2)
    seconds, fraction = divmod(rest, 1_000_000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}.{fraction:06d}Z"
