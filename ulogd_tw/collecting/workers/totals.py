"""The counters of workers, added up in those of the service's instances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from ulogd_tw.core.counters import NUMBERS, REASONS, Count, Gauge
from ulogd_tw.core.graph import Node
from ulogd_tw.core.plugin import Output

LEAST = frozenset({"receive_buffer_octets"})
"""Gauges of which the smallest counts."""
_OF_OUTPUTS = frozenset({"rows_received", "rows_waiting", "rows_written"})
"""Numbers that the service counts itself when rows of a worker come."""
Told = dict[str, dict[str, Any]]


class Totals:
    """The counters that workers have told, by worker; `node_of` finds the instances of the service."""

    def __init__(self, node_of: Callable[[str], Node | None]) -> None:
        self._node_of = node_of
        self._latest: dict[int, Told] = {}
        self._shown: set[tuple[str, str]] = set()
        self._gone: Counter[tuple[str, str]] = Counter()
        """Counts of workers that are gone, by instance and name."""

    @property
    def idents(self) -> set[str]:
        """The instances that the workers have."""
        return {ident for told in self._latest.values() for ident in told}

    def take(self, worker: int, told: Told) -> None:
        """Add what has come since this worker told last."""
        before, self._latest[worker] = self._latest.get(worker, {}), told
        for ident, counters in told.items():
            node = self._node_of(ident)
            if node is not None:
                self._add(node, counters, before.get(ident, {}))

    def forget(self, worker: int) -> None:
        """The worker is gone; what it has counted stays."""
        for ident, counters in self._latest.pop(worker, {}).items():
            node = self._node_of(ident)
            for figure in () if node is None else node.plugin.counters.declared:
                if isinstance(figure, Count) and (ident, figure.name) in self._shown:
                    self._gone[ident, figure.name] += counters.get(figure.name, 0)

    def _add(self, node: Node, now: dict[str, Any], before: dict[str, Any]) -> None:
        counters, ends_here = node.plugin.counters, isinstance(node.plugin, Output)
        for number in NUMBERS:
            name = number.name
            if name != "rows_waiting" and not (ends_here and name in _OF_OUTPUTS):
                setattr(counters, name, getattr(counters, name) + now[name] - before.get(name, 0))
        for reason in REASONS:
            counts, former = getattr(counters, reason.of), before.get(reason.of, {})
            for name, value in now[reason.of].items():
                if more := value - former.get(name, 0):
                    counts.allow(name)
                    counts[name] += more
                    if ends_here and reason.of == "dropped":
                        counters.rows_received += more
        for figure in counters.declared:
            if isinstance(figure, Count) and figure.name in now and not callable(counters.figures.get(figure.name)):
                if more := now[figure.name] - before.get(figure.name, 0):
                    counters.figures[figure.name] += more
            elif isinstance(figure, (Count, Gauge)) and figure.name in now:
                self._show(node.ident, figure.name, counters.figures)
        if node.plugin.ledger is not None:
            node.plugin.ledger.told(now["rows_emitted"] - before.get("rows_emitted", 0))

    def _show(self, ident: str, name: str, figures: dict[str, Any]) -> None:
        """Let a figure of the service be that of all workers together, and its own where it has one."""
        if (ident, name) in self._shown:
            return
        self._shown.add((ident, name))
        own = figures.get(name, 0)

        def value() -> Any:
            found = [told[ident][name] for told in self._latest.values() if name in told.get(ident, {})]
            if name in LEAST:
                return min(found, default=0)
            return sum(found) + self._gone[ident, name] + (own() if callable(own) else own)

        figures[name] = value
