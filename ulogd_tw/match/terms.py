"""Terms of an expression: each selects the rows of a batch for which it is true. A missing value makes a term false."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import strings
from ulogd_tw.core.readable import labels_only, readable
from ulogd_tw.core.resolve import Find, Found
from ulogd_tw.match.values import Numbers, Prefixes, Strings, fraction, mapped_rows

COMPARE = {"=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
           ">=": operator.ge}  # fmt: skip


class Term:
    """A condition on a row. `keys`: name -> True if the term needs the key."""

    def rows(self, find: Find, batch: Batch) -> np.ndarray:
        """A mask of the rows for which it is true."""
        raise NotImplementedError

    def keys(self) -> dict[str, bool]:
        return {}

    def terms(self) -> Iterator[Term]:
        """The term itself and all terms inside it."""
        yield self


@dataclass
class Always(Term):
    """``any``."""

    def rows(self, find: Find, batch: Batch) -> np.ndarray:
        return np.ones(batch.n, bool)


@dataclass
class Together(Term):
    """Terms joined by ``and`` or ``or``."""

    parts: list[Term]
    all_: bool

    def rows(self, find: Find, batch: Batch) -> np.ndarray:
        found = self.parts[0].rows(find, batch)
        for part in self.parts[1:]:
            if self.all_ and not found.any() or not self.all_ and found.all():
                break
            found = found & part.rows(find, batch) if self.all_ else found | part.rows(find, batch)
        return found

    def keys(self) -> dict[str, bool]:
        merged: dict[str, bool] = {}
        for part in self.parts:
            for name, needed in part.keys().items():
                merged[name] = merged.get(name, False) or needed
        return merged

    def terms(self) -> Iterator[Term]:
        yield self
        for part in self.parts:
            yield from part.terms()


@dataclass
class Not(Term):
    """The rows for which a term is not true, including rows without a value."""

    part: Term

    def rows(self, find: Find, batch: Batch) -> np.ndarray:
        return ~self.part.rows(find, batch)

    def keys(self) -> dict[str, bool]:
        return self.part.keys()

    def terms(self) -> Iterator[Term]:
        yield self
        yield from self.part.terms()


@dataclass
class OfKey(Term):
    """A term about one value; `names` are its possible keys, and the first one with a value in a row counts."""

    names: tuple[str, ...]
    needed: bool = True
    column: int = field(default=0, compare=False)
    negated: bool = False
    """True for ``!=``: the row has a value, and it differs."""

    def keys(self) -> dict[str, bool]:
        return dict.fromkeys(self.names, self.needed and len(self.names) == 1)

    def found(self, find: Find, batch: Batch) -> Found | None:
        value = first_found(find, batch, self.names)
        if value is None:
            return None
        column, missing = value.values, value.missing
        if value.key.type.form == "label":
            column, missing = labels_only(strings(column), missing)
        values, key = readable(column, value.key)
        return Found(values, missing, key)

    def rows(self, find: Find, batch: Batch) -> np.ndarray:
        found = self.found(find, batch)
        if found is None:
            return np.zeros(batch.n, bool)
        true = ~self.true(found) if self.negated else self.true(found)
        return found.known(true)

    def true(self, found: Found) -> np.ndarray:
        """A mask of the rows for which it is true; missing rows may be anything."""
        raise NotImplementedError


@dataclass
class Exists(OfKey):
    """Whether the row has a value."""

    def keys(self) -> dict[str, bool]:
        return dict.fromkeys(self.names, False)

    def true(self, found: Found) -> np.ndarray:
        return np.ones(len(found.values), bool)


@dataclass
class Compare(OfKey):
    """A number compared with a constant."""

    sign: str = "="
    value: float = 0

    def true(self, found: Found) -> np.ndarray:
        column = found.values
        if not isinstance(column, np.ndarray) or column.ndim != 1:
            return np.zeros(len(column), bool)
        return compared(column, self.sign, self.value)


def compared(column: np.ndarray, sign: str, value: float) -> np.ndarray:
    """Exact for whole numbers of any width: a constant outside the column's range is above or below all values."""
    if column.dtype.kind == "b":
        column = column.view(np.uint8)
    if column.dtype.kind in "ui":
        if value != int(value):  # between two whole numbers
            if sign in ("=", "!="):
                return np.full(len(column), sign == "!=")
            value, sign = int(np.floor(value)), {"<": "<=", ">=": ">"}.get(sign, sign)
        limits, value = np.iinfo(column.dtype), int(value)
        if not limits.min <= value <= limits.max:
            above = value > limits.max
            return np.full(len(column), sign == "!=" or (sign in ("<", "<=")) == above and sign != "=")
        return COMPARE[sign](column, column.dtype.type(value))
    return COMPARE[sign](column, fraction(value, column.dtype))


@dataclass
class InNumbers(OfKey):
    """A number within any of some ranges."""

    numbers: Numbers = field(default_factory=lambda: Numbers(()))

    def true(self, found: Found) -> np.ndarray:
        if not isinstance(found.values, np.ndarray) or found.values.ndim != 1:
            return np.zeros(len(found.values), bool)
        return self.numbers.rows(found.values)


@dataclass
class InPrefixes(OfKey):
    """An address within any of some networks."""

    prefixes: Prefixes = field(default_factory=lambda: Prefixes(()))

    def true(self, found: Found) -> np.ndarray:
        if found.key.type.kind not in ("ipv4", "ipv6"):
            return np.zeros(len(found.values), bool)
        return self.prefixes.rows(found.values, found.key.type)


@dataclass
class InStrings(OfKey):
    """A string equal to one of some strings, or matching a pattern."""

    strings: Strings = Strings()

    def true(self, found: Found) -> np.ndarray:
        if isinstance(found.values, np.ndarray):
            return np.zeros(len(found.values), bool)
        return self.strings.rows(found.values)


@dataclass
class Bits(OfKey):
    """A number with the value `value` in `bits`."""

    bits: int = 0
    value: int = 0

    def true(self, found: Found) -> np.ndarray:
        if not isinstance(found.values, np.ndarray) or found.values.dtype.kind not in "ui":
            return np.zeros(len(found.values), bool)
        most = np.iinfo(found.values.dtype).max
        if self.value & self.bits > most:
            return np.zeros(len(found.values), bool)
        kind = found.values.dtype.type
        return (found.values & kind(self.bits & most)) == kind(self.value & self.bits)


@dataclass
class Family(OfKey):
    """Rows of one family of addresses; IPv6 addresses within ::ffff:0:0/96 are of IPv4."""

    kind: str = "ipv4"

    def true(self, found: Found) -> np.ndarray:
        if found.key.type is not types.IPV6:
            return np.full(len(found.values), found.key.type.kind == self.kind)
        mapped = mapped_rows(found.numbers)
        if mapped is None:
            return np.full(len(found.values), self.kind == "ipv6")
        return mapped if self.kind == "ipv4" else ~mapped


@dataclass
class Rate(Term):
    """A figure computed from several values: ``bps``, ``pps``, ``bpp``, ``duration`` (ms), compared with a constant."""

    what: str
    sign: str
    value: float
    octets: tuple[str, ...]
    packets: tuple[str, ...]
    times: tuple[str, str] = ("flowStartMilliseconds", "flowEndMilliseconds")

    def keys(self) -> dict[str, bool]:
        wanted = {"duration": self.times, "bps": (*self.octets, *self.times), "pps": (*self.packets, *self.times),
                  "bpp": (*self.octets, *self.packets)}  # fmt: skip
        return dict.fromkeys(wanted[self.what], False)

    def rows(self, find: Find, batch: Batch) -> np.ndarray:
        seconds = self._seconds(find, batch) if self.what != "bpp" else None
        if self.what == "duration":
            worked_out = seconds and (seconds[0] * 1000, seconds[1])
        else:
            over = _first(find, batch, self.octets if self.what in ("bps", "bpp") else self.packets)
            under = _first(find, batch, self.packets) if self.what == "bpp" else seconds
            worked_out = _ratio(over, under, 8.0 if self.what == "bps" else 1.0)
        if worked_out is None:
            return np.zeros(batch.n, bool)
        values, there = worked_out
        return COMPARE[self.sign](values, fraction(self.value, values.dtype)) & there

    def _seconds(self, find: Find, batch: Batch) -> tuple[np.ndarray, np.ndarray] | None:
        start, end = (_first(find, batch, (name,)) for name in self.times)
        if start is None or end is None:
            return None
        return np.maximum(end[0] - start[0], 0.0) / 1000.0, start[1] & end[1]


def _first(find: Find, batch: Batch, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
    """The value of the first key in each row, as floats, and a mask of the rows that have one."""
    found = first_found(find, batch, names)
    if found is None or not isinstance(found.values, np.ndarray) or found.values.ndim != 1:
        return None
    return found.values.astype(np.float64), found.known(np.ones(batch.n, bool))


def first_found(find: Find, batch: Batch, names: Sequence[str]) -> Found | None:
    """The value of the first of these keys that a row has; None where the batch has none of them."""
    result: Found | None = None
    for name in names:
        found = find(batch, name)
        if found is not None:
            result = found if result is None else _filled(result, found)
            if result.missing is None:
                break
    return result


def _filled(first: Found, second: Found) -> Found:
    """`first`, with the numbers of `second` in the rows without a value."""
    if first.missing is None or not all(
        isinstance(f.values, np.ndarray) and f.values.ndim == 1 for f in (first, second)
    ):
        return first
    there = second.known(first.missing)
    values = np.where(there, second.numbers, first.numbers)
    missing = first.missing & ~there
    return Found(values, missing if missing.any() else None, first.key)


def _ratio(
    over: tuple[np.ndarray, np.ndarray] | None, under: tuple[np.ndarray, np.ndarray] | None, factor: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """A rate; 0 for a flow without duration or without packets, as in nfdump."""
    if over is None or under is None:
        return None
    none = under[0] == 0
    return np.where(none, 0.0, factor * over[0] / np.where(none, 1.0, under[0])), over[1] & under[1]
