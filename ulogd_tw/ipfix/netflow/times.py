"""Absolute times of NetFlow's records, which have only the uptime of the exporter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.columns import numbers
from ulogd_tw.core.keys import NETFLOW5, NETFLOW9, Key, registry
from ulogd_tw.core.plugin import ALL, Wanted
from ulogd_tw.ipfix.context import Source
from ulogd_tw.ipfix.layout import Found
from ulogd_tw.ipfix.session import Clock
from ulogd_tw.ipfix.template import Field
from ulogd_tw.ipfix.values import held_type

_EDGES = ((152, ((NETFLOW9, 22), (NETFLOW5, 7))), (153, ((NETFLOW9, 21), (NETFLOW5, 8))))
"""Element of the absolute time, and the fields that have it as an uptime."""
AHEAD = 3_600_000
"""A flow may be this much (ms) later than the header of its packet; anything later is from before the uptime's wrap."""
_WRAP = 1 << 32


class Times:
    """flowStartMilliseconds and flowEndMilliseconds of records that have only the uptime of the exporter."""

    def __init__(self, fields: tuple[Field, ...], wanted: Wanted) -> None:
        self._made: list[tuple[Key, str]] = []
        lengths = {(field.pen, field.ident): field.length for field in reversed(fields)}
        for element, uptimes in _EDGES:
            key = registry.element(0, element)
            if key.name not in wanted or (NETFLOW9, element) in lengths:
                continue
            for place in uptimes:
                uptime = registry.element(*place)
                if place in lengths and held_type(uptime.type, lengths[place]).integer:
                    self._made.append((key, uptime.name))

    @property
    def keys(self) -> list[Key]:
        return [key for key, _ in self._made]

    def needed(self, wanted: Wanted) -> Wanted:
        """What has to be read of the records: also the uptimes of times that are wanted."""
        return wanted if wanted is ALL else wanted | {uptime for _, uptime in self._made}

    def add(self, found: Found, sources: Sequence[Source], counts: np.ndarray) -> Sequence[Key]:
        """Add the columns. A time before 1970 is missing."""
        columns, missing = found
        exported, uptimes = _clocks([clock for *_, clock in sources if clock is not None], counts)
        for key, uptime in self._made:
            ago = uptimes - (numbers(columns[uptime]) & np.uint32(_WRAP - 1)).astype(np.int64)
            ago &= _WRAP - 1  # the uptime starts again every 49.7 days
            ago[ago > _WRAP - AHEAD] -= _WRAP
            time = exported - ago
            wrong = time < 0
            columns[key.name] = np.where(wrong, 0, time).astype(types.MILLISECONDS.dtype)
            wrong = wrong | missing[uptime] if uptime in missing else wrong
            if wrong.any():
                missing[key.name] = wrong
        return self.keys


def _clocks(clocks: Sequence[Clock], counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """When the packet of each record was exported, and the uptime then; one each where all have the same."""
    if len(clocks) == 1 and not isinstance(clocks[0][0], np.ndarray):
        return np.array(clocks[0][:1], np.int64), np.array(clocks[0][1:], np.int64)
    if not any(isinstance(clock[0], np.ndarray) for clock in clocks):
        exported, uptimes = np.array(clocks, np.int64).T
        return np.repeat(exported, counts), np.repeat(uptimes, counts)
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for clock, count in zip(clocks, np.asarray(counts).tolist(), strict=True):
        for part, value in zip(parts, clock, strict=True):
            value = np.atleast_1d(np.asarray(value, np.int64))
            part.append(np.repeat(value, count // len(value)))
    return np.concatenate(parts[0]), np.concatenate(parts[1])


def times(fields: tuple[Field, ...], wanted: Wanted) -> Times | None:
    """The times that can be made of records with these fields; None where there are none, as in IPFIX."""
    if not any(field.pen >= NETFLOW9 for field in fields):
        return None
    found = Times(fields, wanted)
    return found if found.keys else None
