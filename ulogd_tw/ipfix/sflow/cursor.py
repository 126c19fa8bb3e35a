"""Fields of many records of sFlow that are read in step, as XDR writes them (RFC 4506), and texts of their lists."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ulogd_tw.core.columns import Octets, taken
from ulogd_tw.ipfix.sflow.samples import Reading


class Cursor:
    """Where each record is read next, in words. A row drops out where its record ends before what is read.

    `rows` says which rows are left; what a method gives is of these.
    """

    def __init__(self, reading: Reading, rows: np.ndarray, at: np.ndarray, ends: np.ndarray) -> None:
        self._reading = reading
        self.rows, self.at, self.ends = rows, at.astype(np.int64), ends

    def keep(self, which: np.ndarray) -> None:
        """Go on with some of the rows."""
        if not which.all():
            self.rows, self.at, self.ends = self.rows[which], self.at[which], self.ends[which]

    def skip(self, words: int | np.ndarray) -> np.ndarray:
        """Pass over so many words; where they were."""
        after = self.at + words
        here, whole = self.at, after <= self.ends
        self.at = after
        self.keep(whole)
        return here[whole]

    def number(self) -> np.ndarray:
        """An unsigned integer."""
        return self._reading.words[self.skip(1)]

    def long(self) -> np.ndarray:
        """An unsigned hyper."""
        return self._reading.number(self.skip(2), 8)

    def mac(self) -> np.ndarray:
        """Six octets that are filled up to eight."""
        return self.long() >> np.uint64(16)

    def ipv4(self) -> np.ndarray:
        """An address of IPv4."""
        return self.number()

    def ipv6(self) -> np.ndarray:
        """An address of IPv6, (n, 2)."""
        return self._reading.ipv6(self.skip(4))

    def octets(self) -> Octets:
        """Octets behind their length."""
        size = self.number().astype(np.int64)
        lengths, before = size, self.at + -(-size // 4) <= self.ends
        here = self.skip(-(-size // 4))
        return Octets.gathered(self._reading.octets, here * 4, lengths[before])

    def array(self, words: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """A counted list of elements of some words: where it begins, and how many there are."""
        count = self.number().astype(np.int64)
        before = self.at + count * words <= self.ends
        return self.skip(count * words), count[before]

    def address(self) -> tuple[np.ndarray, np.ndarray]:
        """An address behind its type: the type (1: IPv4, 2: IPv6, others have none), and where it is."""
        kind = self.number()
        size = np.where(kind == 1, 1, np.where(kind == 2, 4, 0))
        before = self.at + size <= self.ends
        return kind[before], self.skip(size)


def texts(reading: Reading, starts: np.ndarray, words: np.ndarray, written: Callable[[bytes], bytes]) -> Octets:
    """The texts of stretches of words: one Python step for each different one."""
    found, base = [], 0
    which = np.zeros(len(starts), np.int64)
    for size in np.unique(words).tolist():
        here = np.flatnonzero(words == size)
        if not size:
            values, places = [b""], np.zeros(len(here), np.int64)
        else:
            column = taken(reading.octets, starts[here] * 4, 4 * size).view(f"S{4 * size}")
            _, first, places = np.unique(column, return_index=True, return_inverse=True)
            values = [column[place : place + 1].tobytes() for place in first.tolist()]
        which[here] = base + places
        found += [written(value) for value in values]
        base += len(values)
    return Octets.of(found).take(which)
