"""BASE: decodes headers of packets into ulogd2's keys and the IPFIX elements shared by transports and families."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ulogd_tw.core import columns, types
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Column
from ulogd_tw.core.counters import Fault
from ulogd_tw.core.keys import Key, known, ulogd_keys
from ulogd_tw.core.options import Option, one_of
from ulogd_tw.core.plugin import PACKET, RAW, Filter, Wanted
from ulogd_tw.packets import headers, tunnels
from ulogd_tw.packets.headers import Headers
from ulogd_tw.packets.link import beginnings
from ulogd_tw.packets.tunnels import TUNNEL

AF_INET, AF_INET6, AF_BRIDGE = 2, 10, 7
_ETHERTYPES = {4: 0x0800, 6: 0x86DD, headers.ARP: 0x0806}
_FAMILIES = {4: AF_INET, 6: AF_INET6, headers.ARP: AF_BRIDGE}
_FAULTS = {headers.CUT: "cut", headers.MALFORMED: "malformed"}
FOUND = (
    "ip.saddr", "ip.daddr", "ip.protocol", "ip.tos", "ip.ttl", "ip.totlen", "ip.ihl", "ip.csum", "ip.id", "ip.fragoff",
    "ip6.payloadlen", "ip6.priority", "ip6.flowlabel", "ip6.hoplimit", "ip6.nexthdr", "ip6.fragoff", "ip6.fragid",
    "tcp.sport", "tcp.dport", "tcp.seq", "tcp.ackseq", "tcp.window", "tcp.offset", "tcp.reserved", "tcp.urg",
    "tcp.urgp", "tcp.ack", "tcp.psh", "tcp.rst", "tcp.syn", "tcp.fin", "tcp.res1", "tcp.res2", "tcp.csum",
    "udp.sport", "udp.dport", "udp.len", "udp.csum", "icmp.type", "icmp.code", "icmp.echoid", "icmp.echoseq",
    "icmp.gateway", "icmp.fragmtu", "icmp.csum", "icmpv6.type", "icmpv6.code", "icmpv6.echoid", "icmpv6.echoseq",
    "icmpv6.csum", "ahesp.spi", "arp.hwtype", "arp.protocoltype", "arp.operation", "arp.shwaddr", "arp.saddr",
    "arp.dhwaddr", "arp.daddr", "sctp.sport", "sctp.dport", "sctp.csum",
)  # fmt: skip
"""ulogd2's keys of BASE, in ulogd2's order."""
COMMON = (
    "sourceTransportPort", "destinationTransportPort", "protocolIdentifier", "ipVersion", "ipClassOfService", "ipTTL",
    "ipTotalLength", "fragmentIdentification", "fragmentFlags", "fragmentOffset", "nextHeaderIPv6", "tcpControlBits",
    "icmpTypeCodeIPv4", "icmpTypeCodeIPv6", "icmp.parameter", "udpMessageLength", "IPSecSPI", "sourceMacAddress",
    "destinationMacAddress", "ethernetType", "vlanId", "dot1qVlanId", "dot1qPriority", "dot1qCustomerVlanId",
    "dot1qCustomerPriority", "mplsTopLabelStackSection", *(f"mplsLabelStackSection{n}" for n in range(2, 11)),
)  # fmt: skip
"""Further keys, each for all transports and both families."""
POSITION = "raw.position"
"""The number of a packet in its read: the order of packets of different families."""
OF_PACKETS = ("octetDeltaCount", "packetDeltaCount", "raw.pkt", POSITION)
"""The counters of a packet as a flow; the packet itself and its place, passed on only on request."""


class BASE(Filter):
    """Decodes the headers of packets: link, VLAN tags, MPLS labels, ARP, IPv4, IPv6, TCP, UDP, SCTP and ICMP.

    It gives ulogd2's keys and, on request, IPFIX elements shared by all transports and families (sourceTransportPort,
    tcpControlBits, ipTotalLength). Only keys wanted by plugins below it are decoded. Packets of IPv4, of IPv6, of ARP
    and of other protocols leave in separate batches. A packet with a cut or malformed header is counted and passed on
    with the keys decoded so far.
    """

    name = "BASE"
    itype = RAW
    otype = PACKET
    provides = ulogd_keys(*FOUND[:51], "oob.protocol", *FOUND[51:], "oob.family", *COMMON, *OF_PACKETS, *TUNNEL)
    hidden = frozenset((*COMMON, "octetDeltaCount", "packetDeltaCount", POSITION, *TUNNEL))
    counts = (
        Fault("cut", "packets", "Packets cut within a header; they pass with the keys decoded so far."),
        Fault("malformed", "packets", "Packets with impossible headers; they pass with the keys decoded so far."),
        Fault("link", "packets", "Packets of an unknown link type; they pass without keys."),
        Fault("no_packet", "rows", "Rows without a packet; they pass as they are."),
    )
    options = (
        Option("tunnels", one_of("outer", "inner"), "outer", "outer: decode the outer headers of tunnelled packets. "
               "inner: for IP in IP, GRE, VXLAN, GENEVE, GTP-U, MPLS over IP and Ethernet over MPLS decode the headers "
               "of the packet inside; the outer header is in tunnel.source, tunnel.destination, tunnel.protocol and "
               "tunnel.id."),
    )  # fmt: skip

    def requests(self, wanted: Wanted) -> dict[str, bool]:
        return {"raw.pkt": True, "raw.pktlen": False, "raw.linktype": False, "oob.family": False, "oob.protocol": False}

    @cached_property
    def _asked(self) -> frozenset[str]:
        """The names for `headers.decode`; computed when rows flow, since requests are settled by then."""
        asked = frozenset(name for name in (*FOUND, *COMMON) if name in self.wanted)
        if "octetDeltaCount" in self.wanted:
            asked |= {"ipTotalLength"}
        if {"oob.family", "oob.protocol"} & set(self._given):
            asked |= {"arp.operation"}  # ARP is then a family
        return asked

    @cached_property
    def _given(self) -> tuple[str, ...]:
        """The wanted keys, in order."""
        return tuple(key.name for key in self.provides if key.name in self.wanted)

    def process(self, batch: Batch) -> list[Batch]:
        found = self.find(batch, "raw.pkt")
        if found is None or isinstance(found.values, np.ndarray):
            self.counters.errors["no_packet"] += batch.n
            return [batch]
        octets, starts, lengths = columns.places(found.values)
        if found.missing is not None:
            lengths = np.where(found.missing, 0, lengths)
        linked = self.find(batch, "raw.linktype")
        faults = np.zeros(batch.n, np.uint8)
        if linked is not None:
            starts, lengths, first, unknown = beginnings(octets, starts, lengths, linked.values)
            self._count("link", unknown)
        else:
            first = self._network(batch)
        if self.config.tunnels == "inner":
            inside = tunnels.inside(octets, starts, lengths, first)
            if inside.any:
                starts, lengths, first = inside.starts, inside.lengths, inside.first
                batch = self._with_tunnels(batch, inside)
        parts = headers.decode(octets, starts, lengths, first, self._asked, faults)
        if faults.any():
            for fault, reason in _FAULTS.items():
                self._count(reason, faults == fault)
        return [self._batch(batch, part, linked is not None, lengths) for part in parts]

    def _with_tunnels(self, batch: Batch, inside: tunnels.Inside) -> Batch:
        chosen = {name: pair for name, pair in inside.columns().items() if name in self._given}
        masks = {name: mask for name, (_, mask) in chosen.items() if mask.any()}
        return batch.with_columns({known(name): column for name, (column, _) in chosen.items()}, masks)

    def _count(self, reason: str, rows: np.ndarray) -> None:
        if count := int(np.count_nonzero(rows)):
            self.counters.errors[reason] += count

    def _network(self, batch: Batch) -> np.ndarray:
        """The first header of packets without a link header: from the family, for a bridge from the EtherType."""
        family, protocol = self.find(batch, "oob.family"), self.find(batch, "oob.protocol")
        kind = np.zeros(batch.n, np.int64) if protocol is None else protocol.values.astype(np.int64)
        if protocol is not None and protocol.missing is not None:
            kind[protocol.missing] = 0
        kind[kind < headers.LEAST_ETHERTYPE] = 0
        if family is None:
            return np.where(kind == 0, headers.IP, kind)
        kind = np.where(family.values == AF_INET, 0x0800, kind)
        return np.where(family.values == AF_INET6, 0x86DD, kind)

    def _batch(self, batch: Batch, part: Headers, linked: bool, lengths: np.ndarray) -> Batch:
        """The rows of one family, with the columns found."""
        if "raw.pkt" not in self.wanted:
            batch = batch.select([name for name in batch.schema if name != "raw.pkt"])
        if len(part.rows) < batch.n:
            batch, lengths = batch.take(part.rows), lengths[part.rows]
        made = self._of_all(part, linked, lengths) | part.columns
        added = {key_of(name, made[name]): made[name] for name in self._given if name in made}
        return batch.with_columns(added, {name: part.missing[name] for name in self._given if name in part.missing})

    def _of_all(self, part: Headers, linked: bool, lengths: np.ndarray) -> dict[str, Column]:
        """Columns with one value for all packets of a family, and the packets' counters as flows."""
        n, made = len(part.rows), {}
        if linked and part.family:
            made["oob.family"] = columns.repeated(_FAMILIES[part.family], n, types.UNSIGNED8.dtype)
            made["oob.protocol"] = columns.repeated(_ETHERTYPES[part.family], n, types.UNSIGNED16.dtype)
        made[POSITION] = part.rows.astype(np.uint32)
        made["packetDeltaCount"] = columns.repeated(1, n, types.UNSIGNED64.dtype)
        if "octetDeltaCount" in self.wanted and part.family in (4, 6):
            total = part.columns["ipTotalLength"]
            least = 0 if part.family == 4 else 40  # of a packet that the network card has yet to cut, or a jumbogram
            made["octetDeltaCount"] = np.where(total > least, total, lengths).astype(np.uint64)
        return made


_KEYS: dict[tuple[str, bool], Key] = {}


def key_of(name: str, column: Column) -> Key:
    """The key of a column; an address has its family."""
    wide = isinstance(column, np.ndarray) and column.ndim == 2
    key = _KEYS.get((name, wide))
    if key is None:
        key = known(name)
        if key.type is types.ADDRESS:
            key = key.typed(types.IPV6 if wide else types.IPV4)
        _KEYS[name, wide] = key
    return key
