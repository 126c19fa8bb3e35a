"""Capture files: pcap and pcapng (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng), octets in, packets out."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ulogd_tw.core.errors import MessageError

MOST_OCTETS = 1 << 20
"""Octets of a packet or block at most: anything longer is no length."""
MOST_INTERFACES = 65_536
"""Interfaces of a section at most: 8 MB."""
_LAST = 2.0**32
"""Seconds since 1970 that no packet has been captured at."""
_PCAP = {b"\xa1\xb2\xc3\xd4": 1_000_000, b"\xa1\xb2\x3c\x4d": 1_000_000_000}
"""Magic numbers in big-endian order, and the parts of a second in which they count."""
_SECTION, _INTERFACE, _SIMPLE, _ENHANCED, _OLD_PACKET = 0x0A0D0D0A, 1, 3, 6, 2
_BYTE_ORDER = 0x1A2B3C4D
_IF_TSRESOL, _IF_TSOFFSET = 9, 14


@dataclass(slots=True)
class Packets:
    """Packets of a capture: packet i is ``octets[starts[i]:starts[i] + lengths[i]]``, captured at `times[i]`.

    `octets` is uint8, with 64 zeros at the end; `starts`, `lengths` and `links` (LINKTYPE numbers) are int64; `times`
    are seconds since 1970, float64; 0 where the file does not say, or says what cannot be (before 1970, after 2106).
    """

    octets: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    times: np.ndarray
    links: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)


@dataclass(slots=True)
class _Found:
    """Packets that are being listed."""

    starts: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    links: list[int] = field(default_factory=list)

    def add(self, start: int, length: int, time: float, link: int) -> None:
        self.starts.append(start)
        self.lengths.append(length)
        self.times.append(time)
        self.links.append(link)


@dataclass(frozen=True, slots=True)
class _Interface:
    """How the packets of an interface of a pcapng section are to be read."""

    link: int
    most: int
    second: float
    offset: int


class Capture:
    """Reads one file piece by piece. `packets` counts what was found so far."""

    def __init__(self) -> None:
        self.packets = 0
        self._rest = b""
        self._read = self._begin
        self._order = "<"
        self._second = 1.0
        self._link = 1
        self._interfaces: list[_Interface] = []

    @property
    def waiting(self) -> int:
        """Octets of a packet or block that has not come whole: at the end of a file, that it is cut."""
        return len(self._rest)

    def feed(self, octets: bytes) -> Packets:
        """The packets that are whole with these further octets.

        Raises `MessageError` where no packet can begin; its attribute `packets` has those before that place.
        """
        data = self._rest + octets if self._rest else octets
        found = _Found()
        try:
            at = self._read(data, 0, found)
        except MessageError as error:
            self._rest = b""
            error.packets = self._packets(data, found)
            raise
        self._rest = data[at:]
        return self._packets(data, found)

    def _packets(self, data: bytes, found: _Found) -> Packets:
        self.packets += len(found.starts)
        times = np.array(found.times, np.float64)
        times[(times < 0) | (times >= _LAST)] = 0.0
        return Packets(
            np.frombuffer(data + bytes(64), np.uint8),
            np.array(found.starts, np.int64),
            np.array(found.lengths, np.int64),
            times,
            np.array(found.links, np.int64),
        )

    def _begin(self, data: bytes, at: int, found: _Found) -> int:
        if len(data) < 24:
            return at
        magic = data[:4]
        if magic in _PCAP or magic[::-1] in _PCAP:
            self._order = ">" if magic in _PCAP else "<"
            self._second = _PCAP[magic if magic in _PCAP else magic[::-1]]
            (link,) = struct.unpack_from(f"{self._order}I", data, 20)
            self._link = link & 0x0FFFFFFF  # above it: whether frames have a check sequence
            self._read = self._records
            return self._records(data, 24, found)
        if struct.unpack_from("<I", data)[0] == _SECTION:
            self._read = self._blocks
            return self._blocks(data, 0, found)
        raise MessageError(f"no capture begins with {magic.hex()}", "capture", 0)

    # pcap

    def _records(self, data: bytes, at: int, found: _Found) -> int:
        """Packet records: 0.4 us each."""
        header = struct.Struct(f"{self._order}IIII")
        end, second, link = len(data), self._second, self._link
        while end - at >= 16:
            seconds, part, captured, _ = header.unpack_from(data, at)
            if captured > MOST_OCTETS:
                number = self.packets + len(found.starts) + 1
                raise MessageError(f"packet {number} has {captured} octets", "capture", at)
            if end - at < 16 + captured:
                break
            found.add(at + 16, captured, seconds + part / second, link)
            at += 16 + captured
        return at

    # pcapng

    def _blocks(self, data: bytes, at: int, found: _Found) -> int:
        end = len(data)
        while end - at >= 12:
            (kind,) = struct.unpack_from(f"{self._order}I", data, at)
            if kind == _SECTION:
                self._order = "<" if struct.unpack_from("<I", data, at + 8)[0] == _BYTE_ORDER else ">"
                self._interfaces = []
            (length,) = struct.unpack_from(f"{self._order}I", data, at + 4)
            if length < 12 or length > MOST_OCTETS + 64 or length % 4:
                raise MessageError(f"a block of type {kind:#x} has the length {length}", "capture", at)
            if end - at < length:
                break
            self._block(kind, data, at + 8, at + length - 4, found)
            at += length
        return at

    def _block(self, kind: int, data: bytes, at: int, end: int, found: _Found) -> None:
        order, size = self._order, end - at
        if kind == _INTERFACE and size >= 8:
            if len(self._interfaces) >= MOST_INTERFACES:
                raise MessageError(f"more than {MOST_INTERFACES} interfaces", "capture", at)
            link, _, most = struct.unpack_from(f"{order}HHI", data, at)
            second, offset = self._clock(data, at + 8, end)
            self._interfaces.append(_Interface(link, most, second, offset))
        elif kind in (_ENHANCED, _OLD_PACKET) and size >= 20:
            which, high, low, captured, _ = struct.unpack_from(f"{order}IIIII", data, at)
            which = which if kind == _ENHANCED else struct.unpack_from(f"{order}H", data, at)[0]
            if which < len(self._interfaces) and captured <= size - 20:
                interface = self._interfaces[which]
                time = (high << 32 | low) / interface.second + interface.offset
                found.add(at + 20, captured, time, interface.link)
        elif kind == _SIMPLE and size >= 4 and self._interfaces:
            (length,) = struct.unpack_from(f"{order}I", data, at)
            most = self._interfaces[0].most or length
            found.add(at + 4, min(length, most, size - 4), 0.0, self._interfaces[0].link)

    def _clock(self, data: bytes, at: int, end: int) -> tuple[float, int]:
        """Parts of a second in which an interface counts, and what is to be added, by its options."""
        second, offset = 1_000_000.0, 0
        for code, value in self._options(data, at, end):
            if code == _IF_TSRESOL and value:
                second = float(2 ** (value[0] & 0x7F)) if value[0] & 0x80 else float(10 ** value[0])
            elif code == _IF_TSOFFSET and len(value) == 8:
                (offset,) = struct.unpack(f"{self._order}q", value)
        return second, offset

    def _options(self, data: bytes, at: int, end: int) -> Iterator[tuple[int, bytes]]:
        while end - at >= 4:
            code, length = struct.unpack_from(f"{self._order}HH", data, at)
            if code == 0 or at + 4 + length > end:
                return
            yield code, data[at + 4 : at + 4 + length]
            at += 4 + (length + 3 & ~3)
