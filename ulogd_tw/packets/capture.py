"""Capture files: pcap and pcapng (draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng), octets in, packets out."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core.columns import taken
from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.plurals import plural
from ulogd_tw.kernels import lib
from ulogd_tw.kernels.packets import records

MOST_OCTETS = 1 << 20
"""Maximum octets of a packet or block; a larger length is damage."""
MOST_INTERFACES = 65_536
"""Interfaces of a section at most: 8 MB."""
_LAST = 1 << 32
"""First time, in seconds since 1970, beyond the times of captures."""
_PCAP = {b"\xa1\xb2\xc3\xd4": 1_000_000, b"\xa1\xb2\x3c\x4d": 1_000_000_000}
"""Magic numbers in big-endian order, and the parts of a second in which they count."""
_SECTION, _INTERFACE, _SIMPLE, _ENHANCED, _OLD_PACKET = 0x0A0D0D0A, 1, 3, 6, 2
_BYTE_ORDER = 0x1A2B3C4D
_IF_TSRESOL, _IF_TSOFFSET = 9, 14


@dataclass(slots=True)
class Packets:
    """Packets of a capture: packet i is ``octets[starts[i]:starts[i] + lengths[i]]``, captured at `times[i]`.

    `octets` is uint8, with 64 zeros at the end; all others are int64. `wire`: octets of the packet before it was cut.
    `seconds` and `nanoseconds`: the time of capture since 1970, both 0 where the file has none or an impossible one
    (before 1970, after 2106). `links`: numbers of LINKTYPE.
    """

    octets: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    wire: np.ndarray
    seconds: np.ndarray
    nanoseconds: np.ndarray
    links: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def times(self) -> np.ndarray:
        """Seconds since 1970, float64."""
        return np.minimum(self.seconds + self.nanoseconds / 1e9, _LAST - 1e-6)  # rounding must not reach what is none


_AFTER = 64
_NONE = np.zeros(0, np.int64)
_Runs = list[tuple[np.ndarray, ...]]
"""Lists of packets under construction: starts, lengths, wire, seconds, nanoseconds, links."""


@dataclass(frozen=True, slots=True)
class _Interface:
    """The settings of an interface of a pcapng section: link type, clock."""

    link: int
    most: int
    second: int
    offset: int

    def times(self, ticks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Seconds and nanoseconds of its counts (uint64); seconds are -1 for invalid times."""
        if self.second > 1 << 62 or abs(self.offset) > _LAST:
            return np.full(len(ticks), -1), np.zeros(len(ticks), np.int64)
        seconds, rest = np.divmod(ticks, np.uint64(self.second))
        if self.second <= 1_000_000_000:
            nanoseconds = rest.astype(np.int64) * 1_000_000_000 // self.second
        else:
            nanoseconds = np.minimum(rest.astype(np.float64) / self.second * 1e9, 999_999_999).astype(np.int64)
        seconds = np.minimum(seconds, np.uint64(_LAST)).astype(np.int64) + self.offset
        return seconds, nanoseconds


def _one(*numbers: int) -> tuple[np.ndarray, ...]:
    return tuple(np.array([number], np.int64) for number in numbers)


def _chain(data: np.ndarray, at: int, end: int, order: str, place: int, more: int, least: int) -> np.ndarray:
    """The beginnings of the records from `at` on, while `least` octets of each are there; and the next place.

    A record says its octets, but for `more`, at `place` in 32 bits of this byte order. The next place may be beyond the
    end; behind an impossible record of less than `least` octets there is none. With NumPy 0.1 to 0.3 us each: lengths
    can only be followed one by one.
    """
    if lib is not None:
        return records(data, at, end, place, order == ">", more, least)
    octets, found, last = memoryview(data), [], end - least
    add, unpack = found.append, struct.Struct(f"{order}{place}xI").unpack_from
    while at <= last:
        add(at)
        (size,) = unpack(octets, at)
        if size + more < least:
            return np.array(found, np.int64)
        at += size + more
    add(at)
    return np.array(found, np.int64)


def _in_order(found: _Runs, last: int) -> None:
    """Join the last runs in the order of the file."""
    columns = [np.concatenate(parts) for parts in zip(*found[-last:], strict=True)]
    order = np.argsort(columns[0], kind="stable")
    found[-last:] = [tuple(column[order] for column in columns)]


class Capture:
    """Reads one file piece by piece. `packets` counts the packets so far."""

    def __init__(self) -> None:
        self.packets = 0
        self._rest = np.zeros(0, np.uint8)
        self._data = self._rest
        self._end = 0
        """End of the file's octets in the data."""
        self._read = self._begin
        self._order = "<"
        self._second = 1
        self._link = 1
        self._interfaces: list[_Interface] = []

    @property
    def waiting(self) -> int:
        """Octets of an incomplete packet or block; at the end of a file it is cut."""
        return len(self._rest)

    def feed(self, octets: bytes) -> Packets:
        """The complete packets with these further octets.

        Raises `MessageError` where no packet can begin; its attribute `packets` holds the packets before this place.
        """
        space = self.space(len(octets))
        space[:] = octets
        return self.filled(len(octets))

    def space(self, octets: int) -> memoryview:
        """Room for this number of further octets of the file; report the octets read with `filled`."""
        rest = len(self._rest)
        self._data = np.empty(rest + octets + _AFTER, np.uint8)
        self._data[:rest] = self._rest
        return memoryview(self._data)[rest : rest + octets]

    def filled(self, count: int) -> Packets:
        """As `feed`."""
        data, found = self._data, []
        self._end = len(self._rest) + count
        data[self._end : self._end + _AFTER] = 0
        try:
            at = self._read(data, 0, found)
        except MessageError as error:
            self._rest = self._rest[:0]
            error.before = self._packets(data, found)
            raise
        self._rest = data[at : self._end]
        return self._packets(data, found)

    def _packets(self, data: np.ndarray, found: _Runs) -> Packets:
        columns = [np.concatenate(parts) for parts in zip(*found, strict=True)] if found else [_NONE] * 6
        starts, lengths, wire, seconds, nanoseconds, links = columns
        self.packets += len(starts)
        odd = (seconds < 0) | (seconds >= _LAST)
        if odd.any():
            seconds, nanoseconds = np.where(odd, 0, seconds), np.where(odd, 0, nanoseconds)
        return Packets(data, starts, lengths, wire, seconds, nanoseconds, links)

    def _begin(self, data: np.ndarray, at: int, found: _Runs) -> int:
        if self._end < 24:
            return at
        magic = data[:4].tobytes()
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
        raise MessageError(f"not a pcap or pcapng file: it begins with {magic.hex()}", "capture", 0)

    # pcap

    def _records(self, data: np.ndarray, at: int, found: _Runs) -> int:
        """Packet records."""
        if self._end - at < 16:
            return at
        edges = _chain(data, at, self._end, self._order, 8, 16, 16)
        lengths = np.diff(edges) - 16
        whole = len(lengths) if edges[-1] <= self._end else len(lengths) - 1
        self._add(data, edges[:whole], lengths[:whole], found)
        if lengths[-1] > MOST_OCTETS:
            number = self.packets + whole + 1
            raise MessageError(f"packet {number} has {plural(lengths[-1], 'octet')}", "capture", int(edges[-2]))
        return int(edges[whole])

    def _add(self, data: np.ndarray, at: np.ndarray, lengths: np.ndarray, found: _Runs) -> None:
        if not len(at):
            return
        heads = taken(data, at, 16).view(f"{self._order}u4").reshape(-1, 4).astype(np.int64)
        nanoseconds = heads[:, 1] * (1_000_000_000 // self._second)
        if nanoseconds.max() >= 1_000_000_000:  # a part that is more than a second
            nanoseconds = np.minimum(nanoseconds, 999_999_999)
        links = np.full(len(at), self._link, np.int64)
        found.append((at + 16, lengths, heads[:, 3], heads[:, 0], nanoseconds, links))

    # pcapng

    def _blocks(self, data: np.ndarray, at: int, found: _Runs) -> int:
        """Blocks, section by section."""
        while self._end - at >= 12:
            (kind,) = struct.unpack_from("<I", data, at)
            if kind == _SECTION:
                self._order = "<" if struct.unpack_from("<I", data, at + 8)[0] == _BYTE_ORDER else ">"
                length = self._length(data, at)
                if self._end - at < length:
                    break
                self._interfaces = []
                at += length
                continue
            after = self._section(data, at, found)
            if after == at:
                break
            at = after
        return at

    def _length(self, data: np.ndarray, at: int) -> int:
        kind, length = struct.unpack_from(f"{self._order}II", data, at)
        if length < 12 or length > MOST_OCTETS + 64 or length % 4:
            raise MessageError(f"a block of type {kind:#x} has the length {length}", "capture", at)
        return length

    def _section(self, data: np.ndarray, at: int, found: _Runs) -> int:
        """The blocks up to an incomplete one or the beginning of a section, and its place."""
        edges = _chain(data, at, self._end, self._order, 4, 0, 12)
        if len(edges) < 2:
            self._length(data, at)  # is none
            return at
        heads = taken(data, edges[:-1], 8).view(f"{self._order}u4").reshape(-1, 2).astype(np.int64)
        kinds, lengths = heads[:, 0], heads[:, 1]
        wrong = (lengths > MOST_OCTETS + 64) | (lengths % 4 != 0)
        stop = wrong | (kinds == _SECTION) | (edges[1:] > self._end)
        count = int(stop.argmax()) if stop.any() else len(kinds)
        done = 0
        for place in (np.flatnonzero((kinds[:count] != _ENHANCED) | (lengths[:count] < 32))).tolist():
            self._enhanced(data, edges[done:place], found)
            start = int(edges[place])
            self._block(int(kinds[place]), data, start + 8, start + int(lengths[place]) - 4, found)
            done = place + 1
        self._enhanced(data, edges[done:count], found)
        if count < len(kinds) and wrong[count] and kinds[count] != _SECTION:
            self._length(data, int(edges[count]))  # raises
        return int(edges[count])

    def _enhanced(self, data: np.ndarray, at: np.ndarray, found: _Runs) -> None:
        """Enhanced Packet Blocks at these places."""
        if not len(at):
            return
        heads = taken(data, at, 28).view(f"{self._order}u4").reshape(-1, 7).astype(np.int64)
        which, captured = heads[:, 2], heads[:, 5]
        good = (which < len(self._interfaces)) & (captured <= heads[:, 1] - 32)
        several = np.unique(which[good]).tolist()  # mostly one
        for number in several:
            rows = np.flatnonzero(good & (which == number))
            interface = self._interfaces[number]
            ticks = heads[rows, 3].astype(np.uint64) << np.uint64(32) | heads[rows, 4].astype(np.uint64)
            seconds, nanoseconds = interface.times(ticks)
            links = np.full(len(rows), interface.link, np.int64)
            found.append((at[rows] + 28, captured[rows], heads[rows, 6], seconds, nanoseconds, links))
        if len(several) > 1:
            _in_order(found, len(several))

    def _block(self, kind: int, data: np.ndarray, at: int, end: int, found: _Runs) -> None:
        order, size = self._order, end - at
        if kind == _INTERFACE and size >= 8:
            if len(self._interfaces) >= MOST_INTERFACES:
                raise MessageError(f"more than {MOST_INTERFACES} interfaces", "capture", at)
            link, _, most = struct.unpack_from(f"{order}HHI", data, at)
            second, offset = self._clock(data, at + 8, end)
            self._interfaces.append(_Interface(link, most, second, offset))
        elif kind == _OLD_PACKET and size >= 20:
            which, _, high, low, captured, wire = struct.unpack_from(f"{order}HHIIII", data, at)
            if which < len(self._interfaces) and captured <= size - 20:
                interface = self._interfaces[which]
                seconds, nanoseconds = interface.times(np.array([high << 32 | low], np.uint64))
                found.append((*_one(at + 20, captured, wire), seconds, nanoseconds, *_one(interface.link)))
        elif kind == _SIMPLE and size >= 4 and self._interfaces:
            (length,) = struct.unpack_from(f"{order}I", data, at)
            most = self._interfaces[0].most or length
            found.append(_one(at + 4, min(length, most, size - 4), length, 0, 0, self._interfaces[0].link))

    def _clock(self, data: np.ndarray, at: int, end: int) -> tuple[int, int]:
        """Parts of a second in an interface's clock, and the offset to add, from its options."""
        second, offset = 1_000_000, 0
        for code, value in self._options(data, at, end):
            if code == _IF_TSRESOL and value:
                second = 2 ** (value[0] & 0x7F) if value[0] & 0x80 else 10 ** value[0]
            elif code == _IF_TSOFFSET and len(value) == 8:
                (offset,) = struct.unpack(f"{self._order}q", value)
        return second, offset

    def _options(self, data: np.ndarray, at: int, end: int) -> Iterator[tuple[int, bytes]]:
        while end - at >= 4:
            code, length = struct.unpack_from(f"{self._order}HH", data, at)
            if code == 0 or at + 4 + length > end:
                return
            yield code, data[at + 4 : at + 4 + length].tobytes()
            at += 4 + (length + 3 & ~3)
