"""Exporters whose clock is wrong: Export Time against the time of arrival."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

from ulogd_tw.ipfix.context import Source
from ulogd_tw.ipfix.events import Events
from ulogd_tw.ipfix.session import Domain, Session

_ERA = 1 << 32
_export_time = itemgetter(1)


class Skew:
    """Tells when the clock of an Observation Domain is off by more than `most` seconds, and when it is right again."""

    def __init__(self, most: float, events: Events) -> None:
        self._most = most
        self._events = events
        self._wrong: dict[Domain, None] = {}

    def look(self, sources: Sequence[Source], now: float) -> None:
        """Look at the Export Times of records that are decoded now."""
        if not self._most:
            return
        latest, earliest = max(map(_export_time, sources)), min(map(_export_time, sources))
        if self._wrong or _off(latest, now) > self._most or -_off(earliest, now) > self._most:
            for known, export_time, received, *_ in sources:
                ahead = _off(export_time, received)
                if (abs(ahead) > self._most) != known.domain.skewed:
                    self._turn(known.session, known.domain, ahead)

    def _turn(self, session: Session, domain: Domain, ahead: float) -> None:
        domain.skewed = not domain.skewed
        if domain.skewed:
            if len(self._wrong) < 10_000:
                self._wrong[domain] = None
            text = f"{abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"
            self._events.add("clock_skew", session, domain.number, 0, text)
        else:
            self._wrong.pop(domain, None)
            self._events.add("clock_right", session, domain.number)


def _off(export_time: int, now: float) -> float:
    """Seconds by which an Export Time is ahead; it wraps every 136 years (RFC 7011 section 5.2)."""
    return (export_time - now + _ERA / 2) % _ERA - _ERA / 2
