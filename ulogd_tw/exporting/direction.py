"""One direction of flows as columns: the values of each row, and so the template of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.resolve import Find, Found
from ulogd_tw.ipfix import uniflow
from ulogd_tw.ipfix.uniflow import (
    ICMP,
    NAT,
    NO_ADDRESSES,
    NO_DIRECTION,
    NO_END,
    NO_END_REASON,
    NO_FLOW_ID,
    NO_OCTETS,
    NO_PACKETS,
    NO_PORTS,
    NO_PROTOCOL,
    NO_START,
)

Value = tuple[np.ndarray, np.ndarray | None]
"""A column and the mask of its missing rows, None where none is missing."""

_ABSENT_BITS = (
    ("source", NO_ADDRESSES), ("destination", NO_ADDRESSES), ("source_port", NO_PORTS), ("destination_port", NO_PORTS),
    ("protocol", NO_PROTOCOL), ("octets", NO_OCTETS), ("packets", NO_PACKETS), ("start", NO_START), ("end", NO_END),
    ("end_reason", NO_END_REASON), ("flow_id", NO_FLOW_ID), ("direction", NO_DIRECTION),
)  # fmt: skip


@dataclass(slots=True)
class Direction:
    """One direction of n flows: its values by name, the bits that all rows share, and the rows with NAT.

    `left_out`: rows of the batch that have no record of this direction, since no packet was seen.
    """

    n: int
    values: dict[str, Value]
    bits: int = 0
    nat: np.ndarray | None = None
    left_out: int = field(default=0)
    turned: bool = False
    """Whether it is the answer of a row that is about the other direction."""

    def only(self, rows: np.ndarray, left_out: int) -> Direction:
        """Some of the rows; `left_out` is the number left out."""
        if rows.all():
            return self
        values = {name: (column[rows], None if missing is None else or_none(missing[rows]))
                  for name, (column, missing) in self.values.items()}  # fmt: skip
        nat = None if self.nat is None else self.nat[rows]
        return Direction(int(np.count_nonzero(rows)), values, self.bits, nat, left_out, self.turned)

    def parts(self) -> Iterator[tuple[int, list[np.ndarray], int]]:
        """The rows by template: its variant, the columns in the order of its fields, how many rows."""
        if not self.n:
            return
        variants = self._variants()
        if isinstance(variants, int):
            names = uniflow.values(variants)
            yield variants, [self.values[name][0] for name in names], self.n
            return
        for variant in np.unique(variants).tolist():
            rows = np.flatnonzero(variants == variant)
            names = uniflow.values(variant)
            yield variant, [self.values[name][0][rows] for name in names], len(rows)

    def _variants(self) -> int | np.ndarray:
        """The bits of every row; one number where all have the same."""
        same = self.bits
        some: list[tuple[np.ndarray, int]] = []
        for name, bit in _ABSENT_BITS:
            value = self.values.get(name)
            if value is None:
                same |= bit
            elif value[1] is not None:
                some.append((value[1], bit))
        icmp = self.values.get("icmp")
        if icmp is not None:
            if icmp[1] is None:
                same |= ICMP | NO_PORTS
            else:
                some.append((~icmp[1], ICMP | NO_PORTS))
        if self.nat is not None:
            some.append((self.nat, NAT))
        if not some:
            return same
        rows = np.full(self.n, same, np.uint16)
        for mask, bit in some:
            rows |= mask * np.uint16(bit)
        return int(rows[0]) if (rows == rows[0]).all() else rows


def add(values: dict[str, Value], name: str, found: Found | None) -> None:
    """Note a column that was found, unless no row has a value."""
    if found is None:
        return
    if found.missing is None or not found.missing.any():
        values[name] = (found.numbers, None)
    elif not found.missing.all():
        values[name] = (found.numbers, found.missing)


def add_first(values: dict[str, Value], name: str, find: Find, batch: Batch, keys: Iterable[str]) -> None:
    """Note the first of some keys that has a value."""
    for key in keys:
        if name not in values:
            add(values, name, find(batch, key))


def replace(values: dict[str, Value], name: str, found: Found | None) -> None:
    """Values where a row has some; the others stay as they are."""
    fresh: dict[str, Value] = {}
    add(fresh, name, found)
    if name not in fresh:
        return
    column, missing = fresh[name]
    if missing is not None and name in values:
        before, lacking = values[name]
        column = np.where(missing, before, column)
        missing = None if lacking is None else or_none(missing & lacking)
    values[name] = column, missing


def any_of(masks: Iterable[np.ndarray | None]) -> np.ndarray | None:
    """The rows that some mask has; None where there is no mask."""
    there = [mask for mask in masks if mask is not None]
    return np.logical_or.reduce(there) if there else None


def all_rows(value: int, n: int) -> np.ndarray:
    """One octet for all rows, at no cost a row."""
    return np.broadcast_to(np.uint8(value), n)


def or_none(missing: np.ndarray | None) -> np.ndarray | None:
    """The mask, or None where nothing is missing."""
    return missing if missing is not None and missing.any() else None
