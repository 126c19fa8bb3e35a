"""Records beside the packet in flow samples of sFlow, as tables of their fields (sflow.org, "sFlow Structure Numbers").

User, URL, MPLS, NAT, tunnels, VXLAN and 802.11, and the additions of monitors of dropped packets: queues, filters,
reasons.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from ulogd_tw.core.columns import Octets, taken
from ulogd_tw.ipfix.sflow.cursor import Cursor, texts
from ulogd_tw.ipfix.sflow.gateway import put_address
from ulogd_tw.ipfix.sflow.samples import Reading
from ulogd_tw.packets.headers import Headers
from ulogd_tw.packets.link import MOST_LABELS

Read = Callable[[Reading, Cursor, Headers, str], None]
_MAPPED = np.uint64(0xFFFF << 32)


def _number(form: str) -> Read:
    def read(reading: Reading, cursor: Cursor, found: Headers, name: str) -> None:
        values = cursor.number()
        if name:
            found.put(name, values, cursor.rows, form)

    return read


def _unlike_all_ones(reading: Reading, cursor: Cursor, found: Headers, name: str) -> None:
    """A number that is not known where all bits are set."""
    values = cursor.number()
    known = values != 0xFFFFFFFF
    found.put(name, values[known], cursor.rows[known])


def _long(reading: Reading, cursor: Cursor, found: Headers, name: str) -> None:
    values = cursor.long()
    found.put(name, values, cursor.rows, "L")


def _mac(reading: Reading, cursor: Cursor, found: Headers, name: str) -> None:
    values = cursor.mac()
    found.put(name, values, cursor.rows, "L")


def _text(reading: Reading, cursor: Cursor, found: Headers, name: str) -> None:
    values = cursor.octets()
    some = np.flatnonzero(values.lengths)
    found.put_octets(name, values.take(some), cursor.rows[some])


def _mapped(reading: Reading, cursor: Cursor, found: Headers, name: str) -> None:
    """An address of IPv4, as one of IPv6."""
    values = cursor.ipv4().astype(np.uint64)
    found.put(name, np.stack((np.zeros_like(values), _MAPPED | values), axis=1), cursor.rows, "L")


def _ipv6(reading: Reading, cursor: Cursor, found: Headers, name: str) -> None:
    values = cursor.ipv6()
    found.put(name, values, cursor.rows, "L")


def _in_labels(reading: Reading, cursor: Cursor, found: Headers, name: str) -> None:
    """The label stack of the packet, where its header did not tell: keys as of `packets.link`."""
    at, count = cursor.array()
    rows = cursor.rows
    first = found.columns.get("mplsTopLabelStackSection")
    if first is not None:
        gone = found.missing.get("mplsTopLabelStackSection", np.zeros(found.n, bool))
        at, count, rows = at[gone[rows]], count[gone[rows]], rows[gone[rows]]
    for depth in range(min(MOST_LABELS, int(count.max(initial=0)))):
        here = count > depth
        entries = taken(reading.octets, (at[here] + depth) * 4, 4).reshape(-1, 4)[:, :3]
        key = "mplsTopLabelStackSection" if depth == 0 else f"mplsLabelStackSection{depth + 1}"
        data = np.ascontiguousarray(entries).reshape(-1)
        found.put_octets(key, Octets(np.arange(len(entries) + 1) * 3, data), rows[here])


def _list(written: Callable[[int], int]) -> Read:
    """A list of numbers as text, with spaces between."""

    def text(octets: bytes) -> bytes:
        return b" ".join(b"%d" % written(number) for number in struct.unpack(f"!{len(octets) // 4}I", octets))

    def read(reading: Reading, cursor: Cursor, found: Headers, name: str) -> None:
        at, count = cursor.array()
        some = count > 0
        if name in found.wanted and some.any():
            found.put_octets(name, texts(reading, at[some], count[some], text), cursor.rows[some])

    return read


_skip, _word, _half, _octet = _number("I"), _number("I"), _number("H"), _number("B")
Fields = tuple[tuple[Read, str], ...]


def _ethernet(side: str) -> Fields:
    return (_skip, ""), (_mac, f"{side}TunnelSourceMacAddress"), (_mac, f"{side}TunnelDestinationMacAddress")


def _around(side: str, address: Read) -> Fields:
    return ((_skip, ""), (_octet, f"{side}TunnelProtocol"), (address, f"{side}TunnelSource"),
            (address, f"{side}TunnelDestination"))  # fmt: skip


EXTENDED: dict[int, Fields] = {
    1004: ((_skip, ""), (_text, "userName"), (_skip, ""), (_text, "destinationUserName")),
    1005: ((_word, "urlDirection"), (_text, "httpRequestTarget"), (_text, "httpRequestHost")),
    1006: ((put_address, "mplsTopLabel"), (_in_labels, ""), (_list(lambda entry: entry >> 12), "mplsOutLabels")),
    1007: ((put_address, "postNATSource"), (put_address, "postNATDestination")),
    1008: ((_text, "mplsTunnelName"), (_word, "mplsTunnelId"), (_word, "mplsTunnelCos")),
    1009: ((_text, "mplsVcName"), (_word, "mplsVcId"), (_word, "mplsVcLabelCos")),
    1010: ((_text, "mplsFtnDescription"), (_word, "mplsFtnMask")),
    1011: ((_word, "mplsFecPrefixLength"),),
    1012: ((_list(lambda tag: tag & 0xFFF), "vlanTunnel"),),
    1014: ((_text, "wlanSSID"), (_mac, "wlanBssid"), (_word, "wlanVersion"), (_octet, "wlanChannelId"),
           (_long, "wlanSpeed"), (_word, "wlanRsni"), (_word, "wlanRcpi"), (_word, "wlanPacketDuration")),
    1015: ((_text, "wlanSSID"), (_mac, "wlanBssid"), (_word, "wlanVersion"), (_word, "wlanTransmissions"),
           (_word, "wlanPacketDuration"), (_word, "wlanRetransmissionDuration"), (_octet, "wlanChannelId"),
           (_long, "wlanSpeed"), (_word, "wlanPower")),
    1020: ((_half, "postNAPTSourceTransportPort"), (_half, "postNAPTDestinationTransportPort")),
    1021: _ethernet("egress"),
    1022: _ethernet("ingress"),
    1023: _around("egress", _mapped),
    1024: _around("ingress", _mapped),
    1025: _around("egress", _ipv6),
    1026: _around("ingress", _ipv6),
    1027: ((_word, "egressInnerHeaderOffset"),),
    1028: ((_word, "ingressInnerHeaderOffset"),),
    1029: ((_word, "egressVni"),),
    1030: ((_word, "ingressVni"),),
    1036: ((_word, "egressQueue"),),
    1037: ((_word, "aclNumber"), (_text, "aclName"), (_word, "aclDirection")),
    1038: ((_text, "kernelFunction"),),
    1039: ((_unlike_all_ones, "transitDelay"),),
    1040: ((_unlike_all_ones, "queueDepth"),),
    1041: ((_text, "hardwareTrapGroup"), (_text, "hardwareTrap")),
    1042: ((_text, "kernelDropReason"),),
}  # fmt: skip
"""By the format: the fields in their order, and the keys that have them."""


def read_extended(tag: int, reading: Reading, cursor: Cursor, found: Headers) -> None:
    """Put what a record of this format says, as far as it is there."""
    for read, name in EXTENDED[tag]:
        if not len(cursor.rows):
            break
        read(reading, cursor, found, name)
