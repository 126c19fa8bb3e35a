"""Packets inside records: sections of sampled packets (RFC 5477 section 8.5, RFC 7133, Cisco's layer2packetSection).

The headers in them become columns, as those of packets and of sFlow's samples do. A template's own fields go before.
Octets are those of the IP packet: the frame's size without the headers before IP, where the record has it, since a
section may be of a packet that the network card has put together; else what the header of IP says. The packet was seen
at the observation time, or else when its record came.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ulogd_tw.core.columns import Coded, Column, Octets, numbers, places, strings
from ulogd_tw.core.conversions import ntp_to_ms
from ulogd_tw.core.keys import NETFLOW9, Key, known, registry
from ulogd_tw.core.plugin import ALL, Wanted
from ulogd_tw.ipfix.layout import Found
from ulogd_tw.ipfix.template import Field
from ulogd_tw.packets import headers, tunnels
from ulogd_tw.packets.headers import ETHERNET, IP, MPLS, Headers
from ulogd_tw.packets.sampled_links import sampled_beginnings

SECTIONS = {
    "dataLinkFrameSection": ETHERNET, "layer2packetSectionData": ETHERNET, "ipHeaderPacketSection": IP,
    "mplsLabelStackSection": MPLS, "mplsPayloadPacketSection": IP,
}  # fmt: skip
"""Elements with the first octets of a packet, and their first header. The richest ones come first."""
_FRAMES, _TYPE = ("dataLinkFrameSize", "ethernetTotalLength"), "dataLinkFrameType"
_OFFSETS = ("sectionOffset", "layer2packetSectionOffset")
_SIZES = ("sectionExportedOctets", "layer2packetSectionSize")
_PROTOCOLS = np.array([1, 1, 15, 0])
"""By dataLinkFrameType (RFC 7133 section 4.2.1; 0 if missing): sFlow's number of Ethernet and 802.11."""
_OF_FRAMES = frozenset({"dataLinkFrameSection", "layer2packetSectionData"})
_COUNTS = {
    "octetDeltaCount": ("octetDeltaCount", "postOctetDeltaCount", "octetTotalCount", "postOctetTotalCount",
                        "layer2OctetDeltaCount", "layer2OctetTotalCount", "initiatorOctets", "responderOctets"),
    "packetDeltaCount": ("packetDeltaCount", "postPacketDeltaCount", "packetTotalCount", "postPacketTotalCount",
                         "initiatorPackets", "responderPackets"),
}  # fmt: skip
"""Counters made for a packet, and the elements of templates with counters of their own."""
_TIMES = ("flowStartMilliseconds", "flowEndMilliseconds")
_OF_FLOWS = frozenset((21, 22, *range(150, 162)))
"""Elements that say when a flow was."""
_OBSERVED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "observationTimeMilliseconds": lambda times: times,
    "observationTimeMicroseconds": ntp_to_ms,
    "observationTimeNanoseconds": ntp_to_ms,
    "observationTimeSeconds": lambda times: times.astype(np.uint64) * np.uint64(1000),
}
"""Elements that say when a packet was seen (RFC 5477 section 8.4), and how they become milliseconds."""
_LEAST_FRAME, _CHECK = 68, 4
"""Octets of the shortest frame with a tag and its check sequence: padding of such a frame is no part of a packet."""
MADE = frozenset((*headers.names(), *_COUNTS, *_TIMES, *tunnels.TUNNEL))
"""The keys that can be made of a section."""
_KEYS: dict[str, Key] = {}


def made(fields: Sequence[Field], wanted: Wanted, inner: bool) -> Sections | None:
    """The columns made of the sections in records with these fields; None without sections, or if none is wanted."""
    names = {registry.element(field.pen, field.ident).name for field in fields}
    if not names & SECTIONS.keys():
        return None
    taken = names | {name for name, counters in _COUNTS.items() if names & set(counters)}
    if any(field.ident in _OF_FLOWS and field.pen in (0, NETFLOW9) for field in fields):
        taken |= set(_TIMES)
    asked = frozenset(name for name in MADE - taken if name in wanted)
    return Sections(names, asked, inner) if asked else None


class Sections:
    """Columns of the packets whose first octets the records of a template hold."""

    def __init__(self, names: set[str], asked: frozenset[str], inner: bool) -> None:
        self._sections = [name for name in SECTIONS if name in names]
        self._sizes = [name for name in (*_FRAMES, _TYPE, *_OFFSETS, *_SIZES) if name in names]
        self._seen = [name for name in _OBSERVED if name in names]
        self._asked = asked
        self._looked = asked | {"ipTotalLength"} if "octetDeltaCount" in asked else asked
        self._inner = inner

    def needed(self, wanted: Wanted) -> Wanted:
        """The sections, and the fields about their beginning and end."""
        return wanted if wanted is ALL else wanted | {*self._sections, *self._sizes, *self._seen}

    def add(self, found: Found, sources: Sequence[tuple], counts: np.ndarray) -> Sequence[Key]:
        """See `layout.Made`."""
        columns, missing = found
        n = int(np.sum(counts))
        pieces, read = _Pieces(n), np.zeros(n, bool)
        left = np.arange(n)
        for name in self._sections:
            column = columns.get(name)
            if isinstance(column, np.ndarray) or column is None or not len(left):
                continue
            left = self._section(name, column, columns, left, pieces, read)
        rows = np.flatnonzero(read)
        if "packetDeltaCount" in self._asked:
            pieces.add("packetDeltaCount", np.ones(len(rows), np.uint64), rows, None)
        if self._asked & set(_TIMES) and len(rows):
            seen = self._times(found, sources, counts)[rows]
            for name in self._asked & set(_TIMES):
                pieces.add(name, seen, rows, None)
        keys = []
        for name, column, mask in pieces.joined():
            columns[name] = column
            if mask is not None:
                missing[name] = mask
            keys.append(_key(name))
        return keys

    def _times(self, found: Found, sources: Sequence[tuple], counts: np.ndarray) -> np.ndarray:
        """When the packets were seen, in milliseconds."""
        for name in self._seen:
            column = found[0][name]
            if isinstance(column, np.ndarray) and name not in found[1]:
                return _OBSERVED[name](column).astype(np.uint64)
        received = np.fromiter((int(source[2] * 1000) for source in sources), np.uint64, len(sources))
        return np.repeat(received, counts)

    def _section(
        self, name: str, column: Octets | Coded, columns: dict[str, Column], rows: np.ndarray, pieces: _Pieces,
        read: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        """Read one section of these rows; returns the rows without an IP header, for a further section.

        `read` becomes True for rows with a header found: only these get counters and times.
        """
        octets, begun, starts, lengths, first = self._beginnings(name, column, columns, rows)
        if self._inner:
            inside = tunnels.inside(octets, starts, lengths, first)
            if inside.any:
                starts, lengths, first = inside.starts, inside.lengths, inside.first
                for key, (values, gone) in inside.columns().items():
                    if key in self._asked:
                        pieces.add(key, values, rows, gone)
        left = [np.zeros(0, np.int64)]
        for part in headers.decode(octets, starts, lengths, first, self._looked):
            of = rows[part.rows]
            if part.family not in (4, 6):
                left.append(of)
            good = part.begins > begun[part.rows] if part.family not in (4, 6) else np.ones(part.n, bool)
            read[of[good]] = True
            if "octetDeltaCount" in self._asked:
                link = part.begins - begun[part.rows] if name in _OF_FRAMES else None
                self._count(part, columns, of, link, good, pieces)
            for key, given in part.columns.items():
                if key in self._asked:
                    pieces.add(key, given, of, part.missing.get(key))
        return np.sort(np.concatenate(left))

    def _beginnings(
        self, name: str, column: Octets | Coded, columns: dict[str, Column], rows: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        """The buffer, where the sections of these rows begin, and starts, lengths and first of the packets in them."""
        octets, starts, lengths = places(column)
        begun = starts = starts[rows]
        lengths = np.minimum(lengths[rows], self._most(columns, name)[rows])
        first = np.where(self._whole(columns, name, len(column))[rows], SECTIONS[name], 0)
        kind = columns.get(_TYPE)
        if name == "dataLinkFrameSection" and isinstance(kind, np.ndarray):
            octets = np.concatenate((octets, np.zeros(64, np.uint8)))
            protocols = _PROTOCOLS[np.minimum(kind[rows], 3)]
            starts, lengths, of_kind = sampled_beginnings(octets, starts, lengths, protocols)
            first = np.where(first > 0, of_kind, 0)
        return octets, begun, starts, lengths, first

    def _count(
        self, part: Headers, columns: dict[str, Column], rows: np.ndarray, link: np.ndarray | None,
        good: np.ndarray, pieces: _Pieces,
    ) -> None:  # fmt: skip
        """The octets of the packets. `link` are the octets of the section before IP, None where it has no frames."""
        told = next((columns[name] for name in _FRAMES if name in columns), None)
        frame = told[rows].astype(np.int64) if isinstance(told, np.ndarray) else np.zeros(len(rows), np.int64)
        if part.family not in (4, 6):
            pieces.add("octetDeltaCount", frame.astype(np.uint64), rows, (frame == 0) | ~good)
            return
        said = numbers(part.columns["ipTotalLength"]).astype(np.int64)
        size = frame if link is None else frame - link
        # Of a packet that the network card has yet to cut, or a jumbogram, the header says nothing.
        captured = part.ends - part.begins
        said = np.where(said > (0 if part.family == 4 else 40), said, np.maximum(size, captured))
        if link is not None:
            said = np.where((size > said + _CHECK) & (frame > _LEAST_FRAME), size, said)
        pieces.add("octetDeltaCount", said.astype(np.uint64), rows, None)

    def _most(self, columns: dict[str, Column], name: str) -> np.ndarray:
        """How many octets of the section are of the packet: the rest of a field of fixed length is padding."""
        n = len(columns[name])
        column = columns.get(_SIZES[name == "layer2packetSectionData"])
        if not isinstance(column, np.ndarray):
            return np.full(n, 0xFFFF)
        return np.where(column > 0, column, 0xFFFF).astype(np.int64)

    def _whole(self, columns: dict[str, Column], name: str, n: int) -> np.ndarray:
        """Sections that begin where the packet begins."""
        offset = columns.get(_OFFSETS[name == "layer2packetSectionData"])
        return offset == 0 if isinstance(offset, np.ndarray) else np.ones(n, bool)


class _Pieces:
    """Columns of `n` rows in the making, out of the columns of some rows each; later ones go before."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._pieces: dict[str, list[tuple[Column, np.ndarray]]] = {}

    def add(self, name: str, values: Column, rows: np.ndarray, missing: np.ndarray | None) -> None:
        """The values of these rows."""
        if missing is not None:
            there = np.flatnonzero(~missing)
            values, rows = (values[there] if isinstance(values, np.ndarray) else values.take(there)), rows[there]
        if len(rows):
            self._pieces.setdefault(name, []).append((values, rows))

    def joined(self) -> Iterable[tuple[str, Column, np.ndarray | None]]:
        """Each column, and which rows are missing."""
        for name, pieces in self._pieces.items():
            if len(pieces) == 1 and len(pieces[0][1]) == self._n:  # rows are in their order
                yield name, pieces[0][0], None
                continue
            missing = np.ones(self._n, bool)
            for _, rows in pieces:
                missing[rows] = False
            whole = self._octets(pieces) if isinstance(pieces[0][0], Octets) else self._array(pieces)
            yield name, whole, missing if missing.any() else None

    def _array(self, pieces: list[tuple[Column, np.ndarray]]) -> np.ndarray:
        first = numbers(pieces[0][0])
        column = np.zeros((self._n, *first.shape[1:]), np.dtype(first.dtype.char))
        for values, rows in pieces:
            column[rows] = numbers(values)
        return column

    def _octets(self, pieces: list[tuple[Column, np.ndarray]]) -> Octets:
        starts, lengths, base, buffers = np.zeros(self._n, np.int64), np.zeros(self._n, np.int64), 0, []
        for column, rows in pieces:
            values = strings(column).plain()
            starts[rows], lengths[rows] = values.offsets[:-1] + base, values.lengths
            base += len(values.data)
            buffers.append(values.data)
        return Octets.gathered(np.concatenate(buffers), starts, lengths)


def _key(name: str) -> Key:
    if name not in _KEYS:
        key = known(name)
        assert key is not None, name
        _KEYS[name] = key
    return _KEYS[name]
