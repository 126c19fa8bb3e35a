"""Packets within packets: the innermost packets of tunnels (see `tunnel_headers`), for many packets at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ulogd_tw.packets.headers import Headers, decode
from ulogd_tw.packets.tunnel_headers import GRE, MPLS_IN_IP, PLAIN, UDP, behind_labels, gre, over_udp, plain, sensible
from ulogd_tw.packets.walk import NOWHERE

TUNNEL = ("tunnel.protocol", "tunnel.id", "tunnel.source", "tunnel.destination")
"""The protocol that carries the packet, the key or network identifier, the ends of the tunnel."""
MOST_TUNNELS = 4
"""How deep tunnels within tunnels are followed."""
_WANTED = frozenset((
    "sourceIPv4Address", "destinationIPv4Address", "sourceIPv6Address", "destinationIPv6Address", "protocolIdentifier",
    "destinationTransportPort", "fragmentOffset",
))  # fmt: skip
_MAPPED = np.uint64(0xFFFF << 32)


@dataclass(slots=True)
class Inside:
    """The innermost packets: beginnings, lengths and first headers (see `headers.decode`).

    `protocol` is that of the outermost tunnel (IP protocol; 17 for VXLAN and GENEVE; 137 for Ethernet behind a label
    stack), 0 without a tunnel. `ident` is the key of GRE, the label or the network identifier of the others, valid in
    `has_ident`. `source` and `destination` are the ends of this tunnel, IPv4 ones mapped into IPv6, (n, 2), valid in
    `has_ends`.
    """

    starts: np.ndarray
    lengths: np.ndarray
    first: np.ndarray
    protocol: np.ndarray
    ident: np.ndarray
    has_ident: np.ndarray
    has_ends: np.ndarray
    source: np.ndarray
    destination: np.ndarray

    @property
    def any(self) -> bool:
        """Whether there is a tunnel."""
        return bool(self.protocol.any())

    def columns(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The keys of `TUNNEL`: values, and masks of missing rows. Keys without any value are left out."""
        pairs = zip(
            TUNNEL,
            ((self.protocol, self.protocol != 0), (self.ident, self.has_ident), (self.source, self.has_ends),
             (self.destination, self.has_ends)),
            strict=True,
        )  # fmt: skip
        return {name: (values, ~there) for name, (values, there) in pairs if there.any()}


def inside(octets: np.ndarray, starts: np.ndarray, lengths: np.ndarray, first: np.ndarray) -> Inside:
    """The packets inside tunnels; a packet without tunnel stays as it is. Arguments as of `headers.decode`.

    Cut or invalid headers count as no tunnel.
    """
    n = len(starts)
    found = Inside(
        starts.astype(np.int64), lengths.astype(np.int64), first.copy(), np.zeros(n, np.uint8), np.zeros(n, np.uint32),
        np.zeros(n, bool), np.zeros(n, bool), np.zeros((n, 2), np.uint64), np.zeros((n, 2), np.uint64),
    )  # fmt: skip
    rows = np.arange(n)
    for _ in range(MOST_TUNNELS):
        parts = decode(octets, found.starts[rows], found.lengths[rows], found.first[rows], _WANTED)
        rows = np.concatenate([_enter(octets, part, rows, found) for part in parts] or [NOWHERE])
        if not len(rows):
            break
    return found


def _enter(octets: np.ndarray, part: Headers, rows: np.ndarray, found: Inside) -> np.ndarray:
    """Go into the tunnels of packets of one family; the packets that are within by one more."""
    if part.family:
        protocol = _protocol(part)
        entered = [plain(np.flatnonzero(protocol == number), part, *rest) for number, *rest in PLAIN]
        entered += [gre(octets, np.flatnonzero(protocol == GRE), part),
                    over_udp(octets, np.flatnonzero(protocol == UDP), part)]  # fmt: skip
    else:
        protocol, entered = np.full(part.n, MPLS_IN_IP), [behind_labels(octets, part)]
    places, at, first, ident, has_ident = (np.concatenate(column) for column in zip(*entered, strict=True))
    there = sensible(octets, at, part.ends[places], first)
    places, at, first, ident, has_ident = (c[there] for c in (places, at, first, ident, has_ident))
    inner = rows[part.rows[places]]
    outermost = found.protocol[inner] == 0
    new, of = inner[outermost], places[outermost]
    found.protocol[new] = protocol[of]
    found.ident[new], found.has_ident[new] = ident[outermost], has_ident[outermost]
    if part.family:
        found.has_ends[new] = True
        found.source[new], found.destination[new] = (_mapped(part, side, of) for side in ("source", "destination"))
    found.starts[inner], found.lengths[inner] = at, part.ends[places] - at
    found.first[inner] = first
    return inner


def _protocol(part: Headers) -> np.ndarray:
    """The protocol after the headers of IP, -1 if unknown."""
    protocol = part.columns.get("protocolIdentifier")
    if protocol is None:
        return np.full(part.n, -1)
    masked = part.missing.get("protocolIdentifier")
    protocol = protocol.astype(np.int64) if masked is None else np.where(masked, -1, protocol)
    if "fragmentOffset" in part.columns:  # what is behind the header of a later fragment begins anywhere
        protocol = np.where(part.columns["fragmentOffset"] > 0, -1, protocol)
    return protocol


def _mapped(part: Headers, side: str, places: np.ndarray) -> np.ndarray:
    """The outer addresses of these rows as IPv6, (n, 2)."""
    if part.family == 6:
        return part.columns[f"{side}IPv6Address"][places]
    four = part.columns[f"{side}IPv4Address"][places].astype(np.uint64)
    return np.stack((np.zeros(len(four), np.uint64), _MAPPED | four), axis=1)
