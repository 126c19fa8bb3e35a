"""Sets of values: ranges of numbers, prefixes, strings. Each gives a mask of the rows within it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.columns import Coded, Column
from ulogd_tw.core.networks import Span
from ulogd_tw.core.types import Type

_WORD = (1 << 64) - 1
_SMALL = 1 << 16
"""Numbers below this are looked up in a table."""
_FEW = 8
"""Up to this number, prefixes are compared one by one."""


class Numbers:
    """Ranges of whole numbers, both ends included."""

    def __init__(self, ranges: Iterable[tuple[int, int]]) -> None:
        merged: list[list[int]] = []
        for low, high in sorted(ranges):
            if merged and low <= merged[-1][1] + 1:
                merged[-1][1] = max(merged[-1][1], high)
            else:
                merged.append([low, high])
        self.ranges = [(low, high) for low, high in merged]
        self._table: np.ndarray | None = None
        self._by_type: dict[np.dtype, tuple[np.ndarray, np.ndarray]] = {}

    def rows(self, column: np.ndarray) -> np.ndarray:
        """A mask of the values within one of the ranges."""
        if len(self.ranges) == 1:
            return _between(column, *self.ranges[0])
        if column.dtype.kind == "u" and column.dtype.itemsize <= 2:
            return self._small()[column]
        if column.dtype.kind == "f":
            return np.logical_or.reduce([_between(column, *r) for r in self.ranges] or [np.zeros(len(column), bool)])
        lows, highs = self._sides(column.dtype)
        if not len(lows):
            return np.zeros(len(column), bool)
        place = np.searchsorted(lows, column, "right")
        return (place > 0) & (column <= highs[np.maximum(place, 1) - 1])

    def _sides(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Begins and ends of the ranges, limited to the numbers of this type."""
        if dtype not in self._by_type:
            limits = np.iinfo(dtype)
            inside = [(max(low, limits.min), min(high, limits.max)) for low, high in self.ranges
                      if low <= limits.max and high >= limits.min]  # fmt: skip
            self._by_type[dtype] = tuple(np.array([pair[side] for pair in inside], dtype) for side in (0, 1))
        return self._by_type[dtype]

    def _small(self) -> np.ndarray:
        if self._table is None:
            self._table = np.zeros(_SMALL, bool)
            for low, high in self.ranges:
                self._table[max(low, 0) : max(min(high, _SMALL - 1) + 1, 0)] = True
        return self._table


def _between(column: np.ndarray, low: int, high: int) -> np.ndarray:
    if column.dtype.kind == "f":
        return (column >= low) & (column <= high)
    limits = np.iinfo(column.dtype) if column.dtype.kind != "b" else np.iinfo(np.uint8)
    if column.dtype.kind == "b":
        column = column.view(np.uint8)
    if low > limits.max or high < limits.min:
        return np.zeros(len(column), bool)
    if low == high:
        return column == column.dtype.type(low)
    above = None if low <= limits.min else column >= column.dtype.type(low)
    below = None if high >= limits.max else column <= column.dtype.type(high)
    if above is None:
        return np.ones(len(column), bool) if below is None else below
    return above if below is None else above & below


class Prefixes:
    """Networks of both families."""

    def __init__(self, spans: Iterable[Span]) -> None:
        listed = sorted(set(spans))
        self._four = Numbers((low, high) for version, low, high in listed if version == 4)
        self._few = {version: [s for s in listed if s[0] == version] for version in (4, 6)}
        self._many = {version for version, few in self._few.items() if len(few) > _FEW}
        self._six: tuple[np.ndarray, np.ndarray] | None = None
        if 6 in self._many:
            merged = Numbers((low, high) for _, low, high in self._few[6]).ranges
            self._six = tuple(
                np.array([(end[side] >> 64, end[side] & _WORD) for end in merged], np.uint64) for side in (0, 1)
            )
        for version in self._many:
            self._few[version] = []

    def rows(self, column: np.ndarray, type_: Type) -> np.ndarray:
        """A mask of the addresses within one of them; `type_` gives the family of the column."""
        if type_ is types.IPV4:
            if 4 in self._many:
                return self._four.rows(column)
            return _any([_in_four(column, low, high) for _, low, high in self._few[4]], len(column))
        if 6 in self._many:
            return self._sorted(column)
        return _any([_in_six(column, low, high) for _, low, high in self._few[6]], len(column))

    def _sorted(self, column: np.ndarray) -> np.ndarray:
        low, high = self._six
        place = np.searchsorted(_octets(low), _octets(column), "right")
        ends = high[np.maximum(place, 1) - 1]
        below = (column[:, 0] < ends[:, 0]) | (column[:, 0] == ends[:, 0]) & (column[:, 1] <= ends[:, 1])
        return (place > 0) & below


def _any(masks: list[np.ndarray], n: int) -> np.ndarray:
    return np.logical_or.reduce(masks) if masks else np.zeros(n, bool)


def _in_four(column: np.ndarray, low: int, high: int) -> np.ndarray:
    return (column & np.uint32(0xFFFFFFFF & ~(low ^ high))) == np.uint32(low)


def _in_six(column: np.ndarray, low: int, high: int) -> np.ndarray:
    mask = ~(low ^ high)
    upper = (column[:, 0] & np.uint64(mask >> 64 & _WORD)) == np.uint64(low >> 64)
    if not mask & _WORD:
        return upper
    return upper & ((column[:, 1] & np.uint64(mask & _WORD)) == np.uint64(low & _WORD))


def _octets(column: np.ndarray) -> np.ndarray:
    """IPv6 addresses as strings of 16 octets, in sorting order."""
    return np.ascontiguousarray(column.astype(">u8")).view("S16").reshape(-1)


class Strings:
    """Octet strings accepted by `chosen`; each different string is tested once."""

    def __init__(self, chosen) -> None:
        self._chosen = chosen

    def rows(self, column: Column) -> np.ndarray:
        """A mask of the chosen strings: one Python step for each different value of `Coded`, else for each row."""
        if isinstance(column, Coded):
            return np.array([self._chosen(value) for value in column.values], bool)[column.codes]
        values = column.to_list()
        known = {value: self._chosen(value) for value in set(values)}
        return np.fromiter((known[value] for value in values), bool, len(values))
