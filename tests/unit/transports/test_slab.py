"""Many datagrams in few system calls."""

import ctypes
import errno
import socket

from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.transports import slab


class ReceiveTests(SynchronousTestCase):
    """Out of a pair of sockets; the kernel gives at most 4 datagrams to a call here, for the 1024 of real life."""

    def setUp(self):
        self.patch(slab, "_MOST_A_CALL", 4)
        self.sender, self.receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for one in (self.sender, self.receiver):
            self.addCleanup(one.close)
        self.slab = slab.Slab(16, 64)

    def send(self, n):
        for number in range(n):
            self.sender.send(bytes([number]) * (number + 1))

    def received(self, most=None):
        count = self.slab.receive(self.receiver.fileno(), most)
        return [self.slab.octets(place) for place in range(count)]

    def test_several_calls(self):
        """All that is there, in order, whatever one call gives; and no more than was asked for."""
        for n in (0, 3, 4, 5, 8, 9):
            self.send(n)
            self.assertEqual(self.received(), [bytes([k]) * (k + 1) for k in range(n)])
        self.send(9)
        self.assertEqual([len(self.received(most)) for most in (1, 6, 6, 6)], [1, 6, 2, 0])

    def test_fault(self):
        """What the kernel tells once is raised, but after the datagrams that came before it."""
        kernel, calls = slab._recvmmsg, []

        def full_after_the_first(*arguments):
            calls.append(arguments[2])
            if len(calls) == 2:
                ctypes.set_errno(errno.ENOBUFS)
                return -1
            return kernel(*arguments)

        self.patch(slab, "_recvmmsg", full_after_the_first)
        self.send(6)
        self.assertEqual(len(self.received()), 4)
        self.assertEqual(errno.ENOBUFS, self.assertRaises(OSError, self.received).errno)
        self.assertEqual([len(octets) for octets in self.received()], [5, 6])
        self.assertEqual(calls, [4, 4, 4])
