"""The numbers of each exporter for Prometheus: a label for each of a bounded number, and one for all others together.

An exporter that has a label keeps it while its sessions live. What was counted in sessions that have ended stays in the
numbers that only grow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from math import inf
from typing import Any

OTHER = "other"
GROWING = ("messages", "records", "malformed")
NAMES = (*GROWING, "missing", "templates", "silent_seconds", "clock_wrong")
_AT_ONCE = 200
"""Domains in a slice; 200 take 0.2 ms."""
_PEERS_AT_ONCE = 5000
"""Sessions of which only the peer is looked at in a slice: 1 ms."""
_Key = tuple[str, str, str]
"""Instance, plugin, and the label of the exporter."""


class ExporterNumbers:
    """Sums of the sessions of each exporter. At most `most` exporters of an input have labels of their own."""

    def __init__(self, most: int, wall: Callable[[], float] = time.time) -> None:
        self._most = most
        self._wall = wall
        self._labels: dict[str, dict[str, None]] = {}
        self._grown: dict[tuple[_Key, str], tuple[float, float]] = {}

    def of(self, graph: Any) -> Iterator[dict[_Key, dict[str, float]] | None]:
        """None at places to pause, and at last the numbers by instance, plugin and exporter."""
        found: dict[_Key, dict[str, float]] = {}
        now = self._wall()
        for node in graph.inputs:
            told = getattr(node.plugin, "sessions_told", getattr(node.plugin, "sessions", tuple))
            sessions = list(told())
            yield None
            there: dict[str, None] = {}
            for first in range(0, len(sessions), _PEERS_AT_ONCE):
                there |= dict.fromkeys([session.peer for session in sessions[first : first + _PEERS_AT_ONCE]])
                yield None
            labels = self._labelled(node.ident, there)
            looked = 0
            for session in sessions:
                label = session.peer if session.peer in labels else OTHER
                key = node.ident, node.plugin.name, label
                sums = found.setdefault(key, dict.fromkeys(NAMES, 0.0) | {"silent_seconds": inf})
                _add(sums, session, now)
                looked += 1 + len(session.domains)
                if looked >= _AT_ONCE:
                    looked = 0
                    yield None
        for number, (key, sums) in enumerate(found.items()):
            if number % _AT_ONCE == _AT_ONCE - 1:
                yield None
            sums["silent_seconds"] = 0.0 if sums["silent_seconds"] == inf else sums["silent_seconds"]
            for name in GROWING:
                sums[name] = self._growing(key, name, sums[name])
        self._grown = {key: value for key, value in self._grown.items() if key[0] in found}
        yield found

    def _labelled(self, ident: str, there: dict[str, None]) -> dict[str, None]:
        """The exporters with a label: those that have one and are there, then the first of the others."""
        labels = {peer: None for peer in self._labels.get(ident, ()) if peer in there}
        for peer in there:
            if len(labels) >= self._most:
                break
            labels[peer] = None
        self._labels[ident] = labels
        return labels

    def _growing(self, key: _Key, name: str, value: float) -> float:
        """The sum, together with what was in sessions that have ended."""
        base, last = self._grown.get((key, name), (0.0, 0.0))
        if value < last:
            base += last - value
        self._grown[key, name] = base, value
        return base + value


def _add(sums: dict[str, float], session: Any, now: float) -> None:
    sums["messages"] += session.messages
    sums["malformed"] += session.malformed
    sums["missing"] += session.lost
    domains = list(session.domains.values())
    sums["records"] += sum(domain.rows for domain in domains)
    sums["templates"] += sum(len(domain.templates) for domain in domains)
    sums["clock_wrong"] = max(sums["clock_wrong"], float(any(domain.skewed for domain in domains)))
    if session.last_received:
        sums["silent_seconds"] = min(sums["silent_seconds"], max(now - session.last_received, 0.0))
