"""A sliding window: what the last intervals add up to, at the end of each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ulogd_tw.aggregation.interval import IntervalTable


class Window:
    """The closed intervals ("panes") that are part of a window still to come; a window lasts `length` seconds."""

    def __init__(self, interval: int, length: int, new_table: Callable[[int], IntervalTable]) -> None:
        self._interval = interval
        self._length = length
        self._new_table = new_table
        self.panes: list[IntervalTable] = []
        """In the order of their times."""

    def add(self, pane: IntervalTable) -> None:
        """Take a finished interval, possibly a late one."""
        self.panes.append(pane)
        self.panes.sort(key=lambda pane: pane.start)

    def until(self, closed: int, until: int) -> Iterator[IntervalTable]:
        """The windows that end after `closed` and not after `until`, in turn, for intervals added as they went by.

        An interval that came when the last window with it had gone out is a window by itself.
        """
        while self.panes and self.panes[0].start + self._length <= closed:
            yield self._of([self.panes.pop(0)])
        end = closed
        while self.panes and end < until:
            end = max(end + self._interval, self.panes[0].start + self._interval)
            if end > until:
                return
            yield self._of([pane for pane in self.panes if pane.start < end], end - self._length)
            self.panes = [pane for pane in self.panes if pane.start + self._length > end]

    def _of(self, panes: list[IntervalTable], start: int | None = None) -> IntervalTable:
        """The sums of these panes, which are added up as the table goes out."""
        whole = self._new_table(panes[0].start if start is None else max(start, 0))
        whole.unite(reversed(panes))
        return whole
