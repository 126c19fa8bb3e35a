"""goflow2's FlowMessage, in Protocol Buffers: columns become the octets of rows, and octets become columns.

The numbers of the fields are those of goflow2's flow.proto. proto3 leaves out fields that are 0 or empty, and so do we.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.resolve import Find, Found

ROWS = 8192
"""Rows written at once: their octets fit into the second-level cache."""
IPFIX = 4
"""FlowType of rows with Information Elements."""
_ETHERTYPES = {1: 0x0800, 2: 0x86DD}
"""By the dimensions of an array of addresses."""
_MS = 10**6
"""Nanoseconds of a millisecond."""


@dataclass(frozen=True, slots=True)
class FlowField:
    """One field: its number, and the keys that it is taken from, the first that a row has."""

    number: int
    name: str
    keys: tuple[str, ...]
    address: bool = False
    factor: int = 1


FIELDS = (
    FlowField(3, "sampling_rate", ("samplingInterval", "samplingPacketInterval", "sampling_factor")),
    FlowField(6, "src_addr", ("sourceAddress",), address=True),
    FlowField(7, "dst_addr", ("destinationAddress",), address=True),
    FlowField(9, "bytes", ("octets",)),
    FlowField(10, "packets", ("packets",)),
    FlowField(11, "sampler_address", ("exporter",), address=True),
    FlowField(12, "next_hop", ("ipNextHopAddress",), address=True),
    FlowField(13, "next_hop_as", ("bgpNextAdjacentAsNumber",)),
    FlowField(14, "src_as", ("bgpSourceAsNumber",)),
    FlowField(15, "dst_as", ("bgpDestinationAsNumber",)),
    FlowField(16, "src_net", ("sourceIPv4PrefixLength", "sourceIPv6PrefixLength")),
    FlowField(17, "dst_net", ("destinationIPv4PrefixLength", "destinationIPv6PrefixLength")),
    FlowField(18, "in_if", ("ingressInterface",)),
    FlowField(19, "out_if", ("egressInterface",)),
    FlowField(20, "proto", ("protocolIdentifier",)),
    FlowField(21, "src_port", ("sourceTransportPort",)),
    FlowField(22, "dst_port", ("destinationTransportPort",)),
    FlowField(23, "ip_tos", ("ipClassOfService",)),
    FlowField(24, "forwarding_status", ("forwardingStatus",)),
    FlowField(25, "ip_ttl", ("ipTTL", "minimumTTL")),
    FlowField(26, "tcp_flags", ("tcpControlBits",)),
    FlowField(27, "src_mac", ("sourceMacAddress",)),
    FlowField(28, "dst_mac", ("destinationMacAddress", "postDestinationMacAddress")),
    FlowField(29, "vlan_id", ("dot1qVlanId",)),
    FlowField(31, "icmp_type", ("icmpTypeIPv4", "icmpTypeIPv6")),
    FlowField(32, "icmp_code", ("icmpCodeIPv4", "icmpCodeIPv6")),
    FlowField(33, "src_vlan", ("vlanId",)),
    FlowField(34, "dst_vlan", ("postVlanId",)),
    FlowField(35, "fragment_id", ("fragmentIdentification",)),
    FlowField(36, "fragment_offset", ("fragmentOffset",)),
    FlowField(37, "ipv6_flow_label", ("flowLabelIPv6",)),
    FlowField(70, "observation_domain_id", ("observationDomainId",)),
    FlowField(71, "observation_point_id", ("observationPointId",)),
    FlowField(100, "bgp_next_hop", ("bgpNextHopAddress",), address=True),
    FlowField(110, "time_received_ns", ("received_ms",), factor=_MS),
    FlowField(111, "time_flow_start_ns", ("flowStartMilliseconds",), factor=_MS),
    FlowField(112, "time_flow_end_ns", ("flowEndMilliseconds",), factor=_MS),
)  # fmt: skip
"""The fields with keys of ours. type and etype are known by the form of the rows."""
KEYS = tuple(dict.fromkeys(name for field in FIELDS for name in field.keys))
"""The keys that a message is made of."""
_TYPE, _ETYPE, _RECEIVED = 1, 30, 110
_VARINT, _LENGTH = 0, 2
"""Wire types."""


def varint(value: int) -> bytes:
    """A number as Protocol Buffers have it."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


class _Parts:
    """Octets of rows, a piece after the other, each of its own length in each row."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.octets: list[np.ndarray] = []
        self.there: list[np.ndarray] = []

    def numbers(self, tag: bytes, values: np.ndarray) -> None:
        """A varint in the rows where it is not 0; numbers are not negative."""
        widest = int(values.max(initial=0))
        if not widest:
            return
        given = values != 0
        self._tag(tag, given)
        octets, there = varints(values.astype(np.uint64), widest)
        self.octets.append(octets)
        self.there.append(there & given[:, None])

    def fixed(self, tag: bytes, octets: np.ndarray, given: np.ndarray) -> None:
        """As many octets in each row where they are `given`, with their number before them."""
        self._tag(tag + varint(octets.shape[1]), given)
        self.octets.append(octets)
        self.there.append(np.broadcast_to(given[:, None], octets.shape))

    def _tag(self, tag: bytes, given: np.ndarray) -> None:
        octets = np.broadcast_to(np.frombuffer(tag, np.uint8), (self.n, len(tag)))
        self.octets.append(octets)
        self.there.append(np.broadcast_to(given[:, None], octets.shape))

    def rows(self, sized: bool) -> tuple[np.ndarray, np.ndarray]:
        """The octets of all rows after each other, and the length of each; `sized`: with its length before it."""
        if not self.octets:
            return np.zeros(0, np.uint8), np.zeros(self.n, np.int64)
        lengths = sum((there.sum(1) for there in self.there), np.zeros(self.n, np.int64))
        if sized:
            octets, there = varints(lengths.astype(np.uint64), int(lengths.max(initial=0)))
            self.octets.insert(0, octets)
            self.there.insert(0, there)
            lengths = lengths + there.sum(1)
        return np.concatenate(self.octets, axis=1)[np.concatenate(self.there, axis=1)], lengths


def varints(values: np.ndarray, widest: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (uint64) of at most `widest` as varints: a row of octets for each, and which of them are there."""
    width = max((widest.bit_length() + 6) // 7, 1)
    shifts = np.arange(0, 7 * width, 7, dtype=np.uint64)
    shifted = values[:, None] >> shifts
    there = shifted != 0
    there[:, 0] = True
    octets = (shifted & np.uint64(0x7F)).astype(np.uint8)
    octets[:, :-1] |= there[:, 1:].astype(np.uint8) << 7
    return octets, there


class FlowMessages:
    """Writes rows as FlowMessages."""

    def __init__(self, find: Find, sized: bool) -> None:
        """`sized`: each with its length before it, as for many in one Kafka message."""
        self._find = find
        self._sized = sized

    def values(self, batch: Batch) -> Octets:
        """The rows of a batch."""
        octets, lengths = [], [np.zeros(1, np.int64)]
        for start in range(0, batch.n, ROWS):
            some, their = self._some(batch.take(slice(start, min(start + ROWS, batch.n))))
            octets.append(some)
            lengths.append(their)
        return Octets(np.cumsum(np.concatenate(lengths)), np.concatenate(octets or [np.zeros(0, np.uint8)]))

    def _some(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        parts = _Parts(batch.n)
        parts.numbers(varint(_TYPE << 3 | _VARINT), np.full(batch.n, IPFIX, np.uint8))
        etype = np.zeros(batch.n, np.uint16)
        for field in FIELDS:
            found = [one for name in field.keys if (one := self._find(batch, name)) is not None]
            if field.address:
                self._address(parts, field, found, etype if field.number in (6, 7) else None)
            else:
                parts.numbers(varint(field.number << 3 | _VARINT), self._numbers(batch, field, found))
        parts.numbers(varint(_ETYPE << 3 | _VARINT), etype)
        return parts.rows(self._sized)

    @staticmethod
    def _numbers(batch: Batch, field: FlowField, found: Sequence[Found]) -> np.ndarray:
        values = np.zeros(batch.n, np.uint64)
        for one in reversed([one for one in found if isinstance(one.values, np.ndarray)]):
            own = one.numbers
            if own.dtype.kind == "f":
                own = np.where(np.isfinite(own), own, 0)
            own = np.maximum(own, 0).astype(np.uint64)
            values = own if one.missing is None else np.where(one.missing, values, own)
        if field.number == _RECEIVED and not found:
            values = np.full(batch.n, int(batch.now * 1000), np.uint64)
        return values * np.uint64(field.factor) if field.factor != 1 else values

    @staticmethod
    def _address(parts: _Parts, field: FlowField, found: Sequence[Found], etype: np.ndarray | None) -> None:
        tag = varint(field.number << 3 | _LENGTH)
        free = np.ones(parts.n, bool)
        for one in found:
            if not isinstance(one.values, np.ndarray):
                continue
            octets = address_octets(one.numbers)
            given = free if one.missing is None else free & ~one.missing
            parts.fixed(tag, octets, given)
            free = free & ~given
            if etype is not None:
                etype[given] = _ETHERTYPES[one.numbers.ndim]


def address_octets(values: np.ndarray) -> np.ndarray:
    """Addresses in network order, a row of 4 or 16 octets each."""
    order = ">u4" if values.ndim == 1 else ">u8"
    return np.ascontiguousarray(values.astype(order)).view(np.uint8).reshape(len(values), -1)
