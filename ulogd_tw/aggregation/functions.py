"""What AGGREGATE can work out for a group beside its sums: functions of any key, a column of state each.

A state is an array with a place for each entry of a table, or for those up to a bound: sketches are large.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.columns import Column
from ulogd_tw.core.hashes import hashes
from ulogd_tw.core.keys import Key, known, nearest, registry
from ulogd_tw.core.types import Type

_NUMBERS = ("unsigned", "signed", "float", "boolean", "seconds", "milliseconds")
_WHOLE = ("unsigned", "boolean", "seconds", "milliseconds")
REGISTERS = 256
"""Of a HyperLogLog (Flajolet et al. 2007): a standard error of 6.5 %, and less where few values differ."""
_PER_OCTAVE = 8
"""Buckets of a quantile for each power of two: a value is told to 4.4 %."""
BUCKETS = 64 * _PER_OCTAVE + 1
_SKETCHES = ("distinct", "quantile")
_AT_ONCE = 2048
_ALPHA = 0.7213 / (1 + 1.079 / REGISTERS)


@dataclass(frozen=True)
class FunctionSpec:
    """One function that is asked for: `name` of its column, the `function`, the key `of` which, and its `share`."""

    name: str
    function: str
    of: str
    share: float = 0.5

    @property
    def key(self) -> Key:
        """The key of its column."""
        of = known(self.of.partition("@")[0])
        if self.function in ("count", "distinct"):
            return Key(self.name, types.UNSIGNED64)
        if self.function in ("mean", "quantile"):
            return Key(self.name, types.FLOAT64, (), of.unit)
        # what stays a value of the element can be exported as one
        elements = of.elements if self.function in ("or", "sum", "first", "last") else ()
        return Key(self.name, _held(of.type), elements, of.unit)


def parse(text: str) -> list[FunctionSpec]:
    """The functions of the option. ValueError with what is wrong with the first that is."""
    found = []
    for word in _words(text):
        match = re.fullmatch(r"(?:([\w.]+)=)?(\w+)\(([^(),]*)(?:,([^(),]*))?\)", word)
        if match is None:
            raise ValueError(f"{word!r} is none such as max(octetDeltaCount) or p95=quantile(octetDeltaCount,0.95)")
        found.append(_wish(word, *match.groups()))
    names = [wish.name for wish in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two functions are called {name}")
    return found


def _words(text: str) -> Iterator[str]:
    """The functions, with commas or blanks between them; those within brackets belong to them."""
    for word in re.split(r"[\s,]+(?![^(]*\))", text.strip()):
        if word:
            yield re.sub(r"\s", "", word)


def _wish(word: str, name: str | None, function: str, of: str, share: str | None) -> FunctionSpec:
    if function not in FUNCTIONS:
        near = nearest(function, FUNCTIONS)
        raise ValueError(f"there is no function {function}" + (f"; did you mean {near}?" if near else f": {_NAMES}"))
    key = known(of.partition("@")[0])
    if key is None:
        near = nearest(of, registry.names())
        raise ValueError(f"{word}: nobody knows the key {of!r}" + (f"; did you mean {near}?" if near else ""))
    kinds = _WHOLE if function == "or" else _NUMBERS
    if function not in ("count", "distinct") and key.type.kind not in kinds:
        raise ValueError(f"{word}: {of} is no number")
    wish = FunctionSpec(name or f"{function}_{of}", function, of)
    if (share is not None) != (function == "quantile"):
        raise ValueError(f"{word}: a quantile has a share, and nothing else: quantile({of},0.95)")
    if share is None:
        return wish
    try:
        wish = replace(wish, share=float(share))
    except ValueError:
        wish = replace(wish, share=-1.0)
    if not 0 <= wish.share <= 1:
        raise ValueError(f"{word}: {share!r} is no share between 0 and 1")
    return wish


def _held(type_: Type) -> Type:
    """The type of the values that are kept for one of `type_`."""
    if type_.kind == "float":
        return types.FLOAT64
    if type_.kind == "signed":
        return types.SIGNED64
    return type_ if type_.kind in ("seconds", "milliseconds") else types.UNSIGNED64


class State:
    """The values of one function for the entries of a table; entry e has place e. `most`: entries that have one."""

    width = 1

    def __init__(self, wish: FunctionSpec, capacity: int, most: int) -> None:
        self.wish = wish
        self.most = min(capacity, most if wish.function in _SKETCHES else capacity)
        dtype = wish.key.type.dtype
        self.dtype = np.dtype("Q") if dtype.kind in "u" else np.dtype(dtype.char)
        self.values = np.empty((self.most + 1) * self.width, self.form)
        """Memory is reserved; it is used only as far as entries reach."""
        self.seen = np.empty(self.most + 1, bool)
        self.partial = np.empty(self.most + 1, bool)
        """Entries that were merged with one that had no sketch: they tell nothing."""

    @property
    def form(self) -> np.dtype:
        """The type of the state."""
        return self.dtype

    def nbytes(self, n: int) -> int:
        """Octets in use by n entries."""
        return min(n, self.most) * (2 + self.width * self.values.itemsize)

    def begin(self, first: int, stop: int) -> None:
        """Set the state of new entries."""
        stop = min(stop, self.most + 1)
        if first < stop:
            self.values[first * self.width : stop * self.width] = self.start()
            self.seen[first:stop] = False
            self.partial[first:stop] = False

    def add(self, entries: np.ndarray, column: Column, missing: np.ndarray | None) -> None:
        """Take the values of rows; `entries` says of which entry each is."""
        keep = None if missing is None else ~missing
        if self.most < len(self.seen) - 1 or (len(entries) and int(entries.max()) > self.most):
            within = entries <= self.most
            keep = within if keep is None else keep & within
        if keep is not None and not keep.all():
            rows = np.flatnonzero(keep)
            entries, column = entries[rows], column[rows] if isinstance(column, np.ndarray) else column.take(rows)
        if len(entries):
            self.seen[entries] = True
            self.take(entries, column)

    def results(self, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """A value for each of the entries from `first` up to `stop`, and which have none."""
        told = max(min(stop, self.most + 1), first)
        values = self.told(first, told)
        absent = ~self.seen[first:told] | self.partial[first:told]
        if told < stop:
            values = np.concatenate((values, np.zeros(stop - told, values.dtype)))
            absent = np.concatenate((absent, np.ones(stop - told, bool)))
        return values, absent

    def piece(self, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """A copy of the states of the entries from `first` up to `stop`, as far as they have one.

        With an octet of flags for each: 1 for those that have seen a value, 2 for partial ones.
        """
        told = max(min(stop, self.most + 1), first)
        flags = self.seen[first:told] + 2 * self.partial[first:told].astype(np.uint8)
        return self.values[first * self.width : told * self.width].copy(), flags.astype(np.uint8)

    def merge(self, entries: np.ndarray, values: np.ndarray, flags: np.ndarray) -> None:
        """Add older states (see `piece`) to these entries, all different or all the same one.

        Those beyond the flags have no state to add: where a sketch should be, what is there then is not whole.
        """
        within = entries <= self.most
        has = len(flags)
        if self.wish.function in _SKETCHES:
            self.partial[entries[has:][within[has:]]] = True
            self.partial[entries[:has][within[:has] & (flags > 1)]] = True
        rows = np.flatnonzero(within[:has] & (flags & 1 > 0))
        if len(rows):
            entries = entries[:has][rows]
            self.join(entries, values.reshape(-1, self.width)[rows])
            self.seen[entries] = True

    # for subclasses

    ufunc: np.ufunc | None = None
    """What makes one state of two, value by value."""

    def join(self, entries: np.ndarray, rows: np.ndarray) -> None:
        """Make one of the states of entries and these `rows` of older ones."""
        held = self.values.reshape(-1, self.width)
        if entries[0] == entries[-1]:
            rows, entries = self.ufunc.reduce(rows, axis=0, dtype=rows.dtype)[None], entries[:1]
        held[entries] = self.ufunc(held[entries], rows)

    def start(self) -> object:
        """The state of an entry that has seen nothing."""
        return 0

    def take(self, entries: np.ndarray, column: Column) -> None:
        """Take values, none of which is missing."""
        raise NotImplementedError

    def told(self, first: int, stop: int) -> np.ndarray:
        """The values of the entries from `first` up to `stop`."""
        return self.values[first:stop].copy()

    def as_held(self, column: np.ndarray) -> np.ndarray:
        return column.astype(self.form, copy=False)


class _Sum(State):
    ufunc = np.add

    def take(self, entries: np.ndarray, column: Column) -> None:
        np.add.at(self.values, entries, self.as_held(column))


class _Count(State):
    ufunc = np.add

    def take(self, entries: np.ndarray, column: Column) -> None:
        np.add.at(self.values, entries, np.uint64(1))


class _Extreme(State):
    @property
    def ufunc(self) -> np.ufunc:  # type: ignore[override]
        return np.minimum if self.wish.function == "min" else np.maximum

    def start(self) -> object:
        if self.dtype.kind == "f":
            return np.inf if self.wish.function == "min" else -np.inf
        limits = np.iinfo(self.dtype)
        return limits.max if self.wish.function == "min" else limits.min

    def take(self, entries: np.ndarray, column: Column) -> None:
        self.ufunc.at(self.values, entries, self.as_held(column))


class _Or(State):
    ufunc = np.bitwise_or

    def take(self, entries: np.ndarray, column: Column) -> None:
        np.bitwise_or.at(self.values, entries, self.as_held(column))


class _Last(State):
    def join(self, entries: np.ndarray, rows: np.ndarray) -> None:
        older = ~self.seen[entries]
        self.values[entries[older]] = rows[older, 0]

    def take(self, entries: np.ndarray, column: Column) -> None:
        self.values[entries] = self.as_held(column)  # of rows with one entry the last one stays


class _First(State):
    def add(self, entries: np.ndarray, column: Column, missing: np.ndarray | None) -> None:
        known_ = self.seen[np.minimum(entries, self.most)]
        super().add(entries, column, known_ if missing is None else missing | known_)

    def join(self, entries: np.ndarray, rows: np.ndarray) -> None:
        self.values[entries[::-1]] = rows[::-1, 0]

    def take(self, entries: np.ndarray, column: Column) -> None:
        self.values[entries[::-1]] = self.as_held(column)[::-1]


class _Mean(State):
    width = 2
    ufunc = np.add

    def take(self, entries: np.ndarray, column: Column) -> None:
        np.add.at(self.values, 2 * entries, column.astype(np.float64))
        np.add.at(self.values, 2 * entries + 1, 1.0)

    def told(self, first: int, stop: int) -> np.ndarray:
        pairs = self.values[2 * first : 2 * stop].reshape(-1, 2)
        return pairs[:, 0] / np.maximum(pairs[:, 1], 1)


class _Distinct(State):
    """A HyperLogLog: for each of the registers the greatest rank of a hash."""

    width = REGISTERS
    ufunc = np.maximum

    @property
    def form(self) -> np.dtype:
        return np.dtype("B")

    def take(self, entries: np.ndarray, column: Column) -> None:
        hashed = hashes(column)
        rest = (hashed >> np.uint64(4)) & np.uint64((1 << 52) - 1)  # as many bits as a float tells exactly
        ranks = (53 - np.frexp(rest.astype(np.float64))[1]).astype(np.uint8)
        np.maximum.at(self.values, entries * REGISTERS + (hashed >> np.uint64(56)).view(np.int64), ranks)

    def told(self, first: int, stop: int) -> np.ndarray:
        registers = self.values[first * REGISTERS : stop * REGISTERS].reshape(-1, REGISTERS)
        found = np.empty(stop - first, np.uint64)
        for at in range(0, stop - first, _AT_ONCE):
            part = registers[at : at + _AT_ONCE]
            estimate = _ALPHA * REGISTERS**2 / np.ldexp(1.0, -part.astype(np.int32)).sum(axis=1)
            empty = (part == 0).sum(axis=1)
            linear = REGISTERS * np.log(REGISTERS / np.maximum(empty, 1))
            few = (estimate <= 2.5 * REGISTERS) & (empty > 0)
            found[at : at + _AT_ONCE] = np.rint(np.where(few, linear, estimate))
        return found


class _Quantile(State):
    """A histogram with buckets of equal ratio, as DDSketch has them (Masson et al. 2019); below 1 is one bucket."""

    width = BUCKETS
    ufunc = np.add

    @property
    def form(self) -> np.dtype:
        return np.dtype("I")

    def take(self, entries: np.ndarray, column: Column) -> None:
        values = np.maximum(column.astype(np.float64), 0.5)
        buckets = np.clip(np.floor(np.log2(values) * _PER_OCTAVE) + 1, 0, BUCKETS - 1).astype(np.int64)
        np.add.at(self.values, entries * BUCKETS + buckets, np.uint32(1))

    def told(self, first: int, stop: int) -> np.ndarray:
        counts = self.values[first * BUCKETS : stop * BUCKETS].reshape(-1, BUCKETS)
        found = np.empty(stop - first, np.float64)
        for at in range(0, stop - first, _AT_ONCE):
            sums = counts[at : at + _AT_ONCE].cumsum(axis=1, dtype=np.uint64)
            rank = np.maximum(np.ceil(self.wish.share * sums[:, -1]), 1)
            bucket = (sums < rank[:, None]).sum(axis=1)
            found[at : at + _AT_ONCE] = np.where(bucket == 0, 0.0, np.exp2((bucket - 0.5) / _PER_OCTAVE))
        return found


FUNCTIONS: dict[str, type[State]] = {
    "sum": _Sum, "count": _Count, "min": _Extreme, "max": _Extreme, "first": _First, "last": _Last, "or": _Or,
    "mean": _Mean, "distinct": _Distinct, "quantile": _Quantile,
}  # fmt: skip
_NAMES = ", ".join(FUNCTIONS)
TOGETHER = dict.fromkeys(FUNCTIONS, "max") | {"sum": "sum", "count": "sum", "min": "min", "first": "min", "mean": "avg"}
"""The SQL function that comes nearest to making one value of several of a function."""
