"""Records of captures and headers of packets: what the kernels follow is what Python and NumPy follow."""

import random
import struct

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.kernels import SKIP
from tests.unit.packets import frames
from ulogd_tw import kernels
from ulogd_tw.core.columns import Octets
from ulogd_tw.kernels.packets import Places, records
from ulogd_tw.packets import capture, headers, link, walk

LENGTHS = st.one_of(st.integers(0, 40), st.sampled_from([1 << 31, (1 << 32) - 17, (1 << 32) - 16, (1 << 32) - 1]))


@st.composite
def chained(draw):
    """Octets in which records follow each other for a while, the form of their lengths, and where they may end."""
    order = draw(st.sampled_from("<>"))
    place, more, least = draw(st.sampled_from([(8, 16, 16), (4, 0, 12)]))
    octets = b""
    for length in draw(st.lists(LENGTHS, max_size=8)):
        octets += (bytes(place) + struct.pack(f"{order}I", length)).ljust(min(length + more, 64), b"\7")
    octets += draw(st.binary(max_size=30))
    end = draw(st.integers(0, len(octets)))
    return np.frombuffer(octets, np.uint8), draw(st.integers(0, 3)), end, order, place, more, least


class RecordsTests(SynchronousTestCase):
    """`capture._chain` with the kernel and without."""

    if kernels.lib is None:
        skip = SKIP

    @given(chained())
    def test_same_as_python(self, drawn):
        """Records of every length, also impossible ones, in memory that ends anywhere."""
        found = []
        for lib in (kernels.lib, None):
            self.patch(capture, "lib", lib)
            found.append(capture._chain(*drawn).tolist())
        self.assertEqual(found[1], found[0])

    def test_within(self):
        """A record is followed only where its smallest form lies before the end."""
        memory = np.zeros(64, np.uint8)
        memory[8] = 5
        self.assertEqual([0, 21], records(memory, 0, 36, 8, False, 16, 16).tolist())
        self.assertEqual([0, 21, 37], records(memory, 0, 37, 8, False, 16, 16).tolist())
        self.assertEqual([0, 0x15], records(memory[:21], 0, 21, 8, False, 16, 16).tolist())
        with self.assertRaises(AssertionError):
            records(memory, 0, 65, 8, False, 16, 16)


BEGINNINGS = st.one_of(st.sampled_from([0, headers.ETHERNET, headers.IP, headers.MPLS, 4, 0x5FF, 0x600, 0x8100, 0x8847,
                                        0x8864, 0x0800, 0x86DD, 0x0806, 0xFFFF]))  # fmt: skip
WANTED = ("sourceIPv4Address", "ip.saddr", "sourceTransportPort", "tcp.seq", "dot1qVlanId", "arp.saddr", "ipTTL",
          "mplsTopLabelStackSection", "fragmentOffset")  # fmt: skip


class HeadersTests(SynchronousTestCase):
    """`headers.decode` with the kernels and without."""

    if kernels.lib is None:
        skip = SKIP

    def decoded(self, lib, octets, starts, lengths, first, wanted):
        """All that is found of packets."""
        self.patch(walk, "lib", lib)
        faults = np.zeros(len(starts), np.uint8)
        return [
            (part.family, *map(plain, (part.rows, part.begins, part.payload, part.ends, part.label)),
             {name: plain(column) for name, column in part.columns.items()},
             {name: plain(mask) for name, mask in part.missing.items()})
            for part in headers.decode(octets, starts, lengths, first, wanted, faults)
        ], faults.tolist()  # fmt: skip

    def same(self, *given):
        """Either way gives the same."""
        self.assertEqual(self.decoded(None, *given), self.decoded(kernels.lib, *given))

    @given(
        st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 99), st.one_of(st.none(), BEGINNINGS)), max_size=30),
        st.frozensets(st.sampled_from(WANTED)),
        st.booleans(),
    )
    def test_same_as_numpy(self, drawn, wanted, link_too):
        """Packets of every layer, cut anywhere, also in the wrong place; the last one ends with the memory."""
        packets, first = [], []
        for seed, cut, other in drawn:
            packet, framed = frames.any_packet(random.Random(seed))
            packets.append(packet[: max(len(packet) - cut, 0)] if cut < 60 else packet)
            begins = {True: headers.ETHERNET, False: headers.IP, None: 0}[framed]
            first.append(begins if other is None else other)
        held = Octets.of(packets)
        if link_too:
            wanted |= {"sourceMacAddress"}
        self.same(held.data, held.offsets[:-1], held.lengths, np.array(first, np.int64), wanted)

    @given(st.integers(0, 2**32))
    def test_every_cut(self, seed):
        """A packet that ends anywhere, with octets of another behind it."""
        packet, framed = frames.any_packet(random.Random(seed))
        n = len(packet) + 1
        first = np.full(n, headers.ETHERNET if framed else headers.IP)
        octets = np.frombuffer(packet, np.uint8)
        self.same(octets, np.zeros(n, np.int64), np.arange(n), first, frozenset(WANTED))

    def test_versions_and_lengths(self):
        """Every first octet, protocol and total length of IPv4 and of TCP's offset."""
        packets = []
        for octet in range(256):
            head = bytes([octet, 0, 0, 40, 0, 0, octet, 0, 9, octet])
            offset = bytes([0x45, 0, 0, 40, 0, 0, 0, 0, 9, 6]) + bytes(10 + 12) + bytes([octet]) + bytes(7)
            packets += [head + bytes(30), offset, offset[:3] + bytes([octet]) + offset[4:]]
        held = Octets.of(packets)
        for first in (headers.IP, link.IPV4, link.IPV6):
            self.same(held.data, held.offsets[:-1], held.lengths, np.full(len(packets), first), frozenset(WANTED))

    def test_outside(self):
        """Packets that do not lie in the memory are not read."""

        def places(at, end, kind=link.IPV4):
            return Places(octets, *np.array([[at], [end]]), np.array([kind], np.int32), np.zeros(1, np.uint8))

        octets, row = np.zeros(40, np.uint8), np.zeros(1, np.int64)
        calls = [
            lambda at, end: places(at, end).links(np.array([headers.ETHERNET]), link.OTHERS),
            lambda at, end: places(at, end).links(np.array([headers.IP]), link.OTHERS),
            lambda at, end: places(at, end).families(),
            lambda at, end: places(at, end).ipv4(row),
            lambda at, end: places(at, end).transport(row, np.array([6]), np.full(257, 20)),
        ]
        for call in calls:
            call(0, 40)
            for at in (-1, 40, 1 << 62):
                with self.assertRaises(AssertionError):
                    call(at, (1 << 62) + 100)
        for wrong in (-1, 1):
            with self.assertRaises(AssertionError):
                places(0, 40).ipv4(row + wrong)
            with self.assertRaises(AssertionError):
                places(0, 40).transport(row + wrong, np.array([6]), np.full(257, 20))
        with self.assertRaises(AssertionError):
            places(0, 40).transport(row, np.array([257]), np.full(257, 20))


def plain(column):
    """A column as a list, with its type."""
    if column is None or isinstance(column, Octets):
        return column and column.to_list()
    return column.dtype, column.tolist()
