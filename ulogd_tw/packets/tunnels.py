"""Packets within packets: what IP in IP, GRE, VXLAN and GENEVE carry, for many packets at once.

IP in IP   RFC 2003, RFC 2473, RFC 4213: protocols 4 and 41
GRE        RFC 2784, RFC 2890: checksum, key and sequence are optional; NVGRE (RFC 7637) is GRE with Ethernet
VXLAN      RFC 7348, UDP port 4789 (8472 in old kernels)
GENEVE     RFC 8926, UDP port 6081, options passed over
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ulogd_tw.core.columns import taken
from ulogd_tw.packets.headers import ETHERNET, IP, Headers, decode

MOST_TUNNELS = 4
"""How deep tunnels within tunnels are followed."""
IPIP, IPV6_IN_IP, GRE, UDP = 4, 41, 47, 17
VXLAN_PORTS, GENEVE_PORT = (4789, 8472), 6081
_ETHERNET_IN_GRE = 0x6558
_CHECKSUM, _ROUTING, _KEY, _SEQUENCE, _VERSION = 0x8000, 0x4000, 0x2000, 0x1000, 0x0007
_WANTED = frozenset((
    "sourceIPv4Address", "destinationIPv4Address", "sourceIPv6Address", "destinationIPv6Address", "protocolIdentifier",
    "destinationTransportPort", "fragmentOffset",
))  # fmt: skip
_MAPPED = np.uint64(0xFFFF << 32)
_NONE = np.zeros(0, np.int64)


@dataclass(slots=True)
class Inside:
    """Where the innermost packets begin, how long they are and what they begin with (see `headers.decode`).

    `protocol` is that of the outermost tunnel (IP protocol; 17 for VXLAN and GENEVE), 0 where there is none; `ident`
    the key of GRE or the network identifier of the others, where `has_ident`; `source` and `destination` the ends of
    that tunnel, IPv4 ones mapped into IPv6, (n, 2).
    """

    starts: np.ndarray
    lengths: np.ndarray
    first: np.ndarray
    protocol: np.ndarray
    ident: np.ndarray
    has_ident: np.ndarray
    source: np.ndarray
    destination: np.ndarray

    @property
    def any(self) -> bool:
        """Whether there is a tunnel."""
        return bool(self.protocol.any())


def inside(octets: np.ndarray, starts: np.ndarray, lengths: np.ndarray, first: np.ndarray) -> Inside:
    """What the packets carry in tunnels; a packet that is in none is as it was. Arguments as of `headers.decode`.

    What is cut or makes no sense counts as no tunnel.
    """
    n = len(starts)
    found = Inside(
        starts.astype(np.int64), lengths.astype(np.int64), first.copy(), np.zeros(n, np.uint8), np.zeros(n, np.uint32),
        np.zeros(n, bool), np.zeros((n, 2), np.uint64), np.zeros((n, 2), np.uint64),
    )  # fmt: skip
    rows = np.arange(n)
    for _ in range(MOST_TUNNELS):
        parts = decode(octets, found.starts[rows], found.lengths[rows], found.first[rows], _WANTED)
        rows = np.concatenate([_enter(octets, part, rows, found) for part in parts if part.family in (4, 6)] or [_NONE])
        if not len(rows):
            break
    return found


def _enter(octets: np.ndarray, part: Headers, rows: np.ndarray, found: Inside) -> np.ndarray:
    """Go into the tunnels of packets of one family; the packets that are within by one more."""
    protocol = part.columns.get("protocolIdentifier")
    if protocol is None:
        return _NONE
    masked = part.missing.get("protocolIdentifier")
    protocol = protocol.astype(np.int64) if masked is None else np.where(masked, -1, protocol)
    if "fragmentOffset" in part.columns:  # what is behind the header of a later fragment begins anywhere
        protocol = np.where(part.columns["fragmentOffset"] > 0, -1, protocol)
    entered = [
        _plain(np.flatnonzero(protocol == IPIP), part, IP),
        _plain(np.flatnonzero(protocol == IPV6_IN_IP), part, IP),
        _gre(octets, np.flatnonzero(protocol == GRE), part),
        _over_udp(octets, np.flatnonzero(protocol == UDP), part),
    ]
    places, at, first, ident, has_ident = (np.concatenate(column) for column in zip(*entered, strict=True))
    there = part.ends[places] - at >= 1
    places, at, first, ident, has_ident = (c[there] for c in (places, at, first, ident, has_ident))
    inner = rows[part.rows[places]]
    outermost = found.protocol[inner] == 0
    new, of = inner[outermost], places[outermost]
    found.protocol[new] = protocol[of]
    found.ident[new], found.has_ident[new] = ident[outermost], has_ident[outermost]
    found.source[new], found.destination[new] = (_mapped(part, side, of) for side in ("source", "destination"))
    found.starts[inner], found.lengths[inner] = at, part.ends[places] - at
    found.first[inner] = first
    return inner


_Entered = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Places in a part, where the inner packet begins and what with, the identifier, whether there is one."""


def _plain(places: np.ndarray, part: Headers, first: int) -> _Entered:
    n = len(places)
    return places, part.payload[places], np.full(n, first), np.zeros(n, np.uint32), np.zeros(n, bool)


def _having(places: np.ndarray, part: Headers, octets: int) -> np.ndarray:
    """Those that have so many octets behind the headers of IP."""
    return places[part.payload[places] + octets <= part.ends[places]]


def _gre(octets: np.ndarray, places: np.ndarray, part: Headers) -> _Entered:
    """Of version 0, without routing."""
    places = _having(places, part, 4)
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
    first = np.where(head[:, 1] == _ETHERNET_IN_GRE, ETHERNET, head[:, 1])
    return places, at + size, first, ident, keyed


def _over_udp(octets: np.ndarray, places: np.ndarray, part: Headers) -> _Entered:
    """VXLAN and GENEVE, by the port that they go to."""
    ports = part.columns.get("destinationTransportPort")
    if ports is None or not len(places):
        return _plain(_NONE, part, ETHERNET)
    masked = part.missing.get("destinationTransportPort")
    to = ports[places].astype(np.int64) if masked is None else np.where(masked[places], 0, ports[places])
    vxlan = (to == VXLAN_PORTS[0]) | (to == VXLAN_PORTS[1])
    places, vxlan = places[vxlan | (to == GENEVE_PORT)], vxlan[vxlan | (to == GENEVE_PORT)]
    room = part.payload[places] + 16 <= part.ends[places]
    places, vxlan = places[room], vxlan[room]
    at = part.payload[places] + 8  # behind the header of UDP
    head = taken(octets, at, 8).reshape(-1, 8)
    # VXLAN: the flag that says that there is an identifier; GENEVE: version 0
    good = np.where(vxlan, (head[:, 0] & 0x08) != 0, head[:, 0] >> 6 == 0)
    places, vxlan, at, head = places[good], vxlan[good], at[good], head[good].astype(np.int64)
    size = 8 + np.where(vxlan, 0, 4 * (head[:, 0] & 0x3F))
    kind = head[:, 2] << 8 | head[:, 3]
    first = np.where(vxlan | (kind == _ETHERNET_IN_GRE), ETHERNET, kind)
    ident = (head[:, 4] << 16 | head[:, 5] << 8 | head[:, 6]).astype(np.uint32)
    return places, at + size, first, ident, np.ones(len(places), bool)


def _mapped(part: Headers, side: str, places: np.ndarray) -> np.ndarray:
    """The outer addresses of these rows as IPv6, (n, 2)."""
    if part.family == 6:
        return part.columns[f"{side}IPv6Address"][places]
    four = part.columns[f"{side}IPv4Address"][places].astype(np.uint64)
    return np.stack((np.zeros(len(four), np.uint64), _MAPPED | four), axis=1)
