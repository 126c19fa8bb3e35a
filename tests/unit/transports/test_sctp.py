"""SCTP in user space: two ends in memory, over a network that loses, repeats the order, or is gone."""

from twisted.internet import error
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.transports.sctp_wire import Ends
from ulogd_tw.transports.errors import SctpUnavailable
from ulogd_tw.transports.sctp import Options, kernel, uses_kernel, usrsctp


def numbered(i, size=1200):
    """A message that says which one it is."""
    return b"%d " % i + bytes(size)


def number(octets):
    """Which one a message is."""
    return int(octets.split(b" ", 1)[0])


class MessagesTests(SynchronousTestCase):
    """Messages on streams."""

    def test_streams(self):
        """Messages come whole, in the order of their stream, with stream and payload protocol; both sides know how many
        streams there are."""
        ends = Ends(self, Options(streams=5, inbound_streams=7))
        client, server = ends.pair()
        self.assertEqual((5, 5), (client.transport.streams, server.transport.inbound_streams))
        for i in range(50):
            client.transport.write(numbered(i), i % 5, 77)
        server.transport.write(b"back", 4, 1)
        ends.wire.run(1)
        self.assertEqual([(b"back", 4, 1)], client.got)
        for stream in range(5):
            expected = [(numbered(i), stream, 77) for i in range(stream, 50, 5)]
            self.assertEqual(expected, [message for message in server.got if message[1] == stream])
        self.assertEqual(("192.0.2.2", 4739, 9899), tuple(client.transport.getPeer()))

    def test_loss_and_reordering(self):
        """Whatever the network loses or reorders, each message comes once and in the order of its stream."""
        for seed in range(4):
            ends = Ends(self, seed=seed)
            client, server = ends.pair()
            ends.wire.loss, ends.wire.reorder = 0.1, 0.3
            for i in range(300):
                client.transport.write(numbered(i), i % 8)
            ends.wire.run_until(lambda client=client: client.transport.unacknowledged() == 0)
            got = [(number(octets), stream) for octets, stream, _ in server.got]
            self.assertEqual(sorted((i, i % 8) for i in range(300)), sorted(got))
            for stream in range(8):
                self.assertEqual(list(range(stream, 300, 8)), [i for i, on in got if on == stream])
            ends.close()

    def test_streams_overtake(self):
        """A lost message holds up its own stream only."""
        ends = Ends(self)
        client, server = ends.pair()
        ends.wire.loss = 1.0
        client.transport.write(b"held up", 1)
        ends.wire.run()
        ends.wire.loss = 0.0
        client.transport.write(b"behind", 1)
        client.transport.write(b"overtakes", 2)
        ends.wire.run()
        self.assertEqual([b"overtakes"], [octets for octets, _, _ in server.got])
        ends.wire.run_until(lambda: len(server.got) == 3)
        self.assertEqual([b"overtakes", b"held up", b"behind"], [octets for octets, _, _ in server.got])

    def test_long(self):
        """A message of 65535 octets comes whole through a small buffer; a longer one ends the association."""
        ends = Ends(self, Options(receive_octets=40_000))
        client, server = ends.pair()
        client.transport.write(bytes(65535), 3)
        ends.wire.run_until(lambda: server.got)
        self.assertEqual([(bytes(65535), 3, 0)], server.got)
        client.transport.write(bytes(200_000), 3)
        ends.wire.run_until(lambda: server.ended)
        ends.wire.run(1)
        self.assertEqual([[error.ConnectionLost]] * 2, [client.ended, server.ended])

    def test_acknowledged(self):
        """`allAcknowledged` comes when the peer's stack has everything, and not before."""
        ends = Ends(self)
        client, _ = ends.pair()
        before = client.acknowledged
        ends.wire.loss = 1.0
        client.transport.write(b"x", answer_soon=True)
        ends.wire.run(0.1)
        self.assertEqual((before, True), (client.acknowledged, client.transport.unacknowledged() > 0))
        ends.wire.loss = 0.0
        ends.wire.run_until(lambda: client.acknowledged > before)
        self.assertEqual(0, client.transport.unacknowledged())

    def test_answer_soon(self):
        """A message that asks for it is acknowledged without the 0.2 s of a delayed SACK."""
        for soon in (False, True):
            ends = Ends(self)
            client, _ = ends.pair()
            client.transport.write(b"the first is acknowledged at once")
            ends.wire.run(1)
            client.transport.write(b"x", answer_soon=soon)
            ends.wire.run(0.06)
            self.assertEqual(soon, client.transport.unacknowledged() == 0)
            ends.close()

    def test_paused_reader(self):
        """A reader that pauses lets the peer's buffers fill: its producer is held back, and goes on afterwards."""
        ends = Ends(self, Options(send_octets=100_000, receive_octets=100_000))
        client, server = ends.pair()
        client.transport.registerProducer(client)
        server.transport.pauseProducing()
        for i in range(400):
            client.transport.write(numbered(i, 2000 * (i % 2)))
        ends.wire.run(5)
        self.assertEqual((True, []), (client.held_back, server.got))
        self.assertGreater(client.transport.buffered, 200_000)
        server.transport.resumeProducing()
        ends.wire.run_until(lambda: len(server.got) == 400)
        self.assertEqual((False, 0), (client.held_back, client.transport.buffered))
        self.assertEqual(list(range(400)), [number(octets) for octets, _, _ in server.got])

    def test_lifetime(self):
        """What could not be delivered in its lifetime is given up and told by its context; the rest arrives."""
        ends = Ends(self)
        client, server = ends.pair()
        ends.wire.loss = 1.0
        for i in range(20):
            client.transport.write(b"late" if i % 2 else b"lasts", 1 + i % 2, context=i, lifetime_ms=i % 2)
        ends.wire.run(3)  # the stack looks at the clock of the system for it, which is 1 ms later by now
        ends.wire.loss = 0.0
        ends.wire.run_until(lambda: client.transport.unacknowledged() == 0)
        self.assertEqual({1, 3, 5, 7, 9, 11, 13, 15, 17, 19}, set(client.failed))
        self.assertEqual([b"lasts"] * 10, [octets for octets, _, _ in server.got])


class EndTests(SynchronousTestCase):
    """How associations begin and end."""

    def test_shutdown(self):
        """An orderly shutdown sends what was written first; the other side is told, and may still send."""
        ends = Ends(self, Options(send_octets=50_000))
        client, server = ends.pair()
        for i in range(200):
            client.transport.write(numbered(i), i % 8)
        client.transport.loseConnection()
        client.transport.write(b"too late")
        ends.wire.run_until(lambda: client.ended and server.ended)
        self.assertEqual([[error.ConnectionDone]] * 2, [client.ended, server.ended])
        self.assertEqual((list(range(200)), True), (sorted(number(octets) for octets, _, _ in server.got), server.shut))
        self.assertEqual([], client.failed)

    def test_shutdown_by_the_reader(self):
        """A reader that shuts down still reads what the peer had given to its stack; the rest is told to the peer."""
        ends = Ends(self, Options(send_octets=50_000))
        client, server = ends.pair()
        for i in range(200):
            client.transport.write(numbered(i), i % 8, context=i)
        server.transport.loseConnection()
        ends.wire.run_until(lambda: client.ended and server.ended)
        self.assertEqual([[error.ConnectionDone]] * 2, [client.ended, server.ended])
        self.assertTrue(client.shut)
        got = {number(octets) for octets, _, _ in server.got}
        self.assertEqual((set(range(200)), set()), (got | set(client.failed), got & set(client.failed)))
        self.assertGreater(len(got), 20)

    def test_abort(self):
        """After an abort every message is either with the peer or told as failed."""
        for seed in range(4):
            ends = Ends(self, Options(send_octets=100_000), seed=seed)
            client, server = ends.pair()
            for i in range(500):
                client.transport.write(numbered(i), i % 8, context=i)
            ends.wire.loss = 0.2
            ends.wire.run_until(lambda server=server: len(server.got) > 50)
            ends.wire.loss = 0.0
            server.transport.abortConnection()
            ends.wire.run_until(lambda client=client: client.ended)
            self.assertEqual(([error.ConnectionLost], [error.ConnectionAborted]), (client.ended, server.ended))
            got = {number(octets) for octets, _, _ in server.got}
            self.assertEqual(set(range(500)), got | set(client.failed))
            # Doubtful are those whose acknowledgement was on its way, or lost.
            self.assertLess(len(got & set(client.failed)), 100)
            ends.close()

    def test_silence(self):
        """A peer that answers no more is given up after the retransmissions; all that waits is told as failed."""
        ends = Ends(self, Options(retransmissions=3, rto_max=2000))
        client, _ = ends.pair()
        ends.wire.loss = 1.0
        for i in range(10):
            client.transport.write(numbered(i), i % 8, context=i)
        began = ends.wire.clock.seconds()
        ends.wire.run_until(lambda: client.ended)
        self.assertEqual([error.ConnectionLost], client.ended)
        self.assertEqual(set(range(10)), set(client.failed))
        self.assertTrue(3 < ends.wire.clock.seconds() - began < 10)

    def test_nobody_listens(self):
        """The attempt fails where nobody listens, and where nobody answers; nothing is left of it."""
        ends = Ends(self, Options(init_attempts=2, rto_max=1000))
        ends.begin(port=4740)
        ends.wire.run(0.1)
        self.assertEqual([error.ConnectError], [type(why) for why in ends.refused])
        ends.wire.loss = 1.0
        ends.begin()
        ends.wire.run(10)
        self.assertEqual([error.ConnectError] * 2, [type(why) for why in ends.refused])
        self.assertEqual([], ends.served)

    def test_refused_by_the_factory(self):
        """A factory that builds nothing refuses the peer."""
        ends = Ends(self, build=lambda address: None)
        client = ends.begin()
        ends.wire.run(0.5)
        self.assertEqual([error.ConnectionLost], client.ended)

    def test_forged_senders_leave_nothing(self):
        """Packets of any sender without an association leave nothing in memory, whatever they say."""
        ends = Ends(self)
        begins = []
        ends.wire.put = lambda end, sender, packet: begins.append(packet)
        ends.begin()
        (init,) = begins
        replies = []
        ends.wire.server.send = lambda packet, peer: replies.append(packet[12])
        ways = len(ends.wire.stack._ways)
        for i in range(300):
            peer = (f"198.51.{i >> 8}.{i & 255}", 4000 + i, b"")
            ends.wire.stack.take(ends.wire.server, peer, init)
            ends.wire.stack.take(ends.wire.server, peer, init[: 12 + i % 80])
        self.assertEqual((ways, []), (len(ends.wire.stack._ways), ends.served))
        self.assertEqual(300, replies.count(2), "an INIT-ACK with a cookie for each INIT")


class ChoiceTests(SynchronousTestCase):
    """Which stack is taken, and what is said where none is there."""

    def found(self, has_kernel, has_library, **options):
        self.patch(kernel, "has_sctp", lambda: has_kernel)
        if not has_library:
            self.patch(usrsctp.ffi, "dlopen", self.absent)
            usrsctp.library.cache_clear()
            self.addCleanup(usrsctp.library.cache_clear)
            self.patch(__import__("ulogd_tw.transports.sctp.stack", fromlist=["x"]), "_the_stack", None)
        return uses_kernel(Options(**options))

    def absent(self, name):
        raise OSError(f"cannot load library '{name}'")

    def wrong(self, *arguments, **options):
        return str(self.assertRaises(SctpUnavailable, self.found, *arguments, **options))

    def test_kernel(self):
        """The kernel's is taken where there is one, even without the library."""
        self.assertTrue(self.found(True, False))
        self.assertTrue(self.found(True, False, addresses=("192.0.2.1",)))

    def test_neither(self):
        """Where neither is there the error says what to install."""
        self.assertIn("apt-get install libusrsctp2", self.wrong(False, False))
        self.assertIn("modprobe sctp", self.wrong(False, False))

    def test_multi_homing(self):
        """Several addresses are refused without the kernel's."""
        self.assertIn("multi-homing", self.wrong(False, True, addresses=("192.0.2.1",)))

    def test_wrong_together(self):
        """What cannot go together is refused."""
        self.assertIn("no SCTP", self.wrong(False, True, stack="kernel"))
        self.assertIn("encapsulation_port", self.wrong(True, True, stack="kernel", encapsulation_port=9899))
        self.assertIn("SCTP of its own", self.wrong(True, True, stack="user", encapsulation_port=0))
