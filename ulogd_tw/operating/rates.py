"""Records and octets a second of each exporter, over the time since the last look. Only while somebody can ask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.application import service
from twisted.internet import defer, reactor, task

from ulogd_tw.core.looks import Look

LOOK_SECONDS = 10.0
_AT_ONCE = 200
"""Domains looked at in a turn of the reactor; 200 take 0.2 ms."""


class Rates(service.Service):
    """Looks at the exporters of all inputs every `LOOK_SECONDS`, and notes the rates in their sessions."""

    def __init__(self, ulogd: Any, clock: Any = reactor) -> None:
        self._ulogd = ulogd
        self._clock = clock
        self._loop = task.LoopingCall(self.look)
        self._loop.clock = clock
        self._last: float | None = None

    def startService(self) -> None:
        super().startService()
        self._loop.start(LOOK_SECONDS)

    def stopService(self) -> None:
        super().stopService()
        if self._loop.running:
            self._loop.stop()

    def look(self) -> defer.Deferred[Any]:
        """One look; fires when it has ended."""
        before, self._last = self._last, self._clock.seconds()
        return task.cooperate(self._steps(before, self._last)).whenDone()

    def _steps(self, before: float | None, now: float) -> Iterator[None]:
        """Look at each session; what was not there at the last look has come since."""
        looked = 0
        for node in self._ulogd.graph.inputs:
            for session in list(getattr(node.plugin, "sessions", tuple)()):
                _note(session, session.octets, before, now)
                for domain in session.domains.values():
                    _note(domain, domain.rows, before, now)
                looked += 1 + len(session.domains)
                if looked >= _AT_ONCE:
                    looked = 0
                    yield


def _note(one: Any, count: int, before: float | None, now: float) -> None:
    """Note the rate of a session's octets, or of a domain's records."""
    last = one.looked
    since, counted = (last.at, last.counted) if last is not None else (before, 0)
    rate = None if since is None or now <= since else max(count - counted, 0) / (now - since)
    one.looked = Look(now, count, rate)
