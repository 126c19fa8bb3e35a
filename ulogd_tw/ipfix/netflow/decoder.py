"""NetFlow v9 (RFC 3954) and v5: their export packets, as `decoder.Decoder` takes them beside Messages of IPFIX.

Both are decoded by the layouts of IPFIX. Their fields stand under `keys.NETFLOW9`, `keys.NETFLOW9_SCOPE` and
`keys.NETFLOW5` in the place of an enterprise number, so that a layout is never shared with IPFIX.

A v9 packet has no length, and its count means records with some exporters and FlowSets with others: it is walked by
the lengths of the FlowSets. RFC 3954 does not say that a malformed packet is dropped whole, so what stands before the
mistake is kept; a v5 packet whose count cannot be right is dropped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.keys import NETFLOW5, NETFLOW5_KEYS, NETFLOW9, NETFLOW9_SCOPE, Key, registry
from ulogd_tw.core.plugin import ALL, Wanted
from ulogd_tw.ipfix.context import Source
from ulogd_tw.ipfix.layout import BEFORE, PADDING, Found
from ulogd_tw.ipfix.message import FIRST_DATA_SET, SET_HEADER
from ulogd_tw.ipfix.sequence import MASK
from ulogd_tw.ipfix.session import DeferredMessage, Domain, KnownTemplate, Parked, Session, origin
from ulogd_tw.ipfix.template import Field, Template
from ulogd_tw.ipfix.values import held_type

if TYPE_CHECKING:
    from ulogd_tw.ipfix.decoder import Decoder

HEADER9 = struct.Struct("!HHIIII")
"""Version, count, sysUptime (ms), unix_secs, Sequence Number, Source ID (RFC 3954 section 5.1)."""
HEADER5 = struct.Struct("!HHIIIIBBH")
"""Version, count, sysUptime (ms), unix_secs, unix_nsecs, flow_sequence, engine type and id, sampling."""
INTERVAL5 = 0x3FFF
"""The bits of v5's sampling that are the interval; those above are the mode."""
TEMPLATE_FLOWSET = 0
OPTIONS_FLOWSET = 1

Clock = tuple[int, int] | tuple[np.ndarray, np.ndarray]
"""Of one packet: when it was exported (ms since 1970), and the exporter's uptime then (ms, 32 bits). Arrays where the
records are those of several packets with equally many each."""
BEFORE_RECORDS = 24
"""Octets in front of the records of a packet: v9's header and that of the first FlowSet, or v5's header."""
_FEWEST = 4


V9, V5 = b"\0\x09", b"\0\x05"
"""How a packet begins."""


# v9


def flowsets(packet: bytes) -> Iterator[tuple[int, int, int]]:
    """The FlowSets of a v9 packet: id, where the body begins, where it ends.

    Fewer than four octets after the last one, or nothing but zeros, are fill. `MessageError` for a length below 4 or
    beyond the packet comes after the FlowSets in front of it.
    """
    at, end = HEADER9.size, len(packet)
    while end - at >= SET_HEADER.size:
        set_id, length = SET_HEADER.unpack_from(packet, at)
        if not SET_HEADER.size <= length <= end - at:
            if not any(packet[at:]):  # Palo Alto fills its packets up
                return
            raise MessageError(f"flowset {set_id} has the length {length} of {end - at} octets", "set_length", at)
        yield set_id, at + SET_HEADER.size, at + length
        at += length


def parse_templates(set_id: int, body: bytes) -> list[Template]:
    """The records of a Template FlowSet (0) or Options Template FlowSet (1), without padding.

    A template may have records of no octets. Raises `MessageError` for one that is cut, one without fields, an id below
    256, and scopes that are no whole number of fields.
    """
    found: list[Template] = []
    at, end = 0, len(body)
    while end - at >= 4:
        ident, count = SET_HEADER.unpack_from(body, at)
        if ident == 0 and count == 0 and not any(body[at:end]):
            break  # padding
        at += 4
        scopes = 0
        if set_id == OPTIONS_FLOWSET:
            if end - at < 2:
                break  # padding
            scope_octets, (option_octets,) = count, struct.unpack_from("!H", body, at)
            at += 2
            if scope_octets % 4 or option_octets % 4:
                text = f"options template {ident} has {scope_octets} and {option_octets} octets of fields"
                raise MessageError(text, "template", at)
            scopes, count = scope_octets // 4, (scope_octets + option_octets) // 4
        if ident < FIRST_DATA_SET:
            raise MessageError(f"template id {ident} is below 256", "template", at)
        if not count:  # such templates would be remembered beyond the limit of fields
            raise MessageError(f"template {ident} has no fields", "template", at)
        if end - at < 4 * count:
            raise MessageError(f"template {ident} is cut: {(end - at) // 4} of {count} fields", "template", at)
        words = struct.unpack_from(f"!{2 * count}H", body, at)
        at += 4 * count
        fields = (
            _field(NETFLOW9_SCOPE if place < scopes else NETFLOW9, ident_, length)
            for place, (ident_, length) in enumerate(zip(words[::2], words[1::2], strict=True))
        )
        # An options template without a scope is one nevertheless.
        found.append(Template(ident, tuple(fields), max(scopes, 1) if set_id == OPTIONS_FLOWSET else 0))
    return found


def _field(vocabulary: int, ident: int, length: int) -> Field:
    if vocabulary == NETFLOW9 and ident == PADDING[1]:
        return Field(*PADDING, length)
    return Field(vocabulary, ident, length)


# v5

_SIZES5 = (4, 4, 4, 2, 2, 4, 4, 4, 4, 2, 2, -1, 1, 1, 1, 2, 2, 1, 1, -2)
"""Sizes of the fields of a record, in the order of `keys.NETFLOW5_KEYS`; below 0: padding, which has no key."""
_PLACES5 = accumulate((octets > 0 for octets in _SIZES5), initial=0)
TEMPLATE5 = Template(
    5,
    tuple(
        Field(NETFLOW5, place, octets) if octets > 0 else Field(*PADDING, -octets)
        for place, octets in zip(_PLACES5, _SIZES5, strict=False)
    ),
)
"""The record of v5 (48 octets), with the version as template id."""
OCTETS5 = TEMPLATE5.least_octets
assert OCTETS5 == 48 and sum(octets > 0 for octets in _SIZES5) == len(NETFLOW5_KEYS)


# absolute times

_EDGES = ((152, ((NETFLOW9, 22), (NETFLOW5, 7))), (153, ((NETFLOW9, 21), (NETFLOW5, 8))))
"""Element of the absolute time, and the fields that have it as an uptime."""
AHEAD = 3_600_000
"""A flow may be this much (ms) later than the header of its packet; anything later is from before the uptime's wrap."""
_WRAP = 1 << 32


class Times:
    """flowStartMilliseconds and flowEndMilliseconds of records that have only the uptime of the exporter."""

    def __init__(self, fields: tuple[Field, ...], wanted: Wanted) -> None:
        self._made: list[tuple[Key, str]] = []
        lengths = {(field.pen, field.ident): field.length for field in reversed(fields)}
        for element, uptimes in _EDGES:
            key = registry.element(0, element)
            if key.name not in wanted or (NETFLOW9, element) in lengths:
                continue
            for place in uptimes:
                uptime = registry.element(*place)
                if place in lengths and held_type(uptime.type, lengths[place]).integer:
                    self._made.append((key, uptime.name))

    @property
    def keys(self) -> list[Key]:
        return [key for key, _ in self._made]

    def needed(self, wanted: Wanted) -> Wanted:
        """What has to be read of the records: also the uptimes of times that are wanted."""
        return wanted if wanted is ALL else wanted | {uptime for _, uptime in self._made}

    def add(self, found: Found, sources: Sequence[Source], counts: np.ndarray) -> Sequence[Key]:
        """Add the columns. A time before 1970 is missing."""
        columns, missing = found
        exported, uptimes = _clocks([source[4] for source in sources], counts)
        for key, uptime in self._made:
            ago = uptimes - (columns[uptime] & np.uint32(_WRAP - 1)).astype(np.int64)
            ago &= _WRAP - 1  # the uptime starts again every 49.7 days
            ago[ago > _WRAP - AHEAD] -= _WRAP
            time = exported - ago
            wrong = time < 0
            columns[key.name] = np.where(wrong, 0, time).astype(types.MILLISECONDS.dtype)
            wrong = wrong | missing[uptime] if uptime in missing else wrong
            if wrong.any():
                missing[key.name] = wrong
        return self.keys


def _clocks(clocks: Sequence[Clock], counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """When the packet of each record was exported, and the uptime then; one each where all have the same."""
    if len(clocks) == 1 and not isinstance(clocks[0][0], np.ndarray):
        return np.array(clocks[0][:1], np.int64), np.array(clocks[0][1:], np.int64)
    if not any(isinstance(clock[0], np.ndarray) for clock in clocks):
        exported, uptimes = np.array(clocks, np.int64).T
        return np.repeat(exported, counts), np.repeat(uptimes, counts)
    parts: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for clock, count in zip(clocks, np.asarray(counts).tolist(), strict=True):
        for part, value in zip(parts, clock, strict=True):
            value = np.atleast_1d(np.asarray(value, np.int64))
            part.append(np.repeat(value, count // len(value)))
    return np.concatenate(parts[0]), np.concatenate(parts[1])


def times(fields: tuple[Field, ...], wanted: Wanted) -> Times | None:
    """The times that can be made of records with these fields; None where there are none, as in IPFIX."""
    if not any(field.pen >= NETFLOW9 for field in fields):
        return None
    found = Times(fields, wanted)
    return found if found.keys else None


# packets come


def any_of(words: np.ndarray) -> bool:
    """Whether some of the messages that begin with these words are NetFlow."""
    versions = words[:, 0] >> 16
    return bool(((versions == 9) | (versions == 5)).any())


def runs(
    sessions: Sequence[Session], rows: np.ndarray, lengths: np.ndarray
) -> Iterator[tuple[int, int, np.ndarray | None]]:
    """Neighbouring rows as (first, one after the last, their first six words or None).

    Words are given for packets of NetFlow that have the same session, length, count, second, source and first FlowSet.
    """
    words = np.ascontiguousarray(rows[:, :BEFORE_RECORDS]).view(">u4").astype(np.uint32)
    versions = words[:, 0] >> 16
    same = (words[1:, 0] == words[:-1, 0]) & (words[1:, 2] == words[:-1, 2]) & (words[1:, 5] == words[:-1, 5])
    same &= (lengths[1:] == lengths[:-1]) & ((versions[1:] == 5) | (words[1:, 4] == words[:-1, 4]))
    if sessions.count(sessions[0]) != len(sessions):
        who = np.fromiter(map(id, sessions), np.uint64, len(sessions))
        same &= who[1:] == who[:-1]
    edges = [0, *(np.flatnonzero(~same) + 1).tolist(), len(words)]
    for first, last in pairwise(edges):
        netflow = versions[first] in (5, 9) and last - first >= _FEWEST
        yield first, last, words[first:last] if netflow else None


class NetFlow:
    """Takes packets of NetFlow v9 and v5 for a decoder."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def feed(self, session: Session, packet: bytes, now: float) -> None:
        """Take one packet; one that cannot be right is counted as malformed."""
        header, feed = (HEADER9, self._feed9) if packet[:2] == V9 else (HEADER5, self._feed5)
        source = 0
        try:
            if len(packet) < header.size:
                raise MessageError(f"a packet of {len(packet)} octets", "length", 0)
            fields = header.unpack_from(packet)
            source = fields[5] if header is HEADER9 else fields[6] << 8 | fields[7]
            feed(session, packet, now, source, *fields)
        except MessageError as error:
            self._decoder._malformed(session, source, error)

    def feed_alike(self, session: Session, rows: np.ndarray, words: np.ndarray, now: float) -> bool:
        """Take a run of packets as `runs` finds them, each a whole row; False if they have to be looked at singly."""
        first, count = words[0].tolist(), len(words)
        version, records = first[0] >> 16, first[0] & 0xFFFF
        source = first[5] >> 16 if version == 5 else first[4]
        domain = session.domains.get(version << 32 | source)
        learnt = domain.templates.get(TEMPLATE5.ident if version == 5 else first[5] >> 16) if domain else None
        if learnt is None or not learnt.octets:
            return False
        if version == 5:
            octets = records * OCTETS5
            size, numbers, step = BEFORE_RECORDS + octets, words[:, 4], records
            exported = words[:, 2].astype(np.int64) * 1000 + words[:, 3] // 1_000_000
            if size == rows.shape[1] and (first[5] & 0xFFFF or domain.info is not None):
                self._decoder._options.sampled(learnt, first[5] & INTERVAL5)
        else:
            flowset = (first[5] & 0xFFFF) - SET_HEADER.size
            records = max(flowset, 0) // learnt.octets
            octets = records * learnt.octets
            size, numbers, step = BEFORE_RECORDS + flowset, words[:, 3], 1
            exported = words[:, 2].astype(np.int64) * 1000
        return self._take_alike(session, learnt, rows, now, size, octets, records, numbers, step,
                                (exported, words[:, 1].astype(np.int64)), first[2], count)  # fmt: skip

    def _take_alike(
        self,
        session: Session,
        learnt: KnownTemplate,
        rows: np.ndarray,
        now: float,
        size: int,
        octets: int,
        records: int,
        numbers: np.ndarray,
        step: int,
        clock: Clock,
        seconds: int,
        count: int,
    ) -> bool:
        """The records of packets of `size` octets, each with so many `records`; the numbers grow by `step`."""
        decoder, domain = self._decoder, learnt.domain
        if size != rows.shape[1] or not records:
            return False
        body = np.empty(BEFORE + octets * count, np.uint8)
        body[BEFORE:].reshape(count, octets)[:] = rows[:, BEFORE_RECORDS : BEFORE_RECORDS + octets]
        unit = "records" if domain.place >> 32 == 5 else "packets"
        decoder.took(session, domain, numbers, step, size * count, records * count, now, unit)
        decoder.wait(learnt, body, (learnt, seconds, now, None, clock))
        return True

    def _domain(self, session: Session, version: int, number: int) -> Domain | None:
        """The domain of a Source ID or engine; None where the session has too many."""
        place = version << 32 | number
        return session.domains.get(place) or self._decoder._learning.new_domain(session, number, place)

    def _feed9(
        self, session: Session, packet: bytes, now: float, source: int, _version: int, _count: int, uptime: int,
        seconds: int, number: int, _source: int,
    ) -> None:  # fmt: skip
        domain = self._domain(session, 9, source)
        if domain is None:
            return
        decoder, clock = self._decoder, (seconds * 1000, uptime)
        # The number counts packets (RFC 3954 section 5.1).
        if number == domain.sequence.expected:
            domain.sequence.expected = (number + 1) & MASK
        else:
            decoder.follow(session, domain, number, 1, "packets")
        for set_id, start, end in flowsets(packet):
            if set_id >= FIRST_DATA_SET:
                if (learnt := domain.templates.get(set_id)) is None:
                    body = packet[start - BEFORE : end]
                    decoder._no_template(session, domain, set_id, Parked(body, seconds, now, number, clock))
                elif octets := learnt.octets:
                    rows, padding = divmod(end - start, octets)
                    domain.rows += rows
                    decoder.wait(learnt, packet[start - BEFORE : end - padding], (learnt, seconds, now, None, clock))
                elif learnt.template.variable:  # not in RFC 3954; lengths are written as those of IPFIX
                    decoder.wait(
                        learnt, packet[start - BEFORE : end], (learnt, seconds, now, DeferredMessage(number), clock)
                    )
                else:
                    decoder.counters.errors["empty_records"] += 1
            elif set_id in (TEMPLATE_FLOWSET, OPTIONS_FLOWSET):
                octets = packet[start - SET_HEADER.size : end]
                if octets in domain.announced:
                    decoder._learning.again(session, domain, octets, now)
                else:
                    domain.origin = origin(seconds, now, clock)
                    templates = parse_templates(set_id, packet[start:end])
                    decoder._learning.learn_set(session, domain, octets, templates, now)
                    if domain.parked:
                        decoder._unpark(session, domain)
            else:
                decoder._unknown_set(session, domain, set_id)

    def _feed5(
        self, session: Session, packet: bytes, now: float, source: int, _version: int, count: int, uptime: int,
        seconds: int, nanoseconds: int, number: int, _engine_type: int, _engine: int, sampling: int,
    ) -> None:  # fmt: skip
        end = HEADER5.size + count * OCTETS5
        if end > len(packet):
            raise MessageError(f"{count} records in {len(packet)} octets", "length", 2)
        if end < len(packet):
            self._decoder.counters.errors["trailing"] += 1
        domain = self._domain(session, 5, source)
        if domain is None:
            return
        learnt = domain.templates.get(TEMPLATE5.ident)
        if learnt is None:
            layout = self._decoder._learning.layout(TEMPLATE5, session)
            learnt = KnownTemplate(session, domain, TEMPLATE5, layout, OCTETS5)
            domain.templates[TEMPLATE5.ident] = learnt
        if sampling or domain.info is not None:
            self._decoder._options.sampled(learnt, sampling & INTERVAL5)
        domain.rows += count
        if number == domain.sequence.expected:
            domain.sequence.expected = (number + count) & MASK
        else:
            self._decoder.follow(session, domain, number, count)
        clock = (seconds * 1000 + nanoseconds // 1_000_000, uptime)
        self._decoder.wait(learnt, packet[HEADER5.size - BEFORE : end], (learnt, seconds, now, None, clock))
