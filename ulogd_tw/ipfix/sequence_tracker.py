"""Sequence Numbers of all sessions, also of Messages whose records are counted only when they are decoded."""

from __future__ import annotations

from ulogd_tw.core.counters import Counters
from ulogd_tw.ipfix.events import Events
from ulogd_tw.ipfix.sequence import MASK, Sequence
from ulogd_tw.ipfix.session import DeferredMessage, Domain, Session


class SequenceTracker:
    """Counts losses as ``lost{sequence}``, oddities in `errors`, and reports both to `events`.

    Losses between two runs of ours are ``lost{restart}``.
    """

    def __init__(self, counters: Counters, events: Events) -> None:
        self._counters = counters
        self._events = events
        self._deferred: list[tuple[Domain, Session, Sequence]] = []

    def defer(self, session: Session, domain: Domain, deferred: DeferredMessage) -> None:
        """A Message with a number of records not known yet: it and those after it wait for `settle`."""
        sequence = domain.sequence
        if not sequence.deferred:
            sequence.pause()
            domain.deferring += 1
            self._deferred.append((domain, session, sequence))
        sequence.deferred.append(deferred)

    def follow(self, session: Session, domain: Domain, number: int, rows: int, unit: str = "records") -> None:
        """Take the Sequence Number of a Message of `rows` records; -1: of how many is unknown."""
        if domain.sequence.deferred:
            domain.sequence.deferred.append(DeferredMessage(number, rows))
            return
        if rows < 0:
            if domain.sequence.resumed:  # what is missing before it is known
                self._follow(session, domain, number, 0, unit)
            domain.sequence.unknown()
        else:
            self._follow(session, domain, number, rows, unit)

    def _follow(self, session: Session, domain: Domain, number: int, rows: int, unit: str) -> None:
        lost, odd = domain.sequence.follow(number, rows)
        if lost:
            away = odd == "restart_gap" or (lost < 0 and domain.sequence.away(number))
            self._counters.lost["restart" if away else "sequence"] += lost
            session.lost += lost
            session.lost_restart += lost if away else 0
        if odd:
            session.resets += odd == "sequence_reset"
            if odd not in ("sequence_gap", "restart_gap"):
                self._counters.errors[odd] += 1
            if odd != "sequence_duplicate":
                self._events.add(odd, session, domain.number, 0, f"{lost} {unit}" if lost else "")

    def settle(self) -> None:
        """All records are counted: follow the Messages that wait."""
        sequences, self._deferred = self._deferred, []
        for domain, session, sequence in sequences:
            messages, sequence.deferred = sequence.deferred, []
            current, domain.sequence = domain.sequence, sequence
            domain.deferring -= 1
            sequence.resume()
            for deferred in messages:
                if deferred.malformed:
                    continue
                if deferred.number == sequence.expected and deferred.rows >= 0:
                    sequence.expected = (deferred.number + deferred.rows) & MASK
                else:
                    self.follow(session, domain, deferred.number, deferred.rows)
            domain.sequence = current
