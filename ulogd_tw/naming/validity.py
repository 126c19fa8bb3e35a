"""Networks whose names are valid from one time until another: which of them counts at the time of a row."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from ulogd_tw.core.types import Type
from ulogd_tw.naming.prefixes import Networks, PrefixTable

ALWAYS = (0, 1 << 33)
"""Seconds since 1970: from the first one, until before the second one, in the year 2242."""
_SECONDS = np.uint64(34)
"""Bits for a time in the words that are searched."""

Span = tuple[int, int]


def moment(text: str) -> int:
    """Seconds since 1970 of a number, a date or a date with a time, in UTC where it names no zone. ValueError."""
    if text.isdecimal():
        found = int(text)
    else:
        when = datetime.fromisoformat(text)
        found = int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())
    return min(max(found, ALWAYS[0]), ALWAYS[1])


class Timed:
    """Networks with numbers of their own, and what each is called when. `codes` is as that of a `PrefixTable`."""

    def __init__(self, four: Networks, six: Networks, names: Sequence[list[tuple[Span, int]]]) -> None:
        """`names` has for each network, numbered from 1, (time, code); of times that overlap the last one counts."""
        self._table = PrefixTable(four, six, nested=True)
        self._parents = np.zeros(len(names) + 1, np.int32)
        for networks, ranges in zip((four, six), self._table.families, strict=True):
            self._parents[np.asarray(networks.codes, np.int32)] = ranges.parents
        words, until, codes = array("Q", [0]), array("q", [0]), array("i", [0])
        for node, spans in enumerate(names, 1):
            for (first, last), code in _apart(spans):
                words.append(node << int(_SECONDS) | first)
                until.append(last)
                codes.append(code)
        self._words, self._until, self._codes = (np.array(a) for a in (words, until, codes))

    def codes(self, column: np.ndarray, type_: Type, missing: np.ndarray | None, times: np.ndarray) -> np.ndarray:
        """The code of the most specific network that has a name at its row's time (seconds since 1970); 0: none."""
        nodes = np.array(self._table.codes(column, type_, missing))
        found = np.zeros(len(nodes), np.int32)
        rows = np.flatnonzero(nodes)
        while len(rows):
            node, time = nodes[rows], times[rows]
            word = node.astype(np.uint64) << _SECONDS | time.astype(np.uint64)
            place = np.searchsorted(self._words, word, "right") - 1
            good = (self._words[place] >> _SECONDS == node.astype(np.uint64)) & (self._until[place] > time)
            found[rows[good]] = self._codes[place[good]]
            nodes[rows] = self._parents[node]
            rows = rows[~good & (nodes[rows] > 0)]
        return found

    @property
    def nbytes(self) -> int:
        held = (self._parents, self._words, self._until, self._codes)
        return self._table.nbytes + sum(array_.nbytes for array_ in held)


def _apart(spans: list[tuple[Span, int]]) -> list[tuple[Span, int]]:
    """The same in order and without overlaps."""
    if len(spans) == 1:
        return spans
    edges = sorted({edge for span, _ in spans for edge in span})
    found = []
    for first, last in zip(edges, edges[1:], strict=False):
        codes = [code for (begin, end), code in spans if begin <= first and last <= end]
        if codes:
            found.append(((first, last), codes[-1]))
    return found
