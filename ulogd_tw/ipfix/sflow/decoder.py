"""sFlow: datagrams of samples (sflow.org, "sFlow Version 5"; RFC 3176), taken by `decoder.Decoder` beside IPFIX.

A flow sample becomes a record with the elements of IPFIX: the fields of its header (`packets.headers`), one packet of
the frame's octets, and the sampling rate. A counter sample becomes an options record of an interface's counters. The
datagrams of a wake-up are walked in step, sample by sample. A sample with impossible lengths loses only itself; of a
cut datagram, the samples before the cut are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.bounded import Bounded
from ulogd_tw.core.column_set import ColumnSet
from ulogd_tw.core.columns import Column, numbers, repeated
from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.keys import CONTEXT, SFLOW_KEYS, SFLOW_RECORD_KEYS, TOLD, Key, known, registry
from ulogd_tw.core.plugin import ALL, Wanted
from ulogd_tw.core.plurals import plural
from ulogd_tw.ipfix.intake import Intake
from ulogd_tw.ipfix.session import Domain, Session
from ulogd_tw.ipfix.sflow.flow_samples import Sampled
from ulogd_tw.ipfix.sflow.former_versions import FORMER, as_version5
from ulogd_tw.ipfix.sflow.samples import HEADS, Datagram, Reading, Samples

STARTS = frozenset((b"\0\0\0\5", *FORMER))
"""How a datagram begins."""
VERSION = 0x105
"""Stands for sFlow above a domain's number; NetFlow v5 has 5."""
_MOST_SCHEMAS = 1000
_KEYS = {key.name: key for key in (*SFLOW_KEYS, *SFLOW_RECORD_KEYS)}
_AGENTS = tuple(registry.element(0, ident) for ident in (130, 131))
_COUNTERS = {1: SFLOW_KEYS[7:26], 2: SFLOW_KEYS[26:]}
"""Counter records that are read: of any interface, of Ethernet."""


class SFlow:
    """Takes datagrams of sFlow for an intake. `scale`: counts times the rate; `inner`: the packets inside tunnels."""

    def __init__(self, intake: Intake, wanted: Wanted, scale: bool, inner: bool = False) -> None:
        self._intake = intake
        self._wanted = wanted
        self._scale, self._inner = scale, inner
        self._waiting: list[Datagram] = []
        self._schemas: Bounded[tuple, Schema] = Bounded(_MOST_SCHEMAS)
        self._drops: dict[tuple[Domain, int, int], int] = {}

    def want(self, wanted: Wanted) -> None:
        """Give other keys from now on; nothing waits."""
        self._wanted = wanted
        self._schemas.clear()

    def feed(self, session: Session, message: bytes, now: float) -> None:
        """Take one datagram; its samples are looked at by `drain`."""
        intake = self._intake
        try:
            if message[3] != 5:
                message = self._former(session, message)
            kind = int.from_bytes(message[4:8], "big")
            head = HEADS.get(kind)
            if head is None or len(message) < head.size:
                raise MessageError(
                    f"an sFlow datagram of {plural(len(message), 'octet')}, address type {kind}", "length", 4
                )
            _, _, agent, sub_agent, number, _, samples = head.unpack_from(message)
            if samples * 8 > len(message) - head.size:
                raise MessageError(
                    f"{plural(samples, 'sample')} in {plural(len(message), 'octet')}", "length", head.size - 4
                )
        except MessageError as error:
            intake.refuse(session, 0, error)
            return
        place = (VERSION << 128 | int.from_bytes(agent, "big")) << 32 | sub_agent
        domain = intake.domain(session, sub_agent, place)
        if domain is None:
            return
        intake.sequences.follow(session, domain, number, 1, "datagrams")
        self._waiting.append(Datagram(session, domain, message, head.size // 4, samples, now, agent))

    def _former(self, session: Session, message: bytes) -> bytes:
        """A datagram of version 2 or 4 as version 5 has it; what cannot be read of it is counted."""
        message, left_out, fault = as_version5(message)
        if left_out:
            self._intake.counters.errors["sample_format"] += left_out
        if fault is not None:
            self._intake.refuse(session, 0, fault)
        return message

    def drain(self, now: float, held: bool) -> Iterator[Batch]:
        """Batches of all samples that wait: by the family of the exporter, and of the packets."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        for _, group in groupby(sorted(waiting, key=_family), key=_family):
            yield from self._batches(list(group), now, held)

    def _batches(self, datagrams: list[Datagram], now: float, held: bool) -> Iterator[Batch]:
        reading = Reading(datagrams)
        samples, records, cut = reading.chains()
        for place in np.flatnonzero(cut).tolist():
            one = datagrams[place]
            self._intake.refuse(one.session, one.domain.number, MessageError("a sample is cut", "record"))
        if unknown := reading.unknown(samples):
            self._intake.counters.errors["sample_format"] += unknown
        for options in (False, True):
            chosen = Samples(reading, samples, records, options)
            if chosen.n:
                for sheet, rows in self._counters(chosen) if options else self._flows(chosen):
                    of_datagram, formats = chosen.of_datagram[rows], chosen.formats[rows]
                    yield self._batch(datagrams, sheet, of_datagram, formats, options, now, held)

    def forget(self, session: Session) -> None:
        """The session is over."""
        if any(place >> 32 >= VERSION << 128 for place in session.domains):
            gone = set(session.domains.values())
            self._drops = {key: total for key, total in self._drops.items() if key[0] not in gone}

    # flow samples

    def _flows(self, samples: Samples) -> Iterator[tuple[ColumnSet, np.ndarray]]:
        """Columns of the flow samples by the family of their packets, and which samples they are."""
        self._count_drops(samples)
        sampled = Sampled(samples, self._wanted, self._inner)
        self._intake.counters.figures["unread_records"] += sampled.unread
        said = ColumnSet(samples.n, self._wanted)
        samples.put_source(said)
        for name, word in (("samplingInterval", "rate"), ("samplePool", "pool"), ("sampleDrops", "drops"),
                           ("dropReason", "reason")):  # fmt: skip
            if name in self._wanted:
                values, there = samples.word(word)
                said.put(name, values[there], there)
        self._interfaces(samples, said)
        self._times_and_factor(samples, said)
        for found in sampled.families():
            found.take(said, found.rows)
            if self._scale:
                _multiply(found, numbers(said.columns[TOLD[0].name])[found.rows].astype(np.uint64))
            yield found, found.rows

    def _interfaces(self, samples: Samples, said: ColumnSet) -> None:
        for word, names in (("input", ("ingressInterface",)),
                            ("output", ("egressInterface", "dropReason", "outputInterfaces"))):  # fmt: skip
            if any(name in self._wanted for name in names):
                kinds, values = samples.interface(word)
                for kind, name in enumerate(names):
                    rows = (kinds == kind) & (values >= 0)
                    said.put(name, values[rows], rows)

    def _times_and_factor(self, samples: Samples, said: ColumnSet) -> None:
        """A packet was seen when its datagram came, and stands for as many as the rate says."""
        for name in ("flowStartMilliseconds", "flowEndMilliseconds"):
            if name in self._wanted:
                said.put(name, samples.reading.received[samples.of_datagram], None, "L")
        name = TOLD[0].name
        if self._scale or (self._wanted is not ALL and name in self._wanted):
            rate = samples.word("rate")[0]
            said.columns[name] = np.where(rate > 0, rate, 1).astype(np.float64)

    def _count_drops(self, samples: Samples) -> None:
        """Packets that the agent could not sample: a total of each of its sources, of which the last one counts."""
        kinds, indices = samples.source()
        totals = samples.word("drops")[0]
        domains = list(dict.fromkeys(datagram.domain for datagram in samples.reading.datagrams))
        numbers = {domain: number for number, domain in enumerate(domains)}
        of_domain = np.array([numbers[datagram.domain] for datagram in samples.reading.datagrams])[samples.of_datagram]
        order = np.lexsort((indices, kinds, of_domain))
        keys = np.stack((of_domain, kinds, indices))[:, order]
        last = np.append((keys[:, 1:] != keys[:, :-1]).any(axis=0), True)
        more, limit = self._intake.counters.figures, self._intake.limits.told
        rows = order[last].tolist()
        for (number, kind, index), row in zip(keys[:, last].T.tolist(), rows, strict=True):  # a step for each source
            key, total = (domains[number], kind, index), int(totals[row])
            before = self._drops.get(key)
            if before is None and len(self._drops) >= limit:
                continue
            self._drops[key] = total
            if before is not None and total > before:
                more["exporter_dropped_samples"] += total - before

    # counter samples

    def _counters(self, samples: Samples) -> Iterator[tuple[ColumnSet, np.ndarray]]:
        """Columns of the counter samples."""
        sheet, reading = ColumnSet(samples.n, self._wanted), samples.reading
        samples.put_source(sheet)
        read = 0
        for tag, keys in _COUNTERS.items():
            read += int(np.count_nonzero(samples.records.tag == tag))
            here = samples.records.firsts(tag, sum(key.type.octets for key in keys))
            at = here.at
            for key in keys if len(at) else ():
                if key.name in self._wanted and key.type.dtype is not None:
                    values = reading.number(at, key.type.octets)
                    kept = values != np.iinfo(values.dtype).max  # all ones: the agent does not count this
                    sheet.put(key.name, values[kept], here.owner[kept], key.type.dtype.char)
                at = at + key.type.octets // 4
        self._intake.counters.figures["unread_records"] += len(samples.records.tag) - read
        yield sheet, np.arange(samples.n)

    # a batch

    def _batch(
        self, datagrams: list[Datagram], sheet: ColumnSet, of_datagram: np.ndarray, formats: np.ndarray, options: bool,
        now: float, held: bool,
    ) -> Batch:  # fmt: skip
        context = self._context(datagrams, of_datagram, formats, options)
        self._intake.counters.rows_received += sheet.n
        for place, rows in enumerate(np.bincount(of_datagram, minlength=len(datagrams)).tolist()):
            datagrams[place].domain.rows += rows
        found = {key.name: column for key, column in context} | sheet.columns
        schema = self._schema([key for key, _ in context], sheet, _family(datagrams[0]))
        return Batch(schema, found, sheet.missing, n=sheet.n, now=now, held=held)

    def _schema(self, context: list[Key], sheet: ColumnSet, family: tuple[int, int]) -> Schema:
        """Schemas are kept: making one costs more than the rest of a small batch's columns."""
        names = (family, *sheet.columns)  # the context is the same for all of a family
        schema = self._schemas.get(names)
        if schema is None:
            keys = [key for name in sheet.columns if (key := _KEYS.get(name) or known(name)) is not None]
            schema = self._schemas[names] = Schema([*context, *keys])
        return schema

    def _context(
        self, datagrams: list[Datagram], of_datagram: np.ndarray, formats: np.ndarray, options: bool
    ) -> list[tuple[Key, Column]]:
        n = len(of_datagram)
        family = datagrams[0].session.family
        found: list[tuple[Key, Column]] = []
        for key in CONTEXT:
            if key.name not in self._wanted or key.name == "export_time":  # sFlow has only an uptime
                continue
            if key.name == "record_kind":
                found.append((key, repeated(b"options" if options else b"data", n)))
            elif key.name == "templateId":
                found.append((key, formats.astype(np.uint16)))
            elif key.name != "exporter" or family:
                key = key.typed(types.IPV4 if family == 4 else types.IPV6) if key.name == "exporter" else key
                values = [_CONTEXT[key.name](datagram) for datagram in datagrams]
                same = values.count(values[0]) == len(values)
                found.append((key, repeated(values[0], n, key.type.dtype) if same else
                              np.array(values, key.type.dtype)[of_datagram]))  # fmt: skip
        for key in _AGENTS:
            size = key.type.octets
            if key.name in self._wanted and all(len(datagram.agent) == size for datagram in datagrams):
                agents = b"".join(datagram.agent for datagram in datagrams)
                found.append((key, _addresses(agents, size)[of_datagram]))
        return found


_CONTEXT: dict[str, Any] = {
    "exporter": lambda datagram: datagram.session.address,
    "exporter_port": lambda datagram: datagram.session.peer_port,
    "observationDomainId": lambda datagram: datagram.domain.number,
    "received_ms": lambda datagram: int(datagram.received * 1000),
}


def _multiply(found: ColumnSet, factor: np.ndarray) -> None:
    """Octets and packets times the factor of each row."""
    if "octetDeltaCount" in found.columns:
        found.columns["octetDeltaCount"] = numbers(found.columns["octetDeltaCount"]) * factor
    if "packetDeltaCount" in found.columns:
        found.columns["packetDeltaCount"] = factor


def _addresses(octets: bytes, size: int) -> np.ndarray:
    """A column of addresses of so many octets."""
    if size == 4:
        return np.frombuffer(octets, ">u4").astype(np.uint32)
    return np.frombuffer(octets, ">u8").astype(np.uint64).reshape(-1, 2)


def _family(datagram: Datagram) -> tuple[int, int]:
    """By what the context differs: the family of the sender, and the octets of the agent's address."""
    return datagram.session.family, len(datagram.agent)
