"""The headers of many packets at once: from raw octets to columns by the names of keys.

The packets are walked in step, layer by layer; each layer reads the packets with its kind of header. A field beyond the
captured octets is missing. Octets of a neighbour are never used, and nothing raises.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

import numpy as np

from ulogd_tw.packets import link, network, transport
from ulogd_tw.packets.link import ARP, ETHERNET, IP, IPV4, IPV6, LEAST_ETHERTYPE, MPLS
from ulogd_tw.packets.transport import TCP, WITH_PORTS
from ulogd_tw.packets.walk import CUT, MALFORMED, Headers, Walk

__all__ = ["ARP", "CUT", "ETHERNET", "IP", "LEAST_ETHERTYPE", "MALFORMED", "MPLS", "TCP", "WITH_PORTS", "Headers",
           "decode", "names"]  # fmt: skip


def decode(
    octets: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    first: np.ndarray,
    wanted: Container[str],
    faults: np.ndarray | None = None,
) -> list[Headers]:
    """The headers of packets: packet i is ``octets[starts[i]:starts[i] + lengths[i]]`` and begins as `first` says.

    `octets` is uint8; `starts` and `lengths` are int64; `first` has `ETHERNET`, `IP`, `MPLS`, an EtherType, or 0 for an
    unreadable link. Only `wanted` columns are made: the elements of `names`, and with a frozenset ulogd2's keys too.
    There is one result for each family, and each packet is in one of them. ARP is a family if one of its keys is
    wanted. `faults` (uint8) gets `CUT` or `MALFORMED` for an incomplete or impossible header.
    """
    asked = wanted if isinstance(wanted, frozenset) else frozenset(name for name in _NAMES if name in wanted)
    walk = Walk(octets, starts, lengths)
    below = Headers(0, np.arange(len(starts)), wanted, asked)
    _begin(walk, first, below)
    found = []
    for family, mask in _families(walk, bool(asked & link.ARP_KEYS)):
        rows = np.flatnonzero(mask)
        if len(rows):
            headers = below.of(family, rows)
            headers.begins = walk.at[rows]
            headers.label = walk.label[rows] if walk.label is not None else None
            _above(walk, rows, headers)
            headers.payload, headers.ends = walk.at[rows], walk.end[rows]
            found.append(headers)
    if faults is not None:
        faults[:] = walk.fault
    return found


def _begin(walk: Walk, first: np.ndarray, found: Headers) -> None:
    """The layers before IP."""
    if walk.compiled is not None and not found.asked & link.OF_LINK:
        odd = walk.compiled.links(first, link.OTHERS)
        if odd is None:
            return
        first = np.where(odd, first, 0)
    link.ethernet(walk, np.flatnonzero(first == ETHERNET), found)
    link.labels(walk, np.flatnonzero(first == MPLS), found)
    link.ip(walk, np.flatnonzero(first == IP))
    rows = np.flatnonzero(first >= LEAST_ETHERTYPE)
    if len(rows):
        link.typed(walk, rows, first[rows].astype(np.int32), found)


def _families(walk: Walk, arp: bool) -> Iterator[tuple[int, np.ndarray]]:
    if walk.compiled is not None:
        families = walk.compiled.families()
        four, six = families == 4, families == 6
    else:
        four, six = _whole(walk, walk.kind == IPV4, 20, 4), _whole(walk, walk.kind == IPV6, 40, 6)
    yield 4, four
    yield 6, six
    rest = ~(four | six)
    if arp:
        asking = walk.kind == ARP
        yield ARP, asking
        rest &= ~asking
    yield 0, rest


def _whole(walk: Walk, mask: np.ndarray, octets: int, version: int) -> np.ndarray:
    """The packets with the complete fixed header and the right version in it."""
    rows = np.flatnonzero(mask)
    if not len(rows):
        return mask
    whole = walk.having(rows, octets)
    right = walk.octets[walk.at[whole]] >> 4 == version
    if len(whole) == len(rows) and right.all():
        return mask
    walk.blame(whole[~right], MALFORMED)
    found = np.zeros(len(mask), bool)
    found[whole[right]] = True
    return found


def _above(walk: Walk, rows: np.ndarray, found: Headers) -> None:
    if found.family == 4:
        transport.transport(walk, rows, network.ipv4(walk, rows, found), found)
    elif found.family == 6:
        transport.transport(walk, rows, network.ipv6(walk, rows, found), found)
    elif found.family == ARP:
        link.arp(walk, rows, found)


def names() -> Iterator[str]:
    """The elements known to `decode`."""
    yield from (*link.names(), *network.names(), *transport.names())


_NAMES = tuple(names())
