"""The base class of AGGREGATE's functions: a declaration, and a column of state with a place for each entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ulogd_tw.aggregation.saturation import Adder
from ulogd_tw.core import types
from ulogd_tw.core.columns import Column, numbers
from ulogd_tw.core.keys import Key
from ulogd_tw.core.types import Type

WHOLE_NUMBERS = ("unsigned", "boolean", "seconds", "milliseconds")
NUMBERS = ("signed", "float", *WHOLE_NUMBERS)
KINDS = tuple(dict.fromkeys(type_.kind for type_ in types.TYPES.values()))
"""All kinds of types; see `core.types`."""
MERGES = ("sum", "min", "max", "avg")
"""SQL aggregates that every database has."""


@dataclass(frozen=True)
class FunctionSpec:
    """One requested column: its `name`, the `function`, the key `of` it, and the argument after the key."""

    name: str
    function: type[Function]
    of: str
    of_key: Key
    argument: float | None = None

    @property
    def key(self) -> Key:
        """The key of the column."""
        return self.function.result_key(self.name, self.of_key)

    @property
    def saved(self) -> list[Any]:
        """The spec in a state file; 0.5 stands for no argument, as in the first version of the file."""
        return [self.name, self.function.name, self.of, 0.5 if self.argument is None else self.argument]


class Function:
    """The values of one function for the entries of a table; entry e has the places from e * `width` on.

    A subclass declares every attribute below without a default, and has `take` and `ufunc` or `join`. Its methods get
    whole columns. Entries up to `most` have a state.
    """

    name: ClassVar[str]
    """Its name in the option `functions`."""
    help: ClassVar[str]
    """The result in a few words, for the text of the option; may be empty."""
    kinds: ClassVar[tuple[str, ...]]
    """Kinds of the types of the keys that it takes, out of `KINDS`."""
    merged_by: ClassVar[str]
    """The SQL aggregate, out of `MERGES`, that comes nearest to one value of the results of several rows."""
    bounded: ClassVar[bool]
    """True for large states (sketches): the option max_sketches says how many entries have one."""

    argument: ClassVar[str | None] = None
    """An example of the argument behind the key; None: there is none."""
    argument_name: ClassVar[str] = "number"
    width: ClassVar[int] = 1
    """Numbers of a state."""
    state_type: ClassVar[str] = ""
    """The NumPy type of these numbers; empty: that of the result, integers in 64 bits."""
    ufunc: ClassVar[np.ufunc | None] = None
    """Merges two states, number by number."""

    @classmethod
    def result_key(cls, name: str, of: Key) -> Key:
        """The key of its column `name`, for values of the key `of`: type, unit, and element where it still is one."""
        raise NotImplementedError

    @classmethod
    def read_argument(cls, text: str) -> float:
        """The argument as a number. ValueError with what is wrong with it."""
        return float(text)

    def __init__(self, spec: FunctionSpec, capacity: int, most: int) -> None:
        self.spec = spec
        self.most = min(capacity, most) if self.bounded else capacity
        self.dtype = np.dtype(self.state_type) if self.state_type else _held(spec.key.type)
        self.values = np.empty((self.most + 1) * self.width, self.dtype)
        """Memory is reserved; it is used only as far as entries reach."""
        self.adder = Adder()
        self.seen = np.empty(self.most + 1, bool)
        self.partial = np.empty(self.most + 1, bool)
        """Entries merged with one without sketch: they have no result."""

    def nbytes(self, n: int) -> int:
        """Octets in use by n entries."""
        return min(n, self.most) * (2 + self.width * self.values.itemsize)

    def begin(self, first: int, stop: int) -> None:
        """Set the state of new entries."""
        stop = min(stop, self.most + 1)
        if first < stop:
            self.values[first * self.width : stop * self.width] = self.initial()
            self.seen[first:stop] = False
            self.partial[first:stop] = False

    def add(self, entries: np.ndarray, column: Column, missing: np.ndarray | None) -> None:
        """Take the values of rows; `entries` has the entry of each."""
        keep = None if missing is None else ~missing
        if self.most < len(self.seen) - 1 or (len(entries) and int(entries.max()) > self.most):
            within = entries <= self.most
            keep = within if keep is None else keep & within
        if keep is not None and not keep.all():
            rows = np.flatnonzero(keep)
            entries, column = entries[rows], column[rows] if isinstance(column, np.ndarray) else column.take(rows)
        if len(entries):
            self.take(entries, column)
            self.seen[entries] = True

    def results(self, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """The values of the entries from `first` up to `stop`, and a mask of those without one."""
        end = max(min(stop, self.most + 1), first)
        values = self.result(first, end)
        absent = ~self.seen[first:end] | self.partial[first:end]
        if end < stop:
            values = np.concatenate((values, np.zeros(stop - end, values.dtype)))
            absent = np.concatenate((absent, np.ones(stop - end, bool)))
        return values, absent

    def piece(self, first: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """A copy of the states of the entries from `first` up to `stop`, as far as they have one.

        With an octet of flags for each: 1 for states with a value, 2 for partial ones.
        """
        end = max(min(stop, self.most + 1), first)
        flags = self.seen[first:end] + 2 * self.partial[first:end].astype(np.uint8)
        return self.values[first * self.width : end * self.width].copy(), flags.astype(np.uint8)

    def merge(self, entries: np.ndarray, values: np.ndarray, flags: np.ndarray) -> None:
        """Add older states (see `piece`) to these entries, all different or all the same one.

        Entries beyond the flags come without a state: the sketch of their place is partial from then on.
        """
        within = entries <= self.most
        has = len(flags)
        if self.bounded:
            self.partial[entries[has:][within[has:]]] = True
            self.partial[entries[:has][within[:has] & (flags > 1)]] = True
        rows = np.flatnonzero(within[:has] & (flags & 1 > 0))
        if len(rows):
            entries = entries[:has][rows]
            self.join(entries, values.reshape(-1, self.width)[rows])
            self.seen[entries] = True

    # for subclasses

    def initial(self) -> object:
        """The state of an entry that has seen nothing."""
        return 0

    def take(self, entries: np.ndarray, column: Column) -> None:
        """Take values, none of which is missing; `seen` is still that of the rows before."""
        raise NotImplementedError

    def join(self, entries: np.ndarray, rows: np.ndarray) -> None:
        """Merge older states, `rows` of `width` numbers, into those of entries, all different or all the same."""
        assert self.ufunc is not None
        held = self.values.reshape(-1, self.width)
        if entries[0] == entries[-1]:
            rows, entries = self.ufunc.reduce(rows, axis=0, dtype=rows.dtype)[None], entries[:1]
        held[entries] = self.ufunc(held[entries], rows)

    def result(self, first: int, stop: int) -> np.ndarray:
        """The values of the entries from `first` up to `stop`."""
        return self.values[first:stop].copy()

    def as_held(self, column: Column) -> np.ndarray:
        """A column of numbers in the type of the state."""
        return numbers(column).astype(self.dtype, copy=False)


def _held(type_: Type) -> np.dtype:
    """The NumPy type of the states of results of this type."""
    assert type_.dtype is not None
    return np.dtype("Q") if type_.dtype.kind == "u" else np.dtype(type_.dtype.char)


def widest(type_: Type) -> Type:
    """The type that holds the values of `type_` in 64 bits; times stay times."""
    if type_.kind == "float":
        return types.FLOAT64
    if type_.kind == "signed":
        return types.SIGNED64
    return type_ if type_.kind in ("seconds", "milliseconds") else types.UNSIGNED64
