"""Netlink datagrams of many messages, and asking before reading, with a kernel of our own."""

import struct
from collections import deque

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.transports.test_netlink import Kernel, Reactor, netlink
from ulogd_tw.core.errors import StartError
from ulogd_tw.transports.errors import NetlinkError
from ulogd_tw.transports.netlink import nlmsg
from ulogd_tw.transports.netlink.multi_message_port import MultiMessagePort


def acknowledgement(sequence, code=0):
    """NLMSG_ERROR with an errno, 0 for success."""
    return netlink(2, struct.pack("<i", -code) + bytes(16), sequence=sequence, port=4242)


class AskedKernel(Kernel):
    """Answers requests at once: `codes` are the errnos to come (then 0), `before` datagrams that come first."""

    def __init__(self, codes=(), before=(), **keywords):
        super().__init__(**keywords)
        self.codes, self.before, self.answers = deque(codes), list(before), deque()

    def send(self, octets):
        super().send(octets)
        if octets[6] & 4:
            sequence = struct.unpack_from("<I", octets, 8)[0]
            self.answers.extend([*self.before, acknowledgement(sequence, self.codes.popleft() if self.codes else 0)])

    def recv(self, octets):
        return self.answers.popleft()


class PackedTestCase(SynchronousTestCase):
    """A port, its kernel, and what came of it."""

    def make(self, kernel=None, **keywords):
        self.kernel, self.clock, self.found, self.lost = kernel or AskedKernel(), Reactor(), [], []
        port = MultiMessagePort(self.take, self.lost.append, count=4, stride=512, reactor=self.clock, **keywords)
        port.make_socket, port.make_slab = self.kernel, self.kernel.slab
        port.open()
        self.addCleanup(port.stop)
        return port

    def take(self, octets, starts, lengths):
        self.found += [octets[a : a + n].tobytes() for a, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
        self.octets = octets

    def padded(self, *messages):
        return b"".join(m + bytes(-len(m) % 4) for m in messages)


class ReadTests(PackedTestCase):
    """From datagrams to messages."""

    def test_all_messages(self):
        """Messages of all datagrams come in order, without netlink's own at their ends."""
        port = self.make()
        port.start()
        messages = [netlink(0x400, bytes(n)) for n in (1, 2, 3, 4, 60)]
        done = netlink(3, bytes(4))
        self.kernel.queue.extend([(self.padded(*messages[:3], done), 0), (self.padded(*messages[3:]), 0)])
        port.doRead()
        self.assertEqual(self.found, messages)
        self.assertEqual((port.broken, port.strangers), (0, 0))

    def test_strangers_and_rubbish(self):
        """What other processes send is left out, and what is no message is counted, with what stands before it."""
        port = self.make()
        port.start()
        good = netlink(0x400, b"abcd")
        self.kernel.queue.extend([(good, 77), (good + b"\1\0\0\0", 0), (good + b"\xff" * 30, 0), (b"", 0)])
        port.doRead()
        self.assertEqual(self.found, [good, good])
        self.assertEqual((port.broken, port.strangers), (2, 1))

    def test_octets_are_ours(self):
        """What was handed on does not change with the next read."""
        port = self.make()
        port.start()
        self.kernel.queue.append((netlink(0x400, b"abcd"), 0))
        port.doRead()
        before = self.octets.tobytes()
        self.kernel.rows[:] = 0
        self.assertEqual(self.octets.tobytes(), before)

    @given(st.lists(st.lists(st.binary(max_size=40), max_size=5), max_size=6))
    def test_places(self, datagrams):
        """Whatever was put together is found again."""
        messages = [[netlink(0x400, body) for body in bodies] for bodies in datagrams]
        views = [np.frombuffer(self.padded(*inside), np.uint8) for inside in messages]
        octets, starts, lengths, broken = nlmsg.places(views)
        found = [octets[a : a + n].tobytes() for a, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
        self.assertEqual((found, broken), ([m for inside in messages for m in inside], 0))

    @given(st.lists(st.binary(max_size=80), max_size=6))
    def test_rubbish(self, datagrams):
        """Any octets give whole messages of theirs, or are counted; each read ends."""
        views = [np.frombuffer(d + bytes(-len(d) % 4), np.uint8) for d in datagrams]
        octets, starts, lengths, broken = nlmsg.places(views)
        self.assertTrue((lengths >= 16).all() and (starts + lengths <= sum(map(len, views))).all())
        self.assertLessEqual(broken, len(views))


class AskTests(PackedTestCase):
    """Requests before the reading."""

    def test_answers(self):
        """An acknowledgement is the end of the request, an error is raised with its number."""
        port = self.make(AskedKernel([0, 16]))
        port.ask(0x401, 5, b"abcd")
        self.assertEqual(self.kernel.sent, [netlink(0x401, b"abcd", 5, 1)])
        self.assertEqual(self.assertRaises(NetlinkError, port.ask, 0x401, 5, b"").number, 16)

    def test_what_comes_early(self):
        """Messages that come before the answer are handed on when the reading starts."""
        early = netlink(0x400, b"ab")
        port = self.make(AskedKernel(before=[early]))
        port.ask(0x401, 5, b"")
        port.ask(0x401, 5, b"")
        self.assertEqual(self.found, [])
        port.start()
        self.assertEqual(self.found, [early, early])

    def test_no_answer(self):
        """A socket that fails is an error of the request."""
        port = self.make()
        self.kernel.recv = lambda _: (_ for _ in ()).throw(BlockingIOError(11, "Resource temporarily unavailable"))
        self.assertEqual(self.assertRaises(NetlinkError, port.ask, 0x401, 5, b"").number, 11)

    def test_tell(self):
        """A request whose answer does not matter; after the end nothing is sent."""
        port = self.make()
        port.tell(0x401, 1, b"xyz")
        port.close()
        port.tell(0x401, 1, b"xyz")
        self.assertEqual(self.kernel.sent, [netlink(0x401, b"xyz", 1)])

    def test_no_privilege(self):
        """A namespace that cannot be entered is said."""
        self.assertRaises(StartError, MultiMessagePort(None, None, namespace="/nowhere", reactor=Reactor()).open)
