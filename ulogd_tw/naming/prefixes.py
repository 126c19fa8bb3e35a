"""Finds the most specific network of each address, for whole columns of addresses."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.types import Type

_32 = np.uint64(32)
_CACHED = 1 << 14
"""Number of ranges from which addresses are sorted before the search, since the table exceeds a cache."""


@dataclass
class Networks:
    """Networks of one family in any order: halves of the first address, prefix length, number from 1 of each.

    An IPv4 address is a lower half. Networks of the same name share a number.
    """

    high: np.ndarray | array = field(default_factory=lambda: array("Q"))
    low: np.ndarray | array = field(default_factory=lambda: array("Q"))
    bits: np.ndarray | array = field(default_factory=lambda: array("B"))
    codes: np.ndarray | array = field(default_factory=lambda: array("i"))

    def add(self, address: int, bits: int, code: int) -> None:
        """One more network."""
        self.high.append(address >> 64)
        self.low.append(address & (1 << 64) - 1)
        self.bits.append(bits)
        self.codes.append(code)


@dataclass
class Families:
    """Networks of IPv4 and of IPv6."""

    four: Networks = field(default_factory=Networks)
    six: Networks = field(default_factory=Networks)

    def add(self, network: tuple[int, int, int], code: int) -> None:
        """Add a network: version, first and last address, in the form of `span`."""
        version, first, last = network
        free = (last - first).bit_length()
        if version == 4:
            self.four.add(first, 32 - free, code)
        else:
            self.six.add(first, 128 - free, code)


class Ranges:
    """Addresses of one family divided into ranges without gaps, each with the number of its network; 0 is none.

    Range i begins at (high[i], low[i]) and ends before the next one. With `nested`, `parents` holds for each network
    the number of the network around it; numbers must then be unique.
    """

    def __init__(self, networks: Networks, width: int, nested: bool = False) -> None:
        high, low = (np.asarray(half, np.uint64) for half in (networks.high, networks.low))
        bits, codes = np.asarray(networks.bits, np.int64), np.asarray(networks.codes, np.int32)
        high, low, first, behind = _points(high, low, width - bits)
        painted = np.zeros(len(high), np.int32)
        self.parents = np.zeros(len(codes) if nested else 0, np.int32)
        for length in np.unique(bits).tolist():  # the more specific ones over the others
            chosen = bits == length
            if nested:
                self.parents[chosen] = painted[first[chosen]]
            _paint(painted, first[chosen], behind[chosen], codes[chosen])
        begins = np.ones(len(painted), bool)
        begins[1:] = painted[1:] != painted[:-1]
        begins &= (high == 0) & (low < 1 << 32) if width == 32 else True
        self.codes = painted[begins]
        self._find = _Four(low[begins]) if width == 32 else _Six(high[begins], low[begins])

    def rows(self, column: np.ndarray) -> np.ndarray:
        """The number of the network of each address, int32; 0 for none."""
        if len(self.codes) == 1:
            return np.broadcast_to(self.codes[0], len(column))
        return self.codes[self._find.places(column)]

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self._find.nbytes


class _Four:
    def __init__(self, starts: np.ndarray) -> None:
        self._starts = starts.astype(np.uint32)
        self.nbytes = self._starts.nbytes

    def places(self, column: np.ndarray) -> np.ndarray:
        """The range of each address."""
        return _places(self._starts, column)


class _Six:
    """Upper halves are searched first; lower halves only for addresses in a /64 with the beginning of a range."""

    def __init__(self, high: np.ndarray, low: np.ndarray) -> None:
        self._upper, first = np.unique(high, return_index=True)
        self._first = np.append(first, len(high))
        self._low = low
        self.nbytes = self._upper.nbytes + self._first.nbytes + low.nbytes

    def places(self, column: np.ndarray) -> np.ndarray:
        """The range of each address."""
        high, low = np.ascontiguousarray(column[:, 0]), column[:, 1]
        upper = _places(self._upper, high)
        found = self._first[upper + 1] - 1  # the last range of this upper half
        rows = np.flatnonzero((self._low[found] > low) & (self._upper[upper] == high))
        if len(rows):
            found[rows] = self._bisect(self._first[upper[rows]] - 1, found[rows] - 1, low[rows])
        return found

    def _bisect(self, least: np.ndarray, most: np.ndarray, low: np.ndarray) -> np.ndarray:
        """The last range that begins at or before `low`, from `least` + 1 up to `most`; `least` if there is none."""
        while (least < most).any():
            middle = (least + most + 1) // 2
            before = self._low[middle] <= low
            least, most = np.where(before, middle, least), np.where(before, most, middle - 1)
        return least


def _points(
    high: np.ndarray, low: np.ndarray, free: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All addresses with a beginning or end, in order; and for each network its first point and the point after it."""
    one = np.uint64(1)
    after_low = low + np.where(free < 64, one << np.minimum(free, 63).astype(np.uint64), np.uint64(0))
    size = np.where((free >= 64) & (free < 128), one << np.clip(free - 64, 0, 63).astype(np.uint64), np.uint64(0))
    after_high = high + size + ((after_low < low) & (free < 64))
    over = (after_high == 0) & (after_low == 0) | (free == 128)  # the last address is in it
    highs = np.concatenate([np.zeros(1, np.uint64), high, after_high])
    lows = np.concatenate([np.zeros(1, np.uint64), low, after_low])
    order = np.lexsort((lows, highs))
    highs, lows = highs[order], lows[order]
    new = np.ones(len(highs), bool)
    new[1:] = (highs[1:] != highs[:-1]) | (lows[1:] != lows[:-1])
    rank = np.empty(len(order), np.int64)
    rank[order] = np.cumsum(new) - 1
    first, behind = rank[1 : len(high) + 1], rank[len(high) + 1 :]
    points = int(np.count_nonzero(new))
    return highs[new], lows[new], first, np.where(over, points, behind)


def _paint(out: np.ndarray, first: np.ndarray, behind: np.ndarray, codes: np.ndarray) -> None:
    """``out[first[i]:behind[i]] = codes[i]``."""
    counts = behind - first
    offsets = np.cumsum(counts) - counts
    out[np.repeat(first - offsets, counts) + np.arange(counts.sum())] = np.repeat(codes, counts)


def _places(starts: np.ndarray, column: np.ndarray) -> np.ndarray:
    """The last of the sorted `starts` not above each value. In a large table, sorted values are twice as fast."""
    if len(starts) <= _CACHED or len(column) < 64:
        return np.searchsorted(starts, column, "right") - 1
    order = np.argsort(column)
    found = np.empty(len(column), np.int64)
    found[order] = np.searchsorted(starts, column[order], "right") - 1
    return found


class PrefixTable:
    """Networks of both families."""

    def __init__(self, four: Networks, six: Networks, nested: bool = False) -> None:
        self.families = self._four, self._six = Ranges(four, 32, nested), Ranges(six, 128, nested)

    def codes(self, column: np.ndarray, type_: Type, missing: np.ndarray | None = None) -> np.ndarray:
        """The number of the network of each address, int32; 0 if it has none or is missing.

        An IPv6 address within ::ffff:0:0/96 has the network of the IPv4 address, else that of IPv6.
        """
        found = (self._four if type_ is types.IPV4 else self._six).rows(column)
        if type_ is not types.IPV4 and len(
            rows := np.flatnonzero((column[:, 0] == 0) & (column[:, 1] >> _32 == 0xFFFF))
        ):
            of_four = self._four.rows(column[rows, 1].astype(np.uint32))
            found = found.copy()
            found[rows] = np.where(of_four, of_four, found[rows])
        return found if missing is None else np.where(missing, np.int32(0), found)

    @property
    def nbytes(self) -> int:
        return self._four.nbytes + self._six.nbytes
