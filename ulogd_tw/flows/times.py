"""Times of questions: from what users type to milliseconds since 1970, and back to text with its zone.

A time is RFC 3339 with a zone (``2026-11-30T14:00:00Z``), a local time without one (``2026-11-30 14:00``, ``14:00``,
``2026-11-30``), a time of nfdump (``2026/11/30.14:00:00``), a word (``now``, ``today``, ``yesterday``), an age
(``-2h``), or seconds or milliseconds since 1970, by their number of digits.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache

from ulogd_tw.flows.errors import QuestionError

DAY_MS = 86_400_000
LATEST_MS = 253_370_764_799_999
"""The last millisecond of the year 9998, which is before the year 10000 in every zone."""
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": DAY_MS, "w": 7 * DAY_MS}
_AGE = re.compile(r"-\s*(\d{1,9})\s*(ms|s|min|m|h|d|w)")
_SPAN = re.compile(r"(\d{1,12})\s*(ms|s|min|m|h|d|w)?")
_DATE = re.compile(
    r"(?:(\d{4})[-/](\d\d?)[-/](\d\d?)(?:[T .](?=\d)|$))?"
    r"(?:(\d\d?):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?\s*(Z|[+-]\d\d:?\d\d)?)?",
    re.IGNORECASE,
)
_FORMS = "2026-11-30T14:00:00Z, 2026-11-30 14:00 (local time), 14:00, yesterday, or -2h"
_NUMBERS = {9: 1000, 10: 1000, 12: 1, 13: 1}
"""Digits of seconds since 1970, and of milliseconds; with what they are multiplied."""


def moment(text: str, now: float, zone: timezone | None = None) -> int:
    """Milliseconds since 1970. Raises `QuestionError`.

    Local times are those of the process, or of `zone`. A time of day is that of the day of `now` (seconds).
    """
    word = text.strip()
    found = _word(word.lower(), now, zone)
    if found is None:
        found = _date(word, now, zone)
    if found is None or not 0 <= found <= LATEST_MS:
        hint = "; since 1970 it would be 9 or 10 digits of seconds, or 12 or 13 of milliseconds"
        raise QuestionError(f"{text!r} is not a time; write {_FORMS}{hint if word.isdecimal() else ''}")
    return found


def span(text: str) -> int:
    """Milliseconds of a length of time, such as 5m. Raises `QuestionError`."""
    found = _SPAN.fullmatch(text.strip().lower())
    length = int(found[1]) * _UNITS[found[2] or "s"] if found else 0
    if not 0 < length <= 3660 * DAY_MS:
        raise QuestionError(f"{text!r} is not a length of time; write 300, 5m, 1h or 1d")
    return length


def _word(word: str, now: float, zone: timezone | None) -> int | None:
    if word == "now":
        return int(now * 1000)
    if word in ("today", "yesterday"):
        day = _local(now, zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        return _milliseconds(day - timedelta(days=word == "yesterday"), zone)
    if age := _AGE.fullmatch(word):
        return int(now * 1000) - int(age[1]) * _UNITS[age[2]]
    if word.isascii() and word.isdecimal() and len(word) in _NUMBERS:
        return int(word) * _NUMBERS[len(word)]
    return None


def _date(word: str, now: float, zone: timezone | None) -> int | None:
    found = _DATE.fullmatch(word)
    if found is None or found[1] is None and found[4] is None:
        return None
    today = _local(now, zone)
    year, month, day = (int(found[at]) for at in (1, 2, 3)) if found[1] else (today.year, today.month, today.day)
    hour, minute, second = (int(found[at] or 0) for at in (4, 5, 6))
    fraction = int((found[7] or "0").ljust(9, "0")[:3])
    try:
        local = datetime(year, month, day, hour, minute, second, fraction * 1000)
    except ValueError:
        return None
    return _milliseconds(local, _zone(found[8]) if found[8] else zone)


def _zone(text: str) -> timezone:
    if text in "Zz":
        return UTC
    digits = text.replace(":", "")
    offset = timedelta(hours=int(digits[1:3]), minutes=int(digits[3:5]))
    if offset >= timedelta(hours=24):
        raise QuestionError(f"{text!r} is not a zone; write Z or +01:00")
    return timezone(-offset if digits[0] == "-" else offset)


def _local(now: float, zone: timezone | None) -> datetime:
    return datetime.fromtimestamp(now, zone) if zone else datetime.fromtimestamp(now).astimezone()


def _milliseconds(local: datetime, zone: timezone | None) -> int | None:
    """From a time without a zone. Python takes the first of two local times in the hour that comes twice."""
    try:
        seconds = local.replace(microsecond=0, tzinfo=zone).timestamp()
    except (OverflowError, ValueError, OSError):
        return None
    return int(seconds) * 1000 + local.microsecond // 1000


# back to text


def offset_at(milliseconds: int) -> int:
    """Seconds by which local time is ahead of UTC at a time."""
    return time.localtime(milliseconds // 1000).tm_gmtoff


def offsets(begin: int, end: int) -> tuple[tuple[int, int], ...]:
    """Local time between two times, in milliseconds: since when so many seconds ahead of UTC, in order."""
    found = [(begin, offset_at(begin))]
    day = begin
    while day < end:
        after = min(day + DAY_MS, end)
        if offset_at(after) != found[-1][1]:
            found.append((_change(day, after), offset_at(after)))
        day = after
    return tuple(found)


def _change(before: int, after: int) -> int:
    """The millisecond of a change of the offset between two times."""
    while after - before > 1000:
        middle = (before + after) // 2000 * 1000
        before, after = (middle, after) if offset_at(middle) == offset_at(before) else (before, max(middle, before + 1))
    return after // 1000 * 1000


def shown(milliseconds: int, fraction: bool = True, zone: timezone | None = None) -> str:
    """Local time for people: ``2026-11-30 14:00:00.250``, without zone."""
    if not 0 <= milliseconds <= LATEST_MS:
        return str(milliseconds)
    local = _local(milliseconds // 1000, zone)
    text = local.strftime("%Y-%m-%d %H:%M:%S")
    return f"{text}.{milliseconds % 1000:03}" if fraction else text


def rfc3339(milliseconds: int, zone: timezone | None = None) -> str:
    """A time with its zone, in whole seconds where it is one: ``2026-11-30T14:00:00+01:00``."""
    if not 0 <= milliseconds <= LATEST_MS:
        return str(milliseconds)
    minute, rest = divmod(milliseconds, 60_000)
    found = _minute(minute, zone, time.tzname)
    if found is None:
        return _rfc3339(milliseconds, zone)
    second, part = divmod(rest, 1000)
    return f"{found[0]}{second:02}.{part:03}{found[1]}" if part else f"{found[0]}{second:02}{found[1]}"


def _rfc3339(milliseconds: int, zone: timezone | None) -> str:
    local = _local(milliseconds // 1000, zone)
    offset = local.strftime("%z")
    part = f".{milliseconds % 1000:03}" if milliseconds % 1000 else ""
    name = "Z" if offset == "+0000" else f"{offset[:3]}:{offset[3:5]}"
    return local.strftime("%Y-%m-%dT%H:%M:%S") + part + name


@lru_cache(1 << 14)
def _minute(minute: int, zone: timezone | None, names: tuple[str, str]) -> tuple[str, str] | None:
    """What stands before the seconds of a minute, and the zone; None where its offset is not the same all along.

    `names` are those of local time: they change with it.
    """
    first, last = _local(minute * 60, zone), _local(minute * 60 + 59, zone)
    offset = first.utcoffset()
    if offset is None or offset != last.utcoffset() or offset.total_seconds() % 60:
        return None
    text = _rfc3339(minute * 60_000, zone)
    return text[:17], text[19:]


def zone_name(milliseconds: int) -> str:
    """The name of local time at a time, with its offset: ``CET (UTC+01:00)``."""
    local = _local(max(0, min(milliseconds, LATEST_MS)) // 1000, None)
    offset, name = local.strftime("%z"), local.tzname() or ""
    numbers = f"UTC{offset[:3]}:{offset[3:5]}"
    return "UTC" if name == "UTC" else f"{name} ({numbers})" if name.isalpha() else numbers
