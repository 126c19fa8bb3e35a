"""Cuts the batches of one write into pieces: the rows of one hour, with columns of the same types, for one file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from ulogd_tw.core import arrow
from ulogd_tw.core.arrow import Stream, Vector
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.flow_rows import options_rows
from ulogd_tw.core.resolve import Find
from ulogd_tw.storing.parquet.hours import Times, few_hours, times
from ulogd_tw.storing.parquet.merge_process import quoted
from ulogd_tw.storing.stored_columns import ARRIVAL, StoredColumn

_KIND = "record_kind"


@dataclass(slots=True)
class Piece:
    """The rows of one file; a chunk has None for a column that its rows do not have."""

    hour: int
    start: int
    """The earliest start, in ms since 1970."""
    rows: int = 0
    chunks: list[list[Vector | None]] = field(default_factory=list)

    def stream(self, columns: Sequence[StoredColumn], every: bool = False) -> Stream:
        """The rows as Arrow's stream, the arrival last: `every` column, or those that some rows have."""
        names = [*(column.name for column in columns), ARRIVAL.name]
        found: list[list[Vector]] = [[] for _ in self.chunks]
        kept = []
        for place, vectors in enumerate(zip(*self.chunks, strict=True)):
            if every or any(vector is not None for vector in vectors):
                kept.append(names[place])
                mixed = len({vector is not None and vector.dictionary is not None for vector in vectors}) > 1
                for chunk, own, vector in zip(found, self.chunks, vectors, strict=True):
                    whole = vector or columns[place].nothing(_rows_of(own))
                    chunk.append(whole.plain() if mixed else whole)
        return Stream(kept, found)

    def query(self, columns: Sequence[StoredColumn], table: str) -> str:
        """The query of all columns in a table with the rows of `stream`: NULL for columns that no row has."""
        there = [any(chunk[place] is not None for chunk in self.chunks) for place in range(len(columns))]
        words = [
            quoted(column.name) if here else f"null::{column.sql} as {quoted(column.name)}"
            for column, here in zip(columns, there, strict=True)
        ]
        return f"select {', '.join([*words, quoted(ARRIVAL.name)])} from {quoted(table)}"


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
    whole = _together(batch for batch in flows if batch.n)
    found = [times(batch, find, retain) for batch in whole]
    if found:
        few_hours(found)
    pieces: dict[object, Piece] = {}
    for batch, of_batch in zip(whole, found, strict=True):
        _add(pieces, batch, of_batch, columns, find)
    rows = sum(batch.n for batch in whole)
    odd = sum(int(np.count_nonzero(one.odd)) for one in found)
    return Cut(sorted(pieces.values(), key=_order), sum(batch.n for batch in batches) - rows, odd)


def _together(batches: Iterable[Batch]) -> list[Batch]:
    """Batches of one schema that came in one second as one: each step waits for its turn beside the reactor."""
    alike: dict[object, list[Batch]] = {}
    for batch in batches:
        alike.setdefault((batch.schema, int(batch.now)), []).append(batch)
    return [Batch.joined(some) for some in alike.values()]


def _order(piece: Piece) -> tuple[int, int, int]:
    return piece.hour, piece.start, piece.rows


def _without_options(batch: Batch, find: Find) -> Batch:
    kinds = find(batch, _KIND)
    options = options_rows(kinds.values) if kinds is not None else None
    return batch if options is None else batch.take(~options)


def _add(pieces: dict[object, Piece], batch: Batch, times: Times, columns: Sequence[StoredColumn], find: Find) -> None:
    """Add the rows of a batch to the pieces of their hours."""
    for hour, rows in _rows_of_hours(times):
        part = batch if isinstance(rows, slice) else batch.take(rows)
        vectors: list[Vector | None] = [_vector(part, column, find) for column in columns]
        kinds = (vector.type if vector else column.arrow for vector, column in zip(vectors, columns, strict=True))
        start = int(times.start[rows].min())
        piece = pieces.setdefault((hour, *kinds), Piece(hour, start))
        piece.start = min(piece.start, start)
        piece.rows += part.n
        piece.chunks.append([*vectors, _arrival(times.odd[rows], times.arrival)])


def _rows_of_hours(times: Times) -> Iterator[tuple[int, np.ndarray | slice]]:
    """Each hour with its rows."""
    first, last = times.bounds
    if first == last:
        yield first, slice(None)
        return
    hours = times.hours
    for hour in np.unique(hours).tolist():
        yield hour, hours == hour


def _vector(batch: Batch, column: StoredColumn, find: Find) -> Vector | None:
    found = find(batch, column.name)
    return None if found is None else column.vector(found.values, found.key, found.missing)


def _rows_of(chunk: Sequence[Vector | None]) -> int:
    """The rows of a chunk, whose last column is always there."""
    return chunk[-1].n if chunk[-1] is not None else 0


def _arrival(odd: np.ndarray, arrival: int) -> Vector:
    return arrow.numbers(np.full(len(odd), arrival, ARRIVAL.type.array_dtype), ~odd)
