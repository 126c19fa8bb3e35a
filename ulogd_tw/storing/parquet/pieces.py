"""Cuts the batches of one write into pieces: the rows of one hour, with columns of the same types, for one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ulogd_tw.core import arrow
from ulogd_tw.core.arrow import Stream, Vector
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.flow_rows import options_rows
from ulogd_tw.core.resolve import Find
from ulogd_tw.storing.parquet.hours import Times, few_hours, times
from ulogd_tw.storing.stored_columns import ARRIVAL, StoredColumn

_KIND = "record_kind"


@dataclass(slots=True)
class Piece:
    """The rows of one file."""

    hour: int
    start: int
    """The earliest start, in ms since 1970."""
    rows: int = 0
    chunks: list[list[Vector]] = field(default_factory=list)

    def stream(self, names: Sequence[str]) -> Stream:
        """The rows as Arrow's stream, with these names of columns."""
        coded = [{vector.dictionary is not None for vector in column} for column in zip(*self.chunks, strict=True)]
        mixed = {place for place, kinds in enumerate(coded) if len(kinds) > 1}
        chunks = [[v.plain() if place in mixed else v for place, v in enumerate(chunk)] for chunk in self.chunks]
        return Stream(names, chunks)


@dataclass(slots=True)
class Cut:
    """The pieces of a write; rows `left_out` as options records, and rows whose time is `odd`."""

    pieces: list[Piece]
    left_out: int = 0
    odd: int = 0


def cut(batches: Sequence[Batch], columns: Sequence[StoredColumn], find: Find, retain: float | None) -> Cut:
    """Cut a write. Options records are left out, unless their kind is a column."""
    keep_options = any(column.name == _KIND for column in columns)
    flows = list(batches) if keep_options else [_without_options(batch, find) for batch in batches]
    whole = [batch for batch in flows if batch.n]
    found = [times(batch, find, retain) for batch in whole]
    if found:
        few_hours(found)
    pieces: dict[object, Piece] = {}
    for batch, of_batch in zip(whole, found, strict=True):
        _add(pieces, batch, of_batch, columns, find)
    rows = sum(batch.n for batch in whole)
    odd = sum(int(np.count_nonzero(one.odd)) for one in found)
    return Cut(sorted(pieces.values(), key=_order), sum(batch.n for batch in batches) - rows, odd)


def _order(piece: Piece) -> tuple[int, int, int]:
    return piece.hour, piece.start, piece.rows


def _without_options(batch: Batch, find: Find) -> Batch:
    kinds = find(batch, _KIND)
    options = options_rows(kinds.values) if kinds is not None else None
    return batch if options is None else batch.take(~options)


def _add(pieces: dict[object, Piece], batch: Batch, times: Times, columns: Sequence[StoredColumn], find: Find) -> None:
    """Add the rows of a batch to the pieces of their hours."""
    hours = times.hours
    for hour in np.unique(hours).tolist():
        rows: np.ndarray | slice = slice(None) if hours[0] == hour and (hours == hour).all() else hours == hour
        part = batch if isinstance(rows, slice) else batch.take(rows)
        vectors = [_vector(part, column, find) for column in columns]
        vectors.append(_arrival(times.odd[rows], times.arrival))
        shape = hour, tuple(vector.type for vector in vectors)
        start = int(times.start[rows].min())
        piece = pieces.setdefault(shape, Piece(hour, start))
        piece.start = min(piece.start, start)
        piece.rows += part.n
        piece.chunks.append(vectors)


def _vector(batch: Batch, column: StoredColumn, find: Find) -> Vector:
    found = find(batch, column.name)
    if found is None:
        return column.nothing(batch.n)
    return column.vector(found.values, found.key, found.missing)


def _arrival(odd: np.ndarray, arrival: int) -> Vector:
    return arrow.numbers(np.full(len(odd), arrival, ARRIVAL.type.array_dtype), ~odd)
