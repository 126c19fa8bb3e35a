"""The headers of tunnels, between an IP header or a label stack and the packet inside, for many packets at once.

IP in IP   RFC 2003, RFC 2473, RFC 4213: protocols 4 and 41; MPLS (137), Ethernet (143, 97 with two octets of EtherIP)
GRE        RFC 2784, RFC 2890: checksum, key and sequence are optional; NVGRE (RFC 7637) is GRE with Ethernet;
           ERSPAN: GRE with a header of its own and a mirrored frame
VXLAN      RFC 7348, UDP port 4789 (8472 in old kernels); with other packets than Ethernet (GPE) port 4790
GENEVE     RFC 8926, UDP port 6081, options passed over
MPLS       RFC 7510, UDP port 6635
GTP-U      3GPP TS 29.281, UDP port 2152, extension headers passed over
EoMPLS     RFC 4448: Ethernet behind a label stack, with a control word or without
"""

from __future__ import annotations

import numpy as np

from ulogd_tw.core.columns import numbers, taken
from ulogd_tw.packets.headers import Headers
from ulogd_tw.packets.link import ARP, ETHERNET, IP, IPV4, IPV6, LEAST_ETHERTYPE, MPLS
from ulogd_tw.packets.walk import NOWHERE, marked

Entered = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Places in a part, the beginnings of the inner packets and their first headers, the identifiers, a mask of those."""
MPLS_IN_IP, GRE, UDP = 137, 47, 17
PLAIN = ((4, IP, 0), (41, IP, 0), (MPLS_IN_IP, MPLS, 0), (143, ETHERNET, 0), (97, ETHERNET, 2))
"""Protocols followed by the packet, its first header, octets before it."""
_ETHERNET_IN_GRE, _ERSPAN, _ERSPAN3 = 0x6558, 0x88BE, 0x22EB
_CHECKSUM, _ROUTING, _KEY, _SEQUENCE, _VERSION = 0x8000, 0x4000, 0x2000, 0x1000, 0x0007
_HAS_HEADER = marked(1 << 16, 4789, 8472, 4790, 6081, 6635, 2152)
_GPE = np.array([0, IPV4, IPV6, ETHERNET, 0, 0x8847, 0, 0], np.int64)
"""VXLAN-GPE's next protocol: IPv4, IPv6, Ethernet, MPLS."""
_MOST_EXTENSIONS = 4
"""Extension headers of GTP-U that are passed over."""
_FRAMED = marked(1 << 16, IPV4, IPV6, ARP, 0x8100, 0x88A8, 0x9100, 0x8847, 0x8848, 0x8863, 0x8864, 0x88CC, 0x88E5,
                 0x8809, 0x888E, 0x88E7, 0x88F7, 0x8902, 0x8906, 0x8915)  # fmt: skip
"""EtherTypes that are known: of IP and ARP, tags, labels, PPPoE, LLDP, MACsec, LACP, 802.1X, PBB, PTP, CFM, FCoE."""


def plain(places: np.ndarray, part: Headers, first: int, before: int = 0) -> Entered:
    """The packet stands right behind the header of IP, or behind some octets `before` it."""
    n = len(places)
    return places, part.payload[places] + before, np.full(n, first), np.zeros(n, np.uint32), np.zeros(n, bool)


def _having(places: np.ndarray, part: Headers, octets: int) -> np.ndarray:
    """A mask of the packets with this number of octets after the headers of IP."""
    return places[part.payload[places] + octets <= part.ends[places]]


def gre(octets: np.ndarray, places: np.ndarray, part: Headers) -> Entered:
    """Of version 0, without routing."""
    places = _having(places, part, 4)
    if not len(places):
        return plain(NOWHERE, part, IP)
    head = taken(octets, part.payload[places], 4).view(">u2").reshape(-1, 2).astype(np.int64)
    good = (head[:, 0] & (_VERSION | _ROUTING)) == 0
    places, head = places[good], head[good]
    keyed = (head[:, 0] & _KEY) != 0
    before = 4 + 4 * ((head[:, 0] & _CHECKSUM) != 0)
    size = before + 4 * keyed + 4 * ((head[:, 0] & _SEQUENCE) != 0)
    whole = part.payload[places] + size <= part.ends[places]
    places, head, keyed, before, size = (column[whole] for column in (places, head, keyed, before, size))
    ident = np.zeros(len(places), np.uint32)
    at = part.payload[places]
    ident[keyed] = taken(octets, at[keyed] + before[keyed], 4).view(">u4")
    kind = head[:, 1]
    first = _beginning(np.where((kind == _ERSPAN) | (kind == _ERSPAN3), _ETHERNET_IN_GRE, kind))
    at = at + size + _mirrored(octets, at + size, part.ends[places], head)
    good = first > 0
    return places[good], at[good], first[good], ident[good], keyed[good]


def _beginning(kind: np.ndarray) -> np.ndarray:
    """The first header of a packet after this protocol type; 0 for unreadable types: these are no tunnels."""
    return np.where(kind == _ETHERNET_IN_GRE, ETHERNET, np.where(_FRAMED[kind], kind, 0))


def _mirrored(octets: np.ndarray, at: np.ndarray, ends: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Octets of ERSPAN's header: none of type I, which has no sequence number; 8 of type II, 12 or 20 of type III."""
    size = np.where((head[:, 1] == _ERSPAN) & ((head[:, 0] & _SEQUENCE) != 0), 8, 0)
    three = np.flatnonzero((head[:, 1] == _ERSPAN3) & (at + 12 <= ends))
    if len(three):
        size[three] = 12 + 8 * (octets[at[three] + 11] & 1)
    return size


def over_udp(octets: np.ndarray, places: np.ndarray, part: Headers) -> Entered:
    """Tunnels known by the UDP port of their destination."""
    ports = part.columns.get("destinationTransportPort")
    if ports is None or not len(places):
        return plain(NOWHERE, part, ETHERNET)
    masked = part.missing.get("destinationTransportPort")
    port = (
        numbers(ports)[places].astype(np.int64)
        if masked is None
        else np.where(masked[places], 0, numbers(ports)[places])
    )
    some = _HAS_HEADER[port] & (part.payload[places] + 16 <= part.ends[places])
    places, port = places[some], port[some]
    at = part.payload[places] + 8  # behind the header of UDP
    head = taken(octets, at, 8).reshape(-1, 8).astype(np.int64)
    size, first, ident, known = _by_port(octets, port, head, at, part.ends[places])
    good = first > 0
    return places[good], (at + size)[good], first[good], ident[good].astype(np.uint32), known[good]


def _by_port(
    octets: np.ndarray, port: np.ndarray, head: np.ndarray, at: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The size of the header behind UDP's, what follows (0: nothing that is known), the identifier, whether it has one.

    `head` are its first eight octets.
    """
    flags, kind = head[:, 0], head[:, 2] << 8 | head[:, 3]
    ident, known = head[:, 4] << 16 | head[:, 5] << 8 | head[:, 6], np.ones(len(port), bool)
    size, first = np.full(len(port), 8), np.zeros(len(port), np.int64)
    # VXLAN: the flag says that there is an identifier; GENEVE: version 0.
    vxlan = ((port == 4789) | (port == 8472) | (port == 4790)) & (flags & 8 != 0)
    first[vxlan] = ETHERNET
    gpe = vxlan & (port == 4790) & (flags & 4 != 0)
    first[gpe] = _GPE[np.minimum(head[gpe, 3], 7)]
    geneve = (port == 6081) & (flags >> 6 == 0)
    first[geneve] = _beginning(kind[geneve])
    size[geneve] += 4 * (flags[geneve] & 0x3F)
    labels = port == 6635
    first[labels], size[labels], known[labels] = MPLS, 0, False
    gtp = np.flatnonzero((port == 2152) & (flags & 0xF0 == 0x30) & (head[:, 1] == 255))
    if len(gtp):
        first[gtp], size[gtp] = IP, 8 + _gtp(octets, flags[gtp], at[gtp] + 8, ends[gtp])
        ident[gtp] = ident[gtp] << 8 | head[gtp, 7]
    return size, first, ident, known


def _gtp(octets: np.ndarray, flags: np.ndarray, at: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Octets of the optional fields and extension headers of GTP-U from `at` on; all that is left of cut ones."""
    begin = at
    at = at + 4 * (flags & 7 != 0)
    more = (flags & 4 != 0) & (at <= ends)
    for _ in range(_MOST_EXTENSIONS):  # the octet before each says that one follows
        here = np.flatnonzero(more)
        here = here[octets[at[here] - 1] != 0]
        cut = at[here] + 4 > ends[here]
        at[here[cut]] = ends[here[cut]]
        here = here[~cut]
        if not len(here):
            break
        at[here] += 4 * np.maximum(octets[at[here]].astype(np.int64), 1)
        more[:] = False
        more[here] = at[here] <= ends[here]
    return np.minimum(at, ends) - begin


def behind_labels(octets: np.ndarray, part: Headers) -> Entered:
    """Ethernet behind a label stack, which is known by its EtherType; the identifier is the bottom label."""
    if part.label is None:
        return plain(NOWHERE, part, ETHERNET)
    places = np.flatnonzero(part.label >= 0)
    at, ends = part.begins[places], part.ends[places]
    whole = at + 14 <= ends
    places, at, ends = places[whole], at[whole], ends[whole]
    if not len(places):
        return plain(NOWHERE, part, ETHERNET)
    worded = (octets[at] >> 4 == 0) & _framed(octets, at + 4, ends)
    good = worded | _framed(octets, at, ends)
    places, at, worded = places[good], at[good], worded[good]
    ident = part.label[places].astype(np.uint32)
    return places, at + 4 * worded, np.full(len(places), ETHERNET), ident, np.ones(len(places), bool)


def sensible(octets: np.ndarray, at: np.ndarray, ends: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Whether a packet that begins so seems to be there: any octets may go to a port, or have a protocol's number."""
    found = at < ends
    of_ip = np.flatnonzero(((first == IP) | (first == IPV4) | (first == IPV6)) & found)
    version = octets[at[of_ip]] >> 4
    four = (version == 4) & (first[of_ip] != IPV6) & (octets[at[of_ip]] & 15 >= 5)
    six = (version == 6) & (first[of_ip] != IPV4)
    found[of_ip] = (four & (at[of_ip] + 20 <= ends[of_ip])) | (six & (at[of_ip] + 40 <= ends[of_ip]))
    frames = np.flatnonzero(first == ETHERNET)
    found[frames] = _framed(octets, at[frames], ends[frames]) | _with_length(octets, at[frames], ends[frames])
    return found


def _with_length(octets: np.ndarray, at: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Whether a frame of 802.3 seems to begin there, as of spanning trees: with a length that can be."""
    found = at + 17 <= ends
    size = taken(octets, at[found] + 12, 2).view(">u2")
    found[found] = (size >= 3) & (size < LEAST_ETHERTYPE) & (size <= ends[found] - at[found] - 14)
    return found


def _framed(octets: np.ndarray, at: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Whether a frame of Ethernet seems to begin there."""
    found = at + 14 <= ends
    found[found] = _FRAMED[taken(octets, at[found] + 12, 2).view(">u2")]
    return found
