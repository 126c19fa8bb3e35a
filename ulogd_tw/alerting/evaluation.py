"""Evaluation of a rule about flows: partial sums of each interval, added up over the window, against the limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ulogd_tw.alerting.grouping import Keyed, Sums, hashes, shown, united
from ulogd_tw.alerting.memory import Hours, Seen
from ulogd_tw.alerting.rules import Rule
from ulogd_tw.alerting.states import Labels
from ulogd_tw.core.batch import Batch

MOST_IN_WINDOW = 4_000_000
"""Keys over all intervals of a window that one rule holds; the oldest intervals go first."""


class Evaluation:
    """One rule over the batches of an AGGREGATE with intervals of `interval` seconds. `choose` gives a mask of rows."""

    def __init__(self, rule: Rule, interval: int, choose: Callable[[Batch], np.ndarray] | None = None) -> None:
        self.rule = rule
        self.interval = interval
        self._choose = choose
        self._parts: dict[int, list[Sums]] = {}
        self._columns = 2 * len(rule.condition.by)
        self.seen = Seen(rule.values.max_seen, rule.values.learn) if rule.condition.kind == "new" else None
        self.hours = Hours() if rule.condition.kind == "ratio" else None
        self._known: dict[Labels, int] = {}
        """Hashes of the keys of alerts: at the bound of keys they go before others."""
        self.forgotten = 0
        """Keys of intervals that were given up at the bound."""

    def add(self, batch: Batch, start: int, keyed: dict[tuple[str, ...], Keyed]) -> None:
        """Take rows of the interval that begins at `start`; `keyed` is shared by the rules that look at this batch."""
        condition = self.rule.condition
        by = keyed.get(condition.by)
        if by is None:
            by = keyed[condition.by] = Keyed(batch, condition.by)
        values = None
        if condition.measure != "flows" or "flows" in batch.columns:
            if condition.measure not in batch.columns:
                return
            column: Any = batch.columns[condition.measure]
            missing = batch.missing.get(condition.measure)
            values = column if missing is None else np.where(missing, 0, column)
        chosen = None if self._choose is None else self._choose(batch)
        if chosen is not None and chosen.all():
            chosen = None
        sums = by.sums(values, chosen)
        if len(sums):
            self._parts.setdefault(start, []).append(sums)
            self._bound()

    def _bound(self) -> None:
        while (
            len(self._parts) > 1 and sum(len(part) for parts in self._parts.values() for part in parts) > MOST_IN_WINDOW
        ):
            oldest = self._parts.pop(min(self._parts))
            self.forgotten += sum(map(len, oldest))

    def at(self, end: int, now: float, present: Iterable[Labels] = ()) -> tuple[dict[Labels, float], int]:
        """The keys beyond the limit at the end of an interval, with their values, and how many more there were.

        `present` are those of alerts: where there are too many keys, these stay.
        """
        self._known = {labels: self._known[labels] for labels in present if labels in self._known}
        condition = self.rule.condition
        if condition.kind == "above":
            self._parts = {start: parts for start, parts in self._parts.items() if start >= end - condition.window}
        for start, parts in self._parts.items():
            if len(parts) > 1:
                self._parts[start] = [united(parts, self._columns)]
        whole = united([p for start, parts in self._parts.items() if start < end for p in parts], self._columns)
        if condition.kind != "above":  # each row counts once
            self._parts = {start: parts for start, parts in self._parts.items() if start >= end}
        if self.seen is not None:
            found = self.seen.new(whole, now)
        elif self.hours is not None:
            found = self.hours.beyond(whole, end - self.interval, condition.limit, self.rule.values.least)
        else:
            found = whole.only(whole.values > condition.limit)
        return self._labelled(found)

    def _labelled(self, found: Sums) -> tuple[dict[Labels, float], int]:
        """The largest keys as text: only these become Python objects."""
        most = self.rule.values.max_alerts
        beyond = max(len(found) - most, 0)
        if beyond:
            known = np.isin(hashes(found.keys), np.array(list(self._known.values()), np.uint64))
            found = found.only(np.sort(np.lexsort((-found.values, ~known))[:most]))
        names = self.rule.condition.by
        labels: dict[Labels, float] = {}
        places = hashes(found.keys).tolist()
        for row, value, place in zip(found.keys, found.values.tolist(), places, strict=True):
            label = tuple(zip(names, shown(row, self.rule.kinds, found.texts), strict=True))
            labels[label], self._known[label] = value, place
        return labels, beyond
