"""Spans: the rows of a group for as long as one of its keys keeps its value.

The span of a row comes from a table of all groups without this key, with its last value and the number of the span.
Groups and values are identified by hashes of 64 bits, seeded with a secret.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np

from ulogd_tw.core.hashes import of_rows
from ulogd_tw.core.key_table import KeyTable
from ulogd_tw.core.resolve import Found

_VALUE, _SPAN = 1, 2
"""Places behind the hash in a row of the table."""


class Spans:
    """The spans of at most `most` groups; when there are more, all begin anew."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._secret = np.uint64(secrets.randbits(64))
        self._next = secrets.randbits(62)
        self._table = self._empty()
        self._ended: list[np.ndarray] = []

    def _empty(self) -> KeyTable:
        return KeyTable(1, self._most, values=2)

    def of(self, group: Sequence[Found | None], value: Found | None, n: int) -> np.ndarray:
        """The span of each of n rows (uint64): `group` are the columns that it belongs to, `value` the changing one."""
        groups, values = of_rows(group, n, self._secret), of_rows([value], n, self._secret)
        found = []
        for first in range(0, n, self._most):
            part, known = groups[first : first + self._most], self._table.n
            entries = self._table.entries([part])
            if not entries.all():
                self._table, known = self._empty(), 0
                entries = self._table.entries([part])
            found.append(self._spans(entries, values[first : first + self._most], known))
        return found[0] if len(found) == 1 else np.concatenate(found)

    def ended(self) -> np.ndarray:
        """The spans that have ended since the last call."""
        found = np.concatenate(self._ended) if self._ended else np.zeros(0, np.uint64)
        self._ended = []
        return found

    @property
    def any_ended(self) -> bool:
        """Whether `ended` has any."""
        return bool(self._ended)

    def _spans(self, entries: np.ndarray, values: np.ndarray, known: int) -> np.ndarray:
        """As `of`, for entries of the table; entries beyond `known` are new."""
        rows = self._table.flat
        places = entries * self._table.stride
        if int(entries.max()) <= known and (rows.take(places + _VALUE) == values).all():
            return rows.take(places + _SPAN)
        order = np.argsort(entries, kind="stable")
        entries, values, places = entries[order], values[order], places[order]
        first = np.empty(len(order), bool)
        first[0] = True
        first[1:] = entries[1:] != entries[:-1]
        new = first & (entries > known)
        before = np.where(first, rows.take(places + _VALUE), np.roll(values, 1))
        changed = (values != before) | new
        starts = changed | first
        numbers = np.uint64(self._next) + np.cumsum(changed).astype(np.uint64)
        self._next += int(np.count_nonzero(changed))
        begin = np.maximum.accumulate(np.where(starts, np.arange(len(order)), 0))
        spans = np.where(changed, numbers, rows.take(places + _SPAN))[begin]
        old = np.where(first, rows.take(places + _SPAN), np.roll(spans, 1))[changed & ~new]
        if len(old):
            self._ended.append(old)
        last = np.append(first[1:], True)
        rows[places[last] + _VALUE] = values[last]
        rows[places[last] + _SPAN] = spans[last]
        found = np.empty_like(spans)
        found[order] = spans
        return found
