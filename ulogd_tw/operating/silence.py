"""Finds exporters that have fallen silent, and tells when they come back. Only while somebody can ask for events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from twisted.application import service
from twisted.internet import defer, reactor, task

LOOK_SECONDS = 10.0
_AT_ONCE = 500
"""Sessions looked at in a turn of the reactor; 500 take 0.2 ms."""


def last_heard(graph: Any, heard: dict[tuple[str, str], float]) -> Iterator[None]:
    """Put into `heard` when something came last, by instance and address, for some exporters between two yields."""
    for node in graph.inputs:
        for number, session in enumerate(list(getattr(node.plugin, "sessions", tuple)())):
            key = node.plugin.instance, session.peer
            heard[key] = max(heard.get(key, 0.0), session.last_received)
            if number % _AT_ONCE == _AT_ONCE - 1:
                yield


class Silence(service.Service):
    """Looks at the exporters of all inputs every few seconds. `wall` gives seconds since 1970."""

    def __init__(self, ulogd: Any, seconds: float, wall: Callable[[], float] = time.time, clock: Any = reactor) -> None:
        self._ulogd = ulogd
        self._seconds = seconds
        self._wall = wall
        self._loop = task.LoopingCall(self.look)
        self._loop.clock = clock
        self._silent: set[tuple[str, str]] = set()

    def startService(self) -> None:
        super().startService()
        if self._seconds:
            self._loop.start(LOOK_SECONDS, now=False)

    def stopService(self) -> None:
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def look(self) -> defer.Deferred[Any]:
        """One look; fires when it has ended."""
        return task.cooperate(self._steps()).whenDone()

    def _steps(self) -> Iterator[None]:
        heard: dict[tuple[str, str], float] = {}
        yield from last_heard(self._ulogd.graph, heard)
        self._compare(heard)

    def _compare(self, heard: dict[tuple[str, str], float]) -> None:
        """Tell which have become silent, and which are not any more. Ended sessions are forgotten."""
        now = self._wall()
        for (instance, peer), last in heard.items():
            silent = last > 0 and now - last >= self._seconds
            if silent == ((instance, peer) in self._silent):
                continue
            if silent:
                self._silent.add((instance, peer))
                self._add("exporter_silent", f"nothing has arrived from {peer} for {now - last:.0f} s", instance, peer)
            else:
                self._silent.discard((instance, peer))
                self._add("exporter_back", f"{peer} sends again", instance, peer)
        self._silent.intersection_update(heard)

    def _add(self, kind: str, text: str, instance: str, peer: str) -> None:
        self._ulogd.events.add(kind, f"{instance}: {text}", instance=instance, exporter=peer)
