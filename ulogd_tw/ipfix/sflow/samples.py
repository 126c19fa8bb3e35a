"""The samples of sFlow datagrams (version 5, section 5.3): chains of elements, walked in step."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core.column_set import ColumnSet
from ulogd_tw.ipfix.session import Domain, Session

HEADS = {kind: struct.Struct(f"!II{size}sIIII") for kind, size in ((0, 0), (1, 4), (2, 16))}
"""By the type of the agent's address: version, type, address, sub-agent, sequence, uptime (ms), number of samples.

An agent of type 0 does not tell its address.
"""
FLOW, COUNTERS, EXPANDED_FLOW, EXPANDED_COUNTERS, DISCARDED = 1, 2, 3, 4, 5
"""Formats of samples."""
FEW = 8
"""So few chains are walked one by one: a step over all of them costs more."""
NO_INTERFACE = 0x3FFFFFFF
"""Unknown, or the agent itself; in unexpanded samples also the bits outside the format."""

_WORDS = {
    FLOW: {"sequence": 0, "source": 1, "rate": 2, "pool": 3, "drops": 4, "input": 5, "output": 6, "records": 7},
    EXPANDED_FLOW: {
        "sequence": 0, "type": 1, "source": 2, "rate": 3, "pool": 4, "drops": 5, "input format": 6, "input": 7,
        "output format": 8, "output": 9, "records": 10,
    },
    DISCARDED: {
        "sequence": 0, "type": 1, "source": 2, "drops": 3, "input": 4, "output": 5, "reason": 6, "records": 7,
    },
    COUNTERS: {"sequence": 0, "source": 1, "records": 2},
    EXPANDED_COUNTERS: {"sequence": 0, "type": 1, "source": 2, "records": 3},
}  # fmt: skip
"""Places of the words of a sample (sFlow section 5.3; "sFlow Dropped Packet Notification Structures")."""
_COUNTED = np.array([_WORDS[format_]["records"] if format_ in _WORDS else -1 for format_ in range(7)], np.int64)
"""By the format, 6 for all that are not known: where the number of records stands."""
_KINDS = np.array([0, 1, 2, 1, 2, 1, 0], np.uint8)
"""By the format: 1 for samples of flows, 2 for counters."""


@dataclass(slots=True)
class Datagram:
    """One waiting datagram."""

    session: Session
    domain: Domain
    octets: bytes
    begin: int
    samples: int
    received: float
    agent: bytes


@dataclass(slots=True)
class Chain:
    """Elements one after another, each a tag, its octets and that many octets, of several owners, in their order."""

    owner: np.ndarray
    tag: np.ndarray
    at: np.ndarray
    octets: np.ndarray

    def chosen(self, which: np.ndarray) -> Chain:
        """Some of them, by a mask or their places."""
        return Chain(self.owner[which], self.tag[which], self.at[which], self.octets[which])

    def firsts(self, tag: int, octets: int) -> Chain:
        """The first of each owner that has this tag and so many octets at least."""
        here = np.flatnonzero((self.tag == tag) & (self.octets >= octets))
        owner = self.owner[here]
        if len(owner) > 1:
            again = np.zeros(len(owner), bool)
            np.equal(owner[1:], owner[:-1], out=again[1:])
            here = here[~again]
        return self.chosen(here)


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

    def chains(self) -> tuple[Chain, Chain, np.ndarray]:
        """The samples (owned by datagrams), their records (owned by samples), and a mask of datagrams with a fault.

        A sample with records beyond its end is left out, and so is everything after a cut; its neighbours are kept.
        """
        samples, cut = chain(self.words, self.begin, self.end, self.counts)
        counted = _COUNTED[np.minimum(samples.tag, len(_COUNTED) - 1)]
        known, ends = counted >= 0, samples.at + samples.octets // 4
        short = known & (samples.octets < 4 * (counted + 1))
        ok = known & ~short
        counts = np.where(ok, self.words[np.where(ok, samples.at + counted, 0)].astype(np.int64), 0)
        short |= counts * 2 > ends - samples.at  # a record has eight octets at least
        counts[short] = 0
        records, broken = chain(self.words, samples.at + counted + 1, ends, counts)
        keep = ~(short | broken)
        if not keep.all():
            cut[samples.owner[~keep]] = True
            samples, records = samples.chosen(keep), _kept(records, keep)
        return samples, records, cut

    def unknown(self, samples: Chain) -> int:
        """How many samples are of formats that are not read."""
        return int(np.count_nonzero(_KINDS[np.minimum(samples.tag, len(_KINDS) - 1)] == 0))

    def number(self, at: np.ndarray, octets: int) -> np.ndarray:
        """A number of one or two words."""
        if octets < 8:
            return self.words[at]
        return self.words[at].astype(np.uint64) << np.uint64(32) | self.words[at + 1]

    def ipv6(self, at: np.ndarray) -> np.ndarray:
        """Addresses of IPv6 in a column."""
        return np.stack([self.number(at, 8), self.number(at + 2, 8)], axis=1)


def _kept(records: Chain, keep: np.ndarray) -> Chain:
    """The records of the owners that stay, by the owners' new numbers."""
    found = records.chosen(keep[records.owner])
    found.owner = (np.cumsum(keep) - 1)[found.owner]
    return found


class Samples:
    """The samples of flows of a reading, or with `options` those of counters.

    Their words, their records, and the datagrams that they are of.
    """

    def __init__(self, reading: Reading, samples: Chain, records: Chain, options: bool) -> None:
        wanted = _KINDS[np.minimum(samples.tag, len(_KINDS) - 1)] == 1 + options
        if not wanted.all():
            samples, records = samples.chosen(wanted), _kept(records, wanted)
        self.reading = reading
        self.records = records
        self.n = len(samples.tag)
        self.of_datagram = samples.owner
        self.formats = samples.tag
        self._at = samples.at
        self._masks = [(format_, samples.tag == format_) for format_ in np.unique(samples.tag).tolist()]

    def word(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A word of each sample, and which samples have it."""
        values, there = np.zeros(self.n, np.int64), np.zeros(self.n, bool)
        for format_, mask in self._masks:
            place = _WORDS[format_].get(name)
            if place is not None:
                values[mask] = self.reading.words[self._at[mask] + place]
                there |= mask
        return values, there

    def source(self) -> tuple[np.ndarray, np.ndarray]:
        """Type and index of the source. Where it is not expanded the type stands in the highest octet."""
        source, (kind, expanded) = self.word("source")[0], self.word("type")
        return np.where(expanded, kind, source >> 24), np.where(expanded, source, source & 0xFFFFFF)

    def interface(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Format and value of ``input`` or ``output``, the value -1 where it says nothing.

        Formats: 0 an index, 1 discarded for a reason, 2 a number of interfaces. Where it is not expanded the format
        stands in the two highest bits.
        """
        values, (kinds, expanded) = self.word(name)[0], self.word(f"{name} format")
        kinds = np.where(expanded, kinds, values >> 30)
        values = np.where(expanded, values, values & NO_INTERFACE)
        return kinds, np.where((kinds == 0) & (values == NO_INTERFACE), -1, values)

    def put_source(self, sheet: ColumnSet) -> None:
        """The agent's source of the sample, and its number."""
        if "sampleSequence" in sheet.wanted:
            sheet.put("sampleSequence", self.word("sequence")[0])
        if "sampleSourceType" in sheet.wanted or "sampleSourceIndex" in sheet.wanted:
            kind, index = self.source()
            sheet.put("sampleSourceType", kind, None, "B")
            sheet.put("sampleSourceIndex", index)
