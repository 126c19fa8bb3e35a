"""Rows without any counter of octets: counted, and logged once for each template."""

from __future__ import annotations

import numpy as np
from twisted.logger import Logger

from ulogd_tw.core.amounts import Amounts
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.bounded import Bounded
from ulogd_tw.core.columns import take
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.hashes import of_rows
from ulogd_tw.core.python_values import canonical_list
from ulogd_tw.core.quantities import OCTETS, QUANTITIES, REPLY_OCTETS
from ulogd_tw.core.resolve import Find, Found

ASKS = ("exporter", "observationDomainId", "templateId")
"""The keys that name a template; the last one is its number."""
_PLACES = QUANTITIES.index(OCTETS), QUANTITIES.index(REPLY_OCTETS)
MOST_TEMPLATES = 1000
"""Templates that are remembered as said."""
_AT_ONCE = 16
"""Templates that one batch can tell of."""


class Uncounted:
    """Looks for rows without octets in either direction."""

    log = Logger()

    def __init__(self, instance: str, find: Find, amounts: Amounts, counters: Counters) -> None:
        self._instance = instance
        self._find = find
        self._counters = counters
        self._amounts = amounts
        self._said: Bounded[object, None] = Bounded(MOST_TEMPLATES)

    def look(self, batch: Batch) -> None:
        """Count the rows without octets, and say so once for each template."""
        if self._amounts.everywhere(batch, _PLACES[0]):
            return
        without: np.ndarray | None = None
        for place in _PLACES:
            amount = self._amounts.of(batch, place)
            if amount is not None:
                if amount.missing is None:
                    return
                without = amount.missing if without is None else without & amount.missing
        rows = np.arange(batch.n) if without is None else np.flatnonzero(without)
        if len(rows):
            self._counters.figures["rows_without_octets"] += len(rows)
            self._say(batch if without is None else batch.take(rows))

    def _say(self, batch: Batch) -> None:
        """Say it of the templates of these rows."""
        columns = [self._find(batch, name) for name in ASKS]
        _, first = np.unique(of_rows(columns, batch.n, np.uint64(0)), return_index=True)
        for row in first[:_AT_ONCE].tolist():
            named = [self._named(column, row) for column in columns]
            template = tuple(named) if any(named) else batch.schema
            if template not in self._said:
                self._said[template] = None
                self.log.warn("{instance}: {template} has no counter of octets: its records count as flows, and "
                              "their octets are NULL", instance=self._instance, template=_words(named))  # fmt: skip

    def _named(self, column: Found | None, row: int) -> str:
        """The text of a value; empty where there is none."""
        if column is None or column.missing is not None and column.missing[row]:
            return ""
        return str(canonical_list(take(column.values, slice(row, row + 1)), column.key)[0])


def _words(named: list[str]) -> str:
    """A template as people call it: ``template 256 of 192.0.2.1, domain 7``."""
    exporter, domain, template = named
    if not template:
        return "a kind of rows of the input"
    return f"template {template}" + (f" of {exporter}" if exporter else "") + (f", domain {domain}" if domain else "")
