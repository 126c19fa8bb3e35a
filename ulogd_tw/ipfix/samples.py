"""The samples of sFlow datagrams (version 5, section 5.3): chains of elements walked in step, and their columns."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ulogd_tw.core.columns import Column
from ulogd_tw.core.keys import SFLOW_KEYS
from ulogd_tw.core.plugin import Wanted
from ulogd_tw.ipfix.session import Domain, Session
from ulogd_tw.packets import headers

HEADS = {1: struct.Struct("!II4sIIII"), 2: struct.Struct("!II16sIIII")}
"""By the type of the agent's address: version, type, address, sub-agent, sequence, uptime (ms), number of samples."""
FLOW, COUNTERS, EXPANDED_FLOW, EXPANDED_COUNTERS, DISCARDED = 1, 2, 3, 4, 5
"""Formats of samples."""
FEW = 8
"""So few chains are walked one by one: a step over all of them costs more."""
_NO_INTERFACE = 0x3FFFFFFF
_MPLS = 13
_HEADER_KINDS = {1: headers.ETHERNET, 11: headers.IP, 12: headers.IP, _MPLS: headers.IP}
"""header_protocol: Ethernet, IPv4, IPv6; MPLS, whose labels `_below_labels` passes over."""

FLOW_WORDS = {
    # format: sequence, type, index, rate, pool, drops, input, output, reason, where the number of records stands
    FLOW: (0, None, 1, 2, 3, 4, 5, 6, None, 7),
    EXPANDED_FLOW: (0, 1, 2, 3, 4, 5, 7, 9, None, 10),
    DISCARDED: (0, 1, 2, None, None, 3, 4, 5, 6, 7),
}
"""Places of the words of a sample (sFlow section 5.3; "sFlow Dropped Packet Notification Structures")."""
COUNTER_WORDS = {COUNTERS: (0, None, 1, 2), EXPANDED_COUNTERS: (0, 1, 2, 3)}
COUNTER_KEYS = {1: SFLOW_KEYS[7:26], 2: SFLOW_KEYS[26:]}
"""Counter records that are read: of any interface, of Ethernet."""


@dataclass(slots=True)
class Datagram:
    """One that waits."""

    session: Session
    domain: Domain
    octets: bytes
    begin: int
    samples: int
    received: float
    agent: bytes


@dataclass(slots=True)
class Chain:
    """Elements one after another, each a tag, its octets and that many octets, of several owners."""

    owner: np.ndarray
    tag: np.ndarray
    at: np.ndarray
    octets: np.ndarray

    def of(self, *tags: int) -> Chain:
        """Those with one of these tags."""
        here = np.flatnonzero(np.isin(self.tag, tags))
        return Chain(self.owner[here], self.tag[here], self.at[here], self.octets[here])

    def first(self) -> Chain:
        """The first of each owner."""
        _, here = np.unique(self.owner, return_index=True)
        return Chain(self.owner[here], self.tag[here], self.at[here], self.octets[here])


def chain(words: np.ndarray, at: np.ndarray, ends: np.ndarray, counts: np.ndarray) -> tuple[Chain, np.ndarray]:
    """Walk `counts[i]` elements from word `at[i]` on, up to word `ends[i]`; and which owners are cut, as a mask."""
    cut = np.zeros(len(at), bool)
    found: list[tuple[np.ndarray, ...]] = []
    owner, at, left = np.arange(len(at)), at.copy(), counts.copy()
    while True:
        going = left > 0
        if not going.all():
            owner, at, left = owner[going], at[going], left[going]
        if len(owner) < FEW:
            break
        inside = at + 2 <= ends[owner]
        octets = np.where(inside, words[np.where(inside, at + 1, 0)], 0).astype(np.int64)
        inside &= at + 2 + (octets + 3) // 4 <= ends[owner]
        if not inside.all():
            cut[owner[~inside]] = True
            owner, at, left, octets = owner[inside], at[inside], left[inside], octets[inside]
        found.append((owner, words[at].astype(np.int64), at + 2, octets))
        at = at + 2 + (octets + 3) // 4
        left = left - 1
    rest = []
    for one, place, more in zip(owner.tolist(), at.tolist(), left.tolist(), strict=True):
        end = int(ends[one])
        for _ in range(more):  # 1 us each
            if place + 2 > end or place + 2 + (size := (int(words[place + 1]) + 3) // 4) > end:
                cut[one] = True
                break
            rest.append((one, int(words[place]), place + 2, int(words[place + 1])))
            place += 2 + size
    if rest:
        found.append(tuple(np.array(rest, np.int64).T))
    parts = [np.concatenate(column) for column in zip(*found, strict=True)] if found else [np.zeros(0, np.int64)] * 4
    order = np.lexsort((parts[2], parts[0]))
    return Chain(*(part[order] for part in parts)), cut


def put(
    columns: dict[str, Column], missing: dict[str, np.ndarray], name: str, values: np.ndarray, rows: np.ndarray, n: int,
    dtype: np.dtype,
) -> None:  # fmt: skip
    """Add or complete a column of which these rows have values."""
    column = columns.get(name)
    if column is None:
        column, mask = np.zeros((n, *values.shape[1:]), dtype), np.ones(n, bool)
    else:
        column, mask = column.copy(), missing.pop(name, np.zeros(n, bool))
    column[rows] = values
    mask[rows] = False
    columns[name] = column
    if mask.any():
        missing[name] = mask


def sample_source(
    columns: dict[str, Column], missing: dict[str, np.ndarray], words: dict[str, tuple[np.ndarray, np.ndarray]],
    wanted: Wanted,
) -> None:  # fmt: skip
    """Which source of the agent took the sample, and its number."""
    for name, word, dtype in (("sampleSequence", "sequence", "I"), ("sampleSourceType", "type", "B"),
                              ("sampleSourceIndex", "index", "I")):  # fmt: skip
        if name in wanted:
            columns[name] = words[word][0].astype(np.dtype(dtype))


def sampled(
    columns: dict[str, Column], missing: dict[str, np.ndarray], words: dict[str, tuple[np.ndarray, np.ndarray]],
    wanted: Wanted,
) -> None:  # fmt: skip
    """What the sample itself says: source, rate, interfaces."""
    sample_source(columns, missing, words, wanted)
    n = len(words["sequence"][0])
    for name, word, dtype in (("samplingInterval", "rate", "I"), ("samplePool", "pool", "I"),
                              ("sampleDrops", "drops", "I"), ("dropReason", "reason", "I")):  # fmt: skip
        values, there = words[word]
        if name in wanted and there.any():
            put(columns, missing, name, values[there], np.flatnonzero(there), n, np.dtype(dtype))
    # Formats: 0 an index, 1 discarded with a reason, 2 a number of interfaces (section 5.3, interface).
    for name, word, format_ in (("ingressInterface", "input", 0), ("egressInterface", "output", 0),
                                ("dropReason", "output", 1), ("outputInterfaces", "output", 2)):  # fmt: skip
        values, kinds = words[word][0], words[f"{word} format"][0]
        rows = np.flatnonzero((kinds == format_) & (values >= 0))
        if name in wanted and len(rows):
            put(columns, missing, name, values[rows], rows, n, np.dtype("I"))


class Reading:
    """The octets of some datagrams, as words."""

    def __init__(self, datagrams: list[Datagram]) -> None:
        self.datagrams = datagrams
        sizes = np.array([len(d.octets) for d in datagrams], np.int64)
        padded = (sizes + 3) & ~3
        # The zeros at the end are for what is read ahead before it is looked at.
        self.octets = np.frombuffer(b"".join([d.octets.ljust(-(-len(d.octets) // 4) * 4, b"\0") for d in datagrams])
                                    + bytes(64), np.uint8)  # fmt: skip
        self.words = self.octets.view(">u4").astype(np.uint32)
        firsts = (np.cumsum(padded) - padded) // 4
        self.begin = firsts + np.array([d.begin for d in datagrams], np.int64)
        self.end = firsts + sizes // 4
        self.counts = np.array([d.samples for d in datagrams], np.int64)
        self.received = np.array([int(d.received * 1000) for d in datagrams], np.uint64)

    def chains(self) -> tuple[Chain, Chain, np.ndarray, np.ndarray]:
        """The samples, their records (owned by samples), the datagram of each sample, and which datagrams are cut.

        Nothing of a datagram that is cut is left.
        """
        samples, cut = chain(self.words, self.begin, self.end, self.counts)
        counted = np.full(len(samples.tag), -1, np.int64)
        places = {f: w[-1] for f, w in (FLOW_WORDS | COUNTER_WORDS).items()}
        for tag, place in places.items():
            counted[samples.tag == tag] = place
        known_ = counted >= 0
        short = known_ & (samples.octets < 4 * (counted + 1))
        ends = samples.at + samples.octets // 4
        ok = known_ & ~short
        counts = np.zeros(len(samples.tag), np.int64)
        counts[ok] = self.words[samples.at[ok] + counted[ok]]
        # a record has eight octets at least
        short |= counts * 2 > ends - samples.at
        counts[short] = 0
        records, broken = chain(self.words, samples.at + counted + 1, ends, counts)
        bad = samples.owner[short | broken]
        cut[bad] = True
        keep = ~cut[samples.owner]
        renumbered = np.cumsum(keep) - 1
        mine = keep[records.owner] if len(records.owner) else np.zeros(0, bool)
        records = Chain(renumbered[records.owner[mine]], records.tag[mine], records.at[mine], records.octets[mine])
        samples = Chain(samples.owner[keep], samples.tag[keep], samples.at[keep], samples.octets[keep])
        return samples, records, samples.owner, cut

    def fields(
        self, at: np.ndarray, formats: np.ndarray, table: dict[int, tuple],
        names: Sequence[str] = ("sequence", "type", "index", "rate", "pool", "drops", "input", "output", "reason",
                                "records"),
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:  # fmt: skip
        """The words of samples by name, and which samples have them."""
        found = {}
        for position, name in enumerate(names):
            values, there = np.zeros(len(at), np.int64), np.zeros(len(at), bool)
            for format_, places in table.items():
                if places[position] is not None:
                    rows = formats == format_
                    values[rows] = self.words[at[rows] + places[position]]
                    there |= rows
            found[name] = (values, there)
        # A source that is not expanded has its type in the highest octet.
        source, expanded = found["index"][0], found["type"][1]
        found["type"] = (np.where(expanded, found["type"][0], source >> 24), np.ones(len(at), bool))
        found["index"] = (np.where(expanded, source, source & 0xFFFFFF), np.ones(len(at), bool))
        if "input" in found:
            rows = formats == EXPANDED_FLOW
            for name, place in (("input", 6), ("output", 8)):
                # The two highest bits are the format; expanded samples have it in a word of its own, in front.
                values, there = found[name]
                kinds, plain = values >> 30, values & _NO_INTERFACE
                kinds[rows], plain[rows] = self.words[at[rows] + place], values[rows]
                plain[(plain == _NO_INTERFACE) & (kinds == 0)] = -1
                found[name], found[f"{name} format"] = (plain, there), (kinds, there)
        return found

    def number(self, at: np.ndarray, octets: int) -> np.ndarray:
        """A number of one or two words."""
        if octets < 8:
            return self.words[at]
        return self.words[at].astype(np.uint64) << np.uint64(32) | self.words[at + 1]

    # what was sampled

    def packets(
        self, records: Chain, n: int, wanted: Wanted
    ) -> Iterator[tuple[dict[str, Column], dict[str, np.ndarray], np.ndarray]]:
        """Columns of the sampled packets by family, and which samples they are; each sample is in one of them."""
        size = np.zeros(n, np.uint64)
        first, starts, lengths = (np.zeros(n, np.int64) for _ in range(3))
        raw = records.of(1).first()
        ok = raw.octets >= 16
        raw = Chain(raw.owner[ok], raw.tag[ok], raw.at[ok], raw.octets[ok])
        protocol, said = self.words[raw.at].astype(np.int64), self.words[raw.at + 3].astype(np.int64)
        size[raw.owner] = self.words[raw.at + 1]
        starts[raw.owner] = (raw.at + 4) * 4
        lengths[raw.owner] = np.minimum(said, raw.octets - 16)
        first[raw.owner] = [_HEADER_KINDS.get(p, 0) for p in protocol.tolist()] if len(protocol) else []
        labels = raw.owner[protocol == _MPLS]
        self._below_labels(labels, starts, lengths, first)
        families = headers.decode(self.octets, starts, lengths, first, wanted)
        for found in families:
            if found.family:
                yield self._finished(found, records, size, wanted)
                continue
            yield from self._without_header(found, records, size, n, wanted)

    def _below_labels(self, rows: np.ndarray, starts: np.ndarray, lengths: np.ndarray, first: np.ndarray) -> None:
        """A header that begins with MPLS labels: go to what stands below them."""
        for row in rows.tolist():  # seldom
            at, end = int(starts[row]), int(starts[row] + lengths[row])
            while at + 4 <= end:
                at += 4
                if self.octets[at - 2] & 1:
                    break
            starts[row], lengths[row] = at, end - at

    def _finished(
        self, found: headers.Headers, records: Chain, size: np.ndarray, wanted: Wanted
    ) -> tuple[dict[str, Column], dict[str, np.ndarray], np.ndarray]:
        """The columns of one family with what other records of the sample say."""
        columns, missing, rows = found.columns, found.missing, found.rows
        n = len(rows)
        place = np.full(len(size), -1, np.int64)
        place[rows] = np.arange(n)
        if "octetDeltaCount" in wanted:
            columns["octetDeltaCount"] = size[rows]
        if "packetDeltaCount" in wanted:
            columns["packetDeltaCount"] = np.ones(n, np.uint64)
        self._switch(records, place, n, columns, missing, wanted)
        self._router(records, place, n, found.family, columns, missing, wanted)
        self._gateway(records, place, n, columns, missing, wanted)
        return columns, missing, rows

    def _without_header(
        self, found: headers.Headers, records: Chain, size: np.ndarray, n: int, wanted: Wanted
    ) -> Iterator[tuple[dict[str, Column], dict[str, np.ndarray], np.ndarray]]:
        """Samples whose agent decoded the packet itself (records 2, 3 and 4), and those of which only that is known."""
        left = np.zeros(n, bool)
        left[found.rows] = True
        for family, tag, octets in ((4, 3, 32), (6, 4, 56)):
            here = records.of(tag).first()
            ok = left[here.owner] & (here.octets >= octets)
            rows, at = here.owner[ok], here.at[ok]
            if len(rows):
                left[rows] = False
                size[rows] = self.words[at]
                own = headers.Headers(family, rows, wanted, *self._decoded(family, at, wanted))
                yield self._finished(own, records, size, wanted)
        rows = np.flatnonzero(left[found.rows])
        if not len(rows):
            return
        rest = headers._of_rows(found, 0, rows)
        rest.rows = found.rows[rows]
        here = records.of(2).first()
        ok = left[here.owner] & (here.octets >= 24)
        owner, at = here.owner[ok], here.at[ok]
        if len(owner):
            size[owner] = np.where(size[owner] > 0, size[owner], self.words[at])
            place = np.full(n, -1, np.int64)
            place[rest.rows] = np.arange(len(rest.rows))
            for name, offset in (("sourceMacAddress", 1), ("destinationMacAddress", 3)):
                if name in wanted and name not in rest.columns:
                    mac = self.number(at + offset, 8) >> np.uint64(16)
                    put(rest.columns, rest.missing, name, mac, place[owner], len(rest.rows), np.dtype("L"))
            if "ethernetType" in wanted and "ethernetType" not in rest.columns:
                put(rest.columns, rest.missing, "ethernetType", self.words[at + 5], place[owner], len(rest.rows),
                     np.dtype("H"))  # fmt: skip
        yield self._finished(rest, records, size, wanted)

    def _decoded(self, family: int, at: np.ndarray, wanted: Wanted) -> tuple[dict[str, Column], dict[str, np.ndarray]]:
        """Records 3 and 4: the fields of the packet as the agent read them."""
        words = 1 if family == 4 else 4
        shown: dict[str, tuple[np.ndarray, str]] = {"protocolIdentifier": (self.words[at + 1], "B")}
        for place, end in enumerate(("source", "destination")):
            here = at + 2 + place * words
            if family == 4:
                shown[f"{end}IPv4Address"] = (self.words[here], "I")
            else:
                halves = [self.number(here, 8), self.number(here + 2, 8)]
                shown[f"{end}IPv6Address"] = (np.stack(halves, axis=1), "L")
        rest = at + 2 + 2 * words
        shown |= {
            "sourceTransportPort": (self.words[rest], "H"),
            "destinationTransportPort": (self.words[rest + 1], "H"),
            "tcpControlBits": (self.words[rest + 2], "H"),
            "ipClassOfService": (self.words[rest + 3], "B"),
            "ipVersion": (np.full(len(at), family), "B"),
        }
        columns = {name: values.astype(np.dtype(form)) for name, (values, form) in shown.items() if name in wanted}
        missing = {}
        protocol = self.words[at + 1]
        for name, there in (("tcpControlBits", protocol == 6), ("sourceTransportPort", np.isin(protocol, (6, 17, 132))),
                            ("destinationTransportPort", np.isin(protocol, (6, 17, 132)))):  # fmt: skip
            if name in columns and not there.all():
                missing[name] = ~there
        return columns, missing

    def _switch(self, records: Chain, place: np.ndarray, n: int, columns: Any, missing: Any, wanted: Wanted) -> None:
        """Record 1001: VLANs and priorities of the switch, before and behind it."""
        rows, at = self._mine(records, 1001, 16, place)
        for name, offset, dtype in (("vlanId", 0, "H"), ("dot1qPriority", 1, "B"), ("postVlanId", 2, "H")):
            if name in wanted and len(rows):
                values = self.words[at + offset]
                known_ = values <= 0xFFF  # others say: unknown
                if known_.any():
                    put(columns, missing, name, values[known_], rows[known_], n, np.dtype(dtype))

    def _router(
        self, records: Chain, place: np.ndarray, n: int, family: int, columns: Any, missing: Any, wanted: Wanted
    ) -> None:
        """Record 1002: the next hop, and the lengths of the prefixes."""
        rows, at = self._mine(records, 1002, 16, place)
        if not len(rows):
            return
        at = self._next_hop(rows, at, n, ("ipNextHopIPv4Address", "ipNextHopIPv6Address"), columns, missing, wanted)
        version = "IPv4" if family == 4 else "IPv6"
        for offset, end in ((0, "source"), (1, "destination")):
            name = f"{end}{version}PrefixLength"
            if family and name in wanted:
                put(columns, missing, name, self.words[at + offset], rows, n, np.dtype("B"))

    def _next_hop(
        self, rows: np.ndarray, at: np.ndarray, n: int, names: tuple[str, str], columns: Any, missing: Any,
        wanted: Wanted,
    ) -> np.ndarray:  # fmt: skip
        """An address with its type; where it ends."""
        kind = self.words[at]
        four, six = kind == 1, kind == 2
        if names[0] in wanted and four.any():
            put(columns, missing, names[0], self.words[at[four] + 1], rows[four], n, np.dtype("I"))
        if names[1] in wanted and six.any():
            halves = [self.number(at[six] + 1, 8), self.number(at[six] + 3, 8)]
            put(columns, missing, names[1], np.stack(halves, axis=1), rows[six], n, np.dtype("L"))
        return at + 1 + np.where(four, 1, np.where(six, 4, 0))

    def _gateway(self, records: Chain, place: np.ndarray, n: int, columns: Any, missing: Any, wanted: Wanted) -> None:
        """Record 1003: autonomous systems by BGP; the last one of the path is the destination's."""
        here = records.of(1003).first()
        ok = (place[here.owner] >= 0) & (here.octets >= 24)
        rows, at, ends = place[here.owner[ok]], here.at[ok], here.at[ok] + here.octets[ok] // 4
        if not len(rows):
            return
        at = self._next_hop(rows, at, n, ("bgpNextHopIPv4Address", "bgpNextHopIPv6Address"), columns, missing, wanted)
        inside = at + 4 <= ends
        rows, at, ends = rows[inside], at[inside], ends[inside]
        own, source, before, segments = (self.words[at + offset].astype(np.int64) for offset in range(4))
        last, after = own.copy(), np.zeros(len(at), np.int64)
        at = at + 4
        for turn in range(8):  # segments of a path: one or two
            going = np.flatnonzero((segments > turn) & (at + 2 <= ends))
            count = self.words[at[going] + 1].astype(np.int64)
            fits = at[going] + 2 + count <= ends[going]
            going, count = going[fits], count[fits]
            if not len(going):
                break
            some = count > 0
            last[going[some]] = self.words[at[going[some]] + 1 + count[some]]
            if turn == 0:
                after[going[some]] = self.words[at[going[some]] + 2]
            at[going] += 2 + count
        for name, values in (("bgpSourceAsNumber", np.where(source > 0, source, own)), ("bgpDestinationAsNumber", last),
                             ("bgpPrevAdjacentAsNumber", before), ("bgpNextAdjacentAsNumber", after)):  # fmt: skip
            if name in wanted and len(rows):
                put(columns, missing, name, values, rows, n, np.dtype("I"))

    def _mine(self, records: Chain, tag: int, octets: int, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows of this family with such a record, and where it is."""
        here = records.of(tag).first()
        ok = (place[here.owner] >= 0) & (here.octets >= octets)
        return place[here.owner[ok]], here.at[ok]
