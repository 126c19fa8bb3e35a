"""The directions of flows as columns of records: which rows have which values, and so which template each takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import repeated, take
from ulogd_tw.core.icmp import ICMP_PAIRS
from ulogd_tw.core.resolve import Find, Found
from ulogd_tw.ipfix import uniflow
from ulogd_tw.ipfix.uniflow import (
    ICMP,
    IPV6,
    NAT,
    NO_ADDRESSES,
    NO_DIRECTION,
    NO_END,
    NO_END_REASON,
    NO_FLOW_ID,
    NO_OCTETS,
    NO_PACKETS,
    NO_PORTS,
    NO_PROTOCOL,
    NO_START,
    TOTALS,
)

KEYS = (
    "orig.ip.protocol", "orig.l4.sport", "orig.l4.dport", "orig.raw.pktlen", "orig.raw.pktcount",
    "reply.ip.saddr", "reply.ip.daddr", "reply.l4.sport", "reply.l4.dport", "reply.raw.pktlen", "reply.raw.pktcount",
    "octetDeltaCount", "packetDeltaCount", "octets", "packets", "flowStartMilliseconds", "flowEndMilliseconds",
    "first_ms", "last_ms", "icmp.type", "icmp.code", "icmpv6.type", "icmpv6.code", "icmpTypeCodeIPv4",
    "icmpTypeCodeIPv6", "ct.event", "ct.id", "ct.tcp.state", "flowEndReason", "flowDirection", "flowId", "record_kind",
)  # fmt: skip
"""What a record is made of, beside the addresses."""

IDLE_TIMEOUT, END_OF_FLOW = 1, 3
"""flowEndReason (RFC 5102 section 5.11.3)."""
_ICMP, _TCP, _ICMPV6 = 1, 6, 58
_TIME_WAIT, _CLOSE = 7, 8
"""States of enum tcp_conntrack (nf_conntrack_tcp.h)."""
ORIGINAL, REPLY = 0, 1
"""flowDirection as DESIGN has it."""

Value = tuple[np.ndarray, np.ndarray | None]
"""A column and the mask of its missing rows, None where none is missing."""

_ABSENT_BITS = (
    ("source", NO_ADDRESSES), ("destination", NO_ADDRESSES), ("source_port", NO_PORTS), ("destination_port", NO_PORTS),
    ("protocol", NO_PROTOCOL), ("octets", NO_OCTETS), ("packets", NO_PACKETS), ("start", NO_START), ("end", NO_END),
    ("end_reason", NO_END_REASON), ("flow_id", NO_FLOW_ID), ("direction", NO_DIRECTION),
)  # fmt: skip


@dataclass(slots=True)
class Direction:
    """One direction of n flows: its values by name, the bits that all rows share, and the rows with NAT.

    `left_out`: rows of the batch that have no record of this direction, since no packet was seen.
    """

    n: int
    values: dict[str, Value]
    bits: int = 0
    nat: np.ndarray | None = None
    left_out: int = field(default=0)

    def parts(self) -> Iterator[tuple[int, list[np.ndarray], int]]:
        """The rows by template: its variant, the columns in the order of its fields, how many rows."""
        if not self.n:
            return
        variants = self._variants()
        if isinstance(variants, int):
            names = uniflow.values(variants)
            yield variants, [self.values[name][0] for name in names], self.n
            return
        for variant in np.unique(variants).tolist():
            rows = np.flatnonzero(variants == variant)
            names = uniflow.values(variant)
            yield variant, [take(self.values[name][0], rows) for name in names], len(rows)

    def _variants(self) -> int | np.ndarray:
        """The bits of every row; one number where all have the same."""
        same = self.bits
        some: list[tuple[np.ndarray, int]] = []
        for name, bit in _ABSENT_BITS:
            value = self.values.get(name)
            if value is None:
                same |= bit
            elif value[1] is not None:
                some.append((value[1], bit))
        icmp = self.values.get("icmp")
        if icmp is not None:
            if icmp[1] is None:
                same |= ICMP | NO_PORTS
            else:
                some.append((~icmp[1], ICMP | NO_PORTS))
        if self.nat is not None:
            some.append((self.nat, NAT))
        rows = np.full(self.n, same, np.uint16) if some else None
        for mask, bit in some:
            rows |= mask * np.uint16(bit)
        if rows is None or (rows == rows[0]).all():
            return same if rows is None else int(rows[0])
        return rows


def directions(find: Find, batch: Batch) -> list[Direction]:
    """The records of these flows: both directions of those with two whole tuples, else the one."""
    found = [find(batch, f"{prefix}.ip.{end}") for prefix in ("reply", "orig") for end in ("saddr", "daddr")]
    if None in found:
        return [_single(find, batch)]
    masks = [f.missing for f in found if f.missing is not None]
    alone = np.logical_or.reduce(masks) if masks else None
    if alone is None or not alone.any():
        return _both(find, batch)
    if alone.all():
        return [_single(find, batch)]
    return [_single(find, batch.take(alone)), *_both(find, batch.take(~alone))]


# --- a flow of another exporter, or of an aggregate -----------------------------------------------------------------


def _single(find: Find, batch: Batch) -> Direction:
    values, bits = _common(find, batch)
    _add(values, "source", find(batch, "orig.ip.saddr"))
    _add(values, "destination", find(batch, "orig.ip.daddr"))
    _add(values, "source_port", find(batch, "orig.l4.sport"))
    _add(values, "destination_port", find(batch, "orig.l4.dport"))
    for name, others in (
        ("octets", ("octetDeltaCount", "octets")),
        ("packets", ("packetDeltaCount", "packets")),
        ("start", ("first_ms",)),
        ("end", ("last_ms",)),
        ("end_reason", ("flowEndReason",)),
        ("flow_id", ("flowId",)),
        ("direction", ("flowDirection",)),
    ):
        for other in others:
            if name not in values:
                _add(values, name, find(batch, other))
    if "octets" not in values and "packets" not in values:
        _add(values, "octets", find(batch, "orig.raw.pktlen"))
        _add(values, "packets", find(batch, "orig.raw.pktcount"))
        bits |= TOTALS
    return Direction(batch.n, values, bits)


# --- a connection ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Connection:
    """Both directions of connections, which have the same rows."""

    original: Direction
    reply: Direction

    @property
    def six(self) -> bool:
        """Whether the addresses are of IPv6."""
        return bool(self.original.bits & IPV6)


def connection(find: Find, batch: Batch) -> Connection:
    """Both directions of flows with two whole tuples."""
    common, bits = _common(find, batch)
    common["end_reason"] = _end_reason(find, batch, common)
    _add(common, "flow_id", find(batch, "ct.id"))
    original, reply = _tuple(find, batch, "orig"), _tuple(find, batch, "reply")
    _align_ports(original, reply)
    nat = _translated(original, reply)
    translated = {"nat_source": "destination", "nat_destination": "source",
                  "nat_source_port": "destination_port", "nat_destination_port": "source_port"}  # fmt: skip
    found = []
    for prefix, number, own, other in (("orig", ORIGINAL, original, reply), ("reply", REPLY, reply, original)):
        values = common | own | {new: other[old] for new, old in translated.items() if old in other}
        values["direction"] = (repeated(number, batch.n, np.dtype(np.uint8)), None)
        _add(values, "octets", find(batch, f"{prefix}.raw.pktlen"))
        _add(values, "packets", find(batch, f"{prefix}.raw.pktcount"))
        found.append(Direction(batch.n, values, bits, nat))
    return Connection(*found)


def _both(find: Find, batch: Batch) -> list[Direction]:
    found = connection(find, batch)
    _answer_icmp(found.reply, found.reply.bits)
    return [found.original, _seen(found.reply)]


def _tuple(find: Find, batch: Batch, prefix: str) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for name, key in (("source", "ip.saddr"), ("destination", "ip.daddr"),
                      ("source_port", "l4.sport"), ("destination_port", "l4.dport")):  # fmt: skip
        _add(values, name, find(batch, f"{prefix}.{key}"))
    return values


def _align_ports(original: dict[str, Value], reply: dict[str, Value]) -> None:
    """Ports are there in both tuples of a row or in none: the kernel does so, and translated ports are the other's."""
    ports = [(values, name) for values in (original, reply) for name in ("source_port", "destination_port")]
    if all(name in values for values, name in ports):
        masks = [values[name][1] for values, name in ports if values[name][1] is not None]
        if masks:
            missing = np.logical_or.reduce(masks)
            for values, name in ports:
                values[name] = (values[name][0], missing)
        return
    for values, name in ports:
        values.pop(name, None)


def _translated(original: dict[str, Value], reply: dict[str, Value]) -> np.ndarray | None:
    """The rows whose reply tuple is not the original one turned round; None where there is none."""
    found = None
    for one, other in (("source", "destination"), ("destination", "source"),
                       ("source_port", "destination_port"), ("destination_port", "source_port")):  # fmt: skip
        if one not in original or other not in reply:
            continue
        (a, missing), (b, _) = original[one], reply[other]
        different = a != b
        if different.ndim == 2:
            different = different.any(axis=1)
        if missing is not None:
            different &= ~missing
        found = different if found is None else found | different
    return found if found is not None and found.any() else None


def _end_reason(find: Find, batch: Batch, values: dict[str, Value]) -> Value:
    """TCP that was closed has ended; all else has been idle for too long, as far as the kernel tells.

    Missing for TCP whose state the kernel did not send.
    """
    state = find(batch, "ct.tcp.state")
    unknown = np.ones(batch.n, bool) if state is None else state.missing
    reasons = repeated(IDLE_TIMEOUT, batch.n, np.dtype(np.uint8))
    if state is not None:
        closed = (state.values == _TIME_WAIT) | (state.values == _CLOSE)
        if unknown is not None:
            closed &= ~unknown
        reasons = np.where(closed, np.uint8(END_OF_FLOW), reasons)
    if unknown is not None and "protocol" in values:
        unknown = unknown & (values["protocol"][0] == _TCP)
    told = find(batch, "flowEndReason")  # of flows that live and are reported meanwhile
    if told is not None and told.missing is None:
        return told.values, None
    return reasons, _or_none(unknown)


def _answer_icmp(reply: Direction, bits: int) -> None:
    """The type that answers the query; the code is the same."""
    if "icmp" in reply.values:
        column, missing = reply.values["icmp"]
        table = _ANSWERS[6 if bits & IPV6 else 4]
        reply.values["icmp"] = table[column >> np.uint16(8)] | (column & np.uint16(0xFF)), missing


def _answers(pairs: tuple[tuple[int, int], ...]) -> np.ndarray:
    table = np.arange(256, dtype=np.uint16)
    for query, answer in pairs:
        table[query], table[answer] = answer, query
    return table << np.uint16(8)


_ANSWERS = {version: _answers(pairs) for version, pairs in ICMP_PAIRS.items()}


def _seen(reply: Direction) -> Direction:
    """Only the rows with packets: a flow of no packets is none. Rows whose packets nobody counted stay."""
    packets = reply.values.get("packets")
    if packets is None:
        return reply
    none = packets[0] == 0
    if packets[1] is not None:
        none &= ~packets[1]
    if not none.any():
        return reply
    rows = np.flatnonzero(~none)
    values = {name: (take(column, rows), None if missing is None else missing[rows])
              for name, (column, missing) in reply.values.items()}  # fmt: skip
    nat = None if reply.nat is None else reply.nat[rows]
    return Direction(len(rows), values, reply.bits, nat, reply.n - len(rows))


# --- both kinds -----------------------------------------------------------------------------------------------------


def _common(find: Find, batch: Batch) -> tuple[dict[str, Value], int]:
    """The values that both directions of a flow have in common, and the bits of the batch."""
    values: dict[str, Value] = {}
    source = find(batch, "orig.ip.saddr")
    bits = IPV6 if source is not None and source.key.type is types.IPV6 else 0
    _add(values, "protocol", find(batch, "orig.ip.protocol"))
    _add(values, "start", find(batch, "flowStartMilliseconds"))
    _add(values, "end", find(batch, "flowEndMilliseconds"))
    if (icmp := _icmp(find, batch, bits, values.get("protocol"))) is not None:
        values["icmp"] = icmp
    return values, bits


def _icmp(find: Find, batch: Batch, bits: int, protocol: Value | None) -> Value | None:
    """Type and code as one number (icmpTypeCodeIPv4, icmpTypeCodeIPv6); missing for all but ICMP.

    Exporters that have one template for everything send 0 there with TCP and UDP.
    """
    whole = find(batch, "icmpTypeCodeIPv6" if bits & IPV6 else "icmpTypeCodeIPv4")
    if whole is not None:
        column, masks = whole.values, [whole.missing]
    else:
        prefix = "icmpv6" if bits & IPV6 else "icmp"
        type_, code = find(batch, f"{prefix}.type"), find(batch, f"{prefix}.code")
        if type_ is None or code is None:
            return None
        column, masks = type_.values.astype(np.uint16) << np.uint16(8) | code.values, [type_.missing, code.missing]
    if protocol is not None:
        masks += [protocol[0] != (_ICMPV6 if bits & IPV6 else _ICMP), protocol[1]]
    masks = [m for m in masks if m is not None]
    missing = np.logical_or.reduce(masks) if masks else None
    if missing is not None and missing.all():
        return None
    return column, _or_none(missing)


def _add(values: dict[str, Value], name: str, found: Found | None) -> None:
    """Note a column that was found, unless no row has a value."""
    if found is None:
        return
    if found.missing is None or not found.missing.any():
        values[name] = (found.values, None)
    elif not found.missing.all():
        values[name] = (found.values, found.missing)


def _or_none(missing: np.ndarray | None) -> np.ndarray | None:
    """The mask, or None where nothing is missing."""
    return missing if missing is not None and missing.any() else None
