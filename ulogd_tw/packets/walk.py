"""Many packets read in step: the next place to read in each, and the columns found."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from ulogd_tw.core.column_set import ColumnSet
from ulogd_tw.core.columns import Octets, taken
from ulogd_tw.core.keys import known
from ulogd_tw.kernels import lib
from ulogd_tw.kernels.packets import Places

CUT, MALFORMED = 1, 2
"""Faults: the captured octets end within a header; a header is impossible."""

NOWHERE = np.zeros(0, np.int64)


def marked(size: int, *numbers: int) -> np.ndarray:
    """A table that is True at these numbers: a lookup is much cheaper than `np.isin` for a small batch."""
    table = np.zeros(size, bool)
    table[list(numbers)] = True
    return table


class Walk:
    """The next place to read in each packet. `at` and `end` are places in `octets`; `kind` is an EtherType, or 0.

    `fault` has 0, `CUT` or `MALFORMED` for each packet: the first fault found. `label` has the bottom entry of each
    packet's label stack, -1 for none; None if no packet has labels.
    """

    def __init__(self, octets: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> None:
        self.octets = octets
        self.at = starts.astype(np.int64)
        self.end = self.at + lengths
        self.kind = np.zeros(len(starts), np.int32)
        self.fault = np.zeros(len(starts), np.uint8)
        self.label: np.ndarray | None = None
        self.compiled: Places | None = None
        """Where there are kernels: the same places, to be moved on by them."""
        if lib is not None:
            self.compiled = Places(octets, self.at, self.end, self.kind, self.fault)

    def having(self, rows: np.ndarray, octets: int) -> np.ndarray:
        """The rows with this number of octets left; the other rows are cut."""
        if not len(rows):
            return rows
        there = self.at[rows] + octets <= self.end[rows]
        if there.all():
            return rows
        self.blame(rows[~there], CUT)
        return rows[there]

    def blame(self, rows: np.ndarray, fault: int) -> None:
        """Set a fault for these packets, unless they have one."""
        if len(rows):
            self.fault[rows[self.fault[rows] == 0]] = fault

    def view(self, rows: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """The headers at the next place of these rows; they must be complete."""
        return taken(self.octets, self.at[rows], dtype.itemsize).view(dtype)

    def numbers(self, rows: np.ndarray, offset: int, form: str) -> np.ndarray:
        """A number in each row, `offset` octets after the next place; it must be there."""
        dtype = np.dtype(form)
        return taken(self.octets, self.at[rows] + offset, dtype.itemsize).view(dtype).astype(np.int64)


@cache
def _form(name: str) -> str:
    """The type of a column, a character of NumPy; for addresses without a family the type of IPv4."""
    dtype = known(name).type.dtype
    return dtype.char if dtype is not None else "I"


class Headers(ColumnSet):
    """Columns found in packets of one family (4, 6, `ARP`, or 0 for none), by the names of keys.

    `rows` are the packets. `begins` is the place of the IP header of each row, or of the first unknown octet; `payload`
    the place after the IP headers; `ends` the end of the packet, without padding of its frame. `label` is the MPLS
    label right before `begins`, -1 for none (None: in no row). `asked`: the wanted names.
    """

    __slots__ = ("family", "rows", "begins", "payload", "ends", "label", "asked")

    def __init__(self, family: int, rows: np.ndarray, wanted: Container[str], asked: frozenset[str]) -> None:
        super().__init__(len(rows), wanted)
        self.family = family
        self.rows = rows
        self.begins = self.payload = self.ends = NOWHERE
        self.label: np.ndarray | None = None
        self.asked = asked

    def of(self, family: int, places: np.ndarray) -> Headers:
        """The columns of some of the rows, as a family of their own."""
        found = Headers(family, self.rows[places], self.wanted, self.asked)
        found.take(self, places)
        return found

    def add(
        self, name: str, values: np.ndarray, places: np.ndarray | None = None, missing: np.ndarray | None = None
    ) -> None:
        """As `put`, in the form of the key. `missing` is the complement of `places`: columns share one mask."""
        if name not in self.asked:
            return
        if name in self.columns or (places is not None and missing is None):
            self.put(name, values, places, _form(name) if values.ndim == 1 else "L")
        elif places is None:
            self.columns[name] = np.ascontiguousarray(values, _form(name) if values.ndim == 1 else "L")
        else:
            column = np.zeros((self.n, *values.shape[1:]), _form(name) if values.ndim == 1 else "L")
            column[places] = values
            self.columns[name] = column
            self.missing[name] = missing

    def add_octets(self, name: str, values: np.ndarray, places: np.ndarray) -> None:
        """A column of octet strings of one length, a row of the matrix `values` each."""
        if name not in self.asked:
            return
        size, order = values.shape[1], np.argsort(places, kind="stable")
        column = Octets(np.arange(len(places) + 1) * size, np.ascontiguousarray(values[order]).reshape(-1))
        if len(places) == self.n and name not in self.columns:
            self.columns[name] = column
        else:
            self.put_octets(name, column, places[order])


@dataclass(frozen=True)
class Field:
    """A number in a header: its keys, its place, its form on the wire, shift and mask.

    `when` selects the headers that have it, by their octets (a matrix).
    """

    names: tuple[str, ...]
    offset: int
    form: str
    shift: int = 0
    mask: int = 0
    when: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def end(self) -> int:
        """The number of octets that a header needs for it."""
        return self.offset + np.dtype(self.form).itemsize

    def values(self, octets: np.ndarray) -> np.ndarray:
        """The numbers from headers of one size, given as a matrix."""
        found = np.ndarray((len(octets),), self.form, octets, self.offset, (octets.shape[1],))
        if self.shift:
            found = found >> self.shift
        return found & self.mask if self.mask else found


@lru_cache(256)
def _asked(fields: tuple[Field, ...], asked: frozenset[str]) -> tuple[tuple[Field, tuple[str, ...]], ...]:
    pairs = ((field, tuple(name for name in field.names if name in asked)) for field in fields)
    return tuple((field, names) for field, names in pairs if names)


def read(
    walk: Walk, rows: np.ndarray, places: np.ndarray | None, size: int, fields: tuple[Field, ...], found: Headers
) -> None:
    """Columns of the fields of headers of `size` octets at the next place of the rows.

    `places` are the places of the rows in `found` (None: all rows of it). An incomplete field is missing.
    """
    wanted = _asked(fields, found.asked)
    if not wanted or not len(rows):
        return
    octets, left = _ahead(walk, rows, size)
    short = bool((left < size).any())
    missing = None
    if places is not None:
        missing = np.ones(found.n, bool)
        missing[places] = False
    for field, names in wanted:
        values, here, gone = field.values(octets), places, missing
        if short or field.when is not None:
            there = left >= (size if field.when else field.end)
            if field.when is not None:
                there = there & field.when(octets)
            values, gone = values[there], None
            here = np.flatnonzero(there) if places is None else places[there]
        for name in names:
            found.add(name, values, here, gone)


def _ahead(walk: Walk, rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The next octets of each row as a matrix, and the number of them within the row; the others are arbitrary."""
    at = walk.at[rows]
    left = walk.end[rows] - at
    octets, most = walk.octets, len(walk.octets) - size
    if most < 0:
        octets, most = np.concatenate([octets, np.zeros(size, np.uint8)]), len(octets)
    last = int(at.max())
    if last > most:  # at the end of all octets: what is there is moved to where it belongs
        matrix = taken(octets, np.minimum(at, most), size).reshape(-1, size)
        for row in np.flatnonzero(at > most).tolist():  # the last packet of a buffer, or a few of no octets
            rest = octets[int(at[row]) :][:size]
            matrix[row, : len(rest)] = rest
        return matrix, left
    return taken(octets, at, size).reshape(-1, size), left
