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

    def test_kept(self):
        """Rows that are kept stay before those that come, with the length of each address; then the slab is reused."""
        self.send(5)
        self.assertEqual(self.slab.receive(self.receiver.fileno()), 5)
        self.send(7)
        self.assertEqual(self.slab.receive(self.receiver.fileno(), 10, 5), 10)
        found = [self.slab.octets(place) for place in range(10)]
        self.assertEqual([len(octets) for octets in found], [1, 2, 3, 4, 5, 1, 2, 3, 4, 5])
        self.assertEqual(self.slab.receive(self.receiver.fileno(), 10, 10), 10)
        self.assertEqual([len(octets) for octets in self.received()], [6, 7])

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

    def test_fault_behind_kept_rows(self):
        """It is raised when nothing is kept any more."""
        self.send(2)
        self.assertEqual(len(self.received()), 2)
        kernel = slab._recvmmsg

        def full(*_):
            ctypes.set_errno(errno.ENOBUFS)
            return -1

        self.patch(slab, "_recvmmsg", full)
        for _ in range(2):
            self.assertEqual(self.slab.receive(self.receiver.fileno(), 16, 2), 2)
        self.patch(slab, "_recvmmsg", kernel)
        self.assertEqual(errno.ENOBUFS, self.assertRaises(OSError, self.received).errno)
