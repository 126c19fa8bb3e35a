"""The events of the running service: what happened lately, for administrators who were not there.

A ring for each kind, so that many events of one kind, such as new exporters with forged addresses, push out no others.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

MOST_OF_A_KIND = 200
"""Events of one kind that are kept; the oldest are forgotten first."""
KINDS = {
    "start": "The service started, and these stacks run.",
    "mistake": "The configuration has a mistake: a stack is left out, or the mistake is tolerated.",
    "stack_left_out": "A stack could not start, and the others run without it.",
    "reload": "The configuration was read again; the changes are in the text.",
    "reload_refused": "The new configuration has mistakes, and the old one stays in use.",
    "restart": "A new process takes over.",
    "clock_set": "The clock of this host was set.",
    "exporter_new": "An exporter, or a new Observation Domain of one, sends for the first time.",
    "exporter_silent": "Nothing has arrived from an exporter for exporter_silent seconds.",
    "exporter_back": "An exporter sends again after it was silent.",
    "exporter_restarted": "An exporter has restarted, so its templates must be sent again.",
    "exporter_refused": "A sender is refused: by allow, or at a limit.",
    "exporter_clock_wrong": "The clock of an exporter is off by more than clock_skew.",
    "exporter_clock_right": "The clock of an exporter is right again.",
    "worker_died": "A worker process of a COLLECTOR ended by itself; it is started again.",
    "template_missing": "Records have arrived before their template.",
    "template_conflict": "A template has changed under the same id, or two exporters use one address.",
    "alert_firing": "The condition of an [alert:NAME] is true for a key, and its receivers are told.",
    "alert_resolved": "The condition of an alert that was firing is not true any more.",
    "template_refused": "A template is invalid, or a limit is reached.",
}
"""Every kind of event."""


class Events:
    """The rings. `clock` gives seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._last = 0
        self._rings: dict[str, deque[dict[str, Any]]] = {}
        self.counts: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
        """How many there were of each kind."""

    def add(self, kind: str, text: str, **facts: Any) -> None:
        """One has happened. `kind` is one of `KINDS`; `facts` are further members of it."""
        self._last += 1
        self.counts[kind] += 1
        ring = self._rings.setdefault(kind, deque(maxlen=MOST_OF_A_KIND))
        ring.append({"n": self._last, "time": self._clock(), "kind": kind, "text": text} | facts)

    def since(self, number: int = 0) -> Iterator[dict[str, Any]]:
        """Those with a larger number, in their order."""
        found = [event for ring in self._rings.values() for event in ring if event["n"] > number]
        yield from sorted(found, key=lambda event: event["n"])
