"""Tests of the ring of packets: blocks as the kernel fills them (linux/if_packet.h), and programs of BPF."""

import struct
from types import SimpleNamespace

import numpy as np
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given, require_library
from ulogd_tw.core.errors import StartError
from ulogd_tw.transports import bpf, packet
from ulogd_tw.transports.errors import NoInterface
from ulogd_tw.transports.gathering import Terms
from ulogd_tw.transports.packet import PacketPort, read, shape

VLAN_VALID, TPID_VALID = 0x10, 0x40


def block(packets, size=1 << 16):
    """A block of TPACKET_V3 with packets as (octets, octets on the wire, tci or None, time)."""
    octets = bytearray(size)
    at, last = 48, None
    for frame, wire, tci, (seconds, nanoseconds) in packets:
        if last is not None:
            struct.pack_into("=I", octets, last, at - last)
        status = 1 | (VLAN_VALID | TPID_VALID if tci is not None else 0)
        mac = 48 + 20 + 4 + 10  # header, address, room for a tag, padding
        struct.pack_into("=6I2H2I2H8x", octets, at, 0, seconds, nanoseconds, len(frame), wire, status, mac, mac + 14, 0,
                         tci or 0, 0x8100 if tci is not None else 0, 0)  # fmt: skip
        struct.pack_into("=H2siHBB8x", octets, at + 48, 17, frame[12:14], 3, 1, 0, 6)
        octets[at + mac : at + mac + len(frame)] = frame
        last, at = at, (at + mac + len(frame) + 15) // 16 * 16
    struct.pack_into("=IIIIII", octets, 0, 3, 48, 1, len(packets), 48, at)
    return memoryview(octets)


frames = st.tuples(st.binary(min_size=14, max_size=80), st.integers(0, 70000), st.none() | st.integers(0, 0xFFFF),
                   st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 999_999_999)))  # fmt: skip


class RingTests(SynchronousTestCase):
    """Blocks to packets."""

    @given(st.lists(st.lists(frames, max_size=20), min_size=1, max_size=4))
    def test_packets_of_blocks(self, blocks):
        """All packets in order, with what the kernel says of each; a tag stands behind the addresses again."""
        ring = read([block(packets) for packets in blocks])
        expected = [one for packets in blocks for one in packets]
        self.assertEqual(len(ring), len(expected))
        for i, (frame, wire, tci, time) in enumerate(expected):
            start, length = int(ring.starts[i]), int(ring.lengths[i])
            tag = b"" if tci is None else struct.pack("!HH", 0x8100, tci)
            self.assertEqual(ring.octets[start : start + length].tobytes(), frame[:12] + tag + frame[12:])
            head = ring.heads[i]
            self.assertEqual((int(head["seconds"]), int(head["nanoseconds"])), time)
            self.assertEqual((int(head["wire"]), int(head["ifindex"])), (wire + len(tag), 3))
            self.assertEqual(int(head["protocol"]), int.from_bytes(frame[12:14], "big"))

    def test_what_is_given_back_is_a_copy(self):
        """The kernel may fill the block anew at once."""
        one = block([(b"a" * 60, 60, None, (1, 2))])
        ring = read([one])
        one[:] = bytes(len(one))
        self.assertEqual(ring.octets[ring.starts[0] :][:60].tobytes(), b"a" * 60)
        self.assertEqual(ring.heads["captured"].tolist(), [60])

    def test_shapes(self):
        """Blocks are whole pages and hold the longest packet; there are two at least."""
        for wanted in (1, 1 << 16, 1 << 20, 3 << 20, 64 << 20, 1 << 31):
            size, count = shape(wanted)
            self.assertEqual(size % 4096, 0)
            self.assertGreaterEqual(size, 65536 + 4096)
            self.assertGreaterEqual(count, 2)
            self.assertLessEqual(size * count, max(wanted, 1 << 19))


class PortTests(SynchronousTestCase):
    """What a port says that cannot open."""

    def test_without_privilege(self):
        """The capability that is missing is named, and how to grant it."""

        def refuse(*_):
            raise PermissionError(1, "Operation not permitted")

        self.patch(PacketPort, "make_socket", staticmethod(refuse))
        port = PacketPort("lo", None, None, ring_octets=1, terms=Terms(), program=lambda device: bpf.NOTHING,
                          reactor=Clock())  # fmt: skip
        with self.assertRaises(StartError) as caught:
            port.open()
        self.assertIn("interface lo: Operation not permitted; it needs CAP_NET_RAW", str(caught.exception))
        self.assertEqual(port.fileno(), -1)
        self.assertIsNone(self.successResultOf(port.stop()))


class AwaitedTests(SynchronousTestCase):
    """An interface that is not there yet."""

    def test_comes_later(self):
        """The socket is made at once, while there is privilege; the ring, and reading, when the interface comes."""
        clock, there, made, read = Clock(), [], [], []

        def device(name):
            if not there:
                raise NoInterface("no such device")
            return 7, 1

        def set_up(port, program):
            port._ring = SimpleNamespace(close=lambda: None)

        clock.addReader, clock.removeReader = read.append, read.remove
        handle = SimpleNamespace(close=lambda: made.append("closed"), getsockopt=lambda *_: bytes(12))
        self.patch(packet, "device", device)
        self.patch(PacketPort, "_set_up", set_up)
        self.patch(PacketPort, "make_socket", staticmethod(lambda *_: made.append("made") or handle))
        port = PacketPort("eth7", None, None, ring_octets=1, terms=Terms(), program=lambda device: bpf.NOTHING,
                          reactor=clock)  # fmt: skip
        port.open()
        port.start()
        clock.pump([1.0] * 10)
        self.assertEqual((["made"], []), (made, read))
        there.append(1)
        clock.pump([1.0] * 10)
        self.assertEqual(([port], 7, 1), (read, port.index, port.device))
        port._close()
        self.assertEqual((["made", "closed"], [], []), (made, read, clock.getDelayedCalls()))

    def test_never_comes(self):
        """A stop ends the waiting."""
        clock = Clock()

        def device(name):
            raise NoInterface("no such device")

        self.patch(packet, "device", device)
        handle = SimpleNamespace(close=lambda: None)
        self.patch(PacketPort, "make_socket", staticmethod(lambda *_: handle))
        port = PacketPort("eth7", None, None, ring_octets=1, terms=Terms(), program=lambda device: bpf.NOTHING,
                          reactor=clock)  # fmt: skip
        port.open()
        port.start()
        self.successResultOf(port.stop())
        self.assertEqual([], clock.getDelayedCalls())


class FilterTests(SynchronousTestCase):
    """Texts to programs."""

    def test_no_text(self):
        """Every packet, so many octets of it: BPF_RET | BPF_K."""
        self.assertEqual(bpf.compiled("", bpf.ETHERNET, 128).instructions, struct.pack("=HBBI", 6, 0, 0, 128))

    def test_a_text(self):
        """As tcpdump -dd says: ip is ldh [12], jeq #0x800, ret #128, ret #0."""
        require_library("libpcap.so.0.8", "libpcap0.8")
        expected = [(0x28, 0, 0, 12), (0x15, 0, 1, 0x800), (6, 0, 0, 128), (6, 0, 0, 0)]
        octets = b"".join(struct.pack("=HBBI", *one) for one in expected)
        self.assertEqual(bpf.compiled("ip", bpf.ETHERNET, 128).instructions, octets)

    def test_what_is_no_filter(self):
        """The message of libpcap is told, with the text."""
        require_library("libpcap.so.0.8", "libpcap0.8")
        with self.assertRaises(StartError) as caught:
            bpf.compiled("prot 80", bpf.ETHERNET, 128)
        self.assertIn("'prot 80': ", str(caught.exception))

    def test_without_libpcap(self):
        """A filter cannot be had, and who reads that knows what to install; without one nothing is missing."""
        self.patch(bpf, "_libpcap", lambda: None)
        with self.assertRaises(StartError) as caught:
            bpf.compiled("ip", bpf.ETHERNET, 128)
        self.assertIn("libpcap0.8", str(caught.exception))
        self.assertEqual(len(np.frombuffer(bpf.compiled("", bpf.RAW, 9).instructions, "u1")), 8)
