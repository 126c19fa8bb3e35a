"""Netlink messages and the netlink socket on the reactor, with a kernel of our own."""

import errno
import socket
import struct
from collections import deque
from unittest.mock import patch

import numpy as np
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from ulogd_tw.core.errors import MessageError, StartError
from ulogd_tw.transports.gathering import Terms
from ulogd_tw.transports.netlink import nlmsg
from ulogd_tw.transports.netlink.port import NetlinkError, NetlinkPort

PORT = 4242


def netlink(kind, payload=b"", flags=0, sequence=0, port=0):
    """struct nlmsghdr and what follows."""
    return struct.pack("<IHHII", 16 + len(payload), kind, flags, sequence, port) + payload


class Reactor(Clock):
    """A clock that also notes who reads."""

    def __init__(self):
        super().__init__()
        self.readers = set()

    def addReader(self, reader):
        self.readers.add(reader)

    def removeReader(self, reader):
        self.readers.discard(reader)


class Kernel:
    """Both the socket and the slab: what is in `queue` is read, (octets, sender's port id) or an errno."""

    def __init__(self, refuse=None, most=1 << 30):
        self.queue, self.sent, self.options = deque(), [], []
        self.refuse, self.most = refuse, most
        self.drops = 0
        self.closed = self.made = False
        self.buffer = 0

    # socket
    def __call__(self, *arguments):
        return self

    def make(self):
        self.made = True
        return self

    def setblocking(self, blocking):
        assert not blocking

    def bind(self, address):
        pass

    def getsockname(self):
        return PORT, 0

    def fileno(self):
        return 99

    def setsockopt(self, level, option, value):
        if option == self.refuse and level != socket.SOL_SOCKET or (level, option) == self.refuse:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        if level == socket.SOL_SOCKET and isinstance(value, int):
            self.buffer = min(value, self.most)
        self.options.append((level, option, value))

    def getsockopt(self, level, option, size=None):
        return self.buffer * 2 if size is None else struct.pack("9I", *[0] * 8, self.drops)

    def send(self, octets):
        self.sent.append(octets)

    def close(self):
        self.closed = True

    # slab
    def slab(self, count, stride, spill):
        self.count, self.stride = count, stride
        return self

    def receive(self, descriptor):
        if self.queue and isinstance(self.queue[0], int):
            raise OSError(self.queue.popleft(), "error")
        found = []
        while self.queue and len(found) < self.count and not isinstance(self.queue[0], int):
            found.append(self.queue.popleft())
        self.found = found
        self.n = len(found)
        self.rows = np.full((self.count, self.stride), 0xA5, np.uint8)
        for row, (octets, _) in zip(self.rows, found, strict=False):
            row[: len(octets)] = np.frombuffer(octets[: self.stride], np.uint8)
        return self.n

    @property
    def lengths(self):
        return np.array([len(octets) for octets, _ in self.found], np.int64)

    @property
    def names(self):
        names = b"".join(struct.pack("<HHII16x", 16, 0, sender, 0) for _, sender in self.found)
        return np.frombuffer(names, np.uint8).reshape(-1, 28)

    @property
    def truncated(self):
        return np.zeros(self.n, bool)

    def octets(self, i):
        return self.found[i][0]


class PortTestCase(SynchronousTestCase):
    """A port, its kernel, and what came of it."""

    def make(self, kernel=None, **keywords):
        self.kernel = kernel or Kernel()
        self.clock = Reactor()
        self.events, self.lost = [], []
        port = NetlinkPort(
            lambda messages: self.events.extend(messages.octets()), self.lost.append, count=4, stride=64,
            reactor=self.clock, **keywords,
        )  # fmt: skip
        port.make_socket, port.make_slab = self.kernel, self.kernel.slab
        return port

    def opened(self, **keywords):
        port = self.make(**keywords)
        port.open()
        port.start()
        self.addCleanup(port.stop)
        return port


class EventTests(PortTestCase):
    """Multicast messages."""

    def test_delivered_in_order(self):
        """Every event arrives once and in order, with exactly its octets."""
        port = self.opened(groups=(1, 3))
        sent = [netlink(0x102, bytes([i]) * (4 * i)) for i in range(1, 6)]
        self.kernel.queue.extend((octets, 0) for octets in sent)
        port.doRead()
        port.doRead()
        self.assertEqual(self.events, sent)
        self.assertEqual([o for o in self.kernel.options if o[0] == 270], [(270, 1, 1), (270, 1, 3)])

    def test_several_in_a_datagram(self):
        """Messages of one datagram are parted; datagrams longer than a row are whole."""
        port = self.opened()
        sent = [netlink(0x100, b"a" * 7), netlink(0x100, b"b" * 90), netlink(0x100)]
        self.kernel.queue.append((b"".join(m + bytes(-len(m) % 4) for m in sent), 0))
        port.doRead()
        self.assertEqual(self.events, sent)

    def test_only_the_kernel(self):
        """Messages of other processes are ignored and counted."""
        port = self.opened()
        self.kernel.queue.extend([(netlink(0x102, b"evil"), 77), (netlink(0x102, b"good"), 0)])
        port.doRead()
        self.assertEqual((self.events, port.strangers), ([netlink(0x102, b"good")], 1))

    def test_pause_lets_batches_grow(self):
        """After a read that was not full the next one waits; after a full one it does not."""
        port = self.opened(terms=Terms(bound=0.02, exact=True))
        self.kernel.queue.extend([(netlink(0x102), 0)] * 5)
        port.doRead()
        self.assertIn(port, self.clock.readers)
        port.doRead()
        self.assertNotIn(port, self.clock.readers)
        self.clock.advance(0.02)
        self.assertIn(port, self.clock.readers)

    def test_loss_is_exact(self):
        """The kernel's drop counter is read at each wake-up and each second, and may wrap."""
        port = self.opened()
        self.kernel.drops = 0xFFFFFFFE
        self.clock.advance(1)
        self.kernel.drops = 3
        self.clock.advance(1)
        self.assertEqual(self.lost, [0xFFFFFFFE, 5])
        self.kernel.drops = 10
        self.kernel.queue.extend([errno.ENOBUFS, (netlink(0x102), 0)])
        port.doRead()
        self.assertEqual((self.lost[2:], port.overruns), ([7], 1))
        self.assertIn(port, self.clock.readers)

    def test_overrun_message(self):
        """NLMSG_OVERRUN and NLMSG_NOOP are no events."""
        port = self.opened()
        self.kernel.queue.extend([(netlink(4), 0), (netlink(1), 0)])
        port.doRead()
        self.assertEqual((self.events, port.overruns), ([], 1))

    @given(st.lists(st.one_of(st.binary(max_size=80), st.builds(netlink, st.integers(0, 999), st.binary(max_size=60)))))
    def test_any_datagrams(self, datagrams):
        """Octets that are no messages are counted; nothing is raised."""
        port = self.opened()
        self.kernel.queue.extend((octets, 0) for octets in datagrams)
        while self.kernel.queue:
            port.doRead()
        whole = [d for d in datagrams if len(d) >= 16 and struct.unpack_from("<I", d)[0] == len(d)]
        expected = [d for d in whole if struct.unpack_from("<H", d, 4)[0] >= 16]
        self.assertEqual([m for m in self.events if m in expected], expected)


class StartTests(PortTestCase):
    """Opening."""

    def test_no_privilege(self):
        """Joining a group without CAP_NET_ADMIN says how to grant it."""
        port = self.make(Kernel(refuse=1), groups=(3,))
        error = self.assertRaises(StartError, port.open)
        self.assertIn("AmbientCapabilities=CAP_NET_ADMIN", str(error))
        self.assertIn("setcap", str(error))
        self.assertTrue(self.kernel.closed)

    def test_smaller_buffer(self):
        """Without privilege for a large queue the size there is is said, with the sysctl that raises it."""
        port = self.make(Kernel(refuse=(socket.SOL_SOCKET, 33), most=212992), buffer_octets=1 << 20)
        with patch.object(port.log, "warn") as warn:
            port.open()
        self.assertEqual(port.effective_octets, 212992)
        self.assertIn("net.core.rmem_max", warn.call_args.args[0])
        port.stop()

    def test_reliable(self):
        """reliable sets both options of the kernel."""
        self.opened(reliable=True)
        self.assertEqual([o for o in self.kernel.options if o[0] == 270], [(270, 4, 1), (270, 5, 1)])


class StopTests(PortTestCase):
    """Stopping."""

    def test_rest_is_read(self):
        """What the socket holds is delivered, the groups are left first, then it closes."""
        port = self.opened(groups=(3,))
        self.kernel.queue.extend([(netlink(0x102, bytes([i])), 0) for i in range(10)])
        done = port.stop()
        self.assertEqual(self.kernel.options[-1], (270, 2, 3))
        self.assertNoResult(done)
        while not self.kernel.closed:
            self.clock.advance(0)
        self.successResultOf(done)
        self.assertEqual(len(self.events), 10)
        self.assertFalse(self.clock.readers or self.clock.getDelayedCalls())

    def test_bounded(self):
        """A queue that never empties does not keep it for longer than drain_s."""
        port = self.opened()
        self.kernel.queue.extend([(netlink(0x102), 0)] * 10_000)
        done = port.stop()
        for _ in range(6):
            self.clock.advance(1)
        self.successResultOf(done)
        self.assertTrue(self.kernel.closed)

    def test_twice(self):
        """Both stops end."""
        port = self.opened()
        self.kernel.queue.append((netlink(0x102), 0))
        first, second = port.stop(), port.stop()
        self.clock.advance(0)
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(port.stop())


class RequestTests(PortTestCase):
    """Requests and their answers, told apart by sequence number."""

    def answer(self, kind, payload=b"", flags=0, place=-1):
        sequence = struct.unpack_from("<I", self.kernel.sent[place], 8)[0]
        self.kernel.queue.append((netlink(kind, payload, flags, sequence, PORT), 0))

    def test_acknowledged(self):
        """An error message with code 0 is success."""
        port = self.opened()
        done = port.request(0x102, 5, b"body")
        self.assertEqual(self.kernel.sent, [netlink(0x102, b"body", 5, 1)])
        self.answer(2, struct.pack("<i", 0))
        port.doRead()
        self.assertEqual(self.successResultOf(done), [])

    def test_refused(self):
        """An errno becomes a NetlinkError."""
        port = self.opened()
        done = port.request(0x101, 5, b"")
        self.answer(2, struct.pack("<i", -errno.ENOENT))
        port.doRead()
        self.assertEqual(self.failureResultOf(done, NetlinkError).value.number, errno.ENOENT)

    def test_dump_among_events(self):
        """Parts of a dump go to the one who asked, events between them to the events."""
        port = self.opened()
        done = port.request(0x101, 0x301, b"")
        self.answer(0x100, b"1", 2)
        self.kernel.queue.append((netlink(0x102, b"event"), 0))
        self.answer(0x100, b"2", 2)
        self.answer(3, struct.pack("<i", 0), 2)
        port.doRead()
        self.assertEqual([m[16:] for m in self.successResultOf(done)], [b"1", b"2"])
        self.assertEqual(self.events, [netlink(0x102, b"event")])

    def test_interrupted_dump(self):
        """A dump during which the table changed is no complete answer."""
        port = self.opened()
        done = port.request(0x101, 0x301, b"")
        self.answer(0x100, b"1", 2 | 0x10)
        self.answer(3, struct.pack("<i", 0), 2)
        port.doRead()
        self.assertEqual(self.failureResultOf(done, NetlinkError).value.number, errno.EINTR)

    def test_one_after_another(self):
        """The second request is sent when the first is answered; late answers of others are ignored."""
        port = self.opened()
        first, second = port.request(0x101, 5, b"1"), port.request(0x101, 5, b"2")
        self.assertEqual(len(self.kernel.sent), 1)
        self.answer(2, struct.pack("<i", 0))
        self.answer(2, struct.pack("<i", 0))
        port.doRead()
        self.successResultOf(first)
        self.assertNoResult(second)
        self.answer(2, struct.pack("<i", 0))
        port.doRead()
        self.successResultOf(second)

    def test_asked_again_at_once(self):
        """A request made where the answer to another one arrives is sent once."""
        port = self.opened()
        port.request(0x101, 5, b"1").addCallback(lambda _: port.request(0x101, 5, b"2"))
        self.answer(2, struct.pack("<i", 0))
        port.doRead()
        self.assertEqual([octets[16:] for octets in self.kernel.sent], [b"1", b"2"])
        self.answer(2, struct.pack("<i", 0))
        port.doRead()

    def test_closed_meanwhile(self):
        """A request that nobody answers fails at the stop, one after it at once."""
        port = self.opened()
        done = port.request(0x101, 5, b"")
        port.stop()
        self.failureResultOf(done, NetlinkError)
        self.failureResultOf(port.request(0x101, 5, b""), NetlinkError)


class MessageTests(SynchronousTestCase):
    """Netlink's own messages."""

    def test_control(self):
        """ERROR, DONE and OVERRUN."""
        self.assertEqual(nlmsg.control(netlink(2, struct.pack("<i", -2), 0, 7)), nlmsg.Control(2, 7, -2))
        self.assertEqual(nlmsg.control(netlink(3, b"", 2, 8)), nlmsg.Control(3, 8, 0))
        self.assertEqual(nlmsg.control(netlink(4)), nlmsg.Control(4, 0))

    def test_cut_control(self):
        """A control message without its code is refused."""
        for octets in (b"", netlink(2)[:12], netlink(2)):
            self.assertRaises(MessageError, nlmsg.control, octets)

    @given(st.lists(st.binary(max_size=50), max_size=20))
    def test_split(self, payloads):
        """Messages joined into a datagram come apart again."""
        sent = [netlink(99, payload) for payload in payloads]
        found, broken = nlmsg.split([b"".join(m + bytes(-len(m) % 4) for m in sent)])
        self.assertEqual((list(found.octets()), broken), (sent, 0))
        self.assertEqual((len(found), found.rows.shape[1] % 8), (len(sent), 0))
