"""The hours of a store one after another, for lists of flows that end when they are long enough."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ulogd_tw.storing.parquet.directory import StoredFile

HOUR_MS = 3_600_000
LAST = (1 << 64) - 1
MOST_HOURS = 24
"""Maximum number of hours that are read together."""


def chunks(files: Iterable[StoredFile], up: bool = False) -> Iterator[tuple[list[StoredFile], tuple[int, int]]]:
    """Files of some hours, newest first (oldest with `up`), with the range of times of their rows, both ends included.

    The first has one hour, each further one twice as many. Together the ranges have all times.
    """
    hours: dict[int, list[StoredFile]] = {}
    for file in files:
        hours.setdefault(file.hour, []).append(file)
    ordered = sorted(hours, reverse=not up) or [0]
    at, width = 0, 1
    while at < len(ordered):
        some, rest = ordered[at : at + width], ordered[at + width :]
        times = _range(some, rest, at == 0, up)
        yield [file for hour in some for file in hours.get(hour, ())], times
        at, width = at + width, min(2 * width, MOST_HOURS)


def _range(some: list[int], rest: list[int], first: bool, up: bool) -> tuple[int, int]:
    """The times of a chunk: open on the side of the first one, and on the other side if nothing follows."""
    if up:
        low = 0 if first else some[0] * HOUR_MS
        return low, rest[0] * HOUR_MS - 1 if rest else LAST
    high = LAST if first else (some[0] + 1) * HOUR_MS - 1
    return (rest[0] + 1) * HOUR_MS if rest else 0, high
