"""The datagrams and streams to some ports in the packets of a capture, over any link."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ulogd_tw.packets.capture import Packets
from ulogd_tw.packets.headers import Headers, decode
from ulogd_tw.packets.link import beginnings
from ulogd_tw.packets.reassembly import Fragments

UDP, TCP = 17, 6
SYN, FIN, RST = 2, 1, 4
_WANTED = frozenset({
    "sourceIPv4Address", "destinationIPv4Address", "sourceIPv6Address", "destinationIPv6Address", "protocolIdentifier",
    "sourceTransportPort", "destinationTransportPort", "tcpSequenceNumber", "tcpControlBits", "fragmentOffset",
    "fragmentFlags", "fragmentIdentification",
})  # fmt: skip
_MORE = 0x20
"""The flag of fragmentFlags: more fragments follow (RFC 791)."""


@dataclass(slots=True)
class Sent:
    """The payload of one packet: a datagram, or a segment of TCP with its `sequence` and `flags`.

    Addresses are octets (4 or 16), ports numbers; `time` is that of the packet, or of an earlier one if it has none.
    """

    time: float
    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    octets: bytes
    sequence: int = -1
    flags: int = 0


class Exports:
    """Finds the messages sent to `ports`. `errors` counts unreadable packets: ``link``, ``fragments``, ``cut``."""

    def __init__(self, ports: frozenset[int], errors: Counter[str]) -> None:
        self._ports = np.array(sorted(ports), np.int64)
        self._errors = errors
        self._fragments = Fragments(errors)
        self._time = 0.0

    def of(self, packets: Packets) -> list[Sent]:
        """In the order of the packets."""
        if not len(packets):
            return []
        times = self._times(packets.times)
        starts, lengths, first, unknown = beginnings(packets.octets, packets.starts, packets.lengths, packets.links)
        if unknown.any():
            self._errors["link"] += int(np.count_nonzero(unknown))
        found: list[tuple[int, Sent]] = []
        for headers in decode(packets.octets, starts, lengths, first, _WANTED):
            if headers.family:
                found += self._of_family(packets.octets, times, headers)
        found.sort(key=lambda pair: pair[0])
        return [sent for _, sent in found]

    def _times(self, times: np.ndarray) -> np.ndarray:
        """The times of packets; a packet without a time (0) gets that of the packet before it."""
        places = np.where(times == 0, -1, np.arange(len(times)))
        last = np.maximum.accumulate(places)
        found = np.where(last < 0, self._time, times[last])
        self._time = float(found[-1])
        return found

    def _of_family(self, packets: np.ndarray, times: np.ndarray, headers: Headers) -> Iterator[tuple[int, Sent]]:
        columns, n = headers.columns, len(headers.rows)
        nothing = np.zeros(n, np.int64)
        protocol = columns.get("protocolIdentifier", nothing)
        port = columns.get("destinationTransportPort", nothing)
        offset, flags = columns.get("fragmentOffset", nothing), columns.get("fragmentFlags")
        if flags is not None:
            pieces = (offset > 0) | (flags & _MORE > 0)
        elif "fragmentOffset" in columns:  # IPv6: packets with the fragment header
            pieces = ~headers.missing.get("fragmentOffset", np.zeros(n, bool))
        else:
            pieces = np.zeros(n, bool)
        chosen = np.isin(port, self._ports) & np.isin(protocol, (UDP, TCP)) | pieces & (protocol == UDP)
        ends = headers.ends
        for place in np.flatnonzero(chosen).tolist():  # 3 us for each packet of an exporter
            row = int(headers.rows[place])
            octets = packets[int(headers.payload[place]) : int(ends[place])].tobytes()
            time = float(times[row])
            source, destination = _addresses(columns, headers.family, place)
            if pieces[place]:
                octets = self._whole(columns, headers.family, place, (source, destination), octets, time)
                if octets is None:
                    continue
            sent = self._sent(int(protocol[place]), time, source, destination, octets, columns, place)
            if sent is not None:
                yield row, sent

    def _whole(
        self, columns: dict, family: int, place: int, ends: tuple[bytes, bytes], octets: bytes, now: float
    ) -> bytes | None:
        ident, offset = int(columns["fragmentIdentification"][place]), int(columns["fragmentOffset"][place]) * 8
        if family == 4:
            more = bool(columns["fragmentFlags"][place] & _MORE)
        else:
            more = bool(columns["fragmentFlags"][place] & _MORE) if "fragmentFlags" in columns else False
        return self._fragments.take((*ends, ident), offset, more, octets, now)

    def _sent(
        self, protocol: int, time: float, source: bytes, destination: bytes, octets: bytes, columns: dict, place: int
    ) -> Sent | None:
        if protocol == UDP:
            if len(octets) < 8:
                self._errors["cut"] += 1
                return None
            ports = int.from_bytes(octets[:2], "big"), int.from_bytes(octets[2:4], "big")
            length = int.from_bytes(octets[4:6], "big")
            if ports[1] not in self._ports:
                return None
            if length > len(octets):
                self._errors["cut"] += 1
                return None
            return Sent(time, source, destination, *ports, octets[8 : length or len(octets)])
        if len(octets) < 20:
            self._errors["cut"] += 1
            return None
        ports = int(columns["sourceTransportPort"][place]), int(columns["destinationTransportPort"][place])
        begin = octets[12] >> 4 << 2
        sequence, flags = int(columns["tcpSequenceNumber"][place]), int(columns["tcpControlBits"][place])
        return Sent(time, source, destination, *ports, octets[begin:], sequence, flags)


def _addresses(columns: dict, family: int, place: int) -> tuple[bytes, bytes]:
    if family == 4:
        return tuple(int(columns[f"{end}IPv4Address"][place]).to_bytes(4, "big") for end in ("source", "destination"))
    return tuple(columns[f"{end}IPv6Address"][place].astype(">u8").tobytes() for end in ("source", "destination"))
