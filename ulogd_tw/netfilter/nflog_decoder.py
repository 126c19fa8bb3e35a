"""Logged packets to batches: ulogd2's keys of a packet, and the decoder for the wanted ones.

Rows come out as one batch for each family of rules, in order of arrival. A key missing in all messages of a batch is
not in the batch. A mark not sent by the kernel is 0; a missing time is `now`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from ulogd_tw.core import columns
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.bounded import Bounded
from ulogd_tw.core.columns import Coded, Column, Octets, Pieces
from ulogd_tw.core.keys import Key
from ulogd_tw.core.plugin import Wanted
from ulogd_tw.netfilter import conntrack
from ulogd_tw.netfilter.grammar import IPV4, IPV6
from ulogd_tw.netfilter.layout import Layouts
from ulogd_tw.netfilter.nflog import FAMILIES, FIELDS, GRAMMAR
from ulogd_tw.netfilter.values import Give, Source, Value, Values, changed, known_key, number, or_constant, places

MOST_SCHEMAS = 1024
"""Maximum number of schemas kept."""


@dataclass(slots=True)
class Sequence:
    """Number of missing packets of one group, by the kernel's count.

    `newest` is the last number before; None where the group is new, as the kernel counts from 0 then. `joined`: the
    group is older, and what came before the first packet is not known.
    """

    newest: int | None = None
    joined: bool = False
    _ahead: int = field(default=0, init=False)
    _seen: int = field(default=0, init=False)

    def take(self, numbers: np.ndarray) -> None:
        """Add the numbers of received packets; their order does not matter."""
        if self.joined and len(numbers):
            self.joined, self.newest = False, (int(numbers[0]) - 1) & 0xFFFFFFFF
        last = -1 if self.newest is None else self.newest
        ahead = (numbers.astype(np.int64) - last) & 0xFFFFFFFF
        ahead = ahead[(ahead > 0) & (ahead < 1 << 31)]
        if len(ahead):
            self._ahead = max(self._ahead, int(ahead.max()))
            self._seen += len(ahead)

    def missing(self) -> int:
        """Packets missing among the numbers since the last call."""
        last = -1 if self.newest is None else self.newest
        missing = max(self._ahead - self._seen, 0)
        self.newest = (last + self._ahead) & 0xFFFFFFFF if self._ahead else self.newest
        self._ahead = self._seen = 0
        return missing


# --- values of keys -------------------------------------------------------------------------------------------------


class _Packets(Values):
    """The fields of the messages of one family, and the groups of values built from them."""

    label = 0

    @property
    def payload(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Start and length of the packets, and a mask of the messages without one."""
        return self.once("payload", self._payload)

    def _payload(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        starts, _ = self._span("payload")
        absent = self.absent("payload")
        lengths = self._octets.view(np.uint16).take((starts - 4) >> 1).astype(np.int64) - 4
        if absent is not None:
            lengths[absent] = 0
        return starts, lengths, absent

    def packets(self) -> Value:
        """The packets as octets."""
        starts, lengths, absent = self.payload
        return Pieces(self._octets, starts, lengths), absent

    def prefix(self) -> Value:
        """The texts of the rules."""
        values: dict[bytes, int] = {}
        same = self._places.same
        used = np.bincount(self._ids).nonzero()[0]
        code_of = np.zeros(int(used[-1]) + 1, np.int32)
        for ident in used.tolist():
            code_of[ident] = values.setdefault(same[ident].get("prefix", b""), len(values))
        return Coded(code_of.take(self._ids), tuple(values)), self.absent("prefix")

    def hardware_address(self) -> Value:
        """The sender's hardware address."""
        lengths, absent = self.number("hw.addrlen")
        lengths = np.minimum(lengths, 8).astype(np.int64)
        if absent is not None:
            lengths[absent] = 0
        octets = self.number("hw.addr")[0].astype(">u8").view(np.uint8)
        return Octets.gathered(octets, np.arange(0, 8 * self.n, 8), lengths), absent

    def bare(self) -> np.ndarray:
        """A mask of the packets without a link header."""
        sizes, absent = self.number("hwlen")
        return sizes == 0 if absent is None else absent | (sizes == 0)

    def missing_too(self, value: Value, wrong: np.ndarray) -> Value:
        """A value that is missing where this is true, too."""
        column, absent = value
        missing = wrong if absent is None else absent | wrong
        return column, missing if missing.any() else None


def _positive(name: str) -> Give:
    """A field that is missing where it is 0."""

    def give(rows: _Packets, now: float) -> Value:
        value = rows.number(name)
        return rows.missing_too(value, value[0] == 0)

    return give


def _with_header(give: Give) -> Give:
    """As in ulogd2, a link without a header has neither type nor header."""
    return lambda rows, now: rows.missing_too(give(rows, now), rows.bare())


def _time(name: str, at: int) -> Give:
    def give(rows: _Packets, now: float) -> Value:
        column, absent = rows.number(name)
        column = column.astype(np.uint32)
        if absent is None:
            return column, None
        # Microseconds, because a float of today's seconds is no finer.
        return np.where(absent, np.uint32(divmod(int(now * 1e6), 10**6)[at]), column), None

    return give


def _constant(get, dtype) -> Give:
    return lambda rows, _: (columns.repeated(get(rows), rows.n, np.dtype(dtype)), None)


def _source(name: str, fields: str, give: Give) -> Source:
    return Source(known_key(name), tuple(fields.split()), give, ())


def _packet_length(rows: _Packets, _: float) -> Value:
    _, lengths, absent = rows.payload
    return lengths.astype(np.uint32), absent


_ULOGD2 = (
    _source("raw.mac", "hwheader hwlen", _with_header(lambda rows, _: rows.octets("hwheader"))),
    _source("raw.pkt", "payload", lambda rows, _: rows.packets()),
    _source("raw.pktlen", "payload", _packet_length),
    _source("raw.pktcount", "", _constant(lambda rows: 1, np.uint32)),
    _source("oob.prefix", "prefix", lambda rows, _: rows.prefix()),
    _source("oob.time.sec", "time.sec", _time("time.sec", 0)),
    _source("oob.time.usec", "time.usec", _time("time.usec", 1)),
    _source("oob.mark", "nfmark", lambda rows, _: or_constant(rows.number("nfmark"), 0)),
    _source("oob.ifindex_in", "indev", _positive("indev")),
    _source("oob.ifindex_out", "outdev", _positive("outdev")),
    _source("oob.hook", "packet", changed(number("packet"), lambda word: (word >> 8 & 0xFF).astype(np.uint8))),
    _source("raw.mac_len", "hwlen", _positive("hwlen")),
    _source("oob.seq.local", "seq", number("seq")),
    _source("oob.seq.global", "seq.global", number("seq.global")),
    _source("oob.family", "", _constant(lambda rows: rows.family, np.uint8)),
    _source("oob.protocol", "packet", changed(number("packet"), lambda word: (word >> 16).astype(np.uint16))),
    _source("oob.uid", "uid", number("uid")),
    _source("oob.gid", "gid", number("gid")),
    _source("raw.label", "", _constant(lambda rows: rows.label, np.uint8)),
    _source("raw.type", "hwtype hwlen", _with_header(number("hwtype"))),
    _source("raw.mac.saddr", "hw.addr hw.addrlen", lambda rows, _: rows.hardware_address()),
    _source("raw.mac.addrlen", "hw.addrlen", number("hw.addrlen")),
)
"""ulogd2's keys in ulogd2's order."""

_VLAN = (
    _source("dot1qVlanId", "vlan.tci", changed(number("vlan.tci"), lambda tci: tci & 0xFFF)),
    _source("dot1qPriority", "vlan.tci", changed(number("vlan.tci"), lambda tci: (tci >> 13).astype(np.uint8))),
)
"""For packets logged by rules of the families bridge and netdev."""


def _of_connection(source: Source) -> Source:
    """A key of NFCT for the packet's connection; missing for a packet without one."""
    families = () if source.families == (IPV4, IPV6) and not _addresses(source) else source.families

    def give(rows: _Packets, now: float) -> Value:
        value, untracked = source.give(rows, now), rows.absent("id")
        return value if untracked is None else rows.missing_too(value, untracked)

    return Source(source.key, (*source.fields, "id"), give, families, source.stand_ins)


def _addresses(source: Source) -> bool:
    return any(FIELDS[name].family for name in source.fields)


_NOT_ATTACHED = (
    "flow.", "flowStart", "flowEnd", "observation", "oob.", "ct.event", "orig.raw.", "reply.raw.", "octetDelta",
    "packetDelta", "reverse",
)  # fmt: skip
"""Keys of events only: the kernel attaches neither counters nor times."""
_CONNECTION = tuple(
    _of_connection(source) for source in conntrack.SOURCES if not source.key.name.startswith(_NOT_ATTACHED)
)

KEYS = tuple(source.key for source in (*_ULOGD2, *_VLAN))
"""All keys of a `Decoder` for a packet, in the order of its batches."""
CONNECTION_KEYS = tuple(source.key for source in _CONNECTION)
"""Further keys, if the kernel attaches the connection."""


# --- the decoder ------------------------------------------------------------------------------------------------------


class Decoder:
    """Decodes messages with logged packets to batches with only the `wanted` keys.

    label     the raw.label of all rows
    refused   counts the messages that cannot be decoded, by reason
    """

    def __init__(self, wanted: Wanted, refused: Counter[str] | None = None, label: int = 0) -> None:
        self.refused: Counter[str] = Counter() if refused is None else refused
        self.label = label
        self.sequences: dict[int, Sequence] = {}
        """Group -> numbers received."""
        every = (*_ULOGD2, *_VLAN, *_CONNECTION)
        self._sources = {
            f: [s for s in every if s.key.name in wanted and (not s.families or f in s.families)] for f in FAMILIES
        }
        self._keys: dict[int, list[Key]] = {f: [s.key_of(f) for s in found] for f, found in self._sources.items()}
        self._schemas: Bounded[tuple[int, tuple[bool, ...]], Schema] = Bounded(MOST_SCHEMAS)
        self._places = {f: places(f, found, FIELDS, ("seq",)) for f, found in self._sources.items()}
        self.layouts = Layouts(GRAMMAR, self._places)

    def go_on(self, group: int, newest: int) -> None:
        """Count on in a group from its last number; -1 where that is not known."""
        self.sequences[group] = Sequence(newest if newest >= 0 else None, joined=newest < 0)

    def lost(self) -> int:
        """Packets logged by the kernel and never received, since the last call."""
        return sum(sequence.missing() for sequence in self.sequences.values())

    def decode(self, octets: np.ndarray, starts: np.ndarray, lengths: np.ndarray, now: float) -> list[Batch]:
        """A batch for each family: message i lies in `octets` (uint8) from `starts[i]` on, a multiple of 4.

        Messages are in order and do not overlap; `now` is the receive time. Packets stay in `octets`, which must not
        change afterwards.
        """
        if not len(starts):
            return []
        need = int(starts[-1]) + max(self.layouts.octets, int(lengths[-1]) + 3)
        if len(octets) < need or len(octets) % 4:
            octets = np.concatenate([octets, np.zeros(need - len(octets) + -need % 4, np.uint8)])
        ids = self.layouts.match_at(octets, starts, lengths, self.refused)
        found = self._by_family(octets, starts, ids, now)
        self.layouts.forget_unlearnt()
        return found

    def _by_family(self, octets: np.ndarray, starts: np.ndarray, ids: np.ndarray, now: float) -> list[Batch]:
        families = self.layouts.family.take(ids)
        present = np.bincount(families).nonzero()[0].tolist()
        found = []
        for family in present:
            if family and len(present) == 1:
                found.append(self._batch(family, octets, starts, ids, now))
            elif family:
                chosen = (families == family).nonzero()[0]
                found.append(self._batch(family, octets, starts[chosen], ids[chosen], now))
        return found

    def _batch(self, family: int, octets: np.ndarray, starts: np.ndarray, ids: np.ndarray, now: float) -> Batch:
        rows = _Packets(family, self._places[family], octets, starts, ids)
        rows.label = self.label
        self._count(rows, octets, starts)
        found: dict[str, Column] = {}
        missing = {}
        there = []
        for source in self._sources[family]:
            column, absent = source.give(rows, now)
            gone = absent is not None and bool(absent.all())
            there.append(not gone)
            if not gone:
                found[source.key.name] = column
                if absent is not None:
                    missing[source.key.name] = absent
        return Batch(self._schema(family, tuple(there)), found, missing, n=rows.n, now=now)

    def _schema(self, family: int, there: tuple[bool, ...]) -> Schema:
        schema = self._schemas.get((family, there))
        if schema is None:
            keys = [key for key, given in zip(self._keys[family], there, strict=True) if given]
            schema = self._schemas[family, there] = Schema(keys)
        return schema

    def _count(self, rows: _Packets, octets: np.ndarray, starts: np.ndarray) -> None:
        numbers, absent = rows.number("seq")
        groups = octets.view(">u2").take((starts >> 1) + 9)
        if absent is not None:
            numbers, groups = numbers[~absent], groups[~absent]
        for group in np.bincount(groups).nonzero()[0].tolist():
            self.sequences.setdefault(group, Sequence()).take(numbers[groups == group])
