"""The headers of many packets at once: from raw octets to columns with the names of Information Elements.

The packets are walked in step: at each layer those are looked at that have a header of its kind. What lies beyond the
captured octets is missing; nothing is ever read of a neighbour, and nothing raises.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

import numpy as np

from ulogd_tw.core.columns import Octets, taken
from ulogd_tw.core.sheet import Sheet

ETHERNET, IP, MPLS = 1, 2, 3
"""How packets begin: with Ethernet, with IPv4 or IPv6 by the version, or with a label stack and then IP."""

_ETHERTYPE_IPV4, _ETHERTYPE_IPV6, _LABELS, _LABELS_MULTICAST, _PPPOE = 0x0800, 0x86DD, 0x8847, 0x8848, 0x8864
_TAGS = (0x8100, 0x88A8, 0x9100, 0x9200)
"""EtherTypes of VLAN tags: 802.1Q, 802.1ad, and two from before that."""
_LEAST_ETHERTYPE = 0x0600
MOST_TAGS, MOST_LABELS, MOST_EXTENSIONS = 4, 10, 8
"""How far tags, labels (as many as IPFIX has elements for) and extension headers of IPv6 are followed."""
_ICMP, TCP, _UDP, _DCCP, _ESP, _AH, _ICMPV6, _SCTP, _UDP_LITE = 1, 6, 17, 33, 50, 51, 58, 132, 136
_FRAGMENT = 44
_OPTIONS = (0, 43, 60, 135, 139, 140)
"""Extension headers of IPv6 with their length in 8 octets (RFC 8200 section 4, RFC 6275, RFC 7401, RFC 5533)."""
_EXTENSIONS = (*_OPTIONS, _FRAGMENT, _AH)
WITH_PORTS = (TCP, _UDP, _DCCP, _SCTP, _UDP_LITE)


def _marked(size: int, *numbers: int) -> np.ndarray:
    """A table that is true at these numbers: looking up costs a small batch far less than `np.isin`."""
    table = np.zeros(size, bool)
    table[list(numbers)] = True
    return table


_IS_TAG = _marked(1 << 16, *_TAGS)
_IS_EXTENSION = _marked(1 << 8, *_EXTENSIONS)
_NONE = np.zeros(0, np.int64)
_HAS_PORTS = _marked((1 << 8) + 1, *WITH_PORTS)  # the last place is that of -1

_ETHERNET = np.dtype([("destination", "u1", 6), ("source", "u1", 6), ("type", ">u2")])
_IPV4 = np.dtype(
    [("vihl", "u1"), ("tos", "u1"), ("length", ">u2"), ("id", ">u2"), ("fragment", ">u2"), ("ttl", "u1"),
     ("protocol", "u1"), ("checksum", ">u2"), ("source", ">u4"), ("destination", ">u4")]
)  # fmt: skip
_IPV6 = np.dtype(
    [("first", ">u4"), ("length", ">u2"), ("next", "u1"), ("hops", "u1"), ("source", ">u8", 2),
     ("destination", ">u8", 2)]
)  # fmt: skip


class Headers(Sheet):
    """What was found of packets of one family (4, 6, or 0 for neither), by the names of elements.

    `rows` says which packets they are. `payload` is where the octets behind the headers of IP begin, for each row;
    `ends` where those of the packet end, without what follows it in a frame.
    """

    __slots__ = ("family", "rows", "payload", "ends")

    def __init__(self, family: int, rows: np.ndarray, wanted: Container[str]) -> None:
        super().__init__(len(rows), wanted)
        self.family = family
        self.rows = rows
        self.payload: np.ndarray | None = None
        self.ends: np.ndarray | None = None

    def of(self, family: int, places: np.ndarray) -> Headers:
        """What is known of some of the rows, which are of a family."""
        found = Headers(family, self.rows[places], self.wanted)
        found.take(self, places)
        return found


class _Walk:
    """Where each packet is read next. `at` and `end` are places in `octets`; `kind` an EtherType, 0 for unknown."""

    def __init__(self, octets: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> None:
        self.octets = octets
        self.at = starts.astype(np.int64)
        self.end = self.at + lengths
        self.kind = np.zeros(len(starts), np.int32)

    def having(self, rows: np.ndarray, octets: int) -> np.ndarray:
        """Those of the rows that have so many octets left."""
        if not len(rows):
            return rows
        return rows[self.at[rows] + octets <= self.end[rows]]

    def view(self, rows: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """The headers that begin where these rows are read next; they must be there."""
        return taken(self.octets, self.at[rows], dtype.itemsize).view(dtype)

    def numbers(self, rows: np.ndarray, offset: int, form: str) -> np.ndarray:
        """A number of each row, `offset` octets from where it is read next; it must be there."""
        dtype = np.dtype(form)
        return taken(self.octets, self.at[rows] + offset, dtype.itemsize).view(dtype).astype(np.int64)


def decode(
    octets: np.ndarray, starts: np.ndarray, lengths: np.ndarray, first: np.ndarray, wanted: Container[str]
) -> list[Headers]:
    """The headers of packets: packet i is ``octets[starts[i]:starts[i] + lengths[i]]`` and begins as `first` says.

    `octets` is uint8; `starts` and `lengths` are int64; `first` has `ETHERNET`, `IP`, `MPLS`, or 0 for what cannot be
    read. Only columns that are `wanted` are made. One result for each family that there is; each packet is in
    one of them.
    """
    walk = _Walk(octets, starts, lengths)
    link = Headers(0, np.arange(len(starts)), wanted)
    _ethernet(walk, np.flatnonzero(first == ETHERNET), link)
    _labels(walk, np.flatnonzero(first == MPLS), link)
    _ip_kind(walk, np.flatnonzero(first == IP))
    found = []
    four, six = (walk.kind == _ETHERTYPE_IPV4), (walk.kind == _ETHERTYPE_IPV6)
    four, six = _whole(walk, four, 20, 4), _whole(walk, six, 40, 6)
    for family, mask in ((4, four), (6, six), (0, ~(four | six))):
        rows = np.flatnonzero(mask)
        if not len(rows):
            continue
        headers = link.of(family, rows)
        if family == 4:
            _transport(walk, rows, _ipv4(walk, rows, headers), headers)
        elif family == 6:
            _transport(walk, rows, _ipv6(walk, rows, headers), headers)
        headers.payload, headers.ends = walk.at[rows], walk.end[rows]
        found.append(headers)
    return found


def _whole(walk: _Walk, mask: np.ndarray, octets: int, version: int) -> np.ndarray:
    """Those that have the fixed header, with its version in it."""
    rows = walk.having(np.flatnonzero(mask), octets)
    rows = rows[walk.octets[walk.at[rows]] >> 4 == version]
    found = np.zeros(len(mask), bool)
    found[rows] = True
    return found


# below IP


def _ethernet(walk: _Walk, rows: np.ndarray, found: Headers) -> None:
    rows = walk.having(rows, _ETHERNET.itemsize)
    if not len(rows):
        return
    view = walk.view(rows, _ETHERNET)
    for name, part in (("sourceMacAddress", "source"), ("destinationMacAddress", "destination")):
        found.put(name, _mac(view[part]), rows, "L")
    kind = view["type"].astype(np.int32)
    walk.at[rows] += _ETHERNET.itemsize
    kind = _tags(walk, rows, kind, found)
    kind = _snap(walk, rows, kind)
    # A length is no type, and behind a tag that is cut the type is not known.
    typed = np.flatnonzero((kind >= _LEAST_ETHERTYPE) & ~_IS_TAG[kind])
    found.put("ethernetType", kind[typed], rows[typed], "H")
    walk.kind[rows] = kind
    _pppoe(walk, rows[kind == _PPPOE])
    _labels(walk, rows[(kind == _LABELS) | (kind == _LABELS_MULTICAST)], found)


def _mac(octets: np.ndarray) -> np.ndarray:
    wide = np.zeros((len(octets), 8), np.uint8)
    wide[:, 2:] = octets
    return wide.view(">u8")[:, 0]


def _tags(walk: _Walk, rows: np.ndarray, kind: np.ndarray, found: Headers) -> np.ndarray:
    """VLAN tags: the first is the service's or the only one, the second the customer's. Gives the EtherTypes behind."""
    names = (("dot1qVlanId", "dot1qPriority"), ("dot1qCustomerVlanId", "dot1qCustomerPriority"))
    for depth in range(MOST_TAGS):
        here = np.flatnonzero(_IS_TAG[kind])
        here = here[walk.at[rows[here]] + 4 <= walk.end[rows[here]]]
        if not len(here):
            break
        tagged = rows[here]
        tag = walk.numbers(tagged, 0, ">u2")
        if depth < len(names):
            found.put(names[depth][0], tag & 0xFFF, tagged, "H")
            found.put(names[depth][1], tag >> 13, tagged, "B")
        if depth == 0:
            found.put("vlanId", tag & 0xFFF, tagged, "H")
        kind = kind.copy()
        kind[here] = walk.numbers(tagged, 2, ">u2")
        walk.at[tagged] += 4
    return kind


def _snap(walk: _Walk, rows: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """802.3 with LLC and SNAP: the EtherType stands behind them."""
    here = np.flatnonzero(kind < _LEAST_ETHERTYPE)
    here = here[walk.at[rows[here]] + 8 <= walk.end[rows[here]]]
    if len(here):
        snap = (walk.numbers(rows[here], 0, ">u4") == 0xAAAA0300) & (walk.numbers(rows[here], 4, ">u2") == 0)
        here = here[snap]
        kind = kind.copy()
        kind[here] = walk.numbers(rows[here], 6, ">u2")
        walk.at[rows[here]] += 8
    return kind


def _pppoe(walk: _Walk, rows: np.ndarray) -> None:
    """PPPoE session packets (RFC 2516): six octets, then PPP's protocol."""
    rows = walk.having(rows, 8)
    if not len(rows):
        return
    protocol = walk.numbers(rows, 6, ">u2")
    walk.at[rows] += 8
    walk.kind[rows] = np.where(protocol == 0x21, _ETHERTYPE_IPV4, np.where(protocol == 0x57, _ETHERTYPE_IPV6, 0))


def _labels(walk: _Walk, rows: np.ndarray, found: Headers) -> None:
    """The MPLS label stack (RFC 3032), and what stands below it, by its first four bits."""
    for depth in range(MOST_LABELS):
        rows = walk.having(rows, 4)
        if not len(rows):
            return
        entries = taken(walk.octets, walk.at[rows], 4).reshape(-1, 4)
        name = "mplsTopLabelStackSection" if depth == 0 else f"mplsLabelStackSection{depth + 1}"
        _put_octets(found, name, entries[:, :3], rows)
        walk.at[rows] += 4
        bottom = (entries[:, 2] & 1).astype(bool)
        _ip_kind(walk, rows[bottom])
        rows = rows[~bottom]


def _put_octets(found: Headers, name: str, values: np.ndarray, rows: np.ndarray) -> None:
    """A column of octet strings of one length."""
    if name not in found.wanted:
        return
    n, size = len(found.rows), values.shape[1]
    mask = np.ones(n, bool)
    mask[rows] = False
    lengths = np.where(mask, 0, size)
    offsets = np.zeros(n + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    order = np.argsort(rows, kind="stable")
    found.columns[name] = Octets(offsets, np.ascontiguousarray(values[order]).reshape(-1))
    if mask.any():
        found.missing[name] = mask


def _ip_kind(walk: _Walk, rows: np.ndarray) -> None:
    """IPv4 or IPv6 by the version in the first octet."""
    rows = walk.having(rows, 1)
    if not len(rows):
        return
    version = walk.octets[walk.at[rows]] >> 4
    walk.kind[rows] = np.where(version == 4, _ETHERTYPE_IPV4, np.where(version == 6, _ETHERTYPE_IPV6, 0))


# IP


def _ipv4(walk: _Walk, rows: np.ndarray, found: Headers) -> np.ndarray:
    """Fields of IPv4; the protocol of what stands behind it, -1 in later fragments and headers too short to be."""
    view = walk.view(rows, _IPV4)
    length, fragment = view["length"].astype(np.int64), view["fragment"]
    header = (view["vihl"] & 15).astype(np.int64) * 4
    for name, values, dtype in (
        ("sourceIPv4Address", view["source"], "I"),
        ("destinationIPv4Address", view["destination"], "I"),
        ("ipClassOfService", view["tos"], "B"),
        ("ipTTL", view["ttl"], "B"),
        ("ipTotalLength", length, "L"),
        ("fragmentIdentification", view["id"], "I"),
        ("fragmentFlags", fragment >> 13 << 5, "B"),
        ("fragmentOffset", fragment & 0x1FFF, "H"),
        ("ipVersion", np.full(len(rows), 4), "B"),
        ("protocolIdentifier", view["protocol"], "B"),
    ):
        found.put(name, values, None, dtype)
    # What follows the packet on the wire (padding of short frames) is not of it. 0: segmented by the network card.
    ends = np.where(length >= header, walk.at[rows] + length, walk.end[rows])
    walk.end[rows] = np.minimum(walk.end[rows], ends)
    walk.at[rows] = np.minimum(walk.at[rows] + header, walk.end[rows])
    return np.where(((fragment & 0x1FFF) != 0) | (header < 20), -1, view["protocol"].astype(np.int32))


def _ipv6(walk: _Walk, rows: np.ndarray, found: Headers) -> np.ndarray:
    """As `_ipv4`; extension headers are passed over, and the protocol is what stands behind them."""
    view = walk.view(rows, _IPV6)
    length, first = view["length"].astype(np.int64), view["first"]
    for name, values, dtype in (
        ("sourceIPv6Address", view["source"], "L"),
        ("destinationIPv6Address", view["destination"], "L"),
        ("ipClassOfService", first >> 20 & 0xFF, "B"),
        ("flowLabelIPv6", first & 0xFFFFF, "I"),
        ("ipTTL", view["hops"], "B"),
        ("ipTotalLength", length + 40, "L"),
        ("ipVersion", np.full(len(rows), 6), "B"),
    ):
        found.put(name, values, None, dtype)
    ends = np.where(length > 0, walk.at[rows] + 40 + length, walk.end[rows])
    walk.end[rows] = np.minimum(walk.end[rows], ends)
    walk.at[rows] += 40
    return _extensions(walk, rows, view["next"].astype(np.int32), found)


def _extensions(walk: _Walk, rows: np.ndarray, protocol: np.ndarray, found: Headers) -> np.ndarray:
    """Pass over extension headers; the protocol behind them, -1 in later fragments and where it is not known."""
    if not _IS_EXTENSION[protocol].any():
        found.put("protocolIdentifier", protocol, None, "B")
        return protocol
    word = np.full(len(rows), -1, np.int64)  # of the fragment header; a second one cannot be
    ident = np.zeros(len(rows), np.int64)
    for _ in range(MOST_EXTENSIONS):
        going = (word < 0) | ((word >> 3 == 0) & (protocol != _FRAGMENT))
        here = np.flatnonzero(_IS_EXTENSION[protocol] & going)
        here = here[walk.at[rows[here]] + 8 <= walk.end[rows[here]]]
        if not len(here):
            break
        at, kind = rows[here], protocol[here]
        following, size = walk.numbers(at, 0, "u1"), walk.numbers(at, 1, "u1")
        size = np.where(kind == _FRAGMENT, 8, np.where(kind == _AH, (size + 2) * 4, (size + 1) * 8))
        pieces = kind == _FRAGMENT
        if pieces.any():
            word[here[pieces]] = walk.numbers(at[pieces], 2, ">u2")
            ident[here[pieces]] = walk.numbers(at[pieces], 4, ">u4")
        protocol[here] = following
        walk.at[at] = np.minimum(walk.at[at] + size, walk.end[at])
    split = np.flatnonzero(word >= 0)
    found.put("fragmentOffset", word[split] >> 3, split, "H")
    found.put("fragmentFlags", (word[split] & 1) << 5, split, "B")
    found.put("fragmentIdentification", ident[split], split, "I")
    # Headers that are cut, or too many: what they lead to is not known.
    reached = ~_IS_EXTENSION[protocol]
    found.put("protocolIdentifier", protocol[reached], reached, "B")
    return np.where(reached & (word >> 3 <= 0), protocol, -1)


# above IP


def _transport(walk: _Walk, rows: np.ndarray, protocol: np.ndarray, found: Headers) -> None:
    """Ports, flags, types; `protocol` is -1 for packets whose header is elsewhere."""
    asked_ports = "sourceTransportPort" in found.wanted or "destinationTransportPort" in found.wanted
    ports = np.flatnonzero(_HAS_PORTS[protocol]) if asked_ports else _NONE
    ports = ports[walk.at[rows[ports]] + 4 <= walk.end[rows[ports]]]
    if len(ports):
        found.put("sourceTransportPort", walk.numbers(rows[ports], 0, ">u2"), ports, "H")
        found.put("destinationTransportPort", walk.numbers(rows[ports], 2, ">u2"), ports, "H")
    for kind, fields in _FIELDS.items():
        asked = [field for field in fields if field[0] in found.wanted]
        if not asked or not len(places := np.flatnonzero(protocol == kind)):
            continue
        for name, offset, form, mask, dtype in asked:
            octets = np.dtype(form).itemsize
            here = places[walk.at[rows[places]] + offset + octets <= walk.end[rows[places]]]
            if len(here):
                found.put(name, walk.numbers(rows[here], offset, form) & mask, here, dtype)


_FIELDS = {
    TCP: (
        ("tcpSequenceNumber", 4, ">u4", 0xFFFFFFFF, "I"),
        ("tcpAcknowledgementNumber", 8, ">u4", 0xFFFFFFFF, "I"),
        ("tcpControlBits", 12, ">u2", 0x0FFF, "H"),
        ("tcpWindowSize", 14, ">u2", 0xFFFF, "H"),
    ),
    _UDP: (("udpMessageLength", 4, ">u2", 0xFFFF, "H"),),
    _ICMP: (("icmpTypeCodeIPv4", 0, ">u2", 0xFFFF, "H"),),
    _ICMPV6: (("icmpTypeCodeIPv6", 0, ">u2", 0xFFFF, "H"),),
    _ESP: (("IPSecSPI", 0, ">u4", 0xFFFFFFFF, "I"),),
}
"""Of each protocol: element, offset, form on the wire, bits that count, form of the column."""


def names() -> Iterator[str]:
    """The elements that `decode` may find."""
    yield from ("sourceMacAddress", "destinationMacAddress", "ethernetType", "vlanId", "dot1qVlanId", "dot1qPriority",
                "dot1qCustomerVlanId", "dot1qCustomerPriority", "mplsTopLabelStackSection")  # fmt: skip
    yield from (f"mplsLabelStackSection{n}" for n in range(2, MOST_LABELS + 1))
    yield from ("ipVersion", "protocolIdentifier", "sourceIPv4Address", "destinationIPv4Address", "sourceIPv6Address",
                "destinationIPv6Address", "ipClassOfService", "flowLabelIPv6", "ipTTL", "ipTotalLength",
                "fragmentIdentification", "fragmentFlags", "fragmentOffset", "sourceTransportPort",
                "destinationTransportPort")  # fmt: skip
    yield from dict.fromkeys(entry[0] for entries in _FIELDS.values() for entry in entries)
