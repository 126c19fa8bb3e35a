"""Networks with names of limited validity: finds the name valid at the time of a row."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from ulogd_tw.core.types import Type
from ulogd_tw.naming.prefixes import Networks, PrefixTable

ALWAYS = (0, 1 << 33)
"""Seconds since 1970: from the first until before the second, in the year 2242."""

Span = tuple[int, int]


def moment(text: str) -> int:
    """Seconds since 1970 of a number, a date or a date with a time, in UTC unless it names a zone. ValueError."""
    if text.isdecimal():
        found = int(text)
    else:
        when = datetime.fromisoformat(text)
        found = int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
    return min(max(found, ALWAYS[0]), ALWAYS[1])


class Timed:
    """Networks with numbers of their own, and their names over time. `codes` works as in `PrefixTable`."""

    def __init__(self, four: Networks, six: Networks, names: Sequence[list[tuple[Span, int]]]) -> None:
        """`names` has for each network, numbered from 1, (time, code); where times overlap the last one counts."""
        self._table = PrefixTable(four, six, nested=True)
        self._parents = np.zeros(len(names) + 1, np.int32)
        for networks, ranges in zip((four, six), self._table.families, strict=True):
            self._parents[np.asarray(networks.codes, np.int32)] = ranges.parents
        starts, times, codes = array("i", [0]), array("q"), array("i")
        for spans in names:
            starts.append(len(codes))
            for span, code in _apart(spans):
                times.extend(span)
                codes.append(code)
        starts.append(len(codes))
        self._starts, self._times, self._codes = (np.array(a) for a in (starts, times, codes))

    def codes(self, column: np.ndarray, type_: Type, missing: np.ndarray | None, times: np.ndarray) -> np.ndarray:
        """The code of the most specific network with a name at its row's time (seconds since 1970); 0: none."""
        node = self._table.codes(column, type_, missing)
        found = np.zeros(len(node), np.int32)
        rows = np.flatnonzero(node)
        node, time = node[rows], times[rows]
        while len(rows):
            place = self._last_begun(node, time)
            good = self._times.take(2 * place) <= time
            good &= time < self._times.take(2 * place + 1)
            found[rows[good]] = self._codes[place[good]]
            node = self._parents.take(node)
            on = np.flatnonzero(~good & (node > 0))
            rows, node, time = rows[on], node[on], time[on]
        return found

    def _last_begun(self, node: np.ndarray, time: np.ndarray) -> np.ndarray:
        """For each network the last name begun at a time, or else the first."""
        place = self._starts.take(node).astype(np.int64)
        last = self._starts.take(node + 1) - 1
        rows = np.flatnonzero(place < last)
        least, most, time = place[rows], last[rows].astype(np.int64), time[rows]
        while (least < most).any():
            middle = (least + most + 1) // 2
            begun = self._times.take(2 * middle) <= time
            least, most = np.where(begun, middle, least), np.where(begun, most, middle - 1)
        place[rows] = least
        return place

    @property
    def nbytes(self) -> int:
        held = (self._parents, self._starts, self._times, self._codes)
        return self._table.nbytes + sum(array_.nbytes for array_ in held)


def _apart(spans: list[tuple[Span, int]]) -> list[tuple[Span, int]]:
    """The same periods in order and without overlaps."""
    if len(spans) == 1:
        return spans
    edges = sorted({edge for span, _ in spans for edge in span})
    found = []
    for first, last in zip(edges, edges[1:], strict=False):
        codes = [code for (begin, end), code in spans if begin <= first and last <= end]
        if codes:
            found.append(((first, last), codes[-1]))
    return found
