"""Conntrack messages to batches: the keys of a flow, and the decoder that makes the columns of those that are wanted.

Rows come out as at most two batches, IPv4 and IPv6, each of its one schema (the wanted keys in the order of `KEYS`)
and in order of arrival. What the kernel did not send is missing, never 0, except where the kernel's silence means 0
(mark, zone). Times are the kernel's own; `now` stands in only for the end in a DESTROY and the start in a NEW without
them, as in ulogd2.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ulogd_tw.core import columns, types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Column, Octets
from ulogd_tw.core.keys import Key, ulogd_keys
from ulogd_tw.core.plugin import Wanted
from ulogd_tw.netfilter.ctnetlink import DESTROY, FIELDS, IPV4, IPV6, NEW
from ulogd_tw.netfilter.layout import Layouts, Places

_NS_A_SECOND, _NS_A_MS, _NS_A_US = np.uint64(10**9), np.uint64(10**6), np.uint64(1000)
_HALF = np.uint64(32)

Value = tuple[Column, np.ndarray | None]
"""A column and the mask of its missing rows, None where none is missing."""


class _Rows:
    """The fields of the messages of one family: the words of all numbers are gathered at once.

    `octets` has all messages, message i of ours begins at octet `base[i]` and has the layout `ids[i]`. Of `places` the
    first is for the fields that are always needed, the others are looked at when one of their fields is asked for.
    """

    def __init__(
        self, family: int, places: Sequence[Places], octets: np.ndarray, base: np.ndarray, ids: np.ndarray
    ) -> None:
        self.family = family
        self.n = len(ids)
        self._octets, self._base, self._ids = octets, base, ids
        self._places, self._later = places[0], places[1:]
        self._kept: dict[str, Value] = {}
        used = np.bincount(ids).nonzero()[0]
        self._some_absent = self._places.absent[:, used].any(axis=1).tolist()
        self._values = self._gather()

    def _gather(self) -> dict[int, np.ndarray]:
        """Octets of a value -> (values, n)."""
        index = self._places.words.take(self._ids, axis=1)
        index += self._base >> 2
        words = self._octets.view(np.uint32).take(index)
        if sys.byteorder == "little":
            words.byteswap(inplace=True)
        block = self._places.block
        both = words[block[8]].astype(np.uint64)
        both <<= _HALF
        both |= words[block[-8]]
        return {
            1: (words[block[1]] >> np.uint32(24)).astype(np.uint8),
            2: (words[block[2]] >> np.uint32(16)).astype(np.uint16),
            4: words[block[4]],
            8: both,
        }

    @cached_property
    def _further(self) -> _Rows:
        return _Rows(self.family, self._later, self._octets, self._base, self._ids)

    def event(self) -> np.ndarray:
        return self._places.event.take(self._ids)

    def absent(self, name: str) -> np.ndarray | None:
        """The rows without this field, None where all have it."""
        row = self._places.row[name]
        return self._places.absent[row].take(self._ids) if self._some_absent[row] else None

    def once(self, name: str, make: Callable[[], Value]) -> Value:
        """What `make` gives, made once."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def number(self, name: str) -> Value:
        """A field of 1, 2, 4 or 8 octets, in the natural width."""
        if name not in self._places.row:
            return self._further.number(name)
        return self._values[FIELDS[name].octets][self._places.place[name]], self.absent(name)

    def address(self, name: str) -> Value:
        """An address of our family."""
        return self.number(name + "4") if self.family == IPV4 else self.once(name, lambda: self._ipv6(name + "6"))

    def _ipv6(self, name: str) -> Value:
        place = self._places.place[name]
        return np.ascontiguousarray(self._values[8][place : place + 2].T), self.absent(name)

    def octets(self, name: str) -> Value:
        """A field of variable size."""
        starts, lengths = self._span(name)
        if not lengths.any():
            return columns.repeated(b"", self.n), self.absent(name)
        return Octets.gathered(self._octets, starts, lengths), self.absent(name)

    def text(self, name: str) -> Value:
        """A field of variable size, up to its first NUL."""
        starts, lengths = self._span(name)
        if not lengths.any():
            return columns.repeated(b"", self.n), self.absent(name)
        column = Octets.gathered(self._octets, starts, lengths)
        nul = np.append((column.data == 0).nonzero()[0], len(column.data))
        lengths = np.minimum(nul[np.searchsorted(nul, column.offsets[:-1])] - column.offsets[:-1], lengths)
        return Octets.gathered(self._octets, starts, lengths), self.absent(name)

    def _span(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        starts, lengths = self._places.spans[:, self._places.variable[name]].take(self._ids, axis=1)
        return starts + self._base, lengths


# --- values of keys -------------------------------------------------------------------------------------------------


def _either(first: Value, second: Value) -> Value:
    """`first` where it is there, else `second`."""
    if first[1] is None:
        return first
    missing = None if second[1] is None else first[1] & second[1]
    return np.where(first[1], second[0], first[0]), missing if missing is not None and missing.any() else None


def _or_constant(given: Value, number: int) -> Value:
    return given if given[1] is None else (np.where(given[1], given[0].dtype.type(number), given[0]), None)


def _edge(rows: _Rows, now: float, field: str, event: int) -> Value:
    """Start or end of the flows in ns.

    The flow's own time; else, in the `event` that begins or ends it, the time of that event (kernels from 6.14 on
    with nf_conntrack_timestamp=1), else the receive time.
    """
    own = rows.number(field)
    if own[1] is None:
        return own
    column, absent = rows.number("event_time")
    if absent is not None:
        # Microseconds, because a float of today's seconds is no finer.
        column = np.where(absent, np.uint64(int(now * 1e6) * 1000), column)
    return rows.once(f"{field} or event", lambda: _either(own, (column, rows.event() != event)))


def _start(rows: _Rows, now: float) -> Value:
    return _edge(rows, now, "start", NEW)


def _end(rows: _Rows, now: float) -> Value:
    return _edge(rows, now, "stop", DESTROY)


def _counter(field: str) -> Give:
    def give(rows: _Rows, now: float) -> Value:
        # 32-bit counters are in the header but no kernel since 2.6.25 sends them.
        found = rows.number(field)
        if found[1] is None:
            return found
        column, absent = rows.number(field + "32")
        return _either(found, (column.astype(np.uint64), absent))

    return give


def _number(field: str) -> Give:
    return lambda rows, _: rows.number(field)


def _zone(rows: _Rows, _: float) -> Value:
    """The zone of both directions, else of the one that has one; the kernel does not send zone 0."""
    if rows.absent("zone") is None:
        return rows.number("zone")
    one_sided = _either(rows.number("orig.zone"), rows.number("reply.zone"))
    return _or_constant(_either(rows.number("zone"), one_sided), 0)


def _of_time(time: Give, part: Callable[[np.ndarray], np.ndarray]) -> Give:
    def give(rows: _Rows, now: float) -> Value:
        column, absent = time(rows, now)
        return part(column), absent

    return give


def _seconds(ns: np.ndarray) -> np.ndarray:
    return (ns // _NS_A_SECOND).astype(np.uint32)


def _microseconds(ns: np.ndarray) -> np.ndarray:
    return (ns // _NS_A_US % _NS_A_MS).astype(np.uint32)


def _milliseconds(ns: np.ndarray) -> np.ndarray:
    return ns // _NS_A_MS


Give = Callable[[_Rows, float], Value]
"""Makes the values of a key, given `now`."""


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the values of a key come from: the fields, and what makes the column of them.

    `stand_ins` are fields that are looked at only where some message lacks the others.
    """

    key: Key
    fields: tuple[str, ...]
    give: Give
    families: tuple[int, ...] = (IPV4, IPV6)
    stand_ins: tuple[str, ...] = ()

    def key_of(self, family: int) -> Key:
        """The key as a batch of this family holds it."""
        if self.key.type is not types.ADDRESS:
            return self.key
        return self.key.typed(types.IPV4 if family == IPV4 else types.IPV6)


def _plain(key: Key, field: str, *families: int) -> _Source:
    return _Source(key, (field,), _number(field), families or (IPV4, IPV6))


def _address(key: Key, field: str) -> _Source:
    return _Source(key, (field + "4", field + "6"), lambda rows, _: rows.address(field))


def _text(name: str, field: str) -> _Source:
    return _Source(Key(name, types.STRING), (field,), lambda rows, _: rows.text(field))


def _time(name: str, field: str, edge: Give) -> tuple[_Source, ...]:
    sec, usec, ms = ulogd_keys(f"flow.{name}.sec", f"flow.{name}.usec", f"flow{name.title()}Milliseconds")
    parts = ((sec, _seconds), (usec, _microseconds), (ms, _milliseconds))
    return tuple(_Source(key, (field,), _of_time(edge, part), stand_ins=("event_time",)) for key, part in parts)


def _known(name: str) -> Key:
    return ulogd_keys(name)[0]


def _direction(prefix: str) -> tuple[_Source, ...]:
    octets, packets = f"{prefix}.octets", f"{prefix}.packets"
    return (
        _address(_known(f"{prefix}.ip.saddr"), f"{prefix}.src"),
        _address(_known(f"{prefix}.ip.daddr"), f"{prefix}.dst"),
        _plain(_known(f"{prefix}.ip.protocol"), f"{prefix}.protocol"),
        _plain(_known(f"{prefix}.l4.sport"), f"{prefix}.sport"),
        _plain(_known(f"{prefix}.l4.dport"), f"{prefix}.dport"),
        _Source(_known(f"{prefix}.raw.pktlen"), (octets,), _counter(octets), stand_ins=(octets + "32",)),
        _Source(_known(f"{prefix}.raw.pktcount"), (packets,), _counter(packets), stand_ins=(packets + "32",)),
    )


_ULOGD2 = (
    *_direction("orig"),
    *_direction("reply"),
    _plain(_known("icmp.code"), "orig.icmp_code", IPV4),
    _plain(_known("icmp.type"), "orig.icmp_type", IPV4),
    _plain(_known("icmpv6.code"), "orig.icmpv6_code", IPV6),
    _plain(_known("icmpv6.type"), "orig.icmpv6_type", IPV6),
    _Source(_known("ct.mark"), ("mark",), lambda rows, _: _or_constant(rows.number("mark"), 0)),
    _plain(_known("ct.id"), "id"),
    _Source(_known("ct.event"), (), lambda rows, _: (rows.event().astype(np.uint32), None)),
    *_time("start", "start", _start)[:2],
    *_time("end", "stop", _end)[:2],
    _Source(_known("oob.family"), (), lambda rows, _: (columns.repeated(rows.family, rows.n, np.uint8), None)),
    _Source(_known("oob.protocol"), (), lambda rows, _: (columns.repeated(0, rows.n, np.uint16), None)),
)
"""ulogd2's keys in ulogd2's order (icmpv6 is in ulogd2 from 2.0.9 on)."""

_MORE = (
    _time("start", "start", _start)[2],
    _time("end", "stop", _end)[2],
    _Source(_known("observationTimeMilliseconds"), ("event_time",),
            _of_time(_number("event_time"), _milliseconds)),
    _address(_known("postNATSourceAddress"), "reply.dst"),
    _address(_known("postNATDestinationAddress"), "reply.src"),
    _plain(_known("postNAPTSourceTransportPort"), "reply.dport"),
    _plain(_known("postNAPTDestinationTransportPort"), "reply.sport"),
    # The same numbers as deltas: every row has what was counted since the flow's last one.
    *(_Source(_known(name), (field,), _counter(field), stand_ins=(field + "32",)) for name, field in (
        ("octetDeltaCount", "orig.octets"), ("packetDeltaCount", "orig.packets"),
        ("reverseOctetDeltaCount", "reply.octets"), ("reversePacketDeltaCount", "reply.packets"))),
    _plain(Key("ct.status", types.UNSIGNED32), "status"),
    _plain(Key("ct.timeout", types.UNSIGNED32, unit="seconds"), "timeout"),
    _plain(Key("ct.use", types.UNSIGNED32), "use"),
    _Source(Key("ct.zone", types.UNSIGNED16), ("zone",), _zone, stand_ins=("orig.zone", "reply.zone")),
    _plain(Key("orig.zone", types.UNSIGNED16), "orig.zone"),
    _plain(Key("reply.zone", types.UNSIGNED16), "reply.zone"),
    _Source(Key("ct.labels", types.OCTETS), ("labels",), lambda rows, _: rows.octets("labels")),
    _text("ct.helper", "helper"),
    _text("ct.secctx", "secctx"),
    _plain(Key("icmp.id", types.UNSIGNED16), "orig.icmp_id", IPV4),
    _plain(Key("icmpv6.id", types.UNSIGNED16), "orig.icmpv6_id", IPV6),
    _plain(Key("ct.tcp.state", types.UNSIGNED8), "tcp.state"),
    _plain(Key("ct.tcp.wscale.orig", types.UNSIGNED8), "tcp.wscale.orig"),
    _plain(Key("ct.tcp.wscale.reply", types.UNSIGNED8), "tcp.wscale.reply"),
    # struct nf_ct_tcp_flags: the flags that are set, and a mask that only requests use.
    _Source(Key("ct.tcp.flags.orig", types.UNSIGNED8), ("tcp.flags.orig",),
            _of_time(_number("tcp.flags.orig"), lambda both: (both >> np.uint16(8)).astype(np.uint8))),
    _Source(Key("ct.tcp.flags.reply", types.UNSIGNED8), ("tcp.flags.reply",),
            _of_time(_number("tcp.flags.reply"), lambda both: (both >> np.uint16(8)).astype(np.uint8))),
    _plain(Key("ct.sctp.state", types.UNSIGNED8), "sctp.state"),
    _plain(Key("ct.sctp.vtag.orig", types.UNSIGNED32), "sctp.vtag.orig"),
    _plain(Key("ct.sctp.vtag.reply", types.UNSIGNED32), "sctp.vtag.reply"),
    _plain(Key("ct.dccp.state", types.UNSIGNED8), "dccp.state"),
    _plain(Key("ct.dccp.role", types.UNSIGNED8), "dccp.role"),
    _plain(Key("ct.dccp.handshake_seq", types.UNSIGNED64), "dccp.handshake_seq"),
    _address(Key("ct.master.saddr", types.ADDRESS), "master.src"),
    _address(Key("ct.master.daddr", types.ADDRESS), "master.dst"),
    _plain(Key("ct.master.protocol", types.UNSIGNED8), "master.protocol"),
    _plain(Key("ct.master.sport", types.UNSIGNED16), "master.sport"),
    _plain(Key("ct.master.dport", types.UNSIGNED16), "master.dport"),
)  # fmt: skip
"""What ulogd2 has not; ct.master is the connection of which this one is a part (FTP data, SIP media)."""

_SOURCES = (*_ULOGD2, *_MORE)

KEYS = tuple(source.key for source in _SOURCES)
"""Every key that a `Decoder` can give, in the order of its batches."""


def _places(family: int, sources: Sequence[_Source]) -> tuple[Places, Places]:
    """For the fields that these sources always need, and for their stand-ins."""
    first = {name for source in sources for name in source.fields if FIELDS[name].family in (0, family)}
    second = {name for source in sources for name in source.stand_ins} - first
    return Places(sorted(first)), Places(sorted(second))


class Decoder:
    """Decodes conntrack messages to batches that have only the `wanted` keys.

    Messages that cannot be decoded are counted in `refused`, by reason.
    """

    def __init__(self, wanted: Wanted, refused: Counter[str] | None = None) -> None:
        self.refused: Counter[str] = Counter() if refused is None else refused
        self._sources = {f: [s for s in _SOURCES if f in s.families and s.key.name in wanted] for f in (IPV4, IPV6)}
        self.schemas = {f: Schema([s.key_of(f) for s in found]) for f, found in self._sources.items()}
        self._places = {f: _places(f, found) for f, found in self._sources.items()}
        self.layouts = Layouts(self._places)

    def decode(self, rows: np.ndarray, lengths: np.ndarray, now: float) -> list[Batch]:
        """At most one batch for each family.

        `rows` is uint8 of shape (n, stride), C-contiguous, stride a multiple of 8: row i begins with a netlink message
        of `lengths[i]` octets. `now` is the receive time.
        """
        if not len(rows):
            return []
        ids = self.layouts.match(rows, lengths, self.refused)
        families = self.layouts.family.take(ids)
        octets, base = rows.reshape(-1), np.arange(0, rows.size, rows.shape[1], np.int64)
        found = []
        for family in (IPV4, IPV6):
            ours = families == family
            if ours.all():
                found.append(self._batch(family, octets, base, ids, now))
                break
            if ours.any():
                chosen = ours.nonzero()[0]
                found.append(self._batch(family, octets, base[chosen], ids[chosen], now))
        self.layouts.forget_unlearnt()
        return found

    def _batch(self, family: int, octets: np.ndarray, base: np.ndarray, ids: np.ndarray, now: float) -> Batch:
        rows = _Rows(family, self._places[family], octets, base, ids)
        found: dict[str, Column] = {}
        missing = {}
        for source in self._sources[family]:
            column, absent = source.give(rows, now)
            found[source.key.name] = column
            if absent is not None:
                missing[source.key.name] = absent
        return Batch(self.schemas[family], found, missing, n=rows.n, now=now)
