"""PCAPIN: replays capture files by their own clock: the packets, or the flow exports inside them."""

from __future__ import annotations

import gzip
import io
import ipaddress
import zlib
from collections.abc import Iterable, Iterator

from ulogd_tw.collecting.captured_streams import IDLE_SECONDS, Connections
from ulogd_tw.collecting.input import Collecting
from ulogd_tw.collecting.replay import SET_BACK, Replaying
from ulogd_tw.core.counters import Count, Fault, Gauge
from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.keys import Key
from ulogd_tw.core.options import Option, one_of, positive, text, words
from ulogd_tw.core.plugin import FLOW, RAW
from ulogd_tw.ipfix.exporters import LIMIT_SESSIONS, Allowed, Exporters, sender
from ulogd_tw.ipfix.session import Session
from ulogd_tw.metering import capture_rows
from ulogd_tw.metering.capture_rows import Pace, PacketRows, stretches
from ulogd_tw.packets.capture import Capture, Packets
from ulogd_tw.packets.counts import PAYLOADS
from ulogd_tw.packets.payloads import Exports, Sent

SLICE_OCTETS = 1 << 16
"""Octets read in one step: the headers of small packets then take 20 ms."""
PACKET_OCTETS = 1 << 22
"""The same when packets become rows, without a step for each packet."""
PORTS = ("2055", "2056", "4432", "4739", "4740", "6343", "9555", "9995", "9996")


def speed(written: str) -> float:
    """max, real, or a factor: 2 is twice as fast as captured. 0 stands for max."""
    word = written.strip()
    if word in ("max", "real"):
        return float(word == "real")
    try:
        factor = float(word)
    except ValueError:
        factor = 0.0
    if not 0 < factor < 1e9:
        raise ValueError(f"{written!r} is neither max, real, nor a factor such as 2 or 0.5")
    return factor


def _reads(file: io.BufferedIOBase, capture: Capture, size: int) -> Iterator[int]:
    """Octets brought by each read into the space of the capture; a read error is raised after them."""
    packed = isinstance(file, gzip.GzipFile)  # brings little at once
    while True:
        space, count, broken = capture.space(size), 0, None
        while count < size:
            try:
                more = file.readinto1(space[count:])
            except (OSError, EOFError, zlib.error) as error:
                broken = error
                break
            count += more
            if not (more and packed):
                break
        if count:
            yield count
        if broken is not None:
            raise broken
        if not count:
            return


class PCAPIN(Replaying):
    """Reads pcap and pcapng files: their packets, or the IPFIX, NetFlow and sFlow exports inside them.

    The plugin below decides. A plugin for raw rows (BASE) gets the packets with their link header, of any LINKTYPE.
    Other plugins get flow records, as from COLLECTOR: UDP datagrams and TCP connections to `ports` are read over
    Ethernet (with VLAN tags and MPLS), Linux cooked, PPP and raw IP, and fragments are reassembled.

    The clock is the capture's: it sets received_ms, oob.time.sec and the intervals of AGGREGATE.
    """

    name = "PCAPIN"
    otype = RAW | FLOW
    chooses = True
    provides = (*capture_rows.KEYS, *Replaying.provides)
    hidden = capture_rows.HIDDEN
    counts = (
        *Replaying.counts,
        *PAYLOADS,
        Count("packets_read", "packets", "Packets read from the files."),
        Gauge("sessions", "exporters", "Exporters whose messages were found."),
        Count("octets_skipped", "octets", "Octets passed over to find the next message after damage."),
        Fault("capture", "files", "Cut or damaged captures, read up to the damage."),
    )
    options = (
        *Replaying.reading_options,
        Option("ports", words, PORTS, "Ports of the collectors in the capture: packets to these UDP and TCP ports are "
               "read as flow exports."),
        Option("speed", text, "max", "Speed of the replay. max: as fast as possible; real: as captured; or a factor, "
               "such as 10."),
        Option("session_key", one_of("auto", "strict", "address"), "auto", "Identity of an exporter over UDP, as in "
               "COLLECTOR: strict (address and port), address, or auto."),
        Option("max_sessions", positive, 10_000, "Maximum number of Transport Sessions; one more exporter is refused."),
        Option("max_sessions_of_address", positive, 1000, "Maximum number of UDP sessions of one address."),
        *Collecting.decoding_options,
    )  # fmt: skip

    def __init__(self, instance: str, config=None) -> None:
        super().__init__(instance, config)
        self._exporters: Exporters | None = None
        self._connections: Connections | None = None
        self._exports: Exports | None = None
        self._pace = Pace(0.0, SET_BACK)
        self._rows: PacketRows | None = None
        self._whole = True
        self.counters.figures["sessions"] = lambda: len(self._exporters or ())

    @property
    def packets(self) -> bool:
        """Whether its rows are packets."""
        return self.otype == RAW

    @property
    def open_keys(self) -> bool:  # type: ignore[override]
        """Flow records have any element."""
        return not self.packets

    def keys(self) -> Iterable[Key]:
        """The keys of packets or of flow records; all while it is not settled."""
        of = {RAW: capture_rows.KEYS, FLOW: Replaying.provides}
        return of.get(self.otype, self.provides)

    def mistakes(self) -> Iterator[tuple[str, str]]:
        for port in self.config.ports:
            if not (port.isdecimal() and 0 < int(port) < 65536):
                yield "ports", f"{port} is not a port (1 to 65535)"
        try:
            speed(self.config.speed)
        except ValueError as error:
            yield "speed", str(error)

    def open(self) -> None:
        super().open()
        config = self.config
        self._pace = Pace(speed(config.speed), SET_BACK)
        self._rows = PacketRows(self.wanted) if self.packets else None
        most, of_address = config.max_sessions, config.max_sessions_of_address
        self._exporters = Exporters(config.session_key, most, of_address, Allowed(()), IDLE_SECONDS)
        self.make_room_by(self._decoder, self._exporters, lambda: self._now)
        counters = self.counters
        self._connections = Connections(self._message, self._over, counters.errors, counters.figures, self._room)
        self._exports = Exports(frozenset(map(int, config.ports)), counters.errors)

    def sessions(self) -> Iterator[Session]:
        yield from self._exporters
        yield from self._connections.sessions()

    def read(self, path: str, file: io.BufferedIOBase) -> Iterator[float | None]:
        capture, self._whole = Capture(), False
        for count in _reads(file, capture, PACKET_OCTETS if self.packets else SLICE_OCTETS):
            try:
                packets, broken = capture.filled(count), None
            except MessageError as error:
                packets, broken = error.before, error
            self.counters.figures["packets_read"] += len(packets)
            yield from self._rows_of(packets) if self.packets else self._replay(packets)
            if broken is not None:
                self._damaged(path, f"{broken}; the rest of it is not read")
                return
        if capture.waiting:
            self._damaged(path, "its last packet is cut")
        else:
            self._whole = True

    def end_file(self) -> None:
        """A connection goes on in the next file, but not after a damaged one."""
        if not self._whole:
            self._connections.end()

    def finish(self) -> None:
        self._connections.end()

    def _damaged(self, path: str, what: str) -> None:
        self.counters.errors["capture"] += 1
        self.log.warn("{instance}: {path}: {what}", instance=self.instance, path=path, what=what)

    def _rows_of(self, packets: Packets) -> Iterator[float | None]:
        """The packets as rows; their octets on the wire are counted."""
        self.counters.octets_received += int(packets.wire.sum())
        times = packets.times
        for what in stretches(packets, self._pace, self.seconds_apart):
            if isinstance(what, slice):
                self._now = float(times[what.stop - 1]) or self._now
                self.counters.rows_received += what.stop - what.start
                self.emit(self._rows.batch(packets, what, self._now))
                yield None
            else:
                yield what

    def _replay(self, packets: Packets) -> Iterator[float | None]:
        for count, sent in enumerate(self._exports.of(packets)):
            if (delay := self._pace.ahead(sent.time)) > 0.001:
                yield delay
            elif count % 256 == 255:
                yield None
            self.advance(sent.time)
            if sent.sequence < 0:
                self._datagram(sent)
            else:
                self._segment(sent)
            if self._decoder.homes:
                self._unite()
        self._decoder.expire(self._exporters, self._now)
        self._connections.expire(self._now)
        yield None

    # UDP

    def _datagram(self, sent: Sent) -> None:
        place, host = (sent.destination, sent.destination_port), str(ipaddress.ip_address(sent.source))
        name = sender(host, sent.source_port)
        session = self._exporters.find(place, name, self._now)
        if session is None:
            peer = (host, sent.source_port)
            self.take_newcomer(self._decoder, self._exporters, place, name, peer, sent.octets, self._now)
        else:
            self._decoder.feed(session, sent.octets, self._now)

    def _unite(self) -> None:
        homes = self._decoder.homes[:]
        self._decoder.homes.clear()
        for home, _ in homes:
            for session in self._exporters.unite(home):
                self._decoder.merge(home, session)

    # TCP

    def _segment(self, sent: Sent) -> None:
        taken = self._connections.take(sent)
        if not taken:
            self.refused((str(ipaddress.ip_address(sent.source)), sent.source_port), LIMIT_SESSIONS, self._now)

    def _message(self, session: Session, message: bytes) -> None:
        self._decoder.feed(session, message, self._now)

    def _room(self) -> bool:
        return len(self._connections) < self.config.max_sessions

    def _over(self, session: Session) -> None:
        self._hand_on()
        self._decoder.forget(session)
