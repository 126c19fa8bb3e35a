"""Parts of intervals: what a worker process has added up, on its way to the AGGREGATE of the service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ulogd_tw.aggregation.group_table import FLOWS, Group, Slice
from ulogd_tw.aggregation.interval import IntervalTable, Present
from ulogd_tw.aggregation.relocation import AT_ONCE
from ulogd_tw.core.packing import Dictionary, Packing


@dataclass(frozen=True)
class Part:
    """Some groups of the interval that begins at `start`, copied; it can be pickled.

    now      the clock of the newest rows, seconds since 1970
    present  their present keys, or `OTHER`
    groups   their keys and values
    strings  name of a key -> its strings, by code
    """

    start: int
    now: float
    present: Present
    groups: Slice
    strings: dict[str, list[bytes]]

    @classmethod
    def of(cls, table: IntervalTable, now: float) -> Iterator[Part]:
        """What a table has, in pieces of some milliseconds' work."""
        for present, group in table.groups.items():
            texts = [] if isinstance(present, str) else [key.name for key in present if key.type.variable]
            strings = {name: table.dictionaries[name].values for name in texts}
            for piece in _slices(group):
                yield cls(table.start, now, present, piece, strings)

    @property
    def flows(self) -> int:
        """The rows that its groups sum up."""
        return int(self.groups.value(FLOWS).sum())

    @property
    def packing(self) -> Packing:
        """How the keys are packed."""
        dictionaries = {}
        for name, values in self.strings.items():
            dictionaries[name] = Dictionary(len(values))
            dictionaries[name].restore(values)
        return Packing(() if isinstance(self.present, str) else self.present, dictionaries)


def _slices(group: Group) -> Iterator[Slice]:
    stop = group.table.n + 1
    return (group.piece(first, min(first + AT_ONCE, stop)) for first in range(1, stop, AT_ONCE))
