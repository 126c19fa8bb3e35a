"""The layers before IP: links of captures, Ethernet with its tags, PPPoE, MPLS labels; and ARP."""

from __future__ import annotations

import numpy as np

from ulogd_tw.core.columns import taken
from ulogd_tw.packets.walk import CUT, Field, Headers, Walk, marked, read

ETHERNET, IP, MPLS = 1, 2, 3
"""The first header of packets: Ethernet, IPv4 or IPv6 by the version, or a label stack and then IP.

A number from 0x600 on is an EtherType: the packet begins after it.
"""
IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
_LABELS, _LABELS_MULTICAST, _PPPOE = 0x8847, 0x8848, 0x8864
_IS_TAG = marked(1 << 16, 0x8100, 0x88A8, 0x9100, 0x9200)
"""EtherTypes of VLAN tags: 802.1Q, 802.1ad, and two from before that."""
_VN_TAG, _E_TAG, _CISCO_META, _PBB, _MACSEC = 0x8926, 0x893F, 0x8909, 0x88E7, 0x88E5
_FURTHER = {_VN_TAG: 4, _E_TAG: 6, _CISCO_META: 6, _PBB: 16, _MACSEC: 6}
"""EtherTypes of other tags (of virtual interfaces, 802.1BR, TrustSec, 802.1ah, MACsec): octets before the next type."""
_IS_FURTHER = marked(1 << 16, *_FURTHER)
LEAST_ETHERTYPE = 0x0600
OTHERS = (_IS_TAG | _IS_FURTHER | marked(1 << 16, *range(LEAST_ETHERTYPE), _LABELS, _LABELS_MULTICAST, _PPPOE)).view(
    np.uint8
)
"""Whether something stands between an EtherType and what it says, or it is a length."""
OF_LINK = frozenset({"sourceMacAddress", "destinationMacAddress", "ethernetType"})
"""Elements of every frame."""
MOST_TAGS, MOST_LABELS = 4, 10
"""Maximum number of tags and of labels (as many as IPFIX has elements) read."""

_ETHERNET = np.dtype([("destination", "u1", 6), ("source", "u1", 6), ("type", ">u2")])
OF_PPP = {0x0021: IPV4, 0x0057: IPV6, 0x0281: _LABELS, 0x0283: _LABELS_MULTICAST}
"""EtherTypes by PPP's protocol numbers."""
_BY_TYPE, _BY_PPP = -1, -2
_LINKS = {0: (4, IP, 0), 1: (0, ETHERNET, 0), 9: (4, _BY_PPP, 2), 12: (0, IP, 0), 14: (0, IP, 0), 50: (4, _BY_PPP, 2),
          101: (0, IP, 0), 104: (4, _BY_TYPE, 2), 108: (4, IP, 0), 113: (16, _BY_TYPE, 14), 228: (0, IP, 0),
          229: (0, IP, 0), 276: (20, _BY_TYPE, 0)}  # fmt: skip
"""LINKTYPE -> octets of the link header, the header after it, and the place of its type: loopback, Ethernet, PPP in
HDLC-like framing, raw IP, Cisco HDLC, Linux cooked 1 and 2."""


def beginnings(
    octets: np.ndarray, starts: np.ndarray, lengths: np.ndarray, links: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(starts, lengths, first) for `headers.decode` of packets with link headers, and a mask of unknown links.

    `links` are numbers of LINKTYPE.
    """
    starts, lengths = starts.astype(np.int64), lengths.astype(np.int64)
    first, unknown = np.zeros(len(starts), np.int64), np.zeros(len(starts), bool)
    one = len(links) > 0 and bool((links == links[0]).all())
    for link in [int(links[0])] if one else np.unique(links).tolist():
        rows = np.flatnonzero(links == link)
        if link not in _LINKS:
            unknown[rows] = True
            continue
        size, follows, place = _LINKS[link]
        if follows < 0:
            whole = rows[lengths[rows] >= size]
            kind = taken(octets, starts[whole] + place, 2).view(">u2").astype(np.int64)
            first[whole] = _ppp(kind) if follows == _BY_PPP else np.where(kind >= LEAST_ETHERTYPE, kind, 0)
        else:
            first[rows] = follows
        if size:
            step = np.minimum(size, lengths[rows])
            starts[rows] += step
            lengths[rows] -= step
    return starts, lengths, first, unknown


def _ppp(protocol: np.ndarray) -> np.ndarray:
    kind = np.zeros(len(protocol), np.int64)
    for number, type_ in OF_PPP.items():
        kind[protocol == number] = type_
    return kind


def ethernet(walk: Walk, rows: np.ndarray, found: Headers) -> None:
    """The Ethernet header, and the headers between it and IP."""
    rows = walk.having(rows, _ETHERNET.itemsize)
    if not len(rows):
        return
    view = walk.view(rows, _ETHERNET)
    for name, part in (("sourceMacAddress", "source"), ("destinationMacAddress", "destination")):
        if name in found.asked:
            found.add(name, _mac(view[part]), rows)
    walk.at[rows] += _ETHERNET.itemsize
    typed(walk, rows, view["type"].astype(np.int32), found)


def typed(walk: Walk, rows: np.ndarray, kind: np.ndarray, found: Headers) -> None:
    """Tags, PPPoE and labels after an EtherType."""
    kind = _tags(walk, rows, kind, found)
    kind = _snap(walk, rows, kind)
    others = np.flatnonzero((kind != IPV4) & (kind != IPV6))
    if len(others) and (further := others[_IS_FURTHER[kind[others]]]).size:
        kind = kind.copy()
        kind[further] = _tags(walk, rows[further], _passed(walk, rows[further], kind[further]), found)
    if "ethernetType" in found.asked:
        # A length is no type, and behind a tag that is cut the type is not known.
        real = np.flatnonzero((kind >= LEAST_ETHERTYPE) & ~_IS_TAG[kind])
        found.add("ethernetType", kind[real], rows[real])
    walk.kind[rows] = kind
    if len(others):
        rows, kind = rows[others], kind[others]
        _pppoe(walk, rows[kind == _PPPOE])
        kind = walk.kind[rows]
        labels(walk, rows[(kind == _LABELS) | (kind == _LABELS_MULTICAST)], found)


def _passed(walk: Walk, rows: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Pass over one other tag; the EtherTypes behind. Of MACsec only what is not encrypted is read."""
    kind = kind.copy()
    for type_, size in _FURTHER.items():
        here = np.flatnonzero(kind == type_)
        here = here[walk.at[rows[here]] + size + 2 <= walk.end[rows[here]]]
        if type_ == _MACSEC and len(here):
            flags = walk.octets[walk.at[rows[here]]]
            here, flags = here[flags & 0x0C == 0], flags[flags & 0x0C == 0]
            longer = 8 * (flags >> 5 & 1).astype(np.int64)
            whole = walk.at[rows[here]] + size + longer + 2 <= walk.end[rows[here]]
            here = here[whole]
            walk.at[rows[here]] += longer[whole]
        if len(here):
            kind[here] = walk.numbers(rows[here], size, ">u2")
            walk.at[rows[here]] += size + 2
    return kind


def _mac(octets: np.ndarray) -> np.ndarray:
    wide = np.zeros((len(octets), 8), np.uint8)
    wide[:, 2:] = octets
    return wide.view(">u8")[:, 0]


def _tags(walk: Walk, rows: np.ndarray, kind: np.ndarray, found: Headers) -> np.ndarray:
    """VLAN tags: the first is the service's or the only one, the second the customer's. Returns the EtherTypes after
    them."""
    names = (("dot1qVlanId", "dot1qPriority"), ("dot1qCustomerVlanId", "dot1qCustomerPriority"))
    for depth in range(MOST_TAGS):
        here = np.flatnonzero(_IS_TAG[kind])
        if not len(here):
            break
        there = walk.at[rows[here]] + 4 <= walk.end[rows[here]]
        walk.blame(rows[here[~there]], CUT)
        here = here[there]
        if not len(here):
            break
        tagged = rows[here]
        tag = walk.numbers(tagged, 0, ">u2")
        if depth < len(names):
            found.add(names[depth][0], tag & 0xFFF, tagged)
            found.add(names[depth][1], tag >> 13, tagged)
        if depth == 0:
            found.add("vlanId", tag & 0xFFF, tagged)
        kind = kind.copy()
        kind[here] = walk.numbers(tagged, 2, ">u2")
        walk.at[tagged] += 4
    return kind


def _snap(walk: Walk, rows: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """802.3 with LLC and SNAP: the EtherType follows them."""
    here = np.flatnonzero(kind < LEAST_ETHERTYPE)
    here = here[walk.at[rows[here]] + 8 <= walk.end[rows[here]]]
    if len(here):
        snap = (walk.numbers(rows[here], 0, ">u4") == 0xAAAA0300) & (walk.numbers(rows[here], 4, ">u2") == 0)
        here = here[snap]
        kind = kind.copy()
        kind[here] = walk.numbers(rows[here], 6, ">u2")
        walk.at[rows[here]] += 8
    return kind


def _pppoe(walk: Walk, rows: np.ndarray) -> None:
    """PPPoE session packets (RFC 2516): six octets, then PPP's protocol."""
    rows = walk.having(rows, 8)
    if not len(rows):
        return
    protocol = walk.numbers(rows, 6, ">u2")
    walk.at[rows] += 8
    walk.kind[rows] = _ppp(protocol)


def labels(walk: Walk, rows: np.ndarray, found: Headers) -> None:
    """The MPLS label stack (RFC 3032), and the packet after it, identified by its first four bits."""
    for depth in range(MOST_LABELS):
        rows = walk.having(rows, 4)
        if not len(rows):
            return
        entries = taken(walk.octets, walk.at[rows], 4).reshape(-1, 4)
        name = "mplsTopLabelStackSection" if depth == 0 else f"mplsLabelStackSection{depth + 1}"
        found.add_octets(name, entries[:, :3], rows)
        walk.at[rows] += 4
        bottom = (entries[:, 2] & 1).astype(bool)
        if bottom.any():
            if walk.label is None:
                walk.label = np.full(len(walk.at), -1, np.int64)
            walk.label[rows[bottom]] = entries[bottom].view(">u4")[:, 0] >> 12
            ip(walk, rows[bottom])
        rows = rows[~bottom]


def ip(walk: Walk, rows: np.ndarray) -> None:
    """IPv4 or IPv6 by the version in the first octet."""
    rows = walk.having(rows, 1)
    if not len(rows):
        return
    version = walk.octets[walk.at[rows]] >> 4
    walk.kind[rows] = np.where(version == 4, IPV4, np.where(version == 6, IPV6, 0))


_ARP = (
    Field(("arp.hwtype",), 0, ">u2"),
    Field(("arp.protocoltype",), 2, ">u2"),
    Field(("arp.operation",), 6, ">u2"),
    Field(("arp.saddr",), 14, ">u4"),
    Field(("arp.daddr",), 24, ">u4"),
)
ARP_KEYS = frozenset({"arp.shwaddr", "arp.dhwaddr", *(name for field in _ARP for name in field.names)})


def arp(walk: Walk, rows: np.ndarray, found: Headers) -> None:
    """ARP (RFC 826), with Ethernet and IPv4 addresses; for other kinds of addresses only the fields before them."""
    there = walk.at[rows] + 8 <= walk.end[rows]
    walk.blame(rows[~there], CUT)
    places = np.flatnonzero(there)
    sizes = walk.numbers(rows[places], 4, ">u2")
    usual = places[sizes == 0x0604]
    read(walk, rows[places], places, 8, _ARP[:3], found)
    whole = usual[walk.at[rows[usual]] + 28 <= walk.end[rows[usual]]]
    walk.blame(np.setdiff1d(rows[usual], rows[whole]), CUT)
    read(walk, rows[whole], whole, 28, _ARP[3:], found)
    if {"arp.shwaddr", "arp.dhwaddr"} & found.asked and len(whole):
        octets = taken(walk.octets, walk.at[rows[whole]], 28).reshape(-1, 28)
        found.add_octets("arp.shwaddr", octets[:, 8:14], whole)
        found.add_octets("arp.dhwaddr", octets[:, 18:24], whole)


def names() -> tuple[str, ...]:
    """The elements found here."""
    return ("sourceMacAddress", "destinationMacAddress", "ethernetType", "vlanId", "dot1qVlanId", "dot1qPriority",
            "dot1qCustomerVlanId", "dot1qCustomerPriority", "mplsTopLabelStackSection",
            *(f"mplsLabelStackSection{n}" for n in range(2, MOST_LABELS + 1)))  # fmt: skip
