"""Data Records from columns (RFC 7011 sections 3.4.3, 6 and 7), all rows of a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.columns import Column, Octets, numbers, strings
from ulogd_tw.core.keys import registry
from ulogd_tw.core.plurals import plural
from ulogd_tw.core.types import Type
from ulogd_tw.ipfix.message import MAX_LENGTH
from ulogd_tw.ipfix.template import VARIABLE, Field, Template
from ulogd_tw.ipfix.values import MICROSECOND_BITS

_LONG = 255
"""The first length octet of a value of 255 octets or more; two octets with the length follow (section 7)."""


# --- values of fixed length -----------------------------------------------------------------------------------------


class _Fixed:
    """How the values of one field of fixed length lie in a record: `form` for a structured dtype, `prepare`."""

    __slots__ = ("form", "prepare")

    def __init__(self, form: tuple, prepare: Callable[[Column], np.ndarray]) -> None:
        self.form = form
        self.prepare = prepare


def _checked(length: int, signed: bool) -> Callable[[Column], np.ndarray]:
    """The column as it is, if each value fits into `length` octets; only wider columns are looked at."""
    bits = 8 * length - signed
    least, most = -(1 << bits) if signed else 0, (1 << bits) - 1

    def prepare(column: Column) -> np.ndarray:
        values = numbers(column)
        if values.dtype.itemsize <= length or not values.size:
            return values
        if int(values.max()) > most or int(values.min()) < least:
            raise ValueError(f"a value does not fit into {plural(length, 'octet')}")  # VAL-7: never exported
        return values

    return prepare


def _low_octets(length: int, signed: bool) -> Callable[[Column], np.ndarray]:
    """The low `length` octets of each number, for lengths that no NumPy number has."""
    check = _checked(length, signed)

    def prepare(column: Column) -> np.ndarray:
        wide = np.ascontiguousarray(check(column)).astype(">i8" if signed else ">u8")
        return wide.view(np.uint8).reshape(-1, 8)[:, 8 - length :]

    return prepare


def _padded(length: int) -> Callable[[Column], np.ndarray]:
    """Octet strings, each filled up with zeros to `length`."""

    def prepare(column: Column) -> np.ndarray:
        plain = strings(column).plain()
        sizes = plain.lengths
        if len(sizes) and int(sizes.max()) > length:
            raise ValueError(f"a value does not fit into {plural(length, 'octet')}")
        out = np.zeros((len(sizes), length), np.uint8)
        _scatter(out.reshape(-1), np.arange(len(sizes), dtype=np.int64) * length, plain)
        return out

    return prepare


def _microseconds(column: Column) -> np.ndarray:
    return numbers(column) & MICROSECOND_BITS


def _truth(column: Column) -> np.ndarray:
    """1 for true, 2 for false (section 6.1.5)."""
    return np.uint8(2) - numbers(column).astype(np.bool_).view(np.uint8)


def _same(column: Column) -> np.ndarray:
    return numbers(column)


def _fixed(type_: Type, length: int) -> _Fixed:
    """The layout of `type_` in `length` octets. ValueError where the standard allows no such length (section 6.2)."""
    if type_.kind in ("string", "octets") and length > 0:
        return _Fixed((np.uint8, (length,)), _padded(length))
    if type_.integer and 1 <= length <= type_.octets:
        signed = type_.kind == "signed"
        if length in (1, 2, 4, 8):
            return _Fixed((f">{'i' if signed else 'u'}{length}",), _checked(length, signed))
        return _Fixed((np.uint8, (length,)), _low_octets(length, signed))
    if type_ is types.FLOAT64 and length == 4:
        return _Fixed((">f4",), _same)
    if length != type_.octets or not length:
        raise ValueError(f"a value of type {type_} cannot have {plural(length, 'octet')}")
    if type_.kind == "ipv6":
        return _Fixed((">u8", (2,)), _same)
    if type_.kind == "mac":
        return _Fixed((np.uint8, (6,)), _low_octets(6, False))
    if type_.kind == "boolean":
        return _Fixed((np.uint8,), _truth)
    if type_.kind == "float":
        return _Fixed((f">f{length}",), _same)
    return _Fixed((f">u{length}",), _microseconds if type_ is types.MICROSECONDS else _same)


class _Run:
    """Neighbouring fields of fixed length, written as one structured array."""

    def __init__(self, first: int, fields: Sequence[Field], kinds: Sequence[Type]) -> None:
        self.first = first
        self.fixed = [_fixed(kind, field.length) for field, kind in zip(fields, kinds, strict=True)]
        self.dtype = np.dtype([(str(place), *fixed.form) for place, fixed in enumerate(self.fixed)])

    def octets(self, columns: Sequence[Column], n: int) -> np.ndarray:
        """The fields of all rows, (n, size)."""
        out = np.empty(n, self.dtype)
        for place, fixed in enumerate(self.fixed):
            out[str(place)] = fixed.prepare(columns[self.first + place])
        return out.view(np.uint8).reshape(n, self.dtype.itemsize)


# --- records --------------------------------------------------------------------------------------------------------


class Records:
    """n Data Records of one template, one after another.

    `data` is uint8: of shape (n, size), or with `offsets` (int64, n + 1) flat, record i at ``offsets[i]``.
    """

    __slots__ = ("template", "data", "offsets")

    def __init__(self, template: Template, data: np.ndarray, offsets: np.ndarray | None = None) -> None:
        self.template = template
        self.data = data
        self.offsets = offsets

    def __len__(self) -> int:
        return len(self.data) if self.offsets is None else len(self.offsets) - 1

    @property
    def longest(self) -> int:
        """Octets of the longest record."""
        if self.offsets is None:
            return self.data.shape[1]
        return int(np.diff(self.offsets).max(initial=0))

    def fitting(self, start: int, room: int) -> int:
        """How many records from `start` on have room in so many octets."""
        if self.offsets is None:
            return max(min(len(self.data) - start, room // self.data.shape[1]), 0)
        return int(np.searchsorted(self.offsets, self.offsets[start] + room, "right")) - 1 - start

    def octets(self, start: int, stop: int) -> np.ndarray:
        """The octets of records `start` to `stop`, flat."""
        if self.offsets is None:
            return self.data[start:stop].reshape(-1)
        return self.data[self.offsets[start] : self.offsets[stop]]

    def no_longer_than(self, octets: int) -> Records:
        """Only the records up to this length."""
        if self.longest <= octets:
            return self
        if self.offsets is None:
            return Records(self.template, self.data[:0])
        short = Octets(self.offsets, self.data).take(np.diff(self.offsets) <= octets)
        return Records(self.template, short.data, short.offsets)


class Encoder:
    """Encodes rows for one template; made once, it knows the place and form of each field.

    `kinds` are the types of the elements where the registry does not know all of them. ValueError for a field length
    that the standard does not allow for the type of its element.
    """

    def __init__(self, template: Template, kinds: Sequence[Type] | None = None) -> None:
        self.template = template
        if kinds is None:
            kinds = [registry.element(field.pen, field.ident).type for field in template.fields]
        self._fixed = None if template.variable else _Run(0, template.fields, kinds)
        self._parts: list[_Run | int] = list(_parts(template, kinds))

    def encode(self, columns: Sequence[Column], n: int) -> Records:
        """The records of n rows; `columns` in the order of the fields, each as `ulogd_tw.core.types` has its type.

        ValueError for a number that does not fit into its field's length, or octets longer than their field.
        """
        if self._fixed is not None:
            return Records(self.template, self._fixed.octets(columns, n))
        parts = [
            part.octets(columns, n) if isinstance(part, _Run) else strings(columns[part]).plain()
            for part in self._parts
        ]
        sizes = np.zeros(n, np.int64)
        for part in parts:
            sizes += part.shape[1] if isinstance(part, np.ndarray) else _prefixed(part.lengths)
        offsets = np.zeros(n + 1, np.int64)
        np.cumsum(sizes, out=offsets[1:])
        out = np.empty(int(offsets[-1]), np.uint8)
        places = offsets[:-1].copy()
        for part in parts:
            _put(out, places, part)
        return Records(self.template, out, offsets)


def _parts(template: Template, kinds: Sequence[Type]) -> Iterator[_Run | int]:
    """Runs of fixed fields, and the numbers of the variable ones, in order."""
    fields, first = template.fields, 0
    for place, field in enumerate((*fields, None)):
        if field is not None and field.length != VARIABLE:
            continue
        if first < place:
            yield _Run(first, fields[first:place], kinds[first:place])
        first = place + 1
        if field is not None:
            if not kinds[place].variable:
                raise ValueError(f"element {field.pen}/{field.ident} cannot have a variable length")
            yield place


def _prefixed(lengths: np.ndarray) -> np.ndarray:
    """Octets of values with their length before them."""
    if len(lengths) and int(lengths.max()) > MAX_LENGTH:
        raise ValueError(f"a value is longer than {plural(MAX_LENGTH, 'octet')}")
    return lengths + np.where(lengths < _LONG, 1, 3)


def _put(out: np.ndarray, places: np.ndarray, part: np.ndarray | Octets) -> None:
    """Write one part of each record at its place, and move the places behind it."""
    if isinstance(part, np.ndarray):
        wide = part.shape[1]
        out[places[:, None] + np.arange(wide)] = part
        places += wide
        return
    lengths = part.lengths
    long = np.flatnonzero(lengths >= _LONG)
    out[places] = np.minimum(lengths, _LONG)
    places += 1
    out[places[long]] = lengths[long] >> 8
    out[places[long] + 1] = lengths[long] & 0xFF
    places[long] += 2
    _scatter(out, places, part)
    places += lengths


def _scatter(out: np.ndarray, places: np.ndarray, strings: Octets) -> None:
    """Write string i to ``out[places[i]:]``."""
    first, last = int(strings.offsets[0]), int(strings.offsets[-1])
    index = np.repeat(places - (strings.offsets[:-1] - first), strings.lengths)
    index += np.arange(last - first)
    out[index] = strings.data[first:last]
