"""The directions of flows: of connections, of biflows, and of rows that are about one direction only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.flow_end import ENDED, IDLE
from ulogd_tw.core.icmp import ICMP_PAIRS
from ulogd_tw.core.quantities import OCTETS, PACKETS, REPLY_OCTETS, REPLY_PACKETS, Quantity
from ulogd_tw.core.resolve import Find
from ulogd_tw.exporting.direction import Direction, Value, add, add_first, all_rows, any_of, or_none, replace
from ulogd_tw.ipfix.uniflow import IPV6, MIXED, TOTALS

KEYS = (
    "orig.ip.protocol", "orig.l4.sport", "orig.l4.dport", "orig.raw.pktlen", "orig.raw.pktcount",
    "reply.ip.saddr", "reply.ip.daddr", "reply.l4.sport", "reply.l4.dport", "reply.raw.pktlen", "reply.raw.pktcount",
    *OCTETS.names, *PACKETS.names, "flowStartMilliseconds", "flowEndMilliseconds", "first_ms", "last_ms",
    "icmp.type", "icmp.code", "icmpv6.type", "icmpv6.code", "icmpTypeCodeIPv4",
    "icmpTypeCodeIPv6", "ct.event", "ct.id", "ct.tcp.state", "flowEndReason", "flowDirection", "flowId", "record_kind",
)  # fmt: skip
"""Keys for a record, in addition to the addresses."""

_ICMP, _TCP, _ICMPV6 = 1, 6, 58
_TIME_WAIT, _CLOSE = 7, 8
"""States of enum tcp_conntrack (nf_conntrack_tcp.h)."""
ORIGINAL, REPLY = 0, 1
"""flowDirection as DESIGN has it."""

_COUNTERS = (("octets", OCTETS), ("packets", PACKETS))
_REVERSE_COUNTERS = (("octets", REPLY_OCTETS), ("packets", REPLY_PACKETS))
REVERSE_KEYS = (
    *REPLY_OCTETS.names, *REPLY_PACKETS.names, "reverseFlowStartMilliseconds", "reverseFlowEndMilliseconds",
    "reverseFlowEndReason",
)  # fmt: skip
"""Further keys of a biflow."""
_KINDS = {(False, False): 0, (False, True): MIXED, (True, False): TOTALS, (True, True): TOTALS | MIXED}
"""The bits by whether octets are totals, and whether packets are of another kind."""
_TURNED = {"source": "destination", "destination": "source", "source_port": "destination_port",
           "destination_port": "source_port"}  # fmt: skip


def directions(find: Find, batch: Batch) -> list[Direction]:
    """The records of these flows: both directions for flows with two complete tuples, else one."""
    found = [find(batch, f"{prefix}.ip.{end}") for prefix in ("reply", "orig") for end in ("saddr", "daddr")]
    there = [f for f in found if f is not None]
    if len(there) < len(found):
        return _alone(find, batch)
    masks = [f.missing for f in there if f.missing is not None]
    alone = np.logical_or.reduce(masks) if masks else None
    if alone is None or not alone.any():
        return _both(find, batch)
    if alone.all():
        return _alone(find, batch)
    return [*_alone(find, batch.take(alone)), *_both(find, batch.take(~alone))]


# --- a flow of another exporter, or of an aggregate -----------------------------------------------------------------


def _alone(find: Find, batch: Batch) -> list[Direction]:
    """The direction that a row is about; and its answer, where the row has reverse counters (RFC 5103)."""
    single = _single(find, batch)
    answer = _answer(find, batch, single)
    return [single] if answer is None else [single, answer]


def _answer(find: Find, batch: Batch, single: Direction) -> Direction | None:
    """The rows of the reverse direction, from reverse elements, between the same ends; only rows with packets."""
    counters: dict[str, Value] = {}
    bits = single.bits & ~(TOTALS | MIXED) | _count(find, batch, counters, _REVERSE_COUNTERS)
    if not counters:
        return None
    values = {_TURNED.get(name, name): value for name, value in single.values.items()
              if name not in ("octets", "packets", "direction")}  # fmt: skip
    for name, other in (("start", "reverseFlowStartMilliseconds"), ("end", "reverseFlowEndMilliseconds"),
                        ("end_reason", "reverseFlowEndReason")):  # fmt: skip
        replace(values, name, find(batch, other))
    answer = Direction(batch.n, values | counters, bits, turned=True)
    _answer_icmp(answer, bits)
    return _counted(answer)


def _count(find: Find, batch: Batch, values: dict[str, Value], counters: Iterable[tuple[str, Quantity]]) -> int:
    """Note octets and packets, each of a delta counter, else of a total; the bits of `_KINDS`."""
    total: dict[str, bool] = {}
    for name, quantity in counters:
        for totals in (False, True):
            before = name in values
            add_first(values, name, find, batch, [c.name for c in quantity.counters if c.total is totals])
            if name in values and not before:
                total[name] = totals
    kinds = {*total.values()}
    return _KINDS[total.get("octets", kinds == {True}), len(kinds) > 1]


def _counted(answer: Direction) -> Direction:
    """Only the rows with packets or octets; without any count an answer is unknown."""
    some = np.zeros(answer.n, bool)
    unknown = np.ones(answer.n, bool)
    for name in ("octets", "packets"):
        if name in answer.values:
            column, missing = answer.values[name]
            some |= column != 0 if missing is None else (column != 0) & ~missing
            unknown &= False if missing is None else missing
    return answer.only(some, int(np.count_nonzero(~some & ~unknown)))


def _single(find: Find, batch: Batch) -> Direction:
    values, bits = _common(find, batch)
    add(values, "source", find(batch, "orig.ip.saddr"))
    add(values, "destination", find(batch, "orig.ip.daddr"))
    add(values, "source_port", find(batch, "orig.l4.sport"))
    add(values, "destination_port", find(batch, "orig.l4.dport"))
    for name, others in (
        ("start", ("first_ms",)),
        ("end", ("last_ms",)),
        ("end_reason", ("flowEndReason",)),
        ("flow_id", ("flowId",)),
        ("direction", ("flowDirection",)),
    ):
        add_first(values, name, find, batch, others)
    bits |= _count(find, batch, values, _COUNTERS)
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
    add(common, "flow_id", find(batch, "ct.id"))
    original, reply = _tuple(find, batch, "orig"), _tuple(find, batch, "reply")
    _align_ports(original, reply)
    nat = _translated(original, reply)
    translated = {"nat_source": "destination", "nat_destination": "source",
                  "nat_source_port": "destination_port", "nat_destination_port": "source_port"}  # fmt: skip
    found = []
    for prefix, number, own, other in (("orig", ORIGINAL, original, reply), ("reply", REPLY, reply, original)):
        values = common | own | {new: other[old] for new, old in translated.items() if old in other}
        values["direction"] = (all_rows(number, batch.n), None)
        add(values, "octets", find(batch, f"{prefix}.raw.pktlen"))
        add(values, "packets", find(batch, f"{prefix}.raw.pktcount"))
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
        add(values, name, find(batch, f"{prefix}.{key}"))
    return values


def _align_ports(original: dict[str, Value], reply: dict[str, Value]) -> None:
    """Ports are there in both tuples of a row or in none: the kernel does so, and translated ports are the other's."""
    ports = [(values, name) for values in (original, reply) for name in ("source_port", "destination_port")]
    if all(name in values for values, name in ports):
        masks = [values[name][1] for values, name in ports]
        missing = any_of(masks)
        if missing is not None:
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
    """The end reason: closed TCP has ended; other flows were idle for too long, as far as the kernel reports.

    Missing for TCP without a state from the kernel.
    """
    state = find(batch, "ct.tcp.state")
    unknown = np.ones(batch.n, bool) if state is None else state.missing
    reasons = all_rows(IDLE, batch.n)
    if state is not None:
        closed = (state.numbers == _TIME_WAIT) | (state.numbers == _CLOSE)
        if unknown is not None:
            closed &= ~unknown
        reasons = np.where(closed, np.uint8(ENDED), reasons)
    if unknown is not None and "protocol" in values:
        unknown = unknown & (values["protocol"][0] == _TCP)
    told = find(batch, "flowEndReason")  # of flows that live and are reported meanwhile
    if told is not None and told.missing is None:
        return told.numbers, None
    return reasons, or_none(unknown)


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
    return reply.only(~none, int(np.count_nonzero(none)))


# --- both kinds -----------------------------------------------------------------------------------------------------


def _common(find: Find, batch: Batch) -> tuple[dict[str, Value], int]:
    """The values that both directions of a flow have in common, and the bits of the batch."""
    values: dict[str, Value] = {}
    source = find(batch, "orig.ip.saddr")
    bits = IPV6 if source is not None and source.key.type is types.IPV6 else 0
    add(values, "protocol", find(batch, "orig.ip.protocol"))
    add(values, "start", find(batch, "flowStartMilliseconds"))
    add(values, "end", find(batch, "flowEndMilliseconds"))
    if (icmp := _icmp(find, batch, bits, values.get("protocol"))) is not None:
        values["icmp"] = icmp
    return values, bits


def _icmp(find: Find, batch: Batch, bits: int, protocol: Value | None) -> Value | None:
    """Type and code as one number (icmpTypeCodeIPv4, icmpTypeCodeIPv6); missing for all but ICMP.

    Exporters that have one template for everything send 0 there with TCP and UDP.
    """
    whole = find(batch, "icmpTypeCodeIPv6" if bits & IPV6 else "icmpTypeCodeIPv4")
    if whole is not None:
        column, masks = whole.numbers, [whole.missing]
    else:
        prefix = "icmpv6" if bits & IPV6 else "icmp"
        type_, code = find(batch, f"{prefix}.type"), find(batch, f"{prefix}.code")
        if type_ is None or code is None:
            return None
        column, masks = type_.numbers.astype(np.uint16) << np.uint16(8) | code.numbers, [type_.missing, code.missing]
    if protocol is not None:
        masks += [protocol[0] != (_ICMPV6 if bits & IPV6 else _ICMP), protocol[1]]
    missing = any_of(masks)
    if missing is not None and missing.all():
        return None
    return column, or_none(missing)
