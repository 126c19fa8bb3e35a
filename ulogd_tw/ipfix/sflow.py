"""sFlow version 5: datagrams of samples (sflow.org, "sFlow Version 5"), as `decoder.Decoder` takes them beside IPFIX.

A flow sample becomes a record with the elements of IPFIX: what its header says by `packets.headers`, one packet of the
frame's octets, and the rate at which it was sampled. A counter sample is an options record of an interface's counters.
The datagrams of a wake-up are walked in step, sample by sample. One whose lengths cannot be is dropped whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Column, repeated
from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.keys import CONTEXT, SFLOW_KEYS, TOLD, Key, known
from ulogd_tw.core.plugin import ALL, Wanted
from ulogd_tw.ipfix.samples import (
    COUNTER_KEYS,
    COUNTER_WORDS,
    COUNTERS,
    DISCARDED,
    EXPANDED_COUNTERS,
    EXPANDED_FLOW,
    FLOW,
    FLOW_WORDS,
    HEADS,
    Chain,
    Datagram,
    Reading,
    put,
    sample_source,
    sampled,
)
from ulogd_tw.ipfix.session import Domain, Session

if TYPE_CHECKING:
    from ulogd_tw.ipfix.decoder import Decoder

START = b"\0\0\0\5"
"""How a datagram begins."""
VERSION = 0x105
"""What stands for sFlow above a domain's number: NetFlow v5 has 5."""
_TEMPLATES = (FLOW, COUNTERS, EXPANDED_FLOW, EXPANDED_COUNTERS, DISCARDED)
_KEYS = {key.name: key for key in SFLOW_KEYS}


class SFlow:
    """Takes datagrams of sFlow for a decoder."""

    def __init__(self, decoder: Decoder, wanted: Wanted, scale: bool) -> None:
        self._decoder = decoder
        self._wanted = wanted
        self._scale = scale
        self._waiting: list[Datagram] = []
        self._drops: dict[tuple[Domain, int, int], int] = {}
        decoder.counters.more.setdefault("exporter_dropped_samples", 0)

    def feed(self, session: Session, message: bytes, now: float) -> None:
        """Take one datagram; its samples are looked at by `drain`."""
        decoder = self._decoder
        try:
            kind = int.from_bytes(message[4:8], "big")
            head = HEADS.get(kind)
            if head is None or len(message) < head.size:
                raise MessageError(f"an sFlow datagram of {len(message)} octets, address type {kind}", "length", 4)
            _, _, agent, sub_agent, number, _, samples = head.unpack_from(message)
            if samples * 8 > len(message) - head.size:
                raise MessageError(f"{samples} samples in {len(message)} octets", "length", head.size - 4)
        except MessageError as error:
            decoder._malformed(session, 0, error)
            return
        place = (VERSION << 128 | int.from_bytes(agent, "big")) << 32 | sub_agent
        domain = session.domains.get(place) or decoder._learning.new_domain(session, sub_agent, place)
        if domain is None:
            return
        decoder._follow(session, domain, number, 1, "datagrams")
        self._waiting.append(Datagram(session, domain, message, head.size // 4, samples, now, agent))

    def drain(self, now: float, held: bool) -> Iterator[Batch]:
        """Batches of all samples that wait: by the family of the exporter, and of the packets."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        for _, group in groupby(sorted(waiting, key=_family), key=_family):
            yield from self._batches(list(group), now, held)

    def _batches(self, datagrams: list[Datagram], now: float, held: bool) -> Iterator[Batch]:
        reading = Reading(datagrams)
        samples, records, datagrams_of, cut = reading.chains()
        for place in np.flatnonzero(cut).tolist():
            one = datagrams[place]
            self._decoder._malformed(one.session, one.domain.number, MessageError("a sample is cut", "record"))
        errors = self._decoder.counters.errors
        unknown = ~np.isin(samples.tag, list(_TEMPLATES))
        if unknown.any():
            errors["sample_format"] += int(np.count_nonzero(unknown))
        found = [
            *self._flows(reading, samples, records, datagrams_of),
            *self._counters(reading, samples, records, datagrams_of),
        ]
        for columns, missing, of_datagram, formats, options in found:
            yield self._batch(datagrams, columns, missing, of_datagram, formats, options, now, held)

    def forget(self, session: Session) -> None:
        """The session is over."""
        if any(place >> 32 >= VERSION << 128 for place in session.domains):
            gone = set(session.domains.values())
            self._drops = {key: total for key, total in self._drops.items() if key[0] not in gone}

    # flow samples

    def _flows(self, reading: Reading, samples: Chain, records: Chain, owners: np.ndarray) -> Iterator[tuple]:
        """Columns of the flow samples, by the family of their packets."""
        chosen = np.flatnonzero(np.isin(samples.tag, list(FLOW_WORDS)))
        if not len(chosen):
            return
        formats = samples.tag[chosen]
        words = reading.fields(samples.at[chosen], formats, FLOW_WORDS)
        self._count_drops(reading.datagrams, owners[chosen], words)
        of_sample = np.full(len(samples.tag), -1, np.int64)
        of_sample[chosen] = np.arange(len(chosen))
        mine = of_sample[records.owner] >= 0
        records = Chain(of_sample[records.owner[mine]], records.tag[mine], records.at[mine], records.octets[mine])
        for columns, missing, rows in reading.packets(records, len(chosen), self._wanted):
            sampled(columns, missing, {name: (v[rows], t[rows]) for name, (v, t) in words.items()}, self._wanted)
            self._times_and_factor(columns, missing, reading, owners[chosen][rows], words, rows)
            yield columns, missing, owners[chosen][rows], formats[rows], False

    def _times_and_factor(
        self, columns: dict[str, Column], missing: dict[str, np.ndarray], reading: Reading, of_datagram: np.ndarray,
        words: dict[str, tuple[np.ndarray, np.ndarray]], rows: np.ndarray,
    ) -> None:  # fmt: skip
        """A packet was seen when its datagram came, and stands for as many as the rate says."""
        rate, there = words["rate"]
        factor = np.where(there[rows] & (rate[rows] > 0), rate[rows], 1)
        arrived = reading.received[of_datagram]
        for name in ("flowStartMilliseconds", "flowEndMilliseconds"):
            if name in self._wanted:
                columns[name] = arrived
        if self._scale or (self._wanted is not ALL and TOLD[0].name in self._wanted):
            columns[TOLD[0].name] = factor.astype(np.float64)
        if self._scale:
            for name in ("octetDeltaCount", "packetDeltaCount"):
                if name in columns:
                    columns[name] = columns[name] * factor.astype(np.uint64)

    def _count_drops(
        self, datagrams: list[Datagram], of_datagram: np.ndarray, words: dict[str, tuple[np.ndarray, np.ndarray]]
    ) -> None:
        """Packets that the agent could not sample: a total of each of its sources."""
        source = words["type"][0] << 32 | words["index"][0]
        _, last = np.unique(np.stack([of_datagram, source]), axis=1, return_index=True)
        drops = words["drops"][0]
        for place in last.tolist():  # one step for each source of a datagram
            domain = datagrams[int(of_datagram[place])].domain
            key = (domain, int(words["type"][0][place]), int(words["index"][0][place]))
            total, before = int(drops[place]), self._drops.get(key)
            if before is None and len(self._drops) >= self._decoder.limits.told:
                continue
            self._drops[key] = total
            if before is not None and total > before:
                self._decoder.counters.more["exporter_dropped_samples"] += total - before

    # counter samples

    def _counters(self, reading: Reading, samples: Chain, records: Chain, owners: np.ndarray) -> Iterator[tuple]:
        """Columns of the counter samples with records that are known."""
        chosen = np.flatnonzero(np.isin(samples.tag, list(COUNTER_WORDS)))
        if not len(chosen):
            return
        names = ("sequence", "type", "index", "records")
        words = reading.fields(samples.at[chosen], samples.tag[chosen], COUNTER_WORDS, names)
        columns: dict[str, Column] = {}
        missing: dict[str, np.ndarray] = {}
        sample_source(columns, missing, words, self._wanted)
        of_sample = np.full(len(samples.tag), -1, np.int64)
        of_sample[chosen] = np.arange(len(chosen))
        for tag, keys in COUNTER_KEYS.items():
            here = records.of(tag)
            here = Chain(of_sample[here.owner], here.tag, here.at, here.octets)
            mine = (here.owner >= 0) & (here.octets >= 4 * sum(key.type.octets // 4 for key in keys))
            here = Chain(here.owner[mine], here.tag[mine], here.at[mine], here.octets[mine]).first()
            at = here.at
            for key in keys:
                if key.name in self._wanted:
                    values = reading.number(at, key.type.octets)
                    kept = values != np.iinfo(values.dtype).max  # all ones: the agent does not count this
                    if kept.any():
                        put(columns, missing, key.name, values[kept], here.owner[kept], len(chosen), key.type.dtype)
                at = at + key.type.octets // 4
        yield columns, missing, owners[chosen], samples.tag[chosen], True

    # a batch

    def _batch(
        self, datagrams: list[Datagram], columns: dict[str, Column], missing: dict[str, np.ndarray],
        of_datagram: np.ndarray, formats: np.ndarray, options: bool, now: float, held: bool,
    ) -> Batch:  # fmt: skip
        context = self._context(datagrams, of_datagram, formats, options)
        keys = [key for key, _ in context]
        for name, column in columns.items():
            keys.append(_held(name, column))
        n = len(of_datagram)
        self._decoder.counters.rows_received += n
        if len(datagrams) == 1 or (of_datagram == of_datagram[0]).all():
            datagrams[int(of_datagram[0])].domain.rows += n
        else:
            for place, rows in enumerate(np.bincount(of_datagram, minlength=len(datagrams)).tolist()):
                datagrams[place].domain.rows += rows
        found = {key.name: column for key, column in context} | columns
        return Batch(Schema(keys), found, missing, n=n, now=now, held=held)

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
        agents = (("exporterIPv4Address", 4), ("exporterIPv6Address", 16))
        for name, octets in agents:
            if name in self._wanted and all(len(datagram.agent) == octets for datagram in datagrams):
                agents_ = b"".join(datagram.agent for datagram in datagrams)
                if octets == 4:
                    column = np.frombuffer(agents_, ">u4").astype(np.uint32)
                else:
                    column = np.frombuffer(agents_, ">u8").astype(np.uint64).reshape(-1, 2)
                found.append((known(name), column[of_datagram]))
        return found


_CONTEXT: dict[str, Any] = {
    "exporter": lambda datagram: datagram.session.address,
    "exporter_port": lambda datagram: datagram.session.peer_port,
    "observationDomainId": lambda datagram: datagram.domain.number,
    "received_ms": lambda datagram: int(datagram.received * 1000),
}


def _family(datagram: Datagram) -> tuple[int, int]:
    return datagram.session.family, len(datagram.agent)


def _held(name: str, column: Column) -> Key:
    """The key of a column, as it is held."""
    key = _KEYS.get(name) or known(name)
    return key
