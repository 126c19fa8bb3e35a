"""Rests of the event loop between looks at the buffer of a socket."""

import select
import socket

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.kernels import SKIP
from ulogd_tw import kernels


class RestTests(SynchronousTestCase):
    """ut_rest, with a socket that holds nothing."""

    if kernels.lib is None:
        skip = SKIP

    def setUp(self):
        self.socket, self.other = socket.socketpair()
        self.events = select.epoll()
        self.events.register(self.socket, select.EPOLLIN)
        for each in (self.socket, self.other, self.events):
            self.addCleanup(each.close)

    def rest(self, left, due=10**12, buffer=1 << 20, room=10**9, descriptor=None):
        descriptor = self.socket.fileno() if descriptor is None else descriptor
        return kernels.lib.ut_rest(self.events.fileno(), descriptor, buffer, room, left, due)

    def test_over(self):
        """It ends with its time; a negative one is over."""
        self.assertEqual([self.rest(1_000_000, room=100_000), self.rest(0), self.rest(-1)], [0, 0, 0])

    def test_work(self):
        """What is ready in the epoll ends it: the next look comes when it would have come."""
        self.other.send(b"x")
        self.assertTrue(0 < self.rest(10**9, room=4 * 10**8) <= 3 * 10**8)

    def test_timer(self):
        """It does not rest beyond the reactor's next timer: after three quarters of the room comes the next look."""
        self.assertEqual(self.rest(10**9, due=10**6, room=4 * 10**8), 3 * 10**8)

    def test_full(self):
        """A buffer of which a quarter is full ends it."""
        self.assertEqual(self.rest(10**12, buffer=0), 0)

    def test_no_socket(self):
        """What is no socket ends it, since nothing can be said of its buffer."""
        self.assertEqual([self.rest(10**12, descriptor=d) for d in (-1, self.events.fileno())], [0, 0])
