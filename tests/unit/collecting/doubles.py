"""A COLLECTOR on memory transports: connections and datagrams without a socket, and what it says and gives."""

import socket
import struct

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import Logger, formatEvent
from twisted.python.failure import Failure

from tests.unit.ipfix.wire import without_context
from ulogd_tw.collecting.datagrams import DatagramIntake
from ulogd_tw.collecting.stream_session import StreamSession
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL
from ulogd_tw.plugins.inputs.collector import COLLECTOR
from ulogd_tw.transports.slab import Slab
from ulogd_tw.transports.stream_listener import StreamConnection


class Transport(StringTransport):
    """A connection in memory."""

    def setTcpKeepAlive(self, enabled):
        """As a TCP transport has it."""


class Connection:
    """One TCP connection of an exporter to the collector."""

    def __init__(self, plugin, peer, port):
        self.protocol = StreamConnection(lambda made: plugin.reception.connected(made, StreamSession, "tcp"))
        self.transport = Transport(peerAddress=IPv4Address("TCP", peer, port))
        self.protocol.makeConnection(self.transport)

    def send(self, octets):
        self.protocol.dataReceived(octets)

    @property
    def closed(self):
        """Whether the collector has closed it."""
        return self.transport.disconnecting

    def end(self, broken=False):
        """The exporter is gone, orderly or not."""
        self.protocol.connectionLost(Failure(ConnectionLost() if broken else ConnectionDone()))


class Listener:
    """Stands for a socket that is bound to this address."""

    lost = 0

    def __init__(self, place):
        self.place = place


def slab_of(datagrams):
    """(octets, address, port) of each datagram, laid out as the kernel does it."""
    slab = Slab(len(datagrams), 2048)
    for row, (octets, peer, port) in enumerate(datagrams):
        slab.rows[row, : len(octets)] = list(octets)
        slab._messages["length"][row] = len(octets)
        name = struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(peer) + bytes(20)
        slab._names[row] = list(name)
    slab.n = len(datagrams)
    return slab


class Collecting:
    """An opened COLLECTOR that listens nowhere; `now` is its clock. `rows` are those it has given, without context."""

    def __init__(self, case, wanted=ALL, emit=None, plugin=None, **options):
        self.clock = Clock()
        case.patch(COLLECTOR, "reactor", self.clock)
        self.worked = 0.0
        """Seconds that the process has worked."""
        case.patch(DatagramIntake, "clock", staticmethod(self.clock.seconds))
        case.patch(DatagramIntake, "work_clock", staticmethod(lambda: self.worked))
        self.set_by = 0.0
        """Seconds by which somebody has set the wall clock."""
        case.patch(COLLECTOR, "clock", staticmethod(lambda: self.now))
        self.said = []
        case.patch(COLLECTOR, "log", Logger("collector", observer=lambda event: self.said.append(formatEvent(event))))
        if plugin is None:
            plugin = COLLECTOR("col1", Options(COLLECTOR.all_options(), options))
            plugin.wanted = wanted
            plugin.emit = emit or self._keep
        self.plugin = plugin
        self.batches = []
        plugin.config.listen = ()
        plugin.open()

    def _keep(self, batch):
        self.batches.append(batch)

    @property
    def rows(self):
        return [without_context(row) for batch in self.batches for row in batch.rows()]

    @property
    def errors(self):
        return dict(self.plugin.counters.errors)

    def connect(self, peer="192.0.2.1", port=40000):
        return Connection(self.plugin, peer, port)

    @property
    def now(self):
        """The wall clock; it goes on with the steady one."""
        return 1000.0 + self.set_by + self.clock.seconds()

    @now.setter
    def now(self, value):
        self.clock.advance(value - self.now)

    def wait(self):
        """Until what has come is handed on."""
        self.clock.advance(1.0)

    def at(self, now):
        """It is so late now, and the service has looked after it."""
        self.now = now
        self.plugin.wake(now)

    def datagrams(self, *datagrams, place="udp:4739"):
        """All datagrams of one wake-up: (octets, address, port), laid out as the kernel does it; `place` is ours."""
        self.plugin.reception.take_slab(Listener(place), slab_of(datagrams))

    def heard(self, text):
        """The lines of the log that have this text."""
        return [line for line in self.said if text in line]
