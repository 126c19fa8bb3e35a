"""Sets of values: ranges of numbers, prefixes, strings. Each gives a mask of the rows within it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.columns import Coded, Column
from ulogd_tw.core.networks import Span
from ulogd_tw.core.text import clean
from ulogd_tw.core.types import Type
from ulogd_tw.match.patterns import Pattern

MAPPED = (0xFFFF << 32, (1 << 48) - 1)
"""First and last address of ::ffff:0:0/96, where IPv4 addresses are (RFC 4291 section 2.5.5.2)."""
_MAPPED_HALF = np.uint64(0xFFFF)
_WORD = (1 << 64) - 1
_SMALL = 1 << 16
"""Numbers below this are looked up in a table."""
_FEW = 8
"""Up to this number, prefixes are compared one by one."""


class Numbers:
    """Ranges of numbers, both ends included; ends may be fractions."""

    def __init__(self, ranges: Iterable[tuple[float, float]]) -> None:
        self.given = sorted(set(ranges))
        self._table: np.ndarray | None = None
        self._by_type: dict[np.dtype, tuple[np.ndarray, np.ndarray]] = {}

    @cached_property
    def whole(self) -> list[tuple[int, int]]:
        """The whole numbers within the ranges, as few ranges as possible, in order."""
        found: list[list[int]] = []
        for low, high in ((math.ceil(low), math.floor(high)) for low, high in self.given):
            if found and low <= found[-1][1] + 1:
                found[-1][1] = max(found[-1][1], high)
            elif low <= high:
                found.append([low, high])
        return [(low, high) for low, high in found]

    def rows(self, column: np.ndarray) -> np.ndarray:
        """A mask of the values within one of the ranges."""
        if column.dtype.kind == "f":
            return _any([_between_fractions(column, *ends) for ends in self.given], len(column))
        if column.dtype.kind == "b":
            column = column.view(np.uint8)
        if len(self.whole) == 1:
            return _between(column, *self.whole[0])
        if column.dtype.kind == "u" and column.dtype.itemsize <= 2:
            return self._small()[column]
        lows, highs = self._sides(column.dtype)
        if not len(lows):
            return np.zeros(len(column), bool)
        place = np.searchsorted(lows, column, "right")
        return (place > 0) & (column <= highs[np.maximum(place, 1) - 1])

    def _sides(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Begins and ends of the ranges, limited to the numbers of this type."""
        if dtype not in self._by_type:
            limits = np.iinfo(dtype)
            inside = [(max(low, limits.min), min(high, limits.max)) for low, high in self.whole
                      if low <= limits.max and high >= limits.min]  # fmt: skip
            self._by_type[dtype] = tuple(np.array([pair[side] for pair in inside], dtype) for side in (0, 1))
        return self._by_type[dtype]

    def _small(self) -> np.ndarray:
        if self._table is None:
            self._table = np.zeros(_SMALL, bool)
            for low, high in self.whole:
                self._table[max(low, 0) : max(min(high, _SMALL - 1) + 1, 0)] = True
        return self._table


def _between(column: np.ndarray, low: int, high: int) -> np.ndarray:
    limits = np.iinfo(column.dtype)
    if low > limits.max or high < limits.min:
        return np.zeros(len(column), bool)
    if low == high:
        return column == column.dtype.type(low)
    above = None if low <= limits.min else column >= column.dtype.type(low)
    below = None if high >= limits.max else column <= column.dtype.type(high)
    if above is None:
        return np.ones(len(column), bool) if below is None else below
    return above if below is None else above & below


def _between_fractions(column: np.ndarray, low: float, high: float) -> np.ndarray:
    return (column >= fraction(low, column.dtype)) & (column <= fraction(high, column.dtype))


def fraction(value: float, dtype: np.dtype) -> np.floating:
    """A constant as a column of this type has it; as float64 where the type has no such large number.

    A whole number beyond float64 is infinity.
    """
    try:
        wide = np.float64(value)
    except OverflowError:
        wide = np.float64(math.inf if value > 0 else -math.inf)
    with np.errstate(over="ignore"):
        narrow = dtype.type(wide)
    return narrow if np.isfinite(narrow) else wide


class Prefixes:
    """Networks of both families. Addresses within ::ffff:0:0/96 are IPv4 addresses, and so are networks there."""

    def __init__(self, spans: Iterable[Span]) -> None:
        listed = sorted({_unmapped(span) for span in spans})
        self._ends: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for version, low, high in listed:
            self._ends[version].append((low, high))
        self._four = Numbers(self._ends[4])
        self._few = {version: ends if len(ends) <= _FEW else [] for version, ends in self._ends.items()}
        self._many = {version for version, ends in self._ends.items() if len(ends) > _FEW}
        self._around = any(low <= MAPPED[0] and MAPPED[1] <= high for low, high in self._ends[6])
        """Whether one of the IPv6 networks has the IPv4 addresses inside, which are not in it."""
        self._six: tuple[np.ndarray, np.ndarray] | None = None
        if 6 in self._many:
            merged = Numbers(self._ends[6]).whole
            self._six = tuple(
                np.array([(end[side] >> 64, end[side] & _WORD) for end in merged], np.uint64) for side in (0, 1)
            )

    @property
    def whole(self) -> list[tuple[int, int]]:
        """First and last addresses of all networks as numbers of 128 bits, in order; IPv4 as ::ffff:a.b.c.d."""
        four = [(MAPPED[0] + low, MAPPED[0] + high) for low, high in self._ends[4]]
        six = []
        for low, high in self._ends[6]:
            if low <= MAPPED[0] and MAPPED[1] <= high:
                six += [(low, MAPPED[0] - 1), (MAPPED[1] + 1, high)]
            else:
                six.append((low, high))
        return Numbers([*four, *six]).whole

    def rows(self, column: np.ndarray, type_: Type) -> np.ndarray:
        """A mask of the addresses within one of them; `type_` gives the family of the column."""
        if type_ is types.IPV4:
            return self._in_four(column)
        found = self._in_six(column)
        if (self._ends[4] or self._around) and (mapped := mapped_rows(column)) is not None:
            found[mapped] = self._in_four(column[mapped, 1].astype(np.uint32))
        return found

    def _in_four(self, column: np.ndarray) -> np.ndarray:
        if 4 in self._many:
            return self._four.rows(column)
        return _any([_in_four(column, low, high) for low, high in self._few[4]], len(column))

    def _in_six(self, column: np.ndarray) -> np.ndarray:
        if self._six is not None:
            return self._sorted(column, *self._six)
        return _any([_in_six(column, low, high) for low, high in self._few[6]], len(column))

    def _sorted(self, column: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        place = np.searchsorted(_octets(low), _octets(column), "right")
        ends = high[np.maximum(place, 1) - 1]
        below = (column[:, 0] < ends[:, 0]) | (column[:, 0] == ends[:, 0]) & (column[:, 1] <= ends[:, 1])
        return (place > 0) & below


def _unmapped(span: Span) -> Span:
    """A network within ::ffff:0:0/96 as the network of IPv4; others as they are."""
    version, low, high = span
    inside = version == 6 and MAPPED[0] <= low and high <= MAPPED[1]
    return (4, low - MAPPED[0], high - MAPPED[0]) if inside else span


def mapped_rows(column: np.ndarray) -> np.ndarray | None:
    """A mask of the IPv6 addresses within ::ffff:0:0/96; None where there are none."""
    found = column[:, 0] == 0
    if not found.any():
        return None
    found &= column[:, 1] >> np.uint64(32) == _MAPPED_HALF
    return found if found.any() else None


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


@dataclass(frozen=True)
class Strings:
    """Octet strings equal to one of `values`, or matching `pattern`.

    With `text` they are looked at as outputs write them: without NULs at the end, with U+FFFD for invalid UTF-8.
    """

    values: frozenset[bytes] = frozenset()
    pattern: Pattern | None = None
    text: bool = False

    def rows(self, column: Column) -> np.ndarray:
        """A mask of the chosen strings: one Python step for each different value of `Coded`, else for each row."""
        if isinstance(column, Coded):
            return np.array([self._chosen(value) for value in column.values], bool)[column.codes]
        values = column.to_list()
        known = {value: self._chosen(value) for value in set(values)}
        return np.fromiter((known[value] for value in values), bool, len(values))

    def _chosen(self, value: bytes) -> bool:
        if self.text:
            value = as_text(value)
        return value in self.values if self.pattern is None else self.pattern.search(value)


def as_text(value: bytes) -> bytes:
    """A string from the wire as outputs write it, in UTF-8."""
    return value.rstrip(b"\0") if value.isascii() else clean(value).encode()
