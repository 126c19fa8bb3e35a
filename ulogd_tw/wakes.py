"""The timers of instances: each says when it wants to be woken next, and learns of steps of the wall clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulogd_tw.clocks import WallClock
from ulogd_tw.core.graph import Node
from ulogd_tw.core.plugin import Plugin


class Wakes:
    """One timer a node. `clock_set` is called with the seconds of a step before the next instance is woken."""

    def __init__(
        self,
        reactor: Any,
        clock: Callable[[], float],
        report: Callable[[Plugin, Exception], None],
        clock_set: Callable[[float], None],
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._wall = WallClock(clock, reactor.seconds)
        self._report = report
        self._clock_set = clock_set
        self._timers: dict[Node, Any] = {}

    def wake(self, node: Node) -> None:
        """Call the plugin's `wake`, and again when it wants it."""
        self._timers.pop(node, None)
        delay: float | None = 1.0
        if step := self._wall.step():
            self._clock_set(step)
        try:
            delay = node.plugin.wake(self._clock())
        except Exception as error:
            self._report(node.plugin, error)
        if delay is not None:
            self._timers[node] = self._reactor.callLater(max(delay, 0), self.wake, node)

    def cancel(self, node: Node) -> None:
        """Let its plugin not be woken any more."""
        if node in self._timers:
            self._timers.pop(node).cancel()
