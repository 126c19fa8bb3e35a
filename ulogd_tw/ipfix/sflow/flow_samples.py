"""The packets of sFlow's flow samples: columns from their records (version 5, section 5.3, flow data)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ulogd_tw.core.plugin import Wanted
from ulogd_tw.ipfix.sflow.cursor import Cursor
from ulogd_tw.ipfix.sflow.extended_records import EXTENDED, read_extended
from ulogd_tw.ipfix.sflow.gateway import put_address, read_gateway
from ulogd_tw.ipfix.sflow.samples import Chain, Samples
from ulogd_tw.packets import headers, tunnels
from ulogd_tw.packets.headers import Headers
from ulogd_tw.packets.sampled_links import sampled_beginnings

_RAW, _ETHERNET, _IPV4, _IPV6, _SWITCH, _ROUTER, _GATEWAY = 1, 2, 3, 4, 1001, 1002, 1003
_LEAST = {_RAW: 16, _ETHERNET: 24, _IPV4: 32, _IPV6: 56, _SWITCH: 16, _ROUTER: 16, _GATEWAY: 24}
"""How many octets they have at least."""
READ = frozenset((*_LEAST, *EXTENDED))
"""Formats of flow records that are read."""


class Sampled:
    """The packets of some flow samples."""

    def __init__(self, samples: Samples, wanted: Wanted, inner: bool = False) -> None:
        self._reading = samples.reading
        self._words = samples.reading.words
        self._wanted = wanted
        self._inner = inner
        self._n = samples.n
        self._octets = np.zeros(samples.n, np.int64)
        """Octets of each frame, or else of the IP packet in it; 0 where nothing says."""
        self._records: dict[int, Chain] = {}
        tags, counts = np.unique(samples.records.tag, return_counts=True)
        for tag in READ.intersection(tags.tolist()):
            self._records[tag] = samples.records.firsts(tag, _LEAST.get(tag, 4))
        self._extended = [tag for tag in self._records if tag in EXTENDED]
        self.unread = sum(n for tag, n in zip(tags.tolist(), counts.tolist(), strict=True) if tag not in READ)
        """How many records are of formats that are not read."""

    def families(self) -> Iterator[Headers]:
        """Columns by the family of the packets; each sample is in one of them."""
        starts, lengths, first = (np.zeros(self._n, np.int64) for _ in range(3))
        for tag in (_IPV6, _IPV4, _ETHERNET, _RAW):  # later ones know better
            if tag in self._records:
                here = self._records[tag]
                self._octets[here.owner] = self._words[here.at + (tag == _RAW)]
        if _RAW in self._records:
            raw = self._records[_RAW]
            protocol = self._words[raw.at].astype(np.int64)
            size = np.minimum(self._words[raw.at + 3], raw.octets - 16)
            begun = sampled_beginnings(self._reading.octets, (raw.at + 4) * 4, size, protocol)
            starts[raw.owner], lengths[raw.owner], first[raw.owner] = begun
        octets, inside = self._reading.octets, None
        if self._inner:
            inside = tunnels.inside(octets, starts, lengths, first)
            starts, lengths, first = inside.starts, inside.lengths, inside.first
        for found in headers.decode(octets, starts, lengths, first, self._wanted):
            if inside is not None and inside.any:
                for name, (values, gone) in inside.columns().items():
                    here = ~gone[found.rows]
                    found.put(name, values[found.rows][here], here, values.dtype.char)
            for one in [found] if found.family else self._by_the_agent(found):
                self._complete(one)
                yield one

    def _by_the_agent(self, found: Headers) -> Iterator[Headers]:
        """Samples without a header of IP: those read by the agent itself (records 3 and 4), and the rest."""
        left = np.ones(found.n, bool)
        for family, tag in ((4, _IPV4), (6, _IPV6)):
            rows, at = self._of(tag, found)
            rows, at = rows[left[rows]], at[left[rows]]
            if len(rows):
                left[rows] = False
                one = found.of(family, rows)
                self._as_read(one, at)
                yield one
        if left.any():
            yield found.of(0, np.flatnonzero(left))

    def _as_read(self, found: Headers, at: np.ndarray) -> None:
        """Records 3 and 4: the fields of the packet as the agent read them."""
        four, words = found.family == 4, self._words
        width = 1 if four else 4
        for place, end in enumerate(("source", "destination")):
            values = words[at + 2 + place] if four else self._reading.ipv6(at + 2 + 4 * place)
            found.put(f"{end}IPv{found.family}Address", values, None, "I" if four else "L")
        protocol, rest = words[at + 1], at + 2 + 2 * width
        found.put("protocolIdentifier", protocol, None, "B")
        found.put("ipVersion", np.full(found.n, found.family), None, "B")
        ports = np.isin(protocol, headers.WITH_PORTS)
        found.put("sourceTransportPort", words[rest[ports]], ports, "H")
        found.put("destinationTransportPort", words[rest[ports] + 1], ports, "H")
        tcp = protocol == headers.TCP
        found.put("tcpControlBits", words[rest[tcp] + 2], tcp, "H")
        found.put("ipClassOfService", words[rest + 3], None, "B")

    # what other records say

    def _complete(self, found: Headers) -> None:
        octets = self._octets[found.rows]
        found.put("octetDeltaCount", octets[octets > 0], octets > 0, "L")
        found.put("packetDeltaCount", np.ones(found.n), None, "L")
        for tag, complete in ((_ETHERNET, self._ethernet), (_SWITCH, self._switch), (_ROUTER, self._router)):
            if tag in self._records:
                rows, at = self._of(tag, found)
                if len(rows):
                    complete(found, rows, at)
        if _GATEWAY in self._records:
            read_gateway(self._reading, self._cursor(_GATEWAY, found), found)
        for tag in self._extended:
            read_extended(tag, self._reading, self._cursor(tag, found), found)

    def _ethernet(self, found: Headers, rows: np.ndarray, at: np.ndarray) -> None:
        """Record 2: addresses and type of the frame, where there is no raw header."""
        without = found.missing.get("sourceMacAddress", np.full(found.n, "sourceMacAddress" not in found.columns))
        if _RAW in self._records:
            without = without & (self._having(_RAW)[found.rows] < 0)
        rows, at = rows[without[rows]], at[without[rows]]
        for name, offset in (("sourceMacAddress", 1), ("destinationMacAddress", 3)):
            found.put(name, self._reading.number(at + offset, 8) >> np.uint64(16), rows, "L")
        found.put("ethernetType", self._words[at + 5], rows, "H")

    def _switch(self, found: Headers, rows: np.ndarray, at: np.ndarray) -> None:
        """Record 1001: VLANs and priorities of the switch, before and behind it."""
        for name, offset, form in (("vlanId", 0, "H"), ("dot1qPriority", 1, "B"), ("postVlanId", 2, "H")):
            values = self._words[at + offset]
            known = values <= 0xFFF  # others say: unknown
            found.put(name, values[known], rows[known], form)

    def _router(self, found: Headers, rows: np.ndarray, at: np.ndarray) -> None:
        """Record 1002: the next hop, and the lengths of the prefixes."""
        cursor = self._cursor(_ROUTER, found)
        put_address(self._reading, cursor, found, "ipNextHop")
        at = cursor.skip(2)
        if found.family:
            for offset, end in ((0, "source"), (1, "destination")):
                found.put(f"{end}IPv{found.family}PrefixLength", self._words[at + offset], cursor.rows, "B")

    # where things are

    def _having(self, tag: int) -> np.ndarray:
        """For each sample the place of its record of this tag, -1 where it has none."""
        place = np.full(self._n, -1, np.int64)
        place[self._records[tag].owner] = np.arange(len(self._records[tag].owner))
        return place

    def _of(self, tag: int, found: Headers) -> tuple[np.ndarray, np.ndarray]:
        """Rows of `found` that have such a record, and where it is."""
        if tag not in self._records:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        place = self._having(tag)[found.rows]
        rows = np.flatnonzero(place >= 0)
        return rows, self._records[tag].at[place[rows]]

    def _cursor(self, tag: int, found: Headers) -> Cursor:
        """Reads the records of this tag."""
        place = self._having(tag)[found.rows]
        rows = np.flatnonzero(place >= 0)
        chain, place = self._records[tag], place[rows]
        return Cursor(self._reading, rows, chain.at[place], chain.at[place] + chain.octets[place] // 4)
