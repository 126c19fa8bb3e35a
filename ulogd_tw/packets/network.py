"""The headers of IPv4 (RFC 791) and IPv6 (RFC 8200) with its extension headers."""

from __future__ import annotations

import numpy as np

from ulogd_tw.core.columns import taken
from ulogd_tw.packets.walk import CUT, MALFORMED, Field, Headers, Walk, marked, read

MOST_EXTENSIONS = 8
"""Maximum number of IPv6 extension headers read."""
_FRAGMENT, _AH = 44, 51
_IS_EXTENSION = marked(1 << 8, 0, 43, 60, 135, 139, 140, _FRAGMENT, _AH)
"""Extension headers with a length in units of 8 octets (RFC 8200 section 4, RFC 6275, RFC 7401, RFC 5533), and two with
another unit."""

_IPV4 = (
    Field(("ip.saddr", "sourceIPv4Address"), 12, ">u4"),
    Field(("ip.daddr", "destinationIPv4Address"), 16, ">u4"),
    Field(("ip.protocol", "protocolIdentifier"), 9, "u1"),
    Field(("ip.tos", "ipClassOfService"), 1, "u1"),
    Field(("ip.ttl", "ipTTL"), 8, "u1"),
    Field(("ip.totlen", "ipTotalLength"), 2, ">u2"),
    Field(("ip.ihl",), 0, "u1", mask=15),
    Field(("ip.csum",), 10, ">u2"),
    Field(("ip.id", "fragmentIdentification"), 4, ">u2"),
    Field(("ip.fragoff",), 6, ">u2"),
    Field(("fragmentFlags",), 6, "u1", mask=0xE0),
    Field(("fragmentOffset",), 6, ">u2", mask=0x1FFF),
    Field(("ipVersion",), 0, "u1", 4),
)
_IPV6 = (
    Field(("ip6.payloadlen",), 4, ">u2"),
    Field(("ip6.priority", "ipClassOfService"), 0, ">u2", 4, 0xFF),
    Field(("ip6.flowlabel", "flowLabelIPv6"), 0, ">u4", mask=0xFFFFF),
    Field(("ip6.hoplimit", "ipTTL"), 7, "u1"),
    Field(("nextHeaderIPv6",), 6, "u1"),
    Field(("ipVersion",), 0, "u1", 4),
)


def _number(octets: np.ndarray, offset: int, form: str) -> np.ndarray:
    return np.ndarray((len(octets),), form, octets, offset, (octets.shape[1],)).astype(np.int64)


def ipv4(walk: Walk, rows: np.ndarray, found: Headers) -> np.ndarray:
    """Fields of IPv4; returns the protocol of the payload, -1 in later fragments and for impossible headers."""
    read(walk, rows, None, 20, _IPV4, found)
    if walk.compiled is not None:
        return walk.compiled.ipv4(rows)
    octets = taken(walk.octets, walk.at[rows], 20).reshape(-1, 20)
    length, fragment = _number(octets, 2, ">u2"), _number(octets, 6, ">u2")
    header = (octets[:, 0] & 15).astype(np.int64) * 4
    at, end = walk.at[rows], walk.end[rows]
    wrong = (header < 20) | ((length < header) & (length != 0))
    if wrong.any():
        walk.blame(rows[wrong], MALFORMED)
    # Octets after the packet (padding of short frames) do not belong to it. 0: segmented by the network card.
    end = np.minimum(end, np.where(length >= header, at + length, end))
    if (at + header > end).any():
        walk.blame(rows[at + header > end], CUT)
    walk.end[rows] = end
    walk.at[rows] = np.minimum(at + header, end)
    return np.where(((fragment & 0x1FFF) != 0) | (header < 20), -1, octets[:, 9].astype(np.int32))


def ipv6(walk: Walk, rows: np.ndarray, found: Headers) -> np.ndarray:
    """As `ipv4`; extension headers are passed over, and the protocol is that of the payload."""
    read(walk, rows, None, 40, _IPV6, found)
    octets = taken(walk.octets, walk.at[rows], 40).reshape(-1, 40)
    for offset, several in ((8, ("ip.saddr", "sourceIPv6Address")), (24, ("ip.daddr", "destinationIPv6Address"))):
        for name in several:
            if name in found.asked:
                halves = np.ndarray((len(octets), 2), ">u8", octets, offset, (40, 8))
                found.add(name, halves)
    length = _number(octets, 4, ">u2")
    found.add("ipTotalLength", length + 40)
    at, end = walk.at[rows], walk.end[rows]
    walk.end[rows] = np.minimum(end, np.where(length > 0, at + 40 + length, end))
    walk.at[rows] += 40
    return _extensions(walk, rows, octets[:, 6].astype(np.int32), found)


def _extensions(walk: Walk, rows: np.ndarray, protocol: np.ndarray, found: Headers) -> np.ndarray:
    """Pass over extension headers; returns the protocol after them, -1 in later fragments and where it is unknown."""
    if not _IS_EXTENSION[protocol].any():
        _put_protocol(found, protocol, None)
        return protocol
    word = np.full(len(rows), -1, np.int64)  # of the fragment header; a second one cannot be
    ident, secured = np.zeros(len(rows), np.int64), np.zeros(len(rows), bool)
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
        _put_spi(walk, rows, here[(kind == _AH) & ~secured[here]], found)
        secured[here[kind == _AH]] = True
        protocol[here] = following
        walk.at[at] = np.minimum(walk.at[at] + size, walk.end[at])
    _put_fragments(found, word, ident)
    # Headers that are cut, or too many: what they lead to is not known.
    reached = ~_IS_EXTENSION[protocol]
    lost = rows[~reached & (word >> 3 <= 0)]
    walk.blame(lost[walk.at[lost] + 8 > walk.end[lost]], CUT)
    walk.blame(lost, MALFORMED)
    _put_protocol(found, protocol, reached)
    return np.where(reached & (word >> 3 <= 0), protocol, -1)


def _put_protocol(found: Headers, protocol: np.ndarray, reached: np.ndarray | None) -> None:
    if reached is not None:
        places = np.flatnonzero(reached)
        protocol, reached = protocol[places], places
    for name in ("ip.protocol", "protocolIdentifier", "ip6.nexthdr"):
        found.add(name, protocol, reached)


def _put_spi(walk: Walk, rows: np.ndarray, places: np.ndarray, found: Headers) -> None:
    """The SPI of the first Authentication Header."""
    if len(places):
        read(walk, rows[places], places, 8, AH, found)


def _put_fragments(found: Headers, word: np.ndarray, ident: np.ndarray) -> None:
    split = np.flatnonzero(word >= 0)
    found.add("fragmentOffset", word[split] >> 3, split)
    found.add("fragmentFlags", (word[split] & 1) << 5, split)
    found.add("fragmentIdentification", ident[split], split)
    found.add("ip6.fragoff", word[split] & 0xFFF8, split)
    found.add("ip6.fragid", ident[split], split)


SPI = ("ahesp.spi", "IPSecSPI")
AH = (Field(SPI, 4, ">u4"),)
"""Fields of the Authentication Header (RFC 4302), an extension header in IPv6."""


def names() -> tuple[str, ...]:
    """The elements found here."""
    return ("ipVersion", "protocolIdentifier", "sourceIPv4Address", "destinationIPv4Address", "sourceIPv6Address",
            "destinationIPv6Address", "ipClassOfService", "flowLabelIPv6", "ipTTL", "ipTotalLength",
            "fragmentIdentification", "fragmentFlags", "fragmentOffset")  # fmt: skip
