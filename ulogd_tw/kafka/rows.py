"""Rows from messages of Kafka: columns by name, as JSON, Arrow IPC or FlowMessage has them, become batches.

Addresses of one column may be of both families; rows of different families are in different batches, under the names
of the elements of their family.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Column, take
from ulogd_tw.core.keys import Key, known, registry

MAPPED = np.frombuffer(bytes(10) + b"\xff\xff", np.uint8)
RENAMED = {
    "src_ip": "sourceAddress", "dest_ip": "destinationAddress", "src_port": "sourceTransportPort",
    "dest_port": "destinationTransportPort", "octets": "octetDeltaCount", "packets": "packetDeltaCount",
    "sourceIPv4Address": "sourceAddress", "sourceIPv6Address": "sourceAddress",
    "destinationIPv4Address": "destinationAddress", "destinationIPv6Address": "destinationAddress",
}  # fmt: skip
"""Keys for names of columns that are no keys, or stand for several."""


class MistakenRows(ValueError):
    """Octets that are no rows of this form."""


@dataclass(slots=True)
class Cell:
    """One column: its values by the type of the key; addresses as (n, 16) uint8, IPv4 as ::ffff:a.b.c.d."""

    key: Key
    values: Column
    missing: np.ndarray | None = None

    @property
    def address(self) -> bool:
        """Whether it has addresses."""
        return self.key.type in (types.ADDRESS, types.IPV4, types.IPV6)

    def take(self, rows: np.ndarray) -> Cell:
        """Some rows."""
        return Cell(self.key, take(self.values, rows), None if self.missing is None else self.missing[rows])


def key_of(name: str) -> Key | None:
    """The key of a column of this name; None where nobody knows it."""
    return known(RENAMED.get(name, name))


def ipv4(cell: Cell) -> np.ndarray:
    """A mask of the rows with an IPv4 address."""
    assert isinstance(cell.values, np.ndarray)
    return (cell.values[:, :12] == MAPPED).all(1)


def batches(cells: Mapping[str, Cell], n: int, now: float) -> Iterator[Batch]:
    """The batches of these columns: one for each combination of families."""
    neutral = [cell for cell in cells.values() if cell.key.type is types.ADDRESS]
    codes = np.zeros(n, np.int64)
    for place, cell in enumerate(neutral):
        four = ipv4(cell) if cell.missing is None else ipv4(cell) | cell.missing
        codes |= (~four).astype(np.int64) << place
    for code in np.unique(codes).tolist():
        rows = np.flatnonzero(codes == code)
        some = list(cells.values()) if len(rows) == n else [cell.take(rows) for cell in cells.values()]
        yield _batch(some, len(rows), now)


def _batch(cells: list[Cell], n: int, now: float) -> Batch:
    columns: dict[str, Column] = {}
    missing, keys = {}, []
    for cell in cells:
        key, values = _typed(cell) if cell.address else (cell.key, cell.values)
        if cell.missing is not None and cell.missing.all() or key.name in columns:
            continue
        columns[key.name] = values
        keys.append(key)
        if cell.missing is not None and cell.missing.any():
            missing[key.name] = cell.missing
    return Batch(Schema(keys), columns, missing, n=n, now=now, held=True)


def _typed(cell: Cell) -> tuple[Key, np.ndarray]:
    """Addresses as batches have them, under the name of their element."""
    octets = np.ascontiguousarray(cell.values)
    family = cell.key.type
    if family is types.ADDRESS:
        four = ipv4(cell) if cell.missing is None else ipv4(cell) | cell.missing
        family = types.IPV4 if four.all() else types.IPV6
    if family is types.IPV4:
        values = octets[:, 12:].copy().view(">u4")[:, 0].astype(np.uint32)
    else:
        values = octets.view(">u8").astype(np.uint64)
    return _of_family(cell.key, family), values


def _of_family(key: Key, family: types.Type) -> Key:
    for element in key.elements:
        found = registry.element(*element)
        if found.type is family:
            return found
    return key.typed(family)
