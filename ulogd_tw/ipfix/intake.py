"""Received Messages and their senders: the part of decoding common to IPFIX, NetFlow and sFlow.

Templates, Data Sets without one, options records, Sequence Numbers, events and counters belong to an `Intake`; the
decoder of each protocol takes it as an argument, and queues the records of its Data Sets in it by layout.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ulogd_tw.core.counters import Counters
from ulogd_tw.core.errors import MessageError, raised
from ulogd_tw.ipfix.context import Source
from ulogd_tw.ipfix.events import Events
from ulogd_tw.ipfix.layout import BEFORE, Layout
from ulogd_tw.ipfix.limits import Kept, Limits
from ulogd_tw.ipfix.options_records import Options
from ulogd_tw.ipfix.parking import Parking
from ulogd_tw.ipfix.restarts import Restarts
from ulogd_tw.ipfix.sequence import MASK
from ulogd_tw.ipfix.sequence_tracker import SequenceTracker
from ulogd_tw.ipfix.session import Domain, KnownTemplate, Parked, Session
from ulogd_tw.ipfix.template_store import TemplateStore

SAME_CLOCK = 30.0
"""Seconds by which the clocks of one exporter may seem to differ from Message to Message."""
MOST_PADDING = 8
"""Octets of padding at the end of a Set are fewer: exporters align Sets to 4 octets, some to 8."""
MOST_SAID = 1024
"""Data Sets of a template known to change nothing, such as repeated tables."""
MOST_FLUSHES = 64
"""Times in one wake-up that the records in front of an options record are decoded before it."""
MOST_HOMES = 16
"""Sessions without templates that are looked at in one wake-up."""


class Intake:
    """The state of one decoder.

    waiting     layouts with queued records, in the order of their first ones; always the same list
    malformed   Messages dropped whole, and packets of NetFlow v9 cut off at a fault
    homes       sessions without some templates, each with the session that seems to have them: see `merge`
    fault       is called with internal errors
    flush       decodes all queued records, at this time
    """

    def __init__(self, counters: Counters, limits: Limits, kept: Kept) -> None:
        self.counters = counters
        self.limits = limits
        self.events = Events(limits.events)
        self.templates = TemplateStore(limits, kept, counters.errors, self.events)
        self.parking = Parking(limits, kept, counters, self.events)
        self.options = Options(limits, kept, counters, self.events, self.templates.new_domain)
        self.sequences = SequenceTracker(counters, self.events)
        self.restarts = Restarts(
            self.templates, self.parking, counters, self.events, self.unpark, self.options.forget_start
        )
        self.waiting: list[Layout] = []
        self.malformed = 0
        self.homes: list[tuple[Session, Session]] = []
        self.fault: Callable[[Exception], None] = raised
        self.flush: Callable[[float], None] = lambda now: None
        self._flushes = 0
        self._repeated: list[tuple[KnownTemplate, bytes | np.ndarray, Source]] = []

    def domain(self, session: Session, number: int, place: int) -> Domain | None:
        """The domain at this place of a session, a new one if need be; None where a limit refuses it."""
        return session.domains.get(place) or self.templates.new_domain(session, number, place)

    # records and Messages

    def queue_records(self, known: KnownTemplate, body: bytes | np.ndarray, source: Source) -> None:
        """Put the records of a Data Set aside until `drain`; `body` has `layout.BEFORE` octets before them."""
        if known.domain.doubted and known.domain.doubted.get(known.template.ident) is known and source[4] is None:
            self._park_again(known, body, source)
            return
        layout = known.layout
        if not layout.bodies:
            if layout.tells:
                self.queue_telling(known, body, source)
                return
            self.waiting.append(layout)
        layout.bodies.append(body)
        layout.sources.append(source)

    def _park_again(self, known: KnownTemplate, body: bytes | np.ndarray, source: Source) -> None:
        """Options records before these in their Message showed that the exporter has restarted: they wait."""
        domain, (_, exported, received, *_) = known.domain, source
        if known.octets:
            domain.rows -= (len(body) - BEFORE) // known.octets
        parked = Parked(bytes(body), exported, received, domain.sequence.last, None)
        self.no_template(known.session, domain, known.template.ident, parked)

    def queue_telling(self, known: KnownTemplate, body: bytes | np.ndarray, source: Source) -> None:
        """Queue options records that may change how the records after them are read: those before them come first.

        A Data Set that came before and changed nothing then waits for `drain`.
        """
        said = known.said = known.said if known.said is not None else set()
        octets = hash(bytes(body[BEFORE:]))
        if octets in said or self._flushes >= MOST_FLUSHES:
            self._repeated.append((known, body, source))
            return
        self._flushes += 1
        for one in self._repeated:  # they came before, and are older than what this one says
            self._queue(*one)
        self._repeated.clear()
        self._queue(known, body, source)
        before = self.options.changes
        self.flush(source[2])
        if self.options.changes != before or len(said) >= MOST_SAID:
            said.clear()
        said.add(octets)

    def sampled(self, known: KnownTemplate, interval: int, now: float) -> None:
        """The header of a packet of NetFlow v5 names the sampling interval of its records; 0 and 1: not sampled."""
        info = known.domain.info
        if info is not None and info.rates.get(()) == float(interval or 1):
            return
        if known.layout.bodies and self._flushes < MOST_FLUSHES:
            self._flushes += 1
            self.flush(now)
        self.options.sampled(known, interval)

    def _queue(self, known: KnownTemplate, body: bytes | np.ndarray, source: Source) -> None:
        layout = known.layout
        if not layout.bodies:
            self.waiting.append(layout)
        layout.bodies.append(body)
        layout.sources.append(source)

    def take_waiting(self) -> list[Layout]:
        """The layouts with records that are queued; they are those of the caller from here on."""
        found = list(self.waiting)
        self.waiting.clear()
        return found

    def no_more(self) -> None:
        """The wake-up ends: options records that only repeat known data are queued too."""
        repeated, self._repeated, self._flushes = self._repeated, [], 0
        for one in repeated:
            self._queue(*one)

    def count_together(
        self, session: Session, domain: Domain, numbers: np.ndarray, steps: np.ndarray | int, octets: int, rows: int,
        now: float, unit: str = "records",
    ) -> None:  # fmt: skip
        """Count Messages of one domain that were taken together.

        `numbers` are their Sequence Numbers (uint32), `steps` what each number grows by, the others are sums of all.
        """
        steps = np.broadcast_to(np.asarray(steps).astype(np.uint32), numbers.shape)
        sequence = domain.sequence
        if int(numbers[0]) == sequence.expected and (np.diff(numbers) == steps[:-1]).all():
            sequence.expected = (int(numbers[-1]) + int(steps[-1])) & MASK
        else:
            for number, step in zip(numbers.tolist(), steps.tolist(), strict=True):
                self.sequences.follow(session, domain, number, step, unit)
        self.counters.messages_received += len(numbers)
        self.counters.octets_received += octets
        session.last_received = now
        session.messages += len(numbers)
        session.octets += octets
        domain.rows += rows

    def refuse(self, session: Session, domain: int, error: MessageError) -> None:
        """A Message is malformed; `domain` is its number, 0 where that is not known."""
        self.malformed += 1
        session.malformed += 1
        self.counters.errors[error.reason] += 1
        self.events.add("malformed", session, domain, 0, f"{error.reason}: {error}")

    # Sets that cannot be read yet, or never

    def no_template(self, session: Session, domain: Domain, set_id: int, parked: Parked) -> None:
        """A Data Set whose template has not come, or is not trusted: over UDP it waits for it."""
        if set_id in domain.doubted:
            self.parking.park(session, domain, set_id, parked)
            return
        self.counters.errors["no_template"] += 1
        self._once("no_template", session, domain, set_id)
        if not session.overtakes:
            return
        self.parking.park(session, domain, set_id, parked)
        if session.siblings and not domain.templates and not domain.doubted and len(self.homes) < MOST_HOMES:
            home = _home(session, domain, set_id, parked)
            if home is not None:
                self.homes.append((home, session))

    def unknown_set(self, session: Session, domain: Domain, set_id: int) -> None:
        """A Set with an id that means nothing is left out (RFC 7011 section 3.3.2)."""
        self.counters.errors["set_id"] += 1
        self._once("set_id", session, domain, set_id)

    def _once(self, kind: str, session: Session, domain: Domain, set_id: int) -> None:
        """Each id is logged once, as long as there is room to remember it."""
        if set_id not in domain.missing and len(domain.missing) < self.limits.missing:
            domain.missing.add(set_id)
            self.events.add(kind, session, domain.number, set_id)

    def unpark(self, session: Session, domain: Domain) -> None:
        """Templates have come: queue the Data Sets that waited for them."""
        for known, parked in self.parking.take(session, domain):
            body, deferred = parked.body, None
            if known.is_later_than(parked.export_time):
                self.counters.errors["late_data"] += 1
                continue
            if known.octets:
                rows, padding = divmod(len(body) - BEFORE, known.octets)
                body = body[: len(body) - padding]
                domain.rows += rows
            elif known.template.least_octets:
                deferred = self.templates.uncounted(domain, parked.number)
            else:  # a template of NetFlow v9 whose records have no octets
                self.counters.errors["empty_records"] += 1
                continue
            source = (known, parked.export_time, parked.received, deferred, parked.clock)
            self.queue_records(known, body, source)

    def expire(self, now: float) -> None:
        """Give up Data Sets that have waited for too long."""
        self._settle_doubts(now - self.limits.parked_time)
        self.parking.expire(now)

    def end(self) -> None:
        """No more will come: give up what waits for templates."""
        self._settle_doubts(float("inf"))
        self.parking.clear()

    def _settle_doubts(self, before: float) -> None:
        for session, domain in self.parking.overdue(before):
            self.restarts.waited(session, domain)

    # sessions

    def merge(self, home: Session, other: Session) -> None:
        """Two sessions are one exporter, whose templates and data came from different ports: all of it is `home`'s."""
        for place, domain in other.domains.items():
            mine = self.domain(home, domain.number, place)
            if mine is None:
                continue
            for known in list(domain.templates.values()):
                self.templates.move(home, mine, known)
            self.parking.move((other, domain), (home, mine))
            self.options.merge(home, mine, domain)
            mine.sequence.unknown()
            mine.rows += domain.rows
            self.unpark(home, mine)

    def forget(self, session: Session) -> None:
        """The session is closed: its templates are gone. Records that are queued stay."""
        self.parking.forget(session)
        self.templates.forget(session)


def _home(session: Session, domain: Domain, set_id: int, parked: Parked) -> Session | None:
    """The session of the same address with the template of a Data Set, if both seem to be one exporter.

    That is so if it has sent no records itself, or if the Message continues its sequence: another exporter at the same
    address would have a count of its own. Their clocks must agree, and the records must fit into the Set.
    """
    octets, origin = len(parked.body) - BEFORE, parked.origin
    for other in session.siblings:
        there = other.domains.get(domain.place) if other is not session else None
        known = there.templates.get(set_id) if there is not None else None
        if there is None or known is None or (there.rows and parked.number != there.sequence.expected):
            continue
        if abs(there.origin - origin) < SAME_CLOCK and octets % (known.octets or 1) < MOST_PADDING:
            return other
    return None
