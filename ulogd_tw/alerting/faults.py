"""What rules about the service itself look at: silent exporters, losses, changes of templates and of sampling."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from ulogd_tw.alerting.conditions import Condition
from ulogd_tw.alerting.states import Labels
from ulogd_tw.operating.silence import last_heard

AT_ONCE = 500
"""Exporters looked at in a turn of the reactor."""


class Faults:
    """Looks at the service every few seconds for one condition; `look` yields between parts of the work."""

    def __init__(self, condition: Condition, ulogd: Any) -> None:
        self._condition, self._ulogd = condition, ulogd
        self._totals: deque[tuple[float, dict[str, int]]] = deque()
        self._factors: dict[tuple[str, str, Any], Any] | None = None
        self._event = max((event["n"] for event in ulogd.events.since()), default=0)
        self.found: dict[Labels, float] = {}
        """The keys for which the condition is true since the last look."""

    def look(self, now: float) -> Iterator[None]:
        """One look; `found` has its result at the end."""
        kind = self._condition.kind
        found: dict[Labels, float] = {}
        steps = {"exporter": self._silent, "sampling": self._sampling}.get(kind)
        if steps is not None:
            yield from steps(now, found)
        elif kind == "template":
            self._templates(found)
        else:
            self._losses(now, found)
        self.found = found

    def _silent(self, now: float, found: dict[Labels, float]) -> Iterator[None]:
        heard: dict[tuple[str, str], float] = {}
        yield from last_heard(self._ulogd.graph, heard)
        for (instance, peer), last in heard.items():
            if last > 0 and now - last >= self._condition.limit:
                found[_labels(instance, peer)] = now - last

    def _sampling(self, now: float, found: dict[Labels, float]) -> Iterator[None]:
        factors: dict[tuple[str, str, Any], Any] = {}
        for node in self._ulogd.graph.inputs:
            for number, one in enumerate(getattr(node.plugin, "each_exporter", tuple)()):
                key = node.plugin.instance, str(one.get("exporter", "")), one.get("domain")
                if one.get("sampling_factor") is not None:
                    factors[key] = one["sampling_factor"]
                if number % AT_ONCE == AT_ONCE - 1:
                    yield
        before = self._factors or {}
        for key, factor in factors.items():
            if before.get(key, factor) != factor:
                found[_labels(key[0], key[1])] = float(factor)
        self._factors = factors

    def _templates(self, found: dict[Labels, float]) -> None:
        for event in self._ulogd.events.since(self._event):
            self._event = event["n"]
            if event["kind"] == "template_conflict":
                key = _labels(str(event.get("instance", "")), str(event.get("exporter", "")))
                found[key] = found.get(key, 0) + 1

    def _losses(self, now: float, found: dict[Labels, float]) -> None:
        """Rows lost or dropped over the window; a new instance begins with what it has."""
        kind = self._condition.kind
        totals = {node.ident: getattr(node.plugin.counters, kind).total() for node in self._ulogd.graph.nodes}
        self._totals.append((now, totals))
        while len(self._totals) > 1 and self._totals[1][0] <= now - self._condition.window:
            self._totals.popleft()
        before = self._totals[0][1]
        for ident, total in totals.items():
            rows = total - before.get(ident, total)
            if rows > self._condition.limit:
                found[(("instance", ident),)] = float(rows)


def _labels(instance: str, exporter: str) -> Labels:
    return ("instance", instance), ("exporter", exporter)
