"""The words at the beginning of terms, and their keys; of several keys the first one in a row counts."""

from __future__ import annotations

from ulogd_tw.core import quantities

OCTETS = (*quantities.OCTETS.names, "octets", "raw.pktlen")
PACKETS = (*quantities.PACKETS.names, "packets", "raw.pktcount")
SIDES: dict[str, dict[str, tuple[str, ...]]] = {
    "ip": {"src": ("sourceAddress",), "dst": ("destinationAddress",)},
    "port": {"src": ("sourceTransportPort",), "dst": ("destinationTransportPort",)},
    "nat ip": {"src": ("postNATSourceAddress",), "dst": ("postNATDestinationAddress",)},
    "nat port": {"src": ("postNAPTSourceTransportPort",), "dst": ("postNAPTDestinationTransportPort",)},
    "as": {"src": ("bgpSourceAsNumber", "src.as"), "dst": ("bgpDestinationAsNumber", "dst.as")},
    "country": {"src": ("src.country",), "dst": ("dst.country",)},
    "if": {"in": ("ingressInterface", "oob.ifindex_in"), "out": ("egressInterface", "oob.ifindex_out")},
    "mac": {"src": ("sourceMacAddress",), "dst": ("destinationMacAddress",)},
    "mask": {"src": ("sourceIPv4PrefixLength",), "dst": ("destinationIPv4PrefixLength",)},
}
"""Words after ``src`` and ``dst``, or ``in`` and ``out``."""
ALIASES = {"host": "ip", "net": "ip", "portrange": "port", "geo": "country"}
ADDRESSES = {"next": ("ipNextHopAddress",), "bgpnext": ("bgpNextHopAddress",), "router": ("exporter",)}
"""Words before ``ip``."""
EXPORTER = ("exporter", "ident")
LENGTH = ("raw.pktlen",)
PLAIN = {
    "octets": OCTETS, "bytes": OCTETS, "packets": PACKETS, "flows": ("flows", "deltaFlowCount"), "len": LENGTH,
    "tos": ("ipClassOfService",), "vlan": ("vlanId", "dot1qVlanId"), "ttl": ("ipTTL",),
    "mark": ("ct.mark", "oob.mark"), "domain": ("observationDomainId",), "icmp-type": ("icmp.type", "icmpv6.type"),
    "icmp-code": ("icmp.code", "icmpv6.code"), "engine-type": ("engineType",), "engine-id": ("engineId",),
    "fwdstat": ("forwardingStatus",),
}  # fmt: skip
"""Numbers."""
RATES = ("bps", "pps", "bpp", "duration")
FAMILIES = {"inet": "ipv4", "ipv4": "ipv4", "ip": "ipv4", "inet6": "ipv6", "ipv6": "ipv6", "ip6": "ipv6"}
"""Families of addresses; ``ip`` only where no address follows it."""
QUALIFIED = ("src", "dst", "host", "net", "port", "portrange", "proto")
"""Words that may follow a family or a protocol without ``and``, as in ``tcp port 80``."""
LIMITS = {"less": "<=", "greater": ">="}
"""The length of a packet, as tcpdump has it."""
ALL = (
    *PLAIN, *SIDES, *ALIASES, *ADDRESSES, *EXPORTER, *RATES, *FAMILIES, *LIMITS, "proto", "flags", "dscp", "ether",
    "any",
)  # fmt: skip
"""For suggestions."""
