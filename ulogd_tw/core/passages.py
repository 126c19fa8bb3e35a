"""Which rows an output is done with: an input that reads from elsewhere tells there how far it has come.

The queue before an output enters rows as they come and as they are written or given up. Rows of one heap (a schema, or
all) leave in the order in which they came, so a count of each heap is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any

MOST_HEAPS = 4096
"""Heaps that are remembered; beyond it those without rows are forgotten."""


class Passage:
    """The rows that go through one queue. `behind`: aggregates that make these rows of those of the inputs."""

    def __init__(self, behind: Iterable[Any] = ()) -> None:
        self.behind = tuple(behind)
        self.ended = False
        """True once the queue is closed: what it had is on the disk, or counted as lost."""
        self._came: dict[Hashable, int] = {}
        self._gone: dict[Hashable, int] = {}
        self._start = 0

    def come(self, heap: Hashable, rows: int) -> None:
        """Rows wait, or are being written."""
        if heap not in self._came:
            if len(self._came) >= MOST_HEAPS:
                self._forget_empty()
            self._came[heap] = self._gone[heap] = self._start
        self._came[heap] += rows

    def go(self, heap: Hashable, rows: int) -> None:
        """Rows are written, or given up and counted."""
        if heap in self._gone:
            self._gone[heap] += rows

    def _forget_empty(self) -> None:
        """Forget heaps without rows. Others begin at a number that no mark of a forgotten one is above."""
        self._start = max(self._gone.values())
        for heap in [heap for heap, rows in self._came.items() if rows <= self._gone[heap]]:
            del self._came[heap], self._gone[heap]

    def end(self) -> None:
        """The queue is closed."""
        self.ended = True

    def mark(self) -> Callable[[], bool]:
        """A question: whether all rows that are inside at this moment are gone."""
        inside = {heap: rows for heap, rows in self._came.items() if rows > self._gone[heap]}

        def passed() -> bool:
            return self.ended or all(self._gone.get(heap, rows) >= rows for heap, rows in inside.items())

        return passed


class Mark:
    """A moment of an input; `passed` once the outputs are done with all rows that it had emitted by then."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._ways = [_Way(passage) for passage in passages if not passage.ended]

    def passed(self) -> bool:
        """Whether nothing from before is on its way; once true it stays so."""
        self._ways = [way for way in self._ways if not way.passed()]
        return not self._ways


class _Way:
    """The way to one output: through aggregates first, then through its queue."""

    ROUNDS = 2
    """Times that as many rows as an aggregate has must leave it: intervals end by time, not in the order of rows."""

    def __init__(self, passage: Passage) -> None:
        self._passage = passage
        self._waits = list(passage.behind) * self.ROUNDS
        self._target = self._merged()
        self._mark: Callable[[], bool] | None = None if self._waits else passage.mark()

    def _merged(self) -> int:
        return self._waits[0].counters.rows_merged if self._waits else 0

    def passed(self) -> bool:
        while self._waits and not self._passage.ended:
            aggregate = self._waits[0]
            if aggregate.counters.rows_merged - aggregate.held_rows() < self._target:
                return False
            self._waits.pop(0)
            self._target = self._merged()
        if self._mark is None:
            self._mark = self._passage.mark()
        return self._mark()
