"""How long a UDP socket is not read, so that datagrams come together."""

import socket

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.transports.udp import UdpListener


class PauseTests(SynchronousTestCase):
    """Of a socket that is never read here."""

    def listener(self, buffer, latency=0.004):
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind(("127.0.0.1", 0))
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        found = UdpListener(bound, lambda *_: None, latency)
        self.addCleanup(found.close)
        return found

    def test_pauses(self):
        """The latency at least, four times that while much comes; nine times what a read took, at most 48 ms."""
        listener = self.listener(1 << 20)
        listener._room = 1.0
        for count, spent, expected in ((1, 0.0, 0.004), (15, 0.0001, 0.004), (16, 0.0, 0.008), (500, 0.0, 0.016),
                                       (1, 0.002, 0.018), (500, 0.002, 0.018), (10, 0.1, 0.048)):  # fmt: skip
            self.assertAlmostEqual(expected, listener._pause(count, spent), msg=(count, spent))

    def test_room(self):
        """Never so long that 200,000 datagrams a second would not fit into the buffer: 2304 octets each."""
        listener = self.listener(46_080)
        self.assertAlmostEqual(listener.buffer / 2304 / 200_000, listener._pause(500, 1.0))
        self.assertLess(listener._pause(500, 1.0), 0.001)
