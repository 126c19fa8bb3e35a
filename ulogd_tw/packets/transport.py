"""The headers after IP: ports, flags, types, as far as they were captured."""

from __future__ import annotations

import numpy as np

from ulogd_tw.packets.network import AH, SPI
from ulogd_tw.packets.walk import CUT, MALFORMED, Field, Headers, Walk, marked, read

_ICMP, TCP, _UDP, _DCCP, _ESP, _AH, _ICMPV6, _SCTP, _UDP_LITE = 1, 6, 17, 33, 50, 51, 58, 132, 136
WITH_PORTS = (TCP, _UDP, _DCCP, _SCTP, _UDP_LITE)
_HAS_PORTS = marked((1 << 8) + 1, *WITH_PORTS)  # the last place is that of -1
_COMMON = ("sourceTransportPort", "destinationTransportPort")
_PORTS = (Field(_COMMON[:1], 0, ">u2"), Field(_COMMON[1:], 2, ">u2"))


def _flag(name: str, octet: int, mask: int) -> Field:
    return Field((name,), octet, "u1", mask=mask)


def _is(types: tuple[int, ...], code: int | None = None):
    """A mask of ICMP messages of some types and a code."""

    def when(octets: np.ndarray) -> np.ndarray:
        found = octets[:, 0] == types[0]
        for type_ in types[1:]:
            found = found | (octets[:, 0] == type_)
        return found if code is None else found & (octets[:, 1] == code)

    return when


_FIELDS = {
    TCP: (20, (
        Field(("tcp.sport",), 0, ">u2"), Field(("tcp.dport",), 2, ">u2"),
        Field(("tcp.seq", "tcpSequenceNumber"), 4, ">u4"), Field(("tcp.ackseq", "tcpAcknowledgementNumber"), 8, ">u4"),
        Field(("tcp.offset",), 12, "u1", 4), Field(("tcp.reserved",), 12, "u1", mask=15),
        Field(("tcpControlBits",), 12, ">u2", mask=0x0FFF),
        Field(("tcp.window", "tcpWindowSize"), 14, ">u2"), Field(("tcp.csum",), 16, ">u2"),
        Field(("tcp.urgp",), 18, ">u2", when=lambda octets: octets[:, 13] & 0x20 != 0),
        _flag("tcp.urg", 13, 0x20), _flag("tcp.ack", 13, 0x10), _flag("tcp.psh", 13, 8), _flag("tcp.rst", 13, 4),
        _flag("tcp.syn", 13, 2), _flag("tcp.fin", 13, 1), _flag("tcp.res1", 12, 15), _flag("tcp.res2", 13, 0xC0),
    )),
    _UDP: (8, (
        Field(("udp.sport",), 0, ">u2"), Field(("udp.dport",), 2, ">u2"),
        Field(("udp.len", "udpMessageLength"), 4, ">u2"), Field(("udp.csum",), 6, ">u2"),
    )),
    _ICMP: (8, (
        Field(("icmp.type",), 0, "u1"), Field(("icmp.code",), 1, "u1"), Field(("icmp.csum",), 2, ">u2"),
        Field(("icmpTypeCodeIPv4",), 0, ">u2"),
        Field(("icmp.echoid",), 4, ">u2", when=_is((0, 8))), Field(("icmp.echoseq",), 6, ">u2", when=_is((0, 8))),
        Field(("icmp.gateway",), 4, ">u4", when=_is((5,))), Field(("icmp.fragmtu",), 6, ">u2", when=_is((3,), 4)),
        Field(("icmp.parameter",), 4, "u1", when=_is((12,))),
    )),
    _ICMPV6: (8, (
        Field(("icmpv6.type",), 0, "u1"), Field(("icmpv6.code",), 1, "u1"), Field(("icmpv6.csum",), 2, ">u2"),
        Field(("icmpTypeCodeIPv6",), 0, ">u2"),
        Field(("icmpv6.echoid",), 4, ">u2", when=_is((128, 129))),
        Field(("icmpv6.echoseq",), 6, ">u2", when=_is((128, 129))),
    )),
    _SCTP: (12, (
        Field(("sctp.sport",), 0, ">u2"), Field(("sctp.dport",), 2, ">u2"), Field(("sctp.csum",), 8, ">u4"),
    )),
    _ESP: (4, (Field(SPI, 0, ">u4"),)),
    _AH: (8, AH),
}  # fmt: skip
"""For each protocol: octets of its header, and its fields."""
_LEAST = np.zeros((1 << 8) + 1, np.int64)
for _protocol, (_size, _) in _FIELDS.items():
    _LEAST[_protocol] = _size
_LEAST[_DCCP], _LEAST[_UDP_LITE] = 12, 8


def transport(walk: Walk, rows: np.ndarray, protocol: np.ndarray, found: Headers) -> None:
    """Ports, flags, types; `protocol` is -1 for packets without a transport header."""
    _look(walk, rows, protocol)
    if found.asked & frozenset(_COMMON):
        ports = np.flatnonzero(_HAS_PORTS[protocol])
        if len(ports) == len(rows):
            read(walk, rows, None, 4, _PORTS, found)
        elif len(ports):
            read(walk, rows[ports], ports, 4, _PORTS, found)
    for kind, (size, fields) in _FIELDS.items():
        if not _USED[kind] & found.asked:
            continue
        here = protocol == kind
        if kind == _ESP:
            here &= _no_spi(found)
        if here.all():
            read(walk, rows, None, size, fields, found)
        elif len(places := np.flatnonzero(here)):
            read(walk, rows[places], places, size, fields, found)


def _no_spi(found: Headers) -> np.ndarray:
    """The rows whose IPsec SPI is not known yet.

    A packet with an Authentication Header before ESP has two; the first one stands.
    """
    name = next(name for name in SPI if name in found.asked)
    if name not in found.columns:
        return np.ones(found.n, bool)
    return found.missing.get(name, np.zeros(found.n, bool))


def _look(walk: Walk, rows: np.ndarray, protocol: np.ndarray) -> None:
    """Check that the headers are complete."""
    if walk.compiled is not None:
        walk.compiled.transport(rows, protocol, _LEAST)
        return
    at, end = walk.at[rows], walk.end[rows]
    cut = at + _LEAST[protocol] > end
    if cut.any():
        walk.blame(rows[cut], CUT)
    segments = np.flatnonzero((protocol == TCP) & ~cut)
    if len(segments):
        short = walk.octets[at[segments] + 12] >> 4 < 5
        if short.any():
            walk.blame(rows[segments[short]], MALFORMED)


_USED = {kind: frozenset(name for field in fields for name in field.names) for kind, (_, fields) in _FIELDS.items()}


def names() -> tuple[str, ...]:
    """The elements found here."""
    return (*_COMMON, "tcpSequenceNumber", "tcpAcknowledgementNumber", "tcpControlBits", "tcpWindowSize",
            "udpMessageLength", "icmpTypeCodeIPv4", "icmpTypeCodeIPv6", "IPSecSPI")  # fmt: skip
