"""One table of an AGGREGATE: groups with the same present keys, and the sums of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ulogd_tw.aggregation.functions import FunctionSpec
from ulogd_tw.aggregation.saturation import Adder
from ulogd_tw.core import keys, types
from ulogd_tw.core.columns import numbers
from ulogd_tw.core.key_table import KeyTable
from ulogd_tw.core.keys import Key
from ulogd_tw.core.packing import Dictionary, Packing
from ulogd_tw.kernels import lib, table

FLOWS = Key("flows", types.UNSIGNED64, ((0, 3),), "flows", "deltaCounter")
PACKETS, OCTETS, REPLY_PACKETS, REPLY_OCTETS = SUMS = keys.SUMS
FIRST = Key("first_ms", types.MILLISECONDS, ((0, 152),), "milliseconds")
LAST = Key("last_ms", types.MILLISECONDS, ((0, 153),), "milliseconds")
VALUES = (FLOWS, PACKETS, OCTETS, FIRST, LAST, REPLY_PACKETS, REPLY_OCTETS)
SEEN = "seen"
PLACES = (FLOWS, PACKETS, OCTETS, FIRST, LAST, SEEN)
"""The values after the key in a row of a table; with the 13 octets of an IPv4 5-tuple a row is one cache line."""
BORN = Key("born", types.MILLISECONDS, unit="milliseconds")
"""When the first row of a group came."""
ADDED = tuple(Key(f"added.{key.name}", types.UNSIGNED64) for key in SUMS)
"""The amounts added to each of `SUMS` by records with totals; see `total_counters`."""
SPAN = Key("span", types.UNSIGNED64)
"""A key that is not handed on: rows whose key of the option `change` has one value without a break, see `spans`."""
NEVER = np.uint64(0xFFFFFFFFFFFFFFFF)
_KINDS = {FIRST: table.LEAST, LAST: table.GREATEST}
Rows = Mapping[Key, np.ndarray | None]
"""The values of rows for `VALUES` (uint64); None: 1 each."""


@dataclass
class Slice:
    """Some entries of a table, copied: `rows` (n, words + values), `more` and `states` as far as entries have them.

    A state is (its values, and an octet of flags for each entry that has one), see `Function.piece`.
    """

    rows: np.ndarray
    more: dict[Key, np.ndarray]
    states: list[tuple[np.ndarray, np.ndarray]]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def words(self) -> list[np.ndarray]:
        """The words of the keys."""
        return [np.ascontiguousarray(self.rows[:, place]) for place in range(self.rows.shape[1] - len(PLACES))]

    def value(self, name: Key | str) -> np.ndarray:
        """The column of one of `PLACES`."""
        return self.rows[:, self.rows.shape[1] - len(PLACES) + PLACES.index(name)]

    def take(self, chosen: np.ndarray) -> Slice:
        """The entries of a mask."""
        places = np.flatnonzero(chosen)
        if len(places) == len(self):
            return self
        states = []
        for values, flags in self.states:
            there = places[places < len(flags)]
            width = len(values) // len(flags) if len(flags) else 1
            states.append((values.reshape(-1, width)[there].ravel(), flags[there]))
        return Slice(self.rows[places], {key: column[places] for key, column in self.more.items()}, states)


class MemoryPool:
    """The memory and the sizes of tables that are gone, for new ones."""

    def __init__(self) -> None:
        self._memory: dict[tuple[int, int], np.ndarray] = {}
        self._sizes: dict[object, int] = {}

    def get(self, stride: int, capacity: int) -> np.ndarray | None:
        """Memory for such a table, if there is some."""
        return self._memory.pop((stride, capacity), None)

    def take(self, group: Group) -> None:
        """Keep the memory of a table that nobody will look at, one of each kind."""
        if not group.readers and group.table.n:
            self._memory[group.table.stride, group.table.capacity] = group.table.flat

    def expected(self, present: object) -> int:
        """Entries of the last table of these present keys; 0 where there was none."""
        return self._sizes.get(present, 0)

    def expect(self, sizes: dict[object, int]) -> None:
        """Note how many entries the tables of an interval have, by their present keys."""
        self._sizes.update(sizes)


class Group:
    """One table: the rows with the same present keys, held in the same types.

    The values of an entry follow its key: flows, packets, octets, first, last, and the bits of values seen: bit i is
    set if the sum `SUMS[i]` had a value at least once, else the sum is NULL. Rare values, sums of the reply direction
    and the time of the first row, are columns of their own, made at their first value.
    """

    MORE = (REPLY_PACKETS, REPLY_OCTETS, BORN)

    def __init__(
        self, present: tuple[Key, ...], dictionaries: dict[str, Dictionary], capacity: int, expected: int,
        specs: Sequence[FunctionSpec], most: int, pool: MemoryPool,
    ):  # fmt: skip
        self.packing = Packing(present, dictionaries)
        words = self.packing.words
        self.table = KeyTable(words, capacity, expected, len(PLACES), pool.get(words + len(PLACES), capacity))
        self.places = {name: self.packing.words + place for place, name in enumerate(PLACES)}
        self.states = [spec.function(spec, capacity, most) for spec in specs]
        self.more: dict[Key, np.ndarray] = {}
        self._adders = {key: Adder() for key in SUMS if key not in self.places}
        self._of_place = {self.places[key]: Adder() for key in (FLOWS, PACKETS, OCTETS)}
        self._bounds: dict[int, int] = {}
        self._safe = True
        """Whether no sum can have come near its limit; the kernel adds as long as that is so."""
        self.seen_by_all: int | None = None
        """The bits that every entry has; None while there is no entry."""
        self.readers = 0
        """Number of readers going through it in slices, for which it must stay."""
        self._used = 0

    @property
    def nbytes(self) -> int:
        """Octets of memory in use."""
        n = self.table.n
        return self.table.nbytes + 8 * len(self.more) * n + sum(state.nbytes(n) for state in self.states)

    def begin(self) -> slice:
        """Set the values of entries that are new, and give their numbers."""
        first, self._used = self._used + 1, self.table.n
        for name, place in self.places.items():
            self.table.column(place, first)[:] = NEVER if name is FIRST else 0
        for key, column in self.more.items():
            column[first : self._used + 1] = NEVER if key is BORN else 0
        for state in self.states:
            state.begin(first, self._used + 1)
        return slice(first, self._used + 1)

    def values(self, key: Key | str, first: int, stop: int) -> np.ndarray:
        """The column of a value over the entries from `first` up to `stop`, a copy."""
        if key in self.places:
            return self.table.column(self.places[key], first)[: stop - first].copy()
        column = self.more.get(key) if isinstance(key, Key) else None
        return np.zeros(stop - first, np.uint64) if column is None else column[first:stop].copy()

    def spans(self, piece: Slice) -> np.ndarray | None:
        """The spans of a piece of this table."""
        found = self.packing.unpack(piece.words).get(SPAN)
        return None if found is None else numbers(found)

    def add(self, entries: np.ndarray, rows: Rows) -> None:
        """Add the values of rows to their entries: counters as sums, the first and the last time."""
        for key, adder in self._adders.items():
            if (values := rows.get(key)) is not None:
                adder.add(self._column(key), entries, values)
        here = [(self.places[key], _KINDS.get(key, table.ADD), values) for key, values in rows.items()
                if key in self.places]  # fmt: skip
        if lib is not None and self._safe:
            whole = [(place, kind, v if v is None else np.ascontiguousarray(v, np.uint64)) for place, kind, v in here]
            if table.add(self.table.flat, self.table.stride, self.table.n, entries, whole, self._bounds):
                return
            self._safe = False
            for place, bound in self._bounds.items():
                self._of_place[place].begin(bound)
        self._add_by_numpy(entries, here)

    def _add_by_numpy(self, entries: np.ndarray, sums: Sequence[table.Sum]) -> None:
        flat, places = self.table.flat, entries * self.table.stride
        for place, kind, values in sums:
            each = np.ones(len(entries), np.uint64) if values is None else values
            if kind == table.ADD:
                self._of_place[place].add(flat, places + place, each)
            else:
                (np.minimum if kind == table.LEAST else np.maximum).at(flat, places + place, each)

    def report_saturated(self, report: Callable[[int], None]) -> None:
        """Tell it of sums that stop at the limit of 64 bits."""
        for adder in (*self._adders.values(), *self._of_place.values(), *(state.adder for state in self.states)):
            adder.report = report

    def _column(self, key: Key) -> np.ndarray:
        if key not in self.more:
            self.more[key] = np.empty(self.table.capacity + 1, np.uint64)
            self.more[key][: self.table.n + 1] = NEVER if key is BORN else 0
        return self.more[key]

    def born(self, entries: np.ndarray | slice, when: np.ndarray | int) -> None:
        """Note when the first row of entries came, milliseconds since 1970."""
        column = self._column(BORN)
        if isinstance(entries, slice):
            column[entries] = when
        else:
            np.minimum.at(column, entries, when)

    def see(self, bits: int, partly: np.ndarray | None, entries: np.ndarray, new: slice) -> None:
        """Note which sums these rows had: `bits` all of them, `partly` (a mask of bits a row) some."""
        column = self.places[SEEN]
        if new.stop > new.start:
            self.table.column(column, new.start)[:] = bits
        if self.seen_by_all is None:
            self.seen_by_all = bits
        elif bits & ~self.seen_by_all:
            np.bitwise_or.at(self.table.flat, entries * self.table.stride + column, np.uint64(bits))
        if new.stop > new.start:
            self.seen_by_all &= bits
        if partly is not None:
            np.bitwise_or.at(self.table.flat, entries * self.table.stride + column, partly)

    def piece(self, first: int, stop: int) -> Slice:
        """A copy of the entries from `first` up to `stop`."""
        stride = self.table.stride
        rows = self.table.flat[first * stride : stop * stride].reshape(-1, stride).copy()
        more = {key: column[first:stop].copy() for key, column in self.more.items()}
        return Slice(rows, more, [state.piece(first, stop) for state in self.states])

    def merge(self, entries: np.ndarray, piece: Slice) -> None:
        """Add what a piece of another table has; all `entries` are different ones, or all are the same one."""
        if not len(entries):
            return
        if BORN in piece.more:
            self.born(entries, piece.more[BORN])
        more = {key: column for key, column in piece.more.items() if key is not BORN}
        self.add(entries, {key: piece.value(key) for key in (FLOWS, PACKETS, OCTETS, FIRST, LAST)} | more)
        seen = piece.value(SEEN)
        np.bitwise_or.at(self.table.flat, entries * self.table.stride + self.places[SEEN], seen)
        bits = int(np.bitwise_and.reduce(seen))
        self.seen_by_all = bits if self.seen_by_all is None else self.seen_by_all & bits
        for state, (values, flags) in zip(self.states, piece.states, strict=True):
            state.merge(entries, values, flags)
