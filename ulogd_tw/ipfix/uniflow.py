"""The exporter's templates: records of one direction of a flow, fixed fields, fixed numbers.

The complete record is template 256. A row with a missing value goes out in a template without this field, so a missing
counter is never 0. Each difference is a bit, and the template's id is 256 plus the bits: an id always means the same
template, even after a restart, and a collector may keep it over UDP for ever.
"""

from __future__ import annotations

from functools import cache

from ulogd_tw.ipfix.message import FIRST_DATA_SET
from ulogd_tw.ipfix.template import Field, Template

IPV6 = 1
"""IPv6 addresses in place of IPv4 ones."""
NAT = 2
"""With addresses, and where there are ports, ports after translation."""
ICMP = 4
"""ICMP type and code in place of ports."""
NO_PORTS = 8
NO_OCTETS = 16
NO_PACKETS = 32
NO_START = 64
NO_END = 128
NO_FLOW_ID = 256
NO_DIRECTION = 512
NO_END_REASON = 1024
TOTALS = 2048
"""octetTotalCount and packetTotalCount in place of the DeltaCounts: totals of other exporters stay totals."""
NO_PROTOCOL = 4096
NO_ADDRESSES = 8192
VARIANTS = 1 << 14
"""How many with fixed numbers there can be."""
MIXED = VARIANTS
"""Packets are counted in the other way than octets, which `TOTALS` is about. Such templates have no fixed number."""

# name of the value, bits that must be set, bits that must not be set, element, octets
_FIELDS = (
    ("source", 0, NO_ADDRESSES | IPV6, 8, 4),
    ("destination", 0, NO_ADDRESSES | IPV6, 12, 4),
    ("source", IPV6, NO_ADDRESSES, 27, 16),
    ("destination", IPV6, NO_ADDRESSES, 28, 16),
    ("source_port", 0, NO_PORTS | ICMP, 7, 2),
    ("destination_port", 0, NO_PORTS | ICMP, 11, 2),
    ("protocol", 0, NO_PROTOCOL, 4, 1),
    ("octets", 0, NO_OCTETS | TOTALS, 1, 8),
    ("packets", 0, NO_PACKETS | TOTALS | MIXED, 2, 8),
    ("octets", TOTALS, NO_OCTETS, 85, 8),
    ("packets", TOTALS, NO_PACKETS | MIXED, 86, 8),
    ("packets", MIXED, NO_PACKETS | TOTALS, 86, 8),
    ("packets", TOTALS | MIXED, NO_PACKETS, 2, 8),
    ("start", 0, NO_START, 152, 8),
    ("end", 0, NO_END, 153, 8),
    ("end_reason", 0, NO_END_REASON, 136, 1),
    ("flow_id", 0, NO_FLOW_ID, 148, 8),
    ("direction", 0, NO_DIRECTION, 61, 1),
    ("icmp", ICMP, IPV6, 32, 2),
    ("icmp", ICMP | IPV6, 0, 139, 2),
    ("nat_source", NAT, IPV6, 225, 4),
    ("nat_destination", NAT, IPV6, 226, 4),
    ("nat_source", NAT | IPV6, 0, 281, 16),
    ("nat_destination", NAT | IPV6, 0, 282, 16),
    ("nat_source_port", NAT, NO_PORTS | ICMP, 227, 2),
    ("nat_destination_port", NAT, NO_PORTS | ICMP, 228, 2),
)


UPTIMES = {"start": Field(0, 22, 4), "end": Field(0, 21, 4)}
"""flowStartSysUpTime and flowEndSysUpTime, FIRST_SWITCHED and LAST_SWITCHED of NetFlow v9 (RFC 3954 section 8)."""


@cache
def values(variant: int) -> tuple[str, ...]:
    """The names of the values of a record with these bits, in order; empty where nothing is left of it."""
    return tuple(name for name, there, gone, _, _ in _FIELDS if variant & there == there and not variant & gone)


@cache
def template(variant: int, uptimes: bool = False) -> Template:
    """The template of records with these bits; `uptimes`: NetFlow's, with milliseconds of uptime for times."""
    found = (f for f in _FIELDS if variant & f[1] == f[1] and not variant & f[2])
    fields = (UPTIMES.get(name, Field(0, element, octets)) if uptimes else Field(0, element, octets)
              for name, _, _, element, octets in found)  # fmt: skip
    return Template(FIRST_DATA_SET + variant, tuple(fields))
