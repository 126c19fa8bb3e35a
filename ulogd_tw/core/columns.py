"""Columns of strings and octets, and operations of all columns: take rows, join, repeat one value.

An ordinary column is a NumPy array; the functions here dispatch on the type. Nothing changes a column in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ulogd_tw.kernels import columns as kernel
from ulogd_tw.kernels import lib

Rows = np.ndarray | slice
"""A choice of rows: a boolean mask, an array of indices, or a slice."""


class Octets:
    """n octet strings one after another: string i is ``data[offsets[i]:offsets[i + 1]]``.

    `offsets` is int64 of length n + 1 and need not begin at 0; `data` is uint8.
    """

    __slots__ = ("offsets", "data")

    def __init__(self, offsets: np.ndarray, data: np.ndarray) -> None:
        self.offsets = offsets
        self.data = data

    @classmethod
    def of(cls, values: Iterable[bytes]) -> Octets:
        """The column of these values (one Python step a row: for tests and small inputs)."""
        values = list(values)
        offsets = np.zeros(len(values) + 1, np.int64)
        np.cumsum([len(v) for v in values], out=offsets[1:])
        return cls(offsets, np.frombuffer(b"".join(values), np.uint8))

    @classmethod
    def gathered(cls, buffer: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> Octets:
        """Copy string i from ``buffer[starts[i]:starts[i] + lengths[i]]``."""
        offsets = np.zeros(len(starts) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        if offsets[-1] >= LONG * len(starts) or lib is not None:
            out = np.empty(int(offsets[-1]), np.uint8)
            scatter(out, offsets[:-1], buffer, starts.astype(np.int64), np.asarray(lengths, np.int64))
            return Octets(offsets, out)
        index = np.repeat(starts.astype(np.int64) - offsets[:-1], lengths)
        index += np.arange(offsets[-1])
        return Octets(offsets, buffer[index])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)

    @property
    def nbytes(self) -> int:
        return self.offsets.nbytes + self.data.nbytes

    def take(self, rows: Rows) -> Octets:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return Octets(self.offsets[start : max(start, stop) + 1], self.data)
            rows = np.array(range(start, stop, step), np.int64)  # arange takes no step of 2**63
        elif rows.dtype == bool:
            rows = np.flatnonzero(rows)
        starts = self.offsets[rows]
        return Octets.gathered(self.data, starts, self.offsets[rows + 1] - starts)

    def to_list(self) -> list[bytes]:
        """The values as Python bytes (one Python step a row)."""
        if not len(self):
            return []
        base = int(self.offsets[0])
        octets = self.data[base : self.offsets[-1]].tobytes()
        edges = (self.offsets - base).tolist()
        return [octets[a:b] for a, b in zip(edges, edges[1:], strict=False)]

    def plain(self) -> Octets:
        return self


def different(column: Octets) -> tuple[list[bytes], np.ndarray]:
    """The different values of a column of identifiers, and which of them each row has."""
    if not len(column):
        return [], np.zeros(0, np.int64)
    lengths = column.lengths
    size = int(lengths.max())
    if not 0 < size <= 8 or (lengths != size).any():  # identifiers of 4 octets are the rule; others take 0.2 us a row
        values = column.to_list()
        places = {value: place for place, value in enumerate(dict.fromkeys(values))}
        return list(places), np.array([places[value] for value in values], np.int64)
    wide = np.zeros((len(column), 8), np.uint8)
    wide[:, :size] = column.data[column.offsets[0] : column.offsets[-1]].reshape(-1, size)
    _, first, which = np.unique(wide.view(np.uint64)[:, 0], return_index=True, return_inverse=True)
    return [wide[place, :size].tobytes() for place in first.tolist()], which


class Pieces(Octets):
    """Octet strings left where they are: string i is ``buffer[starts[i]:starts[i] + sizes[i]]``.

    For packets, since most readers look only at the headers. `offsets` and `data` are made at the first use.
    """

    __slots__ = ("buffer", "starts", "sizes", "_together")

    def __init__(self, buffer: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> None:
        self.buffer = buffer
        self.starts = starts
        self.sizes = sizes
        self._together: Octets | None = None

    def plain(self) -> Octets:
        if self._together is None:
            self._together = Octets.gathered(self.buffer, self.starts, self.sizes)
        return self._together

    @property
    def offsets(self) -> np.ndarray:  # type: ignore[override]
        return self.plain().offsets

    @property
    def data(self) -> np.ndarray:  # type: ignore[override]
        return self.plain().data

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> np.ndarray:
        return self.sizes

    @property
    def nbytes(self) -> int:
        return self.starts.nbytes + self.sizes.nbytes + len(self.buffer)

    def take(self, rows: Rows) -> Octets:
        """The chosen strings; a copy where they are so few that they would keep a large buffer alive."""
        starts, sizes = self.starts[rows], self.sizes[rows]
        if 4 * int(sizes.sum()) < len(self.buffer):
            return Octets.gathered(self.buffer, starts, sizes)
        return Pieces(self.buffer, starts, sizes)


class Coded:
    """n octet strings as `codes` (int array) into the few different `values`."""

    __slots__ = ("codes", "values")

    def __init__(self, codes: np.ndarray, values: Sequence[bytes]) -> None:
        self.codes = codes
        self.values = tuple(values)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def nbytes(self) -> int:
        return 4 * len(self.codes) + sum(map(len, self.values))

    def take(self, rows: Rows) -> Coded:
        return Coded(self.codes[rows], self.values)

    def to_list(self) -> list[bytes]:
        return [self.values[c] for c in self.codes.tolist()]

    def plain(self) -> Octets:
        """The same strings as `Octets`."""
        return Octets.of(self.values).take(np.asarray(self.codes, np.int64))


Column = np.ndarray | Octets | Coded


def numbers(column: Column) -> np.ndarray:
    """The column if it is an array; TypeError for strings."""
    if isinstance(column, np.ndarray):
        return column
    raise TypeError(f"a column of numbers was expected, not {type(column).__name__}")


def strings(column: Column) -> Octets | Coded:
    """The column if it holds strings or octets; TypeError for an array."""
    if isinstance(column, np.ndarray):
        raise TypeError(f"a column of strings was expected, not an array of {column.dtype}")
    return column


def places(column: Octets | Coded) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(buffer, starts, lengths) of a column of strings, without a copy."""
    if isinstance(column, Pieces):
        return column.buffer, column.starts, column.sizes
    plain = column.plain()
    return plain.data, plain.offsets[:-1], plain.lengths


def unpadded(column: Octets | Coded) -> Octets | Coded:
    """The strings without trailing NULs, by which exporters fill fields of a fixed length."""
    if isinstance(column, Coded):
        if not any(value.endswith(b"\0") for value in column.values):
            return column
        return Coded(column.codes, [value.rstrip(b"\0") for value in column.values])
    plain = column.plain()
    edges, lengths = plain.offsets, unpadded_lengths(plain.data, plain.offsets)
    if lengths is None:
        return column
    return Octets.gathered(plain.data, edges[:-1], lengths)


def unpadded_lengths(data: np.ndarray, edges: np.ndarray) -> np.ndarray | None:
    """Lengths of the strings between the n + 1 `edges` without their trailing NULs; None where there are no NULs."""
    if data[int(edges[0]) : int(edges[-1])].all():
        return None
    solid = np.flatnonzero(data)
    last = np.concatenate([[-1], solid]).take(np.searchsorted(solid, edges[1:]))
    return np.maximum(last + 1 - edges[:-1], 0)


def take(column: Column, rows: Rows) -> Column:
    """The chosen rows of any column; a slice of an array is a view, all else a copy."""
    if not isinstance(column, np.ndarray):
        return column.take(rows)
    if column.ndim == 2 and isinstance(rows, np.ndarray):  # a tenth of the time of column[rows] (NumPy 2.4)
        return column.take(np.flatnonzero(rows) if rows.dtype == bool else rows, 0)
    return column[rows]


_FIRST_CODE = np.array(0, np.int32)


def repeated(value: int | bytes | tuple[int, int], n: int, dtype: np.dtype | None = None) -> Column:
    """A column with one value `n` times, at no cost a row: a pair is an IPv6 address, bytes are a string."""
    if isinstance(value, bytes):
        return Coded(_alike(_FIRST_CODE, n), (value,))
    if isinstance(value, tuple):
        return _alike(np.array(value, np.uint64), n)
    return _alike(np.array(value, dtype), n)


def _alike(value: np.ndarray, n: int) -> np.ndarray:
    """The value `n` times, as np.broadcast_to gives it: that takes 6 us, which small batches notice."""
    found = np.ndarray((n, *value.shape), value.dtype, value, 0, (0, *value.strides))
    found.flags.writeable = False
    return found


def joined(columns: Sequence[Column]) -> Column:
    """Columns one after another; all of one type."""
    if len(columns) == 1:
        return columns[0]
    if isinstance(columns[0], np.ndarray):
        return np.concatenate([numbers(c) for c in columns])
    coded = [c for c in columns if isinstance(c, Coded)]
    if len(coded) == len(columns) and len({c.values for c in coded}) == 1:
        return Coded(np.concatenate([c.codes for c in coded]), coded[0].values)
    parts = [strings(c).plain() for c in columns]
    offsets, data, base = [np.zeros(1, np.int64)], [], 0
    for part in parts:
        first, last = int(part.offsets[0]), int(part.offsets[-1])
        offsets.append(part.offsets[1:] - first + base)
        data.append(part.data[first:last])
        base += last - first
    return Octets(np.concatenate(offsets), np.concatenate(data))


def nbytes(column: Column) -> int:
    """Octets that a column holds in memory; a repeated value counts one row."""
    if isinstance(column, np.ndarray) and 0 in column.strides:
        return column.itemsize
    return column.nbytes


LONG = 24
"""Average length, in octets, from which strings are copied in stretches instead of octet by octet."""
_STRETCH = 256


def scatter(out: np.ndarray, to: np.ndarray, octets: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> None:
    """Copy ``octets[starts[i]:starts[i] + lengths[i]]`` to ``out[to[i]:]``, in stretches of a few fixed sizes.

    A string of 8 to 15 octets is two copies of 8 that overlap, and so on: 10 to 20 ns a string up to 512 octets.
    """
    if lib is not None:
        kernel.scatter(out, to, octets, starts, lengths)
        return
    rows = np.flatnonzero(lengths >= _STRETCH)
    done = 0
    while len(rows):
        place = np.minimum(done, lengths[rows] - _STRETCH)
        _stretches(out, _STRETCH)[to[rows] + place] = _stretches(octets, _STRETCH)[starts[rows] + place]
        done += _STRETCH
        rows = rows[lengths[rows] > done]
    size = _STRETCH // 2
    while size:
        rows = np.flatnonzero((lengths >= size) & (lengths < 2 * size))
        if len(rows):
            source, target = _stretches(octets, size), _stretches(out, size)
            from_, at, rest = starts[rows], to[rows], lengths[rows] - size
            target[at] = source[from_]
            target[at + rest] = source[from_ + rest]
        size >>= 1


def _stretches(octets: np.ndarray, size: int) -> np.ndarray:
    """All stretches of `size` octets as overlapping elements; elements of a void type are copied whole."""
    return np.ndarray((len(octets) - size + 1,), f"V{size}", octets, 0, (1,))


def taken(octets: np.ndarray, starts: np.ndarray, size: int) -> np.ndarray:
    """`size` octets from each of the places `starts`, one after another."""
    if not len(starts):
        return np.zeros(0, np.uint8)
    return _stretches(octets, size)[starts].view(np.uint8)
