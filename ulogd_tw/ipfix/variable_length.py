"""Where the records of variable length lie: all messages advance by one record at a time, in lock-step.

Each record's size is known only when the one before it has been walked, so nothing is gained within a message; but
many messages can be walked at once, each step being a few NumPy operations over all of them. Where few are left, a
plain loop is faster, and it bounds the work for one message of 65535 records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ulogd_tw.kernels import columns, lib

FEW = 16
"""Fewer messages than this are walked one by one: a step of all costs as much as some 16 records (measured)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a record with variable-length fields is walked.

    `segments` has for each such field the octets of fixed fields before its length octet, and the least octets of the
    record after its value; `tail` are the fixed octets after the last; `least` the octets of the smallest record.
    """

    segments: tuple[tuple[int, int], ...]
    tail: int
    least: int


class Located:
    """The records of several bodies of Data Sets, in order.

    octets   all bodies, one after another (and two octets more)
    counts   records in each body
    cut      mask of the bodies whose last record is cut by the end (its records may be anything), or None
    """

    def __init__(
        self,
        octets: np.ndarray,
        counts: np.ndarray,
        cut: np.ndarray | None,
        place: np.ndarray,
        found: list[list[np.ndarray]],
    ) -> None:
        self.octets = octets
        self.counts = counts
        self.cut = cut
        self._place = place
        self._found = found
        self._rows: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.counts.sum())

    def keep(self, bodies: np.ndarray) -> None:
        """Leave only the records of the bodies that are in this mask."""
        self._rows = np.repeat(bodies, self.counts)
        self.counts = np.where(bodies, self.counts, 0)

    @property
    def starts(self) -> np.ndarray:
        """Offset of each record."""
        return self._ordered(0)

    def values(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Offsets and lengths of the values of a variable-length field, by its place among those."""
        return self._ordered(1 + 2 * index), self._ordered(2 + 2 * index)

    def _ordered(self, column: int) -> np.ndarray:
        """A column as it was found, step by step, put in the order of the records."""
        ordered = np.empty_like(self._place)
        if len(ordered):
            ordered[self._place] = np.concatenate(self._found[column])
        return ordered if self._rows is None else ordered[self._rows]


def walk(body: bytes, at: int, end: int, shape: Shape, found: list[int]) -> bool:
    """Append to `found`, for each record from `at` on, its offset and (offset, length) of each variable value.

    False where the end cuts a record; what is too short for any record is padding (RFC 7011 section 3.3.1).
    About 0.4 us a record with one variable field.
    """
    add = found.append
    least, segments, tail = shape.least, shape.segments, shape.tail
    while end - at >= least:
        add(at)
        for skip, rest in segments:
            at += skip
            length = body[at]
            at += 1
            if length == 255:  # three-octet form, RFC 7011 section 7
                if end - at < 2:
                    return False
                length = body[at] << 8 | body[at + 1]
                at += 2
            add(at)
            add(length)
            at += length
            if at + rest > end:
                return False
        at += tail
    return True


class _InOrder(Located):
    """Located by the kernel, which finds them in their order."""

    def __init__(self, octets: np.ndarray, counts: np.ndarray, cut: np.ndarray | None, found: np.ndarray) -> None:
        super().__init__(octets, counts, cut, found[0], [])
        self._columns = found

    def _ordered(self, column: int) -> np.ndarray:
        return self._columns[column] if self._rows is None else self._columns[column][self._rows]


def locate(bodies: Sequence[bytes], before: int, shape: Shape) -> Located:
    """The records of these bodies of Data Sets of one template, which begin after `before` octets of each."""
    joined = b"".join((*bodies, b"\0\0"))  # two more, so that a length of three octets can be read before it is checked
    octets = np.frombuffer(joined, np.uint8)
    if lib is not None:
        sizes = np.fromiter(map(len, bodies), np.int64, len(bodies))
        ends = np.cumsum(sizes)
        counts, cut, table = columns.locate(
            octets, ends - sizes + before, ends, shape.segments, shape.tail, shape.least
        )  # fmt: skip
        return _InOrder(octets, counts, cut if cut.any() else None, table)
    number = np.dtype(np.int32 if len(joined) < 1 << 30 else np.int64)  # half the memory where it is enough
    sizes = np.fromiter(map(len, bodies), number, len(bodies))
    cut = np.zeros(len(bodies), bool)
    parts: list[np.ndarray] = []
    found: list[list[np.ndarray]] = [[] for _ in range(1 + 2 * len(shape.segments))]
    ends = np.cumsum(sizes, dtype=number)
    at, part = ends - sizes + number.type(before), np.arange(len(bodies), dtype=number)
    left = ends - at
    while True:
        more = left >= shape.least
        if not more.all():
            cut[part[left < 0]] = True
            at, part, ends = at[more], part[more], ends[more]
        if len(part) < FEW:
            break
        parts.append(part)
        at = _step(octets, at, ends, shape, found)
        left = ends - at
    ranks = [np.full(len(step), rank, number) for rank, step in enumerate(parts)]
    # The rest is walked body by body.
    rank = len(parts)
    for begin, end, index in zip(at.tolist(), ends.tolist(), part.tolist(), strict=True):
        flat: list[int] = []
        if not walk(joined, begin, end, shape, flat):
            cut[index] = True
            del flat[len(flat) // len(found) * len(found) :]
        table = np.array(flat, number).reshape(-1, len(found))
        parts.append(np.full(len(table), index, number))
        ranks.append(np.arange(rank, rank + len(table), dtype=number))
        for column, numbers in zip(found, table.T, strict=True):
            column.append(numbers)
    which = np.concatenate(parts) if parts else np.zeros(0, number)
    counts = np.bincount(which, minlength=len(bodies))
    place = (np.cumsum(counts) - counts).astype(number)[which]
    if parts:
        place += np.concatenate(ranks)
    return Located(octets, counts, cut if cut.any() else None, place, found)


def _step(
    octets: np.ndarray, at: np.ndarray, ends: np.ndarray, shape: Shape, found: list[list[np.ndarray]]
) -> np.ndarray:
    """One record further in every body: add where it and its values are; where it ends, beyond `ends` if it is cut."""
    found[0].append(at)
    cut = None
    for index, (skip, rest) in enumerate(shape.segments):
        short = octets[skip:][at]
        at = at + at.dtype.type(skip + 1)
        length = short.astype(at.dtype)
        if short.max() == 255:  # three-octet form, RFC 7011 section 7
            long = short == 255
            length = np.where(long, octets[at].astype(at.dtype) << 8 | octets[np.minimum(at + 1, ends)], length)
            at += long
            at += long
        found[1 + 2 * index].append(at)
        found[2 + 2 * index].append(length)
        at = at + length
        if index + 1 < len(shape.segments):
            last = ends - rest
            beyond = at > last
            if beyond.any():
                cut = beyond if cut is None else cut | beyond
                at = np.minimum(at, last)  # a place inside, so that the walk of the others can go on
    if shape.tail:
        at = at + at.dtype.type(shape.tail)
    return at if cut is None else np.where(cut, ends + 1, at)
