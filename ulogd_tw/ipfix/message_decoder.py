"""Messages of IPFIX one by one: header, Sets, records of known templates.

A Message with impossible lengths is dropped whole (RFC 7011 section 9.1): it is read through before any of it takes
effect, except for records of variable length. These are walked when they are drained, many Messages at a time; until
then their Sequence Numbers wait too (see `sequence_tracker`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.plurals import plural
from ulogd_tw.ipfix.intake import Intake
from ulogd_tw.ipfix.layout import BEFORE
from ulogd_tw.ipfix.message import (
    FIRST_DATA_SET,
    HEADER,
    OPTIONS_TEMPLATE_SET,
    SET_HEADER,
    TEMPLATE_SET,
    VERSION,
    cut_sets,
)
from ulogd_tw.ipfix.sequence import HALF, MASK
from ulogd_tw.ipfix.session import DeferredMessage, Domain, KnownTemplate, Parked, Session
from ulogd_tw.ipfix.template_store import News, template_sets


@dataclass(slots=True)
class _Message:
    """A Message while its Sets are handled.

    news      its Template Sets with changes, by place
    apart     whether records of variable length are counted now, since their meaning may change in this Message
    valid     whether the present templates describe its records: it is not from before a restart
    records   number of its records counted so far; below 0: unknown
    varying   whether it has records of variable length not counted yet
    parts     template, body and, of a Message with templates, the deferred Message of each Data Set
    """

    octets: bytes
    export_time: int
    number: int
    now: float
    news: News
    apart: bool
    valid: bool
    records: int = 0
    varying: bool = False
    parts: list[tuple[KnownTemplate, bytes, DeferredMessage | None]] = field(default_factory=list)


class MessageDecoder:
    """Takes Messages of IPFIX for an intake."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def feed_known(
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
            known = templates.get(set_id)
            if known is None or not (octets := known.octets) or not SET_HEADER.size <= length <= end - at:
                return False
            records, padding = divmod(length - SET_HEADER.size, octets)
            rows += records
            parts.append((known, message[at + SET_HEADER.size - BEFORE : at + length - padding]))
            at += length
        sequence = domain.sequence
        if number == sequence.expected:
            sequence.expected = (number + rows) & MASK
        elif (number - sequence.last) & MASK >= HALF or domain.doubted:
            return False
        else:
            self._intake.sequences.follow(session, domain, number, rows)
        domain.rows += rows
        sequence.last = number
        domain.exported = export_time
        for known, body in parts:
            self._intake.queue_records(known, body, (known, export_time, now, None, None))
        return True

    def feed(self, session: Session, octets: bytes, now: float) -> None:
        """Take any Message: first check all of it, then carry it out, in the order of its Sets."""
        domain_id, templates = 0, self._intake.templates
        try:
            octets, export_time, number, domain_id = self._header(octets)
            sets = cut_sets(octets)
            domain = session.domains.get(domain_id)
            news = template_sets(domain, octets, sets)
            apart = bool(news) or _tells(domain, sets)
            walked = templates.walked(session, domain, octets, sets, news) if apart else {}
        except MessageError as error:
            self._intake.refuse(session, domain_id, error)
            return
        if domain is None and (domain := templates.new_domain(session, domain_id)) is None:
            return
        if number == domain.sequence.expected and not domain.doubted:
            domain.goes_on(number, export_time)
            valid = True
        else:
            valid = self._intake.restarts.look(session, domain, number, export_time, now)
        domain.announcing = export_time
        if news:
            domain.origin = export_time - now
        message = _Message(octets, export_time, number, now, news, apart, valid)
        for place, (set_id, start, end) in enumerate(sets):
            if set_id >= FIRST_DATA_SET:
                records = self._data_set(session, domain, message, set_id, start, end)
                records = walked.get(place, records)
                message.records = -1 if records < 0 or message.records < 0 else message.records + records
            elif set_id in (TEMPLATE_SET, OPTIONS_TEMPLATE_SET):
                self._template_set(session, domain, message, place, octets[start - SET_HEADER.size : end])
            else:
                self._intake.unknown_set(session, domain, set_id)
        self._queue(session, domain, message)

    def _header(self, message: bytes) -> tuple[bytes, int, int, int]:
        """The Message as long as it says, Export Time, Sequence Number, Observation Domain."""
        if len(message) < HEADER.size:
            raise MessageError(f"a message of {plural(len(message), 'octet')}", "length", 0)
        version, length, export_time, number, domain_id = HEADER.unpack_from(message)
        if version != VERSION:
            raise MessageError(f"version {version}", "version", 0)
        if not HEADER.size <= length <= len(message):
            raise MessageError(f"message length {length} in {plural(len(message), 'octet')}", "length", 2)
        if length < len(message):
            # A datagram is one Message; what follows it is not looked at.
            self._intake.counters.errors["trailing"] += 1
            message = message[:length]
        return message, export_time, number, domain_id

    def _data_set(
        self, session: Session, domain: Domain, message: _Message, set_id: int, start: int, end: int
    ) -> int:  # fmt: skip
        """Take a Data Set; its records, 0 where they are not counted yet, -1 where they cannot be known."""
        intake, octets = self._intake, message.octets
        known = domain.templates.get(set_id)
        if not message.valid:
            intake.counters.errors["late_data"] += 1
            return -1
        if known is None:
            body = octets[start - BEFORE : end]
            parked = Parked(body, message.export_time, message.now, message.number, None)
            intake.no_template(session, domain, set_id, parked)
            return -1
        if known.is_later_than(message.export_time):
            intake.counters.errors["late_data"] += 1
            return -1
        if known.octets:
            records, padding = divmod(end - start, known.octets)
            domain.rows += records
            message.parts.append((known, octets[start - BEFORE : end - padding], None))
            return records
        message.varying = True
        deferred = intake.templates.uncounted(domain, message.number) if message.apart else None
        message.parts.append((known, octets[start - BEFORE : end], deferred))
        return 0

    def _template_set(self, session: Session, domain: Domain, message: _Message, place: int, octets: bytes) -> None:
        intake = self._intake
        if place not in message.news:
            intake.templates.again(session, domain, octets, message.now)
            return
        intake.templates.learn_set(session, domain, octets, message.news[place], message.now)
        if domain.parked:
            intake.unpark(session, domain)

    def _queue(self, session: Session, domain: Domain, message: _Message) -> None:
        """Follow the Sequence Number, and queue the records."""
        sequences, number, deferred = self._intake.sequences, message.number, None
        if message.varying and not message.apart:
            deferred = DeferredMessage(number, message.records, False, domain, domain.stamp)
            sequences.defer(session, domain, deferred)
        elif message.records >= 0 and number == domain.sequence.expected:
            domain.sequence.expected = (number + message.records) & MASK
        else:
            sequences.follow(session, domain, number, message.records)
        for known, body, own in message.parts:
            source = (known, message.export_time, message.now, own or deferred, None)
            self._intake.queue_records(known, body, source)


def _tells(domain: Domain | None, sets: list[tuple[int, int, int]]) -> bool:
    """Whether some Data Sets have options records that may change how others are read."""
    if domain is None:
        return False
    known = (domain.templates.get(set_id) for set_id, _, _ in sets)
    return any(one is not None and one.layout.tells for one in known)
