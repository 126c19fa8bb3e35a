"""Biflows (RFC 5103) for collectors without reverse elements: the answers of flows as rows of their own."""

from __future__ import annotations

import numpy as np

from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.biflow_names import other_end
from ulogd_tw.core.columns import Column, numbers
from ulogd_tw.core.keys import REVERSE_PEN, Key, registry

_COUNTERS = (2, 1, 86, 85)
"""Packets and octets, as differences and as totals."""
_COMMON = frozenset({
    4, 60, 58, 243,  # protocol, version of IP, VLAN
    21, 22, 150, 151, 152, 153, 154, 155, 156, 157, 136, 148,  # times, why it ended, flowId
    130, 131, 138, 144, 149, 217, 405,  # exporter
    34, 35, 48, 50, 302, 305, 306,  # sampling
    95, 96, 371,  # application, user
})  # fmt: skip
"""Elements of IANA that hold for both directions. Others, such as interfaces and flags, are of one direction only."""


def halves(batch: Batch) -> tuple[Batch, Batch | None]:
    """The rows without reverse elements; and the rows of answers, None if there are none.

    An answer has the ends of its flow exchanged, and the values of the reverse elements. Keys about the first direction
    alone are left out. Rows with an answer counted as 0 packets give none.
    """
    back = {key.elements[0][1]: name for name, key in batch.schema.items() if _is_reverse(key)}
    if not back:
        return batch, None
    gone = {*back.values(), "biflowDirection"}
    forward = batch.select([name for name in batch.schema if name not in gone])
    rows = _answered(batch, back)
    return forward, _answer(batch if rows.all() else batch.take(rows), back) if rows.any() else None


def _is_reverse(key: Key) -> bool:
    return bool(key.elements) and key.elements[0][0] == REVERSE_PEN


def _answered(batch: Batch, back: dict[int, str]) -> np.ndarray:
    """The rows with a packet, or octet, of the answer."""
    found = np.zeros(batch.n, bool)
    for ident in _COUNTERS:
        if ident in back:
            some = numbers(batch.columns[back[ident]]) != 0
            missing = batch.missing.get(back[ident])
            found |= some if missing is None else some & ~missing
    return found


def _answer(batch: Batch, back: dict[int, str]) -> Batch:
    """The answers of all rows."""
    sources: dict[Key, str] = {}
    for name, key in batch.schema.items():
        other = _turned(name)
        if other is not None:
            sources[batch.schema.get(other) or key.named(other)] = name
        elif _is_reverse(key):
            if (forward := registry.element(0, key.elements[0][1])) is not None:
                sources[forward] = name
        elif _is_common(key) and key.elements[0][1] not in back:
            sources[key] = name
    columns: dict[str, Column] = {key.name: batch.columns[name] for key, name in sources.items()}
    missing = {key.name: batch.missing[name] for key, name in sources.items() if name in batch.missing}
    return Batch(Schema(list(sources)), columns, missing, n=batch.n, now=batch.now)


def _turned(name: str) -> str | None:
    """The key of the other end."""
    other = other_end(name)
    if other is not None:
        return other
    for one, two in (("destination", "source"), ("Destination", "Source"), ("daddr", "saddr"), ("dport", "sport")):
        if one in name and other_end(name.replace(one, two)) == name:
            return name.replace(one, two)
    return None


def _is_common(key: Key) -> bool:
    return bool(key.elements) and key.elements[0][0] == 0 and key.elements[0][1] in _COMMON
