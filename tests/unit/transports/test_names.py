"""Names of hosts: who looks them up, and what happens when a host moves."""

import socket
import threading

from twisted.internet import defer, task
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.unit.exporting.doubles import Reader, flows
from tests.unit.plugins.outputs.test_ipfix import ExporterCase
from tests.unit.writing.text_rows import plugin
from ulogd_tw.plugins.outputs.json import JSON
from ulogd_tw.transports import names


def address(host, port=4739):
    """What the C library finds for an IPv4 address."""
    return socket.AF_INET, (host, port)


class NumericTests(SynchronousTestCase):
    """`numeric`."""

    def test_addresses_and_names(self):
        """An address is its own; a name is none, and is not looked up."""
        self.assertEqual(address("192.0.2.1", 9), names.numeric("192.0.2.1", 9, socket.SOCK_DGRAM))
        self.assertEqual("2001:db8::1", names.numeric("2001:db8::1", 9, socket.SOCK_DGRAM)[1][0])
        self.assertIsNone(names.numeric("localhost", 9, socket.SOCK_DGRAM))


class PoolTests(TestCase):
    """`lookup`."""

    timeout = 120

    @defer.inlineCallbacks
    def test_hanging_names_keep_nobody_waiting(self):
        """While twenty names hang, another is found, files are written, and the process could end."""
        from twisted.internet import reactor, threads

        hang, seen = threading.Event(), set()
        self.addCleanup(hang.set)

        def slow(host, *_):
            seen.add(threading.current_thread())
            if host != "quick":
                hang.wait(8)
            return [address("192.0.2.1")]

        self.patch(names, "addresses", slow)
        waiting = [names.lookup(reactor, f"dead{n}", 1, socket.SOCK_DGRAM) for n in range(20)]
        found = yield names.lookup(reactor, "quick", 1, socket.SOCK_DGRAM)
        self.assertEqual([address("192.0.2.1")], found)
        self.assertEqual(1, (yield threads.deferToThread(lambda: 1)))
        self.assertTrue(all(thread.daemon for thread in seen))
        hang.set()
        yield defer.gatherResults(waiting)


class MovedTests(ExporterCase):
    """The name of a collector over UDP gets another address."""

    def test_follows(self):
        """Within a minute, with the templates again; a name server that is away changes nothing."""
        places, asked = ["192.0.2.1"], []

        def lookup(_, host, port, kind):
            asked.append(host)
            return defer.succeed([address(places[0])]) if places else defer.fail(OSError("no answer"))

        self.patch(names, "lookup", lookup)
        plugin = self.exporter(flows(1), collectors=("udp:collector.example",))
        self.assertEqual(["192.0.2.1"], [made.where[0] for made in self.sockets])
        plugin.write(flows(1))
        self.tick(plugin)
        places.clear()
        self.reactor.pump([1.0] * 61)
        places.append("192.0.2.1")
        self.reactor.pump([1.0] * 61)
        self.assertEqual((3, 1), (len(asked), len(self.sockets)))
        places[0] = "192.0.2.7"
        self.reactor.pump([1.0] * 61)
        self.assertEqual((["192.0.2.1", "192.0.2.7"], [False, True]), (
            [made.where[0] for made in self.sockets], [made.open for made in self.sockets]))  # fmt: skip
        plugin.write(flows(1))
        self.tick(plugin)
        reader = Reader()
        for message in self.sockets[1].sent:
            reader.message(message)
        self.assertEqual((2, [], 0), (len(reader.records), reader.gaps, reader.unreadable))
        self.end()


class DatagramTests(SynchronousTestCase):
    """JSON over UDP."""

    def test_follows(self):
        """As the exporter does."""
        places, made = ["192.0.2.1"], []
        self.patch(names, "lookup", lambda *_: defer.succeed([address(places[0], 5)]))

        class Port:
            """What listenUDP gives."""

            open = True

            def connect(self, host, port):
                self.peer = host

            def stopListening(self):
                self.open = False

        class Reactor(task.Clock):
            """Ports instead of sockets."""

            def listenUDP(self, number, protocol, **_):
                protocol.transport = Port()
                made.append(protocol.transport)

        out = plugin(JSON, self.mktemp(), mode="udp", host="peer.example", port="5")
        out.sink.close()
        out.clock = Reactor()
        out.sink = out.make_sink()
        out.open()
        places[0] = "192.0.2.2"
        out.clock.pump([1.0] * 61)
        self.assertEqual([("192.0.2.1", False), ("192.0.2.2", True)], [(port.peer, port.open) for port in made])
        out.stop()
        self.assertEqual(([], False), (out.clock.getDelayedCalls(), made[1].open))
