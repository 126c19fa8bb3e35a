"""The rows of address translation in batches: those that are in no file yet, and connections that are still open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import numbers
from ulogd_tw.core.readable import readable
from ulogd_tw.core.resolve import Find, Found
from ulogd_tw.flows.nat_rows import ADDRESSES, FLOW, LIVE, ROLES, NatRow, Question, nat_rows

_HALF = (1 << 64) - 1
Read = Callable[[str], Found | None]
"""The column of a key, None where it is not there."""


def direct(batch: Batch, name: str) -> Found | None:
    """The column of this very name."""
    if name not in batch.schema:
        return None
    return Found(batch.columns[name], batch.missing.get(name), batch.schema[name])


def waiting_rows(batch: Batch, find: Find, question: Question) -> Iterator[NatRow]:
    """What rows on their way into a file say; `find` as that of their output."""
    arrived = int(batch.now * 1000)
    for values in _values(batch, lambda name: find(batch, name), question):
        if values["end"] is None:
            values["arrival"] = arrived
        yield from nat_rows(values, question)


def open_connections(batch: Batch, question: Question) -> Iterator[NatRow]:
    """What entries of the kernel's table say; one without a start of its own has that of the reading."""
    read = int(batch.now * 1000)
    for values in _values(batch, lambda name: direct(batch, name), question):
        values |= {"ct_event": None, "end": None, "arrival": read}
        if values["start"] is not None and values["start"] >= read:
            values["start"] = None
        yield from (row._replace(kind=LIVE) for row in nat_rows(values, question) if row.kind == FLOW)


def _values(batch: Batch, read: Read, question: Question) -> Iterator[dict[str, Any]]:
    """The values of each row with the address, by role."""
    found = {role: [column for name in names if (column := read(name)) is not None] for role, names in ROLES.items()}
    for row in np.flatnonzero(_candidates(batch, found, question.address)).tolist():
        yield {role: _value(columns, row, role in ADDRESSES) for role, columns in found.items()}


def _candidates(batch: Batch, found: dict[str, list[Found]], address: int) -> np.ndarray:
    """A mask of the rows that have the address after or before a translation."""
    rows = np.zeros(batch.n, bool)
    for role in ("post_source", "destination"):
        for column in found[role]:
            values = column.numbers
            if values.ndim == 2:
                same = (values[:, 0] == np.uint64(address >> 64)) & (values[:, 1] == np.uint64(address & _HALF))
            elif address >> 32 == 0xFFFF:
                same = values == np.uint32(address & 0xFFFF_FFFF)
            else:
                continue
            rows |= column.known(same)
    return rows


def _value(columns: list[Found], row: int, address: bool) -> int | None:
    """The first value that is there."""
    for column in columns:
        if column.missing is not None and column.missing[row]:
            continue
        one = column.values[row : row + 1] if isinstance(column.values, np.ndarray) else column.values
        values = numbers(readable(one, column.key)[0])
        if not address:
            return int(values[0])
        return int(values[0]) | 0xFFFF << 32 if values.ndim == 1 else int(values[0, 0]) << 64 | int(values[0, 1])
    return None
