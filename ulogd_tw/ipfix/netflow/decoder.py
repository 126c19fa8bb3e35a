"""NetFlow v9 (RFC 3954), v1, v5 and v7: export packets, taken by `decoder.Decoder` beside Messages of IPFIX.

All are decoded by the layouts of IPFIX. RFC 3954 does not require to drop a malformed packet whole, so the part before
the mistake is kept; a packet of the other versions with a wrong count is dropped. The aggregated records of v8 are not
read: they are logged and counted.
"""

from __future__ import annotations

import struct

import numpy as np

from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.plurals import plural
from ulogd_tw.ipfix.intake import Intake
from ulogd_tw.ipfix.layout import BEFORE
from ulogd_tw.ipfix.message import FIRST_DATA_SET, SET_HEADER
from ulogd_tw.ipfix.netflow.packet import (
    BEFORE_RECORDS,
    CLASSIC,
    HEADER9,
    INTERVAL5,
    OCTETS5,
    OPTIONS_FLOWSET,
    TEMPLATE_FLOWSET,
    V8,
    V9,
    Classic,
    flowsets,
    parse_templates,
)
from ulogd_tw.ipfix.sequence import MASK
from ulogd_tw.ipfix.session import Domain, KnownTemplate, Parked, Session, origin


class NetFlow:
    """Takes packets of NetFlow for an intake."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    def feed(self, session: Session, packet: bytes, now: float) -> None:
        """Take one packet; one that cannot be right is counted as malformed."""
        source = 0
        try:
            if packet[:2] == V9:
                source = int.from_bytes(packet[16:20], "big")
                self._feed9(session, packet, now, *_fields(HEADER9, packet))
            elif packet[:2] == V8:
                self._intake.counters.errors["netflow8"] += 1
                self._intake.events.add("netflow8", session, 0)
            else:
                source = int.from_bytes(packet[20:22], "big") if packet[1] == 5 else 0
                self._feed_classic(session, packet, now, source, CLASSIC[packet[1]])
        except MessageError as error:
            self._intake.refuse(session, source, error)

    # v9

    def _feed9(
        self, session: Session, packet: bytes, now: float, _version: int, _count: int, uptime: int, seconds: int,
        number: int, source: int,
    ) -> None:  # fmt: skip
        domain = self._intake.domain(session, source, 9 << 32 | source)
        if domain is None:
            return
        clock = (seconds * 1000, uptime)
        valid = self._intake.restarts.look_at_packet(session, domain, number, seconds, uptime, now)
        domain.announcing = seconds
        # The number counts packets (RFC 3954 section 5.1).
        if number == domain.sequence.expected:
            domain.sequence.expected = (number + 1) & MASK
        else:
            self._intake.sequences.follow(session, domain, number, 1, "packets")
        for set_id, start, end in flowsets(packet):
            if set_id >= FIRST_DATA_SET and not valid:
                self._intake.counters.errors["late_data"] += 1
            elif set_id >= FIRST_DATA_SET:
                flowset = Parked(packet[start - BEFORE : end], seconds, now, number, clock)
                self._data_flowset(session, domain, set_id, flowset)
            elif set_id in (TEMPLATE_FLOWSET, OPTIONS_FLOWSET):
                octets = packet[start - SET_HEADER.size : end]
                self._template_flowset(session, domain, set_id, octets, now, origin(seconds, now, clock))
            else:
                self._intake.unknown_set(session, domain, set_id)

    def _data_flowset(self, session: Session, domain: Domain, set_id: int, flowset: Parked) -> None:
        intake, body = self._intake, flowset.body
        known = domain.templates.get(set_id)
        if known is None:
            intake.no_template(session, domain, set_id, flowset)
            return
        deferred = None
        if known.octets:
            rows, padding = divmod(len(body) - BEFORE, known.octets)
            domain.rows += rows
            body = body[: len(body) - padding]
        elif known.template.variable:  # not in RFC 3954; lengths are written as those of IPFIX
            deferred = intake.templates.uncounted(domain, flowset.number)
        else:
            intake.counters.errors["empty_records"] += 1
            return
        source = (known, flowset.export_time, flowset.received, deferred, flowset.clock)
        intake.queue_records(known, body, source)

    def _template_flowset(
        self, session: Session, domain: Domain, set_id: int, octets: bytes, now: float, began: float
    ) -> None:
        templates = self._intake.templates
        if octets in domain.announced:
            templates.again(session, domain, octets, now)
            return
        domain.origin = began
        templates.learn_set(session, domain, octets, parse_templates(set_id, octets[SET_HEADER.size :]), now)
        if domain.parked:
            self._intake.unpark(session, domain)

    # v1, v5, v7

    def _feed_classic(self, session: Session, packet: bytes, now: float, source: int, classic: Classic) -> None:
        """A packet of a version without templates. v1 has no sequence number, v5 alone a sampling interval."""
        intake, begin = self._intake, classic.header.size
        version, count, uptime, seconds, nanoseconds, *more = _fields(classic.header, packet)
        end = begin + count * classic.octets
        if end > len(packet):
            raise MessageError(f"{plural(count, 'record')} in {plural(len(packet), 'octet')}", "length", 2)
        if end < len(packet):
            intake.counters.errors["trailing"] += 1
        domain = intake.domain(session, source, version << 32 | source)
        if domain is None:
            return
        known = domain.templates.get(version) or self._know_classic(session, domain, classic)
        sampling = more[-1] if version == 5 else 0
        if sampling or domain.info is not None:
            intake.sampled(known, sampling & INTERVAL5, now)
        domain.rows += count
        if more:
            if more[0] == domain.sequence.expected:
                domain.sequence.expected = (more[0] + count) & MASK
            else:
                intake.sequences.follow(session, domain, more[0], count)
        clock = (seconds * 1000 + nanoseconds // 1_000_000, uptime)
        body = packet[begin - BEFORE : end] if begin >= BEFORE else bytes(BEFORE - begin) + packet[:end]
        intake.queue_records(known, body, (known, seconds, now, None, clock))

    def _know_classic(self, session: Session, domain: Domain, classic: Classic) -> KnownTemplate:
        """The template of a version without templates, which no exporter sends, counts towards no limit."""
        template = classic.template
        layout = self._intake.templates.layout(template, session)
        known = domain.templates[template.ident] = KnownTemplate(session, domain, template, layout, classic.octets)
        return known

    # runs of alike packets

    def feed_alike(self, session: Session, rows: np.ndarray, words: np.ndarray, now: float) -> bool:
        """Take a run of packets as `packet_runs.runs` finds them, each a whole row.

        False if they have to be looked at singly, and then nothing has been done.
        """
        first = words[0].tolist()
        version, records = first[0] >> 16, first[0] & 0xFFFF
        source = first[5] >> 16 if version == 5 else first[4]
        domain = session.domains.get(version << 32 | source)
        known = domain.templates.get(5 if version == 5 else first[5] >> 16) if domain else None
        if domain is None or known is None or not known.octets or known.layout.tells:
            return False
        flowset = records * OCTETS5 if version == 5 else (first[5] & 0xFFFF) - SET_HEADER.size
        if BEFORE_RECORDS + flowset != rows.shape[1]:
            return False
        if version == 5:
            if first[5] & 0xFFFF or domain.info is not None:
                self._intake.sampled(known, first[5] & INTERVAL5, now)
            return self._take_alike(known, rows, words, records, words[:, 4], records, now)
        records = flowset // known.octets
        if not records or not self._intake.restarts.goes_on(session, domain, words, now):
            return False
        return self._take_alike(known, rows, words, records, words[:, 3], 1, now)

    def _take_alike(
        self, known: KnownTemplate, rows: np.ndarray, words: np.ndarray, records: int, numbers: np.ndarray, step: int,
        now: float,
    ) -> bool:  # fmt: skip
        """The records of packets with so many `records` each, if any; their Sequence `numbers` grow by `step`."""
        if not records:
            return False
        intake, count, octets = self._intake, len(rows), records * known.octets
        body = np.empty(BEFORE + octets * count, np.uint8)
        body[BEFORE:].reshape(count, octets)[:] = rows[:, BEFORE_RECORDS : BEFORE_RECORDS + octets]
        exported, unit = words[:, 2].astype(np.int64) * 1000, "packets"
        if known.domain.place >> 32 == 5:
            exported, unit = exported + words[:, 3] // 1_000_000, "records"
        intake.count_together(
            known.session, known.domain, numbers, step, rows.size, records * count, now, unit
        )  # fmt: skip
        clock = (exported, words[:, 1].astype(np.int64), np.full(count, records))
        intake.queue_records(known, body, (known, int(words[0, 2]), now, None, clock))
        return True


def _fields(header: struct.Struct, packet: bytes) -> tuple[int, ...]:
    if len(packet) < header.size:
        raise MessageError(f"a packet of {plural(len(packet), 'octet')}", "length", 0)
    return header.unpack_from(packet)
