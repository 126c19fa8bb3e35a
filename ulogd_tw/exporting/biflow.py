"""Connections as biflows (RFC 5103): one record each, what the reply had as reverse elements."""

from __future__ import annotations

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Column, repeated
from ulogd_tw.core.keys import Key, registry
from ulogd_tw.exporting.directions import Find, Value, connection

_INITIATOR = 1
"""biflowDirection: the source of the record began the flow (RFC 5103 section 6.3)."""
_DIRECTION = registry.element(0, 239)


def _keys(six: bool) -> tuple[tuple[str, Key], ...]:
    """The name of each value and its element, in the order of the record."""
    elements = (
        ("source", 0, 27 if six else 8), ("destination", 0, 28 if six else 12), ("source_port", 0, 7),
        ("destination_port", 0, 11), ("protocol", 0, 4), ("octets", 0, 1), ("packets", 0, 2),
        ("reply_octets", 29305, 1), ("reply_packets", 29305, 2), ("start", 0, 152), ("end", 0, 153),
        ("end_reason", 0, 136), ("flow_id", 0, 148), ("icmp", 0, 139 if six else 32),
        ("nat_source", 0, 281 if six else 225), ("nat_destination", 0, 282 if six else 226),
        ("nat_source_port", 0, 227), ("nat_destination_port", 0, 228),
    )  # fmt: skip
    return tuple((name, registry.element(pen, ident)) for name, pen, ident in elements)


_BY_FAMILY = {False: _keys(False), True: _keys(True)}


def biflows(find: Find, batch: Batch) -> Batch:
    """A row for each connection, with keys that are Information Elements only.

    Ports are left out for ICMP, and translated addresses and ports if nothing was translated. Counters of a missing
    reply are 0; counters not kept by the kernel are missing.
    """
    found = connection(find, batch)
    values: dict[str, Value] = found.original.values | {
        f"reply_{name}": value for name, value in found.reply.values.items() if name in ("octets", "packets")
    }
    if "icmp" in values:
        no_ports = np.ones(batch.n, bool) if values["icmp"][1] is None else ~values["icmp"][1]
        for name in ("source_port", "destination_port", "nat_source_port", "nat_destination_port"):
            _hide(values, name, no_ports)
    untouched = np.ones(batch.n, bool) if found.original.nat is None else ~found.original.nat
    for name in ("nat_source", "nat_destination", "nat_source_port", "nat_destination_port"):
        _hide(values, name, untouched)
    columns: dict[str, Column] = {}
    missing: dict[str, np.ndarray] = {}
    keys: list[Key] = []
    for name, key in _BY_FAMILY[found.six]:
        column, mask = values.get(name, (None, None))
        if column is None or mask is not None and mask.all():
            continue
        keys.append(key)
        columns[key.name] = column
        if mask is not None:
            missing[key.name] = mask
    keys.append(_DIRECTION)
    columns[_DIRECTION.name] = repeated(_INITIATOR, batch.n, types.UNSIGNED8.dtype)
    return Batch(Schema(keys), columns, missing, n=batch.n, now=batch.now)


def _hide(values: dict[str, Value], name: str, rows: np.ndarray) -> None:
    if name in values:
        column, missing = values[name]
        values[name] = column, rows if missing is None else rows | missing
