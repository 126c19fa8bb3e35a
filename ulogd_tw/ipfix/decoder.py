"""The decoding half of a Collecting Process: Messages in, batches of records out. No socket, no clock.

`Decoder.feed` walks one Message and puts the bodies of its Data Sets aside, by layout; `Decoder.drain` makes columns
of all of them at once. A Message whose lengths are impossible is dropped whole (RFC 7011 section 9.1): it is read
through before anything of it takes effect, except for records of variable length, which are walked when drained, many
Messages at a time; until then their Sequence Numbers wait too (`following`). NetFlow v9 and v5 are taken by
`netflow.NetFlow`, sFlow by `sflow.SFlow`, Messages that come many at once by `together.SlabDecoder`; `learning` keeps
templates, `parking` Data Sets without one, `batches` makes the columns.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.errors import MessageError, raised
from ulogd_tw.core.keys import Key
from ulogd_tw.core.plugin import Wanted
from ulogd_tw.ipfix.batches import Batches
from ulogd_tw.ipfix.context import Source
from ulogd_tw.ipfix.events import Event, Events
from ulogd_tw.ipfix.exporter_info import ExporterInfo
from ulogd_tw.ipfix.families import by_family
from ulogd_tw.ipfix.layout import BEFORE, Layout
from ulogd_tw.ipfix.limits import Kept, Limits
from ulogd_tw.ipfix.message import (
    FIRST_DATA_SET,
    HEADER,
    OPTIONS_TEMPLATE_SET,
    SET_HEADER,
    TEMPLATE_SET,
    VERSION,
    cut_sets,
)
from ulogd_tw.ipfix.netflow import decoder
from ulogd_tw.ipfix.options_records import Options
from ulogd_tw.ipfix.parking import Parking
from ulogd_tw.ipfix.sequence import MASK
from ulogd_tw.ipfix.sequence_tracker import SequenceTracker
from ulogd_tw.ipfix.session import DeferredMessage, Domain, KnownTemplate, Parked, Session
from ulogd_tw.ipfix.sflow import decoder as sflow
from ulogd_tw.ipfix.slab_decoder import SlabDecoder
from ulogd_tw.ipfix.template import Template
from ulogd_tw.ipfix.template_store import TemplateStore, template_sets
from ulogd_tw.ipfix.variable_length import Located, locate

IPFIX = b"\0\x0a"
"""How a Message begins (VERSION)."""
_ONE_SET = struct.Struct("!HHIIIHH")
"""The Message Header and the header of the first Set."""

SAME_CLOCK = 30.0
"""Seconds by which the clocks of one exporter may seem to differ from Message to Message."""
MOST_PADDING = 8
"""Octets of padding at the end of a Set are fewer: exporters align Sets to 4 octets, some to 8."""
MOST_HOMES = 16
"""Sessions without templates that are looked at in one wake-up."""

__all__ = ["Decoder", "Event", "Limits"]


class Decoder:
    """Decodes the Messages of any number of sessions. Nothing that a peer sends raises anything here.

    A session belongs to one decoder.
    """

    def __init__(
        self, wanted: Wanted, counters: Counters, limits: Limits = Limits(),  # noqa: B008 (frozen)
        kept: Kept | None = None, *, scale: bool = False, name: bool = False,
    ) -> None:  # fmt: skip
        self.wanted = wanted
        self.counters = counters
        self.limits = limits
        kept = kept or Kept()
        self._events = Events(limits.events)
        self._learning = TemplateStore(limits, kept, counters.errors, self._events)
        self._parking = Parking(limits, kept, counters.errors, self._events)
        self._options = Options(limits, kept, counters, self._events, self._learning.new_domain)
        self.malformed = 0
        """Messages that were dropped whole, and packets of NetFlow v9 of which the end was dropped."""
        self.homes: list[tuple[Session, Session]] = []
        """Sessions that lack templates, each behind the one that seems to have them: see `merge`."""
        self.netflow = decoder.NetFlow(self)
        self._together = SlabDecoder(self)
        self._sflow = sflow.SFlow(self, wanted, scale)
        self._waiting: list[Layout] = []
        self._following = SequenceTracker(counters, self._events)
        self.follow = self._following.follow
        self._spoiled = False
        self._batches = Batches(
            wanted, counters, limits, self._learning, self._options, self._events, scale=scale, name=name
        )
        self._expired = 0.0
        self.fault: Callable[[Exception], None] = raised
        """Told of errors of our own."""

    @property
    def events(self) -> list[Event]:
        """What has changed since the caller cleared this list, for the log."""
        return self._events.waiting

    @property
    def events_left_out(self) -> int:
        """Events that there was no room for."""
        return self._events.left_out

    # a message comes

    def feed(self, session: Session, message: bytes | memoryview, now: float) -> None:
        """Take one Message, as it came in a datagram or was cut out of a stream."""
        if type(message) is not bytes:
            message = bytes(message)
        counters = self.counters
        size = len(message)
        counters.messages_received += 1
        counters.octets_received += size
        session.last_received = now
        session.messages += 1
        # Nearly all Messages are one Data Set of a template that is known: no call, no loop.
        if size >= BEFORE:
            version, length, export_time, number, domain_id, set_id, set_length = _ONE_SET.unpack_from(message)
            if (
                set_length + 16 == length == size
                and version == VERSION
                and (domain := session.domains.get(domain_id))
                and (learnt := domain.templates.get(set_id))
            ):
                fate = None
                if octets := learnt.octets:
                    rows, padding = divmod(size - BEFORE, octets)
                    if padding:
                        message = message[:-padding]
                    domain.rows += rows
                    sequence = domain.sequence
                    if number == sequence.expected:
                        sequence.expected = (number + rows) & MASK
                    else:
                        self.follow(session, domain, number, rows)
                else:
                    fate = DeferredMessage(number, 0, False, domain, domain.stamp)
                    self._following.defer(session, domain, fate)
                layout = learnt.layout
                if not layout.bodies:
                    self._waiting.append(layout)
                layout.bodies.append(message)
                layout.sources.append((learnt, export_time, now, fate))
                return
            if length == size and version == VERSION and (domain := session.domains.get(domain_id)):
                if self._feed_known(session, domain, message, export_time, number, now):
                    return
        self._feed_any(session, message, now)

    def feed_stream(self, session: Session, stream: int, message: bytes, now: float) -> None:
        """Take one Message of a stream of an SCTP association; each has Sequence Numbers of its own (section 3.1)."""
        ident = int.from_bytes(message[12:16], "big")
        domain = session.domains.get(ident)
        if domain is not None and not domain.on_stream(stream):
            self._learning.new_sequence(domain, stream)
        if message[:2] == IPFIX and not (domain is not None and domain.replaced):
            self.feed(session, message, now)
            if domain is None and stream and (domain := session.domains.get(ident)) is not None:
                domain.sequences[stream] = domain.sequence
            return
        self.counters.messages_received += 1
        self.counters.octets_received += len(message)
        session.last_received = now
        session.messages += 1
        if message[:2] == IPFIX:
            self._feed_any(session, message, now)  # which looks for data that templates have overtaken
        else:
            self._malformed(session, 0, MessageError("a message of another protocol", "version", 0))

    def _feed_known(
        self, session: Session, domain: Domain, message: bytes, export_time: int, number: int, now: float
    ) -> bool:
        """Take a Message of Data Sets of known templates with records of fixed length.

        False for any other, and then nothing has been done.
        """
        templates, parts, rows = domain.templates, [], 0
        at, end = HEADER.size, len(message)
        while at < end:
            if end - at < SET_HEADER.size:
                return False
            set_id, length = SET_HEADER.unpack_from(message, at)
            learnt = templates.get(set_id)
            if learnt is None or not (octets := learnt.octets) or not SET_HEADER.size <= length <= end - at:
                return False
            found, padding = divmod(length - SET_HEADER.size, octets)
            rows += found
            parts.append((learnt, message[at + SET_HEADER.size - BEFORE : at + length - padding]))
            at += length
        domain.rows += rows
        sequence = domain.sequence
        if number == sequence.expected:
            sequence.expected = (number + rows) & MASK
        else:
            self.follow(session, domain, number, rows)
        for learnt, body in parts:
            self.wait(learnt, body, (learnt, export_time, now, None))
        return True

    def wait(self, learnt: KnownTemplate, body: bytes | np.ndarray, source: Source) -> None:
        """Put the records of a Data Set aside until `drain`; `body` has `layout.BEFORE` octets before them."""
        layout = learnt.layout
        if not layout.bodies:
            self._waiting.append(layout)
        layout.bodies.append(body)
        layout.sources.append(source)

    def took(
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
                self.follow(session, domain, number, step, unit)
        self.counters.messages_received += len(numbers)
        self.counters.octets_received += octets
        session.last_received = now
        session.messages += len(numbers)
        domain.rows += rows

    def feed_slab(self, sessions: Sequence[Session], rows: np.ndarray, lengths: np.ndarray, now: float) -> None:
        """Take many Messages, as if each row were fed: `rows` is uint8 (n, stride), each as long as in `lengths`.

        `sessions` has the session of each row. The array may be used again afterwards.
        """
        self._together.feed(sessions, rows, lengths, now)

    def _feed_any(self, session: Session, message: bytes, now: float) -> None:
        """Any Message: first all that can be wrong with it, then what it does, in the order of its Sets."""
        if message[:4] == sflow.START:
            self._sflow.feed(session, message, now)
            return
        if message[:2] in (decoder.V9, decoder.V5):
            self.netflow.feed(session, message, now)
            return
        domain_id = 0
        try:
            message, export_time, number, domain_id = self._header(message)
            sets = cut_sets(message)
            domain = session.domains.get(domain_id)
            news = template_sets(domain, message, sets)
            walked = self._learning.walked(session, domain, message, sets, news) if news else {}
        except MessageError as error:
            self._malformed(session, domain_id, error)
            return
        if domain is None and (domain := self._learning.new_domain(session, domain_id)) is None:
            return
        if news:
            domain.origin = export_time - now
            domain.exported = export_time
        parts, rows, varying = [], 0, False
        for place, (set_id, start, end) in enumerate(sets):
            if set_id >= FIRST_DATA_SET:
                learnt = domain.templates.get(set_id)
                if learnt is not None and learnt.is_later_than(export_time):
                    self.counters.errors["late_data"] += 1
                    found = -1
                elif learnt is None:
                    body = message[start - BEFORE : end]
                    self._no_template(session, domain, set_id, Parked(body, export_time, now, number, None))
                    found = -1
                elif learnt.octets:
                    found, padding = divmod(end - start, learnt.octets)
                    domain.rows += found
                    parts.append((learnt, message[start - BEFORE : end - padding], None))
                else:
                    found = 0
                    varying = True
                    own = self._learning.fate(domain, number) if news else None
                    parts.append((learnt, message[start - BEFORE : end], own))
                if place in walked:
                    found = walked[place]
                rows = -1 if found < 0 or rows < 0 else rows + found
            elif place in news:
                self._learning.learn_set(session, domain, message[start - 4 : end], news[place], now)
                if domain.parked:
                    self._unpark(session, domain)
            elif set_id in (TEMPLATE_SET, OPTIONS_TEMPLATE_SET):
                self._learning.again(session, domain, message[start - 4 : end], now)
            else:
                self._unknown_set(session, domain, set_id)
        fate = None
        if varying and not news:
            fate = DeferredMessage(number, rows, False, domain, domain.stamp)
            self._following.defer(session, domain, fate)
        elif rows >= 0 and number == domain.sequence.expected:
            domain.sequence.expected = (number + rows) & MASK
        else:
            self.follow(session, domain, number, rows)
        for learnt, body, own in parts:
            self.wait(learnt, body, (learnt, export_time, now, own or fate))

    def _header(self, message: bytes) -> tuple[bytes, int, int, int]:
        """The Message as long as it says, Export Time, Sequence Number, Observation Domain."""
        if len(message) < HEADER.size:
            raise MessageError(f"a message of {len(message)} octets", "length", 0)
        version, length, export_time, number, domain_id = HEADER.unpack_from(message)
        if version != VERSION:
            raise MessageError(f"version {version}", "version", 0)
        if not HEADER.size <= length <= len(message):
            raise MessageError(f"message length {length} in {len(message)} octets", "length", 2)
        if length < len(message):
            # A datagram is one Message; what follows it is not looked at.
            self.counters.errors["trailing"] += 1
            message = message[:length]
        return message, export_time, number, domain_id

    def _no_template(self, session: Session, domain: Domain, set_id: int, parked: Parked) -> None:
        """A Data Set whose template has not come: over UDP it waits for it."""
        self.counters.errors["no_template"] += 1
        if set_id not in domain.missing and len(domain.missing) < self.limits.missing:
            domain.missing.add(set_id)
            self._events.add("no_template", session, domain.number, set_id)
        if not session.overtakes:
            return
        self._parking.park(session, domain, set_id, parked)
        if session.siblings and not domain.templates and len(self.homes) < MOST_HOMES:
            home = _home(session, domain, set_id, parked)
            if home is not None:
                self.homes.append((home, session))

    def _unknown_set(self, session: Session, domain: Domain, set_id: int) -> None:
        """A Set with an id that means nothing is left out (RFC 7011 section 3.3.2); each id is told once."""
        self.counters.errors["set_id"] += 1
        if set_id not in domain.missing and len(domain.missing) < self.limits.missing:
            domain.missing.add(set_id)
            self._events.add("set_id", session, domain.number, set_id)

    def _unpark(self, session: Session, domain: Domain) -> None:
        """Templates have come: decode the Data Sets that waited for them."""
        for learnt, parked in self._parking.take(session, domain):
            body, fate = parked.body, None
            if learnt.is_later_than(parked.export_time):
                self.counters.errors["late_data"] += 1
                continue
            if learnt.octets:
                rows, padding = divmod(len(body) - BEFORE, learnt.octets)
                body = body[: len(body) - padding]
                domain.rows += rows
            elif learnt.template.least_octets:
                fate = self._learning.fate(domain, parked.number)
            else:  # a template of NetFlow v9 whose records have no octets
                self.counters.errors["empty_records"] += 1
                continue
            source = (learnt, parked.export_time, parked.received, fate)
            self.wait(learnt, body, (*source, parked.clock) if parked.clock else source)

    def merge(self, home: Session, other: Session) -> None:
        """Two sessions are one exporter, whose templates and data came from different ports: all of it is `home`'s."""
        for place, domain in other.domains.items():
            mine = home.domains.get(place) or self._learning.new_domain(home, domain.number, place)
            if mine is None:
                continue
            for learnt in list(domain.templates.values()):
                self._learning.move(home, mine, learnt)
            self._parking.move((other, domain), (home, mine))
            mine.info = mine.info or domain.info
            mine.sequence.unknown()
            mine.rows += domain.rows
            domain.info = None
            self._unpark(home, mine)
        self.forget(other)

    def restore(self, session: Session, number: int, place: int, template: Template, received: float) -> bool:
        """A template that an earlier run knew of this session; False where a limit refuses it."""
        domain = session.domains.get(place) or self._learning.new_domain(session, number, place)
        return domain is not None and self._learning.restore(session, domain, template, received)

    def restore_types(self, session: Session, keys: Iterable[Key]) -> None:
        """Elements that the exporter of this session had described."""
        self._options.restore_types(session, keys)

    def restore_domain(
        self, session: Session, number: int, place: int, origin: float, info: ExporterInfo | None
    ) -> None:
        """A domain with the clock that its exporter had, and what it had told."""
        domain = session.domains.get(place) or self._learning.new_domain(session, number, place)
        if domain is not None:
            domain.origin = origin
            if info is not None:
                self._options.restore(domain, info)

    @property
    def changes(self) -> int:
        """Grows with each change of what is known of exporters."""
        return self._learning.changes + self._options.changes

    def forget(self, session: Session) -> None:
        """The session is closed: its templates are gone. Records that wait are still given by `drain`."""
        self._parking.forget(session)
        self._sflow.forget(session)
        self._learning.forget(session)

    def expire(self, sessions: Iterable[Session], now: float) -> None:
        """Forget what is too old: parked Data Sets, and templates of these sessions. To be called every second."""
        self._parking.expire(now)
        lifetime = self.limits.template_lifetime
        if lifetime and now - self._expired >= min(lifetime / 4, 10.0):
            self._expired = now
            for session in sessions:
                if not session.reliable:
                    self.counters.errors["template_expired"] += self._learning.expire(session, now - lifetime)

    def end(self) -> None:
        """No more will come: give up what waits for templates."""
        self._parking.clear()

    # records become columns

    def drain(self, now: float, held: bool = False) -> list[Batch]:
        """Batches of all records fed since the last call, one for each layout and address family of exporters."""
        waiting, self._waiting = self._waiting, []
        self._spoiled = False
        located = {layout: self._located(layout) for layout in waiting if not layout.octets}
        self._following.settle()
        sound = (layout for layout in waiting if layout.octets or located[layout] is not None)
        batches = (self._batch(layout, located.get(layout), now, held) for layout in sound)
        found = [part for batch in batches if batch is not None for part in by_family(batch)]
        found += self._sflow.drain(now, held)
        self._batches.end()
        return found

    def _batch(self, layout: Layout, located: Located | None, now: float, held: bool) -> Batch | None:
        received = self.counters.rows_received
        try:
            return self._batches.of(layout, located, self._spoiled, now, held)
        except Exception as error:  # an error of ours costs these records, and no others
            self.counters.dropped["error"] += self.counters.rows_received - received
            self.fault(error)
            return None

    def _located(self, layout: Layout) -> Located | None:
        try:
            return self._locate(layout)
        except Exception as error:  # how many records there were is not known
            layout.bodies, layout.sources = [], []
            self.fault(error)
            return None

    def _locate(self, layout: Layout) -> Located:
        """Find the records of variable length, and the Messages that are malformed in them."""
        located = locate(layout.bodies, BEFORE, layout.shape)
        for source, rows in zip(layout.sources, located.counts.tolist(), strict=True):
            source[0].domain.rows += rows
            fate = source[3]
            if fate is not None and fate.rows >= 0:
                fate.rows += rows
        if located.cut is not None:
            self._spoiled = True
            for place in np.flatnonzero(located.cut).tolist():
                learnt, _, _, fate = layout.sources[place][:4]
                if fate is not None and not fate.malformed:
                    fate.malformed = True
                    text = f"a record of template {learnt.template.ident} is cut"
                    self._malformed(learnt.session, learnt.domain.number, MessageError(text, "record"))
        return located

    # what is wrong

    def _malformed(self, session: Session, domain: int, error: MessageError) -> None:
        self.malformed += 1
        session.malformed += 1
        self.counters.errors[error.reason] += 1
        self._events.add("malformed", session, domain, 0, f"{error.reason}: {error}")


def _home(session: Session, domain: Domain, set_id: int, parked: Parked) -> Session | None:
    """The session of the same address that has the template of a Data Set, if both seem to be one exporter.

    That is so where it has sent no records itself, or where the Message continues its sequence: another exporter at
    the same address would have its own count. Their clocks must agree, and the records fit into the Set.
    """
    octets, origin = len(parked.body) - BEFORE, parked.origin
    for other in session.siblings:
        there = other.domains.get(domain.place) if other is not session else None
        learnt = there.templates.get(set_id) if there is not None else None
        if learnt is None or (there.rows and parked.number != there.sequence.expected):
            continue
        if abs(there.origin - origin) < SAME_CLOCK and octets % (learnt.octets or 1) < MOST_PADDING:
            return other
    return None
