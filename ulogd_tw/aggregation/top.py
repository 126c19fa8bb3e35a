"""The largest groups of an interval, and one row of all others, so that nothing is missing in the sum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ulogd_tw.aggregation import saturation
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import numbers, repeated

SUMS = ("flows", "packets", "octets", "reply_packets", "reply_octets")
"""Columns that the row of all others has, beside the first start, the last end and the interval."""
_EXTREMES = {"first_ms": np.minimum, "last_ms": np.maximum}


class TopGroups:
    """At most `most` rows of all batches that are added: those with the greatest `by`.

    Rows without that value come last. The others become one row without keys.
    """

    def __init__(self, by: str, most: int) -> None:
        self._by = by
        self._most = most
        self._kept: list[Batch] = []
        self._others: Batch | None = None

    def add(self, batch: Batch) -> None:
        """Take the rows of a batch."""
        batches = [*self._kept, batch]
        total = sum(one.n for one in batches)
        if total <= self._most:
            self._kept = batches
            return
        ranks = [_rank(one, self._by) for one in batches]
        together = np.concatenate(ranks)
        least = np.partition(together, total - self._most)[total - self._most]
        room = self._most - int(np.count_nonzero(together > least))
        kept, others = [], [] if self._others is None else [self._others]
        for one, rank in zip(batches, ranks, strict=True):
            chosen = rank > least
            equal = np.flatnonzero(rank == least)[:room]
            room -= len(equal)
            chosen[equal] = True
            if chosen.any():
                kept.append(one.take(np.flatnonzero(chosen)))
            if not chosen.all():
                others.append(one.take(np.flatnonzero(~chosen)))
        self._kept, self._others = kept, _summed(others)

    def batches(self) -> Iterator[Batch]:
        """The top rows, largest first in each batch, a batch for each kind of rows; then the row of all others."""
        kinds: dict[Schema, list[Batch]] = {}
        for batch in self._kept:
            kinds.setdefault(batch.schema, []).append(batch)
        for batches in kinds.values():
            batch = Batch.joined(batches)
            yield batch.take(_descending(_rank(batch, self._by)))
        if self._others is not None:
            yield self._others


def _rank(batch: Batch, by: str) -> np.ndarray:
    """The values that order rows; below 0 for missing ones."""
    column = batch.columns.get(by)
    if column is None:
        return np.full(batch.n, -np.inf)
    rank = numbers(column).astype(np.float64)
    return np.where(batch.missing[by], -np.inf, rank) if by in batch.missing else rank


def _descending(rank: np.ndarray) -> np.ndarray:
    return np.argsort(-rank, kind="stable")


def _summed(batches: Sequence[Batch]) -> Batch:
    """One row of all of these."""
    columns: dict = {}
    for name in (*SUMS, *_EXTREMES, "interval_start"):
        parts = [(batch.schema[name], _present(batch, name)) for batch in batches if name in batch.schema]
        values = np.concatenate([part for _, part in parts]) if parts else np.zeros(0)
        if not len(values):
            continue
        key = parts[0][0]
        if name == "interval_start":
            columns[key] = repeated(int(values[0]), 1, key.type.dtype)
        elif name in _EXTREMES:
            columns[key] = np.array([_EXTREMES[name].reduce(values)], key.type.dtype)
        else:
            columns[key] = np.array([saturation.total(values.astype(np.uint64))[0]], key.type.dtype)
    return Batch(Schema(list(columns)), {key.name: c for key, c in columns.items()}, n=1, now=batches[0].now)


def _present(batch: Batch, name: str) -> np.ndarray:
    """The values of a column that are there."""
    column = numbers(batch.columns[name])
    return column[~batch.missing[name]] if name in batch.missing else column
