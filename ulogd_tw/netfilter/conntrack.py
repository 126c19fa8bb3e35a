"""Conntrack messages to batches: the keys of a flow, and the decoder for the wanted ones.

Rows come out as at most two batches, IPv4 and IPv6, each with its one schema (the wanted keys in the order of `KEYS`)
and in order of arrival. A value not sent by the kernel is missing, never 0, except for mark and zone: the kernel leaves
them out when they are 0. Times are the kernel's own; only the end in a DESTROY and the start in a NEW default to `now`,
as in ulogd2.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from ulogd_tw.core import columns, types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Column
from ulogd_tw.core.keys import Key, ulogd_keys
from ulogd_tw.core.plugin import Wanted
from ulogd_tw.netfilter.ctnetlink import DESTROY, FIELDS, GRAMMAR, NEW
from ulogd_tw.netfilter.grammar import IPV4, IPV6
from ulogd_tw.netfilter.layout import Layouts
from ulogd_tw.netfilter.values import (
    Give,
    Source,
    Value,
    Values,
    changed,
    either,
    known_key,
    number,
    or_constant,
    places,
    plain,
)

_NS_A_SECOND, _NS_A_MS, _NS_A_US = np.uint64(10**9), np.uint64(10**6), np.uint64(1000)

# --- values of keys -------------------------------------------------------------------------------------------------


def _edge(rows: Values, now: float, field: str, event: int) -> Value:
    """Start or end of the flows in ns.

    The flow's own time. Without it, for the `event` at its beginning or end, the time of the event (kernels from 6.14
    on with nf_conntrack_timestamp=1), else the receive time.
    """
    own = rows.number(field)
    if own[1] is None:
        return own
    column, absent = rows.number("event_time")
    if absent is not None:
        # Microseconds, because a float of today's seconds is no finer.
        column = np.where(absent, np.uint64(int(now * 1e6) * 1000), column)
    return rows.once(f"{field} or event", lambda: either(own, (column, rows.event() != event)))


def _start(rows: Values, now: float) -> Value:
    return _edge(rows, now, "start", NEW)


def _end(rows: Values, now: float) -> Value:
    return _edge(rows, now, "stop", DESTROY)


def _counter(field: str) -> Give:
    def give(rows: Values, now: float) -> Value:
        # 32-bit counters are in the header but no kernel since 2.6.25 sends them.
        found = rows.number(field)
        if found[1] is None:
            return found
        column, absent = rows.number(field + "32")
        return either(found, (column.astype(np.uint64), absent))

    return give


def _zone(rows: Values, _: float) -> Value:
    """The zone of both directions, else of the one direction with a zone; the kernel does not send zone 0."""
    if rows.absent("zone") is None:
        return rows.number("zone")
    one_sided = either(rows.number("orig.zone"), rows.number("reply.zone"))
    return or_constant(either(rows.number("zone"), one_sided), 0)


def _seconds(ns: np.ndarray) -> np.ndarray:
    return (ns // _NS_A_SECOND).astype(np.uint32)


def _microseconds(ns: np.ndarray) -> np.ndarray:
    return (ns // _NS_A_US % _NS_A_MS).astype(np.uint32)


def _milliseconds(ns: np.ndarray) -> np.ndarray:
    return ns // _NS_A_MS


def _address(key: Key, field: str) -> Source:
    return Source(key, (field + "4", field + "6"), lambda rows, _: rows.address(field))


def _text(name: str, field: str) -> Source:
    return Source(Key(name, types.STRING), (field,), lambda rows, _: rows.text(field))


def _time(name: str, field: str, edge: Give) -> tuple[Source, ...]:
    sec, usec, ms = ulogd_keys(f"flow.{name}.sec", f"flow.{name}.usec", f"flow{name.title()}Milliseconds")
    parts = ((sec, _seconds), (usec, _microseconds), (ms, _milliseconds))
    return tuple(Source(key, (field,), changed(edge, part), stand_ins=("event_time",)) for key, part in parts)


def _direction(prefix: str) -> tuple[Source, ...]:
    octets, packets = f"{prefix}.octets", f"{prefix}.packets"
    return (
        _address(known_key(f"{prefix}.ip.saddr"), f"{prefix}.src"),
        _address(known_key(f"{prefix}.ip.daddr"), f"{prefix}.dst"),
        plain(known_key(f"{prefix}.ip.protocol"), f"{prefix}.protocol"),
        plain(known_key(f"{prefix}.l4.sport"), f"{prefix}.sport"),
        plain(known_key(f"{prefix}.l4.dport"), f"{prefix}.dport"),
        Source(known_key(f"{prefix}.raw.pktlen"), (octets,), _counter(octets), stand_ins=(octets + "32",)),
        Source(known_key(f"{prefix}.raw.pktcount"), (packets,), _counter(packets), stand_ins=(packets + "32",)),
    )


_ULOGD2 = (
    *_direction("orig"),
    *_direction("reply"),
    plain(known_key("icmp.code"), "orig.icmp_code", IPV4),
    plain(known_key("icmp.type"), "orig.icmp_type", IPV4),
    plain(known_key("icmpv6.code"), "orig.icmpv6_code", IPV6),
    plain(known_key("icmpv6.type"), "orig.icmpv6_type", IPV6),
    Source(known_key("ct.mark"), ("mark",), lambda rows, _: or_constant(rows.number("mark"), 0)),
    plain(known_key("ct.id"), "id"),
    Source(known_key("ct.event"), (), lambda rows, _: (rows.event().astype(np.uint32), None)),
    *_time("start", "start", _start)[:2],
    *_time("end", "stop", _end)[:2],
    Source(known_key("oob.family"), (), lambda rows, _: (columns.repeated(rows.family, rows.n, np.uint8), None)),
    Source(known_key("oob.protocol"), (), lambda rows, _: (columns.repeated(0, rows.n, np.uint16), None)),
)
"""ulogd2's keys in ulogd2's order (icmpv6 is in ulogd2 from 2.0.9 on)."""

_MORE = (
    _time("start", "start", _start)[2],
    _time("end", "stop", _end)[2],
    Source(known_key("observationTimeMilliseconds"), ("event_time",),
            changed(number("event_time"), _milliseconds)),
    _address(known_key("postNATSourceAddress"), "reply.dst"),
    _address(known_key("postNATDestinationAddress"), "reply.src"),
    plain(known_key("postNAPTSourceTransportPort"), "reply.dport"),
    plain(known_key("postNAPTDestinationTransportPort"), "reply.sport"),
    # The same numbers as deltas: every row has what was counted since the flow's last one.
    *(Source(known_key(name), (field,), _counter(field), stand_ins=(field + "32",)) for name, field in (
        ("octetDeltaCount", "orig.octets"), ("packetDeltaCount", "orig.packets"),
        ("reverseOctetDeltaCount", "reply.octets"), ("reversePacketDeltaCount", "reply.packets"))),
    plain(Key("ct.status", types.UNSIGNED32), "status"),
    plain(Key("ct.timeout", types.UNSIGNED32, unit="seconds"), "timeout"),
    plain(Key("ct.use", types.UNSIGNED32), "use"),
    Source(Key("ct.zone", types.UNSIGNED16), ("zone",), _zone, stand_ins=("orig.zone", "reply.zone")),
    plain(Key("orig.zone", types.UNSIGNED16), "orig.zone"),
    plain(Key("reply.zone", types.UNSIGNED16), "reply.zone"),
    Source(Key("ct.labels", types.OCTETS), ("labels",), lambda rows, _: rows.octets("labels")),
    _text("ct.helper", "helper"),
    _text("ct.secctx", "secctx"),
    plain(Key("icmp.id", types.UNSIGNED16), "orig.icmp_id", IPV4),
    plain(Key("icmpv6.id", types.UNSIGNED16), "orig.icmpv6_id", IPV6),
    plain(Key("ct.tcp.state", types.UNSIGNED8), "tcp.state"),
    plain(Key("ct.tcp.wscale.orig", types.UNSIGNED8), "tcp.wscale.orig"),
    plain(Key("ct.tcp.wscale.reply", types.UNSIGNED8), "tcp.wscale.reply"),
    # struct nf_ct_tcp_flags: the flags set, and a mask used by requests only.
    Source(Key("ct.tcp.flags.orig", types.UNSIGNED8), ("tcp.flags.orig",),
            changed(number("tcp.flags.orig"), lambda both: (both >> np.uint16(8)).astype(np.uint8))),
    Source(Key("ct.tcp.flags.reply", types.UNSIGNED8), ("tcp.flags.reply",),
            changed(number("tcp.flags.reply"), lambda both: (both >> np.uint16(8)).astype(np.uint8))),
    plain(Key("ct.sctp.state", types.UNSIGNED8), "sctp.state"),
    plain(Key("ct.sctp.vtag.orig", types.UNSIGNED32), "sctp.vtag.orig"),
    plain(Key("ct.sctp.vtag.reply", types.UNSIGNED32), "sctp.vtag.reply"),
    plain(Key("ct.dccp.state", types.UNSIGNED8), "dccp.state"),
    plain(Key("ct.dccp.role", types.UNSIGNED8), "dccp.role"),
    plain(Key("ct.dccp.handshake_seq", types.UNSIGNED64), "dccp.handshake_seq"),
    _address(Key("ct.master.saddr", types.ADDRESS), "master.src"),
    _address(Key("ct.master.daddr", types.ADDRESS), "master.dst"),
    plain(Key("ct.master.protocol", types.UNSIGNED8), "master.protocol"),
    plain(Key("ct.master.sport", types.UNSIGNED16), "master.sport"),
    plain(Key("ct.master.dport", types.UNSIGNED16), "master.dport"),
)  # fmt: skip
"""Keys unknown to ulogd2; ct.master is the parent connection (of FTP data, SIP media)."""

SOURCES = (*_ULOGD2, *_MORE)

KEYS = tuple(source.key for source in SOURCES)
"""All keys of a `Decoder`, in the order of its batches."""


class Decoder:
    """Decodes conntrack messages to batches with only the `wanted` keys.

    Messages that cannot be decoded are counted in `refused`, by reason.
    """

    def __init__(self, wanted: Wanted, refused: Counter[str] | None = None) -> None:
        self.refused: Counter[str] = Counter() if refused is None else refused
        self._sources = {f: [s for s in SOURCES if f in s.families and s.key.name in wanted] for f in (IPV4, IPV6)}
        self.schemas = {f: Schema([s.key_of(f) for s in found]) for f, found in self._sources.items()}
        self._places = {f: places(f, found, FIELDS) for f, found in self._sources.items()}
        self.layouts = Layouts(GRAMMAR, self._places)

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
        rows = Values(family, self._places[family], octets, base, ids)
        found: dict[str, Column] = {}
        missing = {}
        for source in self._sources[family]:
            column, absent = source.give(rows, now)
            found[source.key.name] = column
            if absent is not None:
                missing[source.key.name] = absent
        return Batch(self.schemas[family], found, missing, n=rows.n, now=now)
