"""UNIXSOCK: its programs, without any socket."""

from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.packets.test_unixsock import FULL, PACKET, ROW, message
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL
from ulogd_tw.plugins.inputs import unixsock
from ulogd_tw.plugins.inputs.unixsock import UNIXSOCK


class _Listener:
    """In the place of a Unix socket: notes how it was made."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def open(self, factory):
        self.factory = factory

    def stop(self):
        self.stopped = True


class UnixsockTests(SynchronousTestCase):
    """An instance and its programs."""

    def make(self, **values):
        self.clock, self.batches = Clock(), []
        plugin = UNIXSOCK("sock1", Options(UNIXSOCK.options, values), reactor=self.clock)
        plugin.clock = self.clock.seconds
        plugin.wanted = ALL
        plugin.emit = self.batches.append
        self.patch(unixsock, "UnixListener", _Listener)
        plugin.open()
        return plugin

    def connect(self, plugin):
        protocol = plugin._listener.factory.buildProtocol(None)
        transport = StringTransport()
        transport.abortConnection = transport.loseConnection
        protocol.makeConnection(transport)
        return protocol, transport

    def test_options(self):
        """ulogd2's options with its defaults reach the socket."""
        plugin = self.make()
        self.assertEqual(plugin._listener.arguments[:4], ("/var/run/ulogd/ulogd2.sock", 0o600, "", ""))
        self.assertEqual(plugin.config.bufsize, 0)
        self.assertEqual([name for name, _ in self.make(perms=0o1777).mistakes()], ["perms"])

    def test_programs(self):
        """Several programs at once: each one's messages become rows, however they are cut."""
        plugin = self.make()
        plugin.begin()
        first, second = (self.connect(plugin)[0] for _ in range(2))
        first.dataReceived(FULL[:40])
        second.dataReceived(message(PACKET) + FULL)
        first.dataReceived(FULL[40:])
        rows = [list(batch.rows()) for batch in self.batches]
        plain = {key: ROW[key] for key in ("raw.pkt", "raw.pktlen", "raw.pktcount", "oob.family", "oob.protocol")}
        self.assertEqual(rows, [[plain, ROW], [ROW]])
        self.assertEqual((plugin.counters.rows_received, plugin.counters.messages_received), (3, 3))

    def test_wrong_messages(self):
        """A program that sends something else is disconnected and counted; its messages before that are rows."""
        plugin = self.make()
        plugin.begin()
        (first, transport), (second, other) = self.connect(plugin), self.connect(plugin)
        with patch.object(plugin, "log") as log:
            first.dataReceived(FULL + b"GET / HTTP/1.0\r\n\r\n")
            second.dataReceived(message(PACKET, (4, b"ab")) + FULL)
        self.assertEqual((transport.disconnecting, other.disconnecting), (True, False))
        self.assertEqual((plugin.counters.errors, sum(b.n for b in self.batches)), ({"mark": 1, "option length": 1}, 2))
        self.assertEqual(log.warn.call_count, 1)

    def test_cut(self):
        """A program that goes in the middle of a message is counted."""
        plugin = self.make()
        protocol, _ = self.connect(plugin)
        protocol.dataReceived(FULL[:50])
        protocol.connectionLost()
        self.assertEqual((plugin.counters.errors, plugin.counters.as_dict()["clients"]), ({"cut": 1}, 0))

    def test_too_many(self):
        """More programs than max_clients are refused and counted."""
        plugin = self.make(max_clients=2)
        for _ in range(2):
            self.connect(plugin)
        self.assertIsNone(plugin._listener.factory.buildProtocol(None))
        self.assertEqual(plugin.counters.figures["clients_refused"], 1)

    def test_waiting(self):
        """Programs wait before the start, and while a queue below is full."""
        plugin = self.make()
        _, early = self.connect(plugin)
        self.assertEqual(early.producerState, "paused")
        plugin.begin()
        self.assertEqual(early.producerState, "producing")
        plugin.pause()
        _, late = self.connect(plugin)
        self.assertEqual((early.producerState, late.producerState), ("paused", "paused"))
        plugin.resume()
        self.assertEqual((early.producerState, late.producerState), ("producing", "producing"))

    def test_stop(self):
        """All connections end."""
        plugin = self.make()
        _, transport = self.connect(plugin)
        plugin.stop()
        self.assertTrue(transport.disconnecting and plugin._listener.stopped)
