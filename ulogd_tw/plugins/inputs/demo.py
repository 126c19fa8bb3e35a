"""DEMO: flow records of a network that does not exist, to try stacks, queries and dashboards with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.options import Option, boolean, number, positive
from ulogd_tw.core.plugin import FLOW, Input
from ulogd_tw.metering.demo_traffic import KEYS, Traffic

_TICK_S = 0.25
"""Time between two batches."""
_PARTS = round(1 / _TICK_S)
_MOST_BEHIND = 5
"""Seconds of traffic that are made up for after a pause of the process; what is older is left out."""
_SCHEMAS = {ipv6: Schema(keys, ipv6) for ipv6, keys in KEYS.items()}


class DEMO(Input):
    """Invents the flow records of three routers: web, DNS, mail and ssh of some hundred clients, and a port scan.

    It needs no privilege and no traffic, so it shows within a second whether a stack works. The same `seed` gives the
    same flows in each run; only their times differ. Addresses are of private use or reserved for documentation.
    """

    name = "DEMO"
    otype = FLOW
    provides = tuple(dict.fromkeys((*KEYS[False], *KEYS[True])))
    options = (
        Option("rate", positive, 100, "Flow records a second."),
        Option("seed", number, 1, "Chooses the traffic: two runs with the same seed invent the same flows."),
        Option("seconds", number, 0, "Length of the traffic in seconds; 0: it goes on until the service stops."),
        Option(
            "exit", boolean, False,
            "1: the service ends after `seconds` of traffic, as soon as all of it is written.",
        ),
    )  # fmt: skip

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self._traffic = Traffic(self.config.seed)
        self._parts: Iterator[list[Batch]] = iter(())
        self._second = 0
        self._next: float | None = None
        self._begun = False
        self._paused = False

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if self.config.seconds < 0:
            yield "seconds", "must be 0 or more"
        if self.config.exit and not self.config.seconds:
            yield "exit", "needs seconds=, the length of the traffic, such as seconds=60"

    @property
    def exits(self) -> bool:  # type: ignore[override]
        return self.config.exit

    def begin(self) -> None:
        self._begun = True

    def stop(self) -> None:
        self._begun = False

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def wake(self, now: float) -> float | None:
        """Emit the quarters of seconds that have passed."""
        if self.at_end:
            return None
        if not self._begun or self._paused:
            return _TICK_S
        if self._next is None or now - self._next > _MOST_BEHIND or now < self._next - 1:
            self._next = now
        while self._next <= now and not self._paused and not self.at_end:
            self._emit_part(self._next)
            self._next += _TICK_S
        return max(self._next - now, 0.0)

    def _emit_part(self, now: float) -> None:
        batches = next(self._parts, None)
        if batches is None:
            if self.config.seconds and self._second >= self.config.seconds:
                self._end()
                return
            self._parts = self._split(now)
            batches = next(self._parts)
        for batch in batches:
            self.counters.rows_received += batch.n
            self.emit(batch)

    def _split(self, now: float) -> Iterator[list[Batch]]:
        """The next second of traffic in quarters; the first of them has just ended."""
        start = now - _TICK_S
        found = self._traffic.second(self._second, self.config.rate, start)
        self._second += 1
        places = []
        for ipv6, columns in found:
            whole = Batch(_SCHEMAS[ipv6], columns, n=len(columns["received_ms"]), now=now, held=True)
            ends = np.asarray(columns["received_ms"], np.int64) - int(start * 1000)
            bounds = np.searchsorted(ends, np.arange(_PARTS + 1) * 1000 // _PARTS)
            places.append((whole, bounds.tolist()))
        for part in range(_PARTS):
            yield [
                _at(whole, bounds[part], bounds[part + 1], now + part * _TICK_S)
                for whole, bounds in places
                if bounds[part] < bounds[part + 1]
            ]

    def _end(self) -> None:
        self.at_end = True
        if self.exits:
            self.ended()


def _at(batch: Batch, first: int, stop: int, now: float) -> Batch:
    """These rows, with this time of arrival."""
    part = batch.take(slice(first, stop))
    part.now = now
    return part
