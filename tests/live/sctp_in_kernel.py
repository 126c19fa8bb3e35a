"""Associations of a kernel's SCTP: `test_sctp` runs this where there is one, inside user-mode-linux.

There the kernel takes SCTP within UDP at port 9899, and sends it within UDP where a test says so (port 9898).
"""

import time
from collections import Counter

import numpy as np
from twisted.internet import defer, error, protocol, reactor, task
from twisted.trial.unittest import TestCase

from tests.live.test_ipfix_export import ExportCase
from tests.unit.exporting.doubles import Reader, flows
from ulogd_tw.transports.errors import SctpUnavailable
from ulogd_tw.transports.sctp import Options, SCTPProtocol, connectSCTP, listenSCTP, uses_kernel


class Peer(SCTPProtocol):
    """One end; `ended` fires with the exception."""

    def __init__(self):
        self.got, self.failed, self.ended, self.acknowledged = [], [], defer.Deferred(), 0
        self.shut = self.held_back = False

    def messageReceived(self, octets, stream, ppid):
        self.got.append((octets, stream, ppid))

    def messageFailed(self, context):
        self.failed.append(context)

    def allAcknowledged(self):
        self.acknowledged += 1

    def peerShutDown(self):
        self.shut = True

    def connectionLost(self, reason):
        self.ended.callback(reason.value)

    def pauseProducing(self):
        self.held_back = True

    def resumeProducing(self):
        self.held_back = False


class KernelTests(TestCase):
    """Two ends over loopback."""

    timeout = 120
    options = Options(stack="kernel", rto_initial=200, rto_min=100, rto_max=400, retransmissions=2)

    def setUp(self):
        self.factory = protocol.Factory.forProtocol(Peer)
        self.factory.noisy = False
        self.served = []
        self.factory.buildProtocol = lambda address: self.served.append(Peer()) or self.served[-1]

    @defer.inlineCallbacks
    def pair(self, interface="127.0.0.1", host=None, **changes):
        options = Options(**{name: getattr(self.options, name) for name in Options.__slots__} | changes)
        self.port = listenSCTP(4739, self.factory, interface, options)
        self.addCleanup(self.port.close)
        client = yield connectSCTP(host or interface, 4739, protocol.Factory.forProtocol(Peer), options)
        yield self.until(lambda: self.served)
        return client, self.served[0]

    @defer.inlineCallbacks
    def until(self, predicate):
        deadline = time.monotonic() + 10
        while not predicate():
            self.assertLess(time.monotonic(), deadline, "not in time")
            yield task.deferLater(reactor, 0.01, lambda: None)

    def write(self, client, n, size=1200, **keywords):
        for i in range(n):
            client.transport.write(b"%d " % i + bytes(size), i % 8, 7, context=i + 1, **keywords)

    @defer.inlineCallbacks
    def everything(self, interface):
        client, server = yield self.pair(interface)
        client.transport.registerProducer(client)
        self.write(client, 3000)
        self.assertTrue(client.held_back)
        client.transport.loseConnection()
        reasons = yield defer.gatherResults([client.ended, server.ended])
        self.assertEqual([error.ConnectionDone] * 2, [type(reason) for reason in reasons])
        self.assertEqual((3000, []), (len(server.got), client.failed))
        for stream in range(8):
            numbers = [int(octets.split()[0]) for octets, on, _ in server.got if on == stream]
            self.assertEqual(list(range(stream, 3000, 8)), numbers)
        self.assertEqual({7}, {ppid for _, _, ppid in server.got})
        self.assertTrue(server.shut)

    def test_ipv4(self):
        """Whole messages arrive, in the order of their stream, and an orderly shutdown loses none."""
        return self.everything("127.0.0.1")

    def test_ipv6(self):
        """The same over IPv6."""
        return self.everything("::1")

    @defer.inlineCallbacks
    def test_long(self):
        """A message of 65535 octets arrives whole; a longer one ends the association."""
        client, server = yield self.pair(receive_octets=50_000)
        client.transport.write(bytes(65535), 3)
        yield self.until(lambda: server.got)
        self.assertEqual((bytes(65535), 3, 0), server.got[0])
        yield self.until(lambda: client.acknowledged)
        self.assertEqual(0, client.transport.unacknowledged())
        client.transport.write(bytes(65536 + 131072), 3)
        reason = yield server.ended
        self.assertIn("more than 65535 octets", str(reason))
        yield client.ended

    @defer.inlineCallbacks
    def test_refused(self):
        """Where nobody listens the attempt fails."""
        yield self.assertFailure(connectSCTP("127.0.0.1", 4999, self.factory, self.options), error.ConnectError,
                                 error.ConnectionLost)  # fmt: skip

    @defer.inlineCallbacks
    def test_abort(self):
        """What a peer that reads nothing and aborts had not acknowledged is told, and the rest arrived."""
        client, server = yield self.pair(receive_octets=100_000, send_octets=200_000)
        server.transport.pauseProducing()
        self.write(client, 1000)
        yield task.deferLater(reactor, 0.5, lambda: None)
        self.assertGreater(client.transport.unacknowledged(), 0)
        server.transport.resumeProducing()
        server.transport.abortConnection()
        reason = yield client.ended
        self.assertIsInstance(reason, error.ConnectionLost)
        got = {int(octets.split()[0]) + 1 for octets, _, _ in server.got}
        failed = set(client.failed)
        self.assertGreater(len(failed), 500)
        # What the server's kernel had acknowledged and this process not read is in neither.
        unread = 100_000 // 1200
        self.assertLessEqual(len(set(range(1, 1001)) - got - failed), unread)
        yield server.ended

    @defer.inlineCallbacks
    def test_lifetime(self):
        """Messages whose lifetime is over are given up and told; others wait until the peer reads."""
        client, server = yield self.pair(receive_octets=100_000, send_octets=4_000_000)
        server.transport.pauseProducing()
        self.write(client, 200)
        yield task.deferLater(reactor, 0.3, lambda: None)
        for i in range(20):
            client.transport.write(b"late", 9, context=1000 + i, lifetime_ms=20)
        yield task.deferLater(reactor, 0.3, lambda: None)
        server.transport.resumeProducing()
        yield self.until(lambda: not client.transport.unacknowledged())
        late = sum(octets == b"late" for octets, _, _ in server.got)
        self.assertEqual((200, 20), (len(server.got) - late, late + len(set(client.failed))))
        self.assertGreater(len(client.failed), 0)
        client.transport.abortConnection()
        yield server.ended

    @defer.inlineCallbacks
    def test_multi_homing(self):
        """An association with several addresses is reached by each of them."""
        client, server = yield self.pair("127.0.0.1", "127.0.0.2", addresses=("127.0.0.2",))
        client.transport.write(b"x")
        yield self.until(lambda: server.got)
        client.transport.loseConnection()
        yield defer.gatherResults([client.ended, server.ended])

    @defer.inlineCallbacks
    def between(self, listening, connecting):
        """One end is the kernel's, the other usrsctp's, within UDP."""
        if connecting.stack == "kernel":
            _set_encapsulation(9898)
            self.addCleanup(_set_encapsulation, 0)
        self.port = listenSCTP(4741, self.factory, "127.0.0.1", listening)
        self.addCleanup(self.port.close)
        client = yield connectSCTP("127.0.0.1", 4741, protocol.Factory.forProtocol(Peer), connecting)
        self.write(client, 1000)
        yield self.until(lambda: self.served)
        yield self.until(lambda: len(self.served[0].got) == 1000 and not client.transport.unacknowledged())
        for i in range(8):
            self.served[0].transport.write(b"back", i, 9)
        client.transport.loseConnection()
        reasons = yield defer.gatherResults([client.ended, self.served[0].ended])
        self.assertEqual([error.ConnectionDone] * 2, [type(reason) for reason in reasons])
        self.assertEqual([(b"back", i, 9) for i in range(8)], sorted(client.got))
        self.assertEqual([], client.failed)

    def test_usrsctp_connects(self):
        """usrsctp connects to the kernel: messages go both ways, and the shutdown is orderly."""
        return self.between(Options(stack="kernel"), Options(stack="user", encapsulation_port=9899))

    def test_usrsctp_listens(self):
        """The kernel connects to usrsctp."""
        return self.between(Options(stack="user", encapsulation_port=9898), Options(stack="kernel"))

    def test_choice(self):
        """`auto` takes the kernel, unless UDP is asked for; what a kernel with SCTP cannot do is refused."""
        self.assertTrue(uses_kernel(Options()))
        self.assertFalse(uses_kernel(Options(encapsulation_port=9899)))
        for wrong in ({"stack": "kernel", "encapsulation_port": 9899}, {"stack": "user", "encapsulation_port": 0},
                      {"stack": "user", "addresses": ("127.0.0.2",)}):  # fmt: skip
            self.assertRaises(SctpUnavailable, uses_kernel, Options(**wrong))


def _set_encapsulation(port):
    """Within UDP to this port go the associations that the kernel begins; 0: in IP."""
    with open("/proc/sys/net/sctp/encap_port", "w") as sysctl:
        sysctl.write(str(port))


class Collecting(Peer):
    """Reads every stream as one Transport Session of its own, with the templates of all."""

    def connectionMade(self):
        self.readers = {}

    def messageReceived(self, octets, stream, ppid):
        reader = self.readers.setdefault(stream, Reader())
        reader.templates = self.readers.setdefault(0, Reader()).templates
        reader.message(octets)


class ExporterTests(ExportCase):
    """The exporter over the kernel's SCTP."""

    timeout = 120

    @defer.inlineCallbacks
    def test_everything_once(self):
        """Records arrive once; every stream counts for itself, and templates go on stream 0 alone."""
        served = []
        factory = protocol.Factory.forProtocol(Collecting)
        factory.buildProtocol = lambda address: served.append(Collecting()) or served[-1]
        port = listenSCTP(4740, factory, "127.0.0.1", Options(stack="kernel"))
        self.addCleanup(port.close)
        plugin = self.start(flows(1), collectors=("sctp:127.0.0.1:4740",), flush=0.05, sctp_stack="kernel", mtu=1400)
        for i in range(5):
            plugin.write(flows(200, ct__id=200 * i + np.arange(200)))
        yield self.until(lambda: self.figures(plugin)["state"] == "connected")
        yield self.stop(plugin)
        yield served[0].ended
        readers = served[0].readers
        self.assertEqual(set(range(8)), set(readers))
        self.assertEqual([[]] * 8, [reader.gaps for reader in readers.values()])
        self.assertEqual([], readers[0].records)
        self.assertEqual({(2,)}, {tuple(kinds) for kinds in readers[0].kinds})
        seen = Counter((record[148], record[61]) for reader in readers.values() for _, record in reader.records)
        self.assertEqual((2000, {1}), (len(seen), set(seen.values())))
