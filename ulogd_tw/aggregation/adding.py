"""The aggregation process of a worker: it adds up, and hands its tables on as parts before they are large or old."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ulogd_tw.aggregation.interval import OTHER
from ulogd_tw.aggregation.parts import Part
from ulogd_tw.aggregation.process import AggregationProcess
from ulogd_tw.aggregation.settings import Overflow, Settings

MOST_GROUPS = 65_536
"""Groups of which a part is handed on before its time."""
_SKETCHES = 2 * MOST_GROUPS
"""A batch has fewer rows than `MOST_GROUPS`: every group of a part has its sketch."""


def divided(settings: Settings) -> bool:
    """Whether rows may be added up in several processes: without groups that go out at a row's own time."""
    return not settings.age and not settings.change


def of_worker(settings: Settings) -> Settings:
    """The settings with which a worker adds up; the rest of them holds where parts are merged."""
    return replace(
        settings, top=0, window=0, state_file="", overflow=Overflow.EMIT,
        max_sketches=max(settings.max_sketches, _SKETCHES),
    )  # fmt: skip


class AddingProcess(AggregationProcess):
    """Adds up batches; nothing is emitted, `take_parts` gives what there is."""

    def _close(self, until: int, now: float | None = None) -> None:
        """Intervals end where parts are merged."""

    def _hand_on(self, now: float) -> None:
        """Tables that make room wait for `take_parts`."""

    def take_parts(self) -> Iterator[Part]:
        """All groups, and none stays."""
        for table in [*self.intervals.take_outs(), *self.intervals.close()]:
            yield from Part.of(table, self._now)
            sizes: dict[object, int] = {
                present: group.table.n for present, group in table.groups.items() if present != OTHER
            }
            self._pool.expect(sizes)
            for group in table.groups.values():
                self._pool.take(group)

    @property
    def ready(self) -> bool:
        """Whether parts should be taken now."""
        return bool(self.intervals.outs) or self.intervals.keys >= MOST_GROUPS
