"""One line about the running service, as ``systemctl status`` shows it: stacks, rows a second, and what is missing."""

from __future__ import annotations

from collections.abc import Callable

from ulogd_tw.core.plurals import plural
from ulogd_tw.core.stack import Graph


class StatusLine:
    """The line of this moment; rates are those since the line before. `graph` gives the present stacks."""

    def __init__(self, graph: Callable[[], Graph], stacks: int, clock: Callable[[], float]) -> None:
        self._graph = graph
        self._stacks = stacks
        self._clock = clock
        self._then = clock()
        self._rows = 0

    def __call__(self) -> str:
        graph = self._graph()
        run, left_out = len(graph.stacks), self._stacks - len(graph.stacks)
        parts = [plural(run, "stack runs", "stacks run") if left_out <= 0 else f"{run} of {self._stacks} stacks run"]
        parts.append(f"{self._rate(graph):,.0f} rows/s")
        for name in ("lost", "dropped"):
            count = sum(sum(getattr(node.plugin.counters, name).values()) for node in graph.nodes)
            if count:
                parts.append(f"{name} {count:,}")
        return ", ".join(parts)

    def _rate(self, graph: Graph) -> float:
        rows = sum(node.plugin.counters.rows_emitted for node in graph.inputs)
        now = self._clock()
        more, passed = rows - self._rows, now - self._then
        self._rows, self._then = rows, now
        return more / passed if passed > 0 and more > 0 else 0.0
