"""Datagrams of sFlow version 2 and 4 (RFC 3176), rewritten in the form of version 5.

Their samples have no lengths, so one is read after the other: Python for each sample, some 30,000 a second. Agents with
these versions are old, and slow. An unreadable sample has no known end, so nothing after it can be read either.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import TypeVar

from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.plurals import plural

FORMER = (b"\0\0\0\2", b"\0\0\0\4")
"""How such a datagram begins."""
_FLOW, _COUNTERS = 1, 2
_ADDRESSES = {0: 0, 1: 4, 2: 16}
_IF, _ETHERNET, _TOKEN_RING, _VG, _VLAN = (1, 88), (2, 52), (3, 72), (4, 80), (5, 28)
_BLOCKS = {1: (_IF,), 2: (_IF, _ETHERNET), 3: (_IF, _TOKEN_RING), 4: (_IF,), 5: (_IF, _VG), 6: (_IF,), 7: (_VLAN,)}
"""By the counters' version: the records of version 5 that stand one after another, and their octets."""


_T = TypeVar("_T")


class _Unknown(Exception):
    """A kind of sample or record that RFC 3176 does not have."""


class _Reader:
    """Reads XDR from the front to the back of a datagram."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.at = 0

    def octets(self, size: int) -> bytes:
        """So many octets, which are a multiple of four."""
        end = self.at + size
        if end > len(self._octets):
            raise MessageError(
                f"a sample is cut: {plural(size, 'octet')} at {self.at} of {len(self._octets)}", "record", self.at
            )
        found, self.at = self._octets[self.at : end], end
        return found

    def number(self) -> int:
        """An unsigned integer."""
        return int.from_bytes(self.octets(4), "big")

    def opaque(self) -> bytes:
        """Octets with their length in front and filled up, as they stand."""
        begin, size = self.at, self.number()
        self.octets(size + 3 & ~3)
        return self._octets[begin : self.at]

    def array(self) -> bytes:
        """Numbers with their count in front, as they stand."""
        begin, count = self.at, self.number()
        self.octets(4 * count)
        return self._octets[begin : self.at]

    def address(self) -> bytes:
        """An address with its type in front, as it stands; of an unknown type only that."""
        begin, kind = self.at, self.number()
        self.octets(_ADDRESSES.get(kind, 0))
        return self._octets[begin : self.at]


def as_version5(message: bytes) -> tuple[bytes, int, MessageError | None]:
    """The datagram in the form of version 5, how many of its samples are of no known kind, and where it is cut.

    Raises `MessageError` for one without a whole header.
    """
    reader = _Reader(message)
    version = reader.number()
    agent = reader.address()
    if len(agent) == 4 and agent[-1] != 0:
        raise MessageError(f"an sFlow datagram with the address type {agent[-1]}", "length", 4)
    number_and_uptime, count = reader.octets(8), reader.number()
    if count * 4 > len(message) - reader.at:
        raise MessageError(f"{plural(count, 'sample')} in {plural(len(message), 'octet')}", "length", reader.at - 4)
    samples: list[bytes] = []
    left_out, fault = 0, None
    try:
        for _ in range(count):
            samples.append(_sample(reader, version))
    except _Unknown:
        left_out = count - len(samples)
    except MessageError as error:
        fault = error
    head = struct.pack("!I", 5) + agent + bytes(4) + number_and_uptime + struct.pack("!I", len(samples))
    return head + b"".join(samples), left_out, fault


def _sample(reader: _Reader, version: int) -> bytes:
    kind = reader.number()
    if kind == _FLOW:
        head, packet = reader.octets(28), _packet(reader)
        records = [packet, *_extended(reader, version)]
    elif kind == _COUNTERS:
        head = reader.octets(8)
        reader.number()  # the interval, which version 5 does not have
        records = [_element(tag, reader.octets(size)) for tag, size in _known(_BLOCKS, reader.number())]
    else:
        raise _Unknown
    return _element(kind, head + struct.pack("!I", len(records)) + b"".join(records))


def _element(tag: int, octets: bytes) -> bytes:
    return struct.pack("!II", tag, len(octets)) + octets


def _known(table: dict[int, _T], kind: int) -> _T:
    if kind not in table:
        raise _Unknown
    return table[kind]


def _packet(reader: _Reader) -> bytes:
    """The packet: its first octets, or what the agent has read of it."""
    kind = reader.number()
    if kind == 1:
        before = reader.octets(8)
        return _element(1, before + bytes(4) + reader.opaque())  # version 5 says how many octets were stripped
    return _element(kind + 1, reader.octets(_known({2: 32, 3: 56}, kind)))


def _extended(reader: _Reader, version: int) -> Iterator[bytes]:
    for _ in range(reader.number()):
        kind = reader.number()
        read = _known(_EXTENDED, kind)
        yield _element(1000 + kind, read(reader, version))


def _gateway(reader: _Reader, version: int) -> bytes:
    """Version 2 has no segments, communities and preference; version 5 has a next hop in front."""
    before = bytes(4) + reader.octets(12)
    if version == 2:
        path = reader.array()
        return before + (struct.pack("!II", 1, 2) + path if len(path) > 4 else bytes(4)) + bytes(4)
    begin = [before, reader.octets(4)]
    for _ in range(int.from_bytes(begin[1], "big")):
        begin += [reader.octets(4), reader.array()]
    return b"".join(begin) + reader.array() + reader.octets(4)


def _user(reader: _Reader, version: int) -> bytes:
    return bytes(4) + reader.opaque() + bytes(4) + reader.opaque()


_EXTENDED: dict[int, Callable[[_Reader, int], bytes]] = {
    1: lambda reader, version: reader.octets(16),
    2: lambda reader, version: reader.address() + reader.octets(8),
    3: _gateway,
    4: _user,
    5: lambda reader, version: reader.octets(4) + reader.opaque() + bytes(4),
}
"""Switch, router, gateway, user, URL: the records of version 5 from 1001 on."""
