"""How long a UDP socket is not read, so that datagrams come together, and how many are read at once."""

import socket

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.transports.gathering import Terms
from ulogd_tw.transports.udp import UdpListener
from ulogd_tw.transports.url import Url


class PauseTests(SynchronousTestCase):
    """Of a socket that is never read here."""

    def listener(self, buffer, latency=0.004):
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind(("127.0.0.1", 0))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        found = UdpListener(bound, lambda *_: None, Terms(bound=latency))
        self.addCleanup(found.close)
        return found

    def test_under_load(self):
        """The latency at least, four times that while much comes; 19 times what a read took, at most 96 ms."""
        gathering = self.listener(1 << 20).gathering
        gathering._room = 1.0
        for count, spent, expected in ((1, 0.0, 0.004), (15, 0.0001, 0.004), (16, 0.0, 0.008), (500, 0.0, 0.016),
                                       (1, 0.002, 0.038), (500, 0.002, 0.038), (10, 0.1, 0.096)):  # fmt: skip
            self.assertAlmostEqual(expected, gathering.wait(count, spent, 0, False), msg=(count, spent))

    def test_turns(self):
        """Fewer datagrams at once where what stands below takes longer than 20 ms for them, and more again later."""
        listener = self.listener(1 << 20)
        steps = (
            (2048, 0.019, 2048), (2048, 0.03, 1024), (700, 0.05, 350), (350, 0.015, 350), (100, 0.001, 350),
            (350, 0.009, 700), (700, 1.0, 350), (80, 1.0, 64), (64, 1.0, 64), (64, 0.001, 128),
        )  # fmt: skip
        for count, spent, expected in steps:
            listener._fit(count, spent)
            self.assertEqual(listener.most, expected, (count, spent))
        for _ in range(9):
            listener._fit(listener.most, 0.0)
        self.assertEqual(listener.most, 2048)

    def test_stop(self):
        """At a stop what the kernel holds is handed over as long as there is time, and only counted afterwards."""
        for until, handed, unread in ((float("inf"), [2048, 2048, 7], 0), (0.0, [], 4103)):
            listener, counts, found = self.listener(8 << 20), iter((2048, 2048, 7, 0)), []
            self.patch(listener._slab, "receive", lambda descriptor, most, kept, counts=counts: next(counts))
            listener._received = lambda listener, slab, found=found: found.append(slab)
            listener.drain(until)
            self.assertEqual((len(handed), unread), (len(found), listener.unread))

    def test_kept(self):
        """What is kept is handed over with the next datagrams, at a stop too, and counted where there is no time."""
        for end in ("read_once", "drain", "late"):
            listener, sender = self.listener(1 << 20), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.addCleanup(sender.close)
            found = []
            listener._received = lambda _, slab, found=found: found.extend(map(slab.octets, range(slab.n)))
            for octets, kept in ((b"a", 1), (b"bc", 2)):
                sender.sendto(octets, listener._socket.getsockname())
                self.assertEqual((listener.keep(), listener.kept, found), (kept, kept, []))
            sender.sendto(b"def", listener._socket.getsockname())
            if end == "read_once":
                self.assertEqual(listener.read_once(), 3)
            else:
                listener.drain(0.0 if end == "late" else float("inf"))
            expected = ([], 3) if end == "late" else ([b"a", b"bc", b"def"], 0)
            self.assertEqual((found, listener.unread, listener.kept), (*expected, 0))

    def test_room(self):
        """Never so long that 200,000 datagrams a second would not fit into the buffer: 2304 octets each."""
        listener = self.listener(46_080)
        listener.begin()
        found = listener.gathering.wait(500, 1.0, 0, False)
        self.assertAlmostEqual(listener.buffer / 2304 / 200_000, found)
        self.assertLess(found, 0.001)

    def test_what_the_kernel_holds(self):
        """The octets that the kernel counts for unread datagrams, and none after a read."""
        listener, sender = self.listener(1 << 20), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(sender.close)
        self.assertEqual(listener.held(), 0)
        for _ in range(10):
            sender.sendto(bytes(1400), listener._socket.getsockname())
        self.assertTrue(14_000 < listener.held() <= 10 * 2304, listener.held())
        listener._received = lambda listener, slab: None
        self.assertEqual((listener.read_once(), listener.held()), (10, 0))


class BufferTests(SynchronousTestCase):
    """The receive buffer of a real socket."""

    def test_as_much_as_the_kernel_gives(self):
        """Sizes beyond an int of the kernel are no error, and no less than smaller ones."""
        granted = []
        for octets in (1 << 20, 2 << 30, 8 << 30):
            (found,) = UdpListener.bind(Url("udp", "127.0.0.1", 0), lambda *_: None, octets, Terms(bound=0.004))
            granted.append(found.buffer)
            found.close()
        self.assertEqual(granted, sorted(granted))
